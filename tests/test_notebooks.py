"""The chapters as Jupyter notebooks: they run, and their first cell finds minicap."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

for name in ("sybil", "jupytext", "nbclient", "ipykernel"):
    pytest.importorskip(name, reason=f"notebooks need {name} (extra: docs)")
import blocks  # noqa: E402
import notebooks  # noqa: E402

from tests.trained import trained  # noqa: E402


def first_cell(folder, *flags):
    """Run the first cell in a folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, *flags, "-c", notebooks.FIRST_CELL + "print(sys.path[0])"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_first_cell_finds_the_checkout():
    assert first_cell(ROOT / "docs").stdout.strip() == str(ROOT)


def test_first_cell_unpacks_an_uploaded_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "minicap.zip", "w") as archive:
        archive.writestr("minicap-main/setup.cfg", "")
        archive.writestr("minicap-main/minicap/__init__.py", "")
    assert first_cell(tmp_path).stdout.strip() == str(tmp_path / "minicap-main")


def test_first_cell_says_what_is_missing(tmp_path):
    done = first_cell(tmp_path, "-S")  # without installed packages
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "Upload minicap's repository as minicap.zip, and run this cell again."
    )


@pytest.mark.parametrize("page", notebooks.chapters(), ids=lambda page: page.stem)
def test_a_notebook_has_the_page_s_code_and_outputs(page):
    made = notebooks.notebook(page)
    text = page.read_text()
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert len(code) >= 3
    for cell in code[1:]:
        assert cell.source in text
        for output in cell.outputs:
            assert output.text in text


@pytest.mark.slow
@pytest.mark.parametrize("page", notebooks.chapters(), ids=lambda page: page.stem)
def test_every_notebook_runs(page, tmp_path, tmp_path_factory, monkeypatch):
    from nbclient import NotebookClient

    if blocks.MODEL in page.read_text():
        (tmp_path / "runs").symlink_to(trained(tmp_path_factory))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # other tests run on the other cores
    made = notebooks.notebook(page)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(made, timeout=300, kernel_name="python3", resources=resources).execute()
