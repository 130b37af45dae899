"""Installed as users install it, minicap works from any folder: also from above the checkout."""

import importlib.util
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.test_package import COMMANDS

ROOT = Path(__file__).parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", ".venv", "build", "*.egg-info", "runs", "site", "__pycache__"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="pip is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="environments have other folders there"),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A folder that holds a checkout called "minicap", the folder that hides the package."""
    folder = tmp_path_factory.mktemp("parent")
    shutil.copytree(ROOT, folder / "minicap", ignore=IGNORED)
    return folder


@pytest.fixture
def install(parent, tmp_path):
    """Install what is named into an empty environment. Returns its Python, run in `parent`.

    minicap's dependencies are those of this environment: nothing is downloaded.
    """
    venv.create(tmp_path / "env")
    (packages,) = tmp_path.glob("env/lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    interpreter = tmp_path / "env/bin/python"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def python(*words):
        done = subprocess.run(
            [interpreter, *words], cwd=parent, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(*words):
        python("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", *words)
        return python

    return install


def test_editable_from_the_folder_above(install, parent):
    python = install("-e", "./minicap")
    code = "import minicap; minicap.load; print(minicap.__file__)"
    assert Path(python("-c", code).strip()) == parent / "minicap/minicap/__init__.py"
    for command in COMMANDS:
        assert "usage" in python("-m", command, "--help")


def test_a_wheel_brings_the_shipped_data(install, parent, tmp_path):
    python = install("./minicap")
    code = "from minicap.data.dataset import shipped_scenes; print(shipped_scenes())"
    folder = Path(python("-c", code).strip())
    assert folder.parts[-3:] == ("minicap", "shipped", "scenes") and parent not in folder.parents
    there = {path.name for path in (ROOT / "data/scenes").iterdir()}
    assert {path.name for path in folder.iterdir()} == there
    assert "usage" in python("-m", "minicap.train", "--help")
    assert tmp_path in Path(python("-c", "import minicap; print(minicap.__file__)").strip()).parents
