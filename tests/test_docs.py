"""The pages: no code is stale, every block runs, and every figure is up to date."""

import contextlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

pytest.importorskip("sybil", reason="sybil finds the pages' blocks (extra: test)")
import blocks  # noqa: E402
import snippets  # noqa: E402

from tests.trained import trained  # noqa: E402


@pytest.mark.parametrize("page", list(snippets.pages()), ids=lambda page: page.stem)
def test_code_on_a_page_is_the_code_of_the_source(page):
    text = page.read_text()
    assert text.count("<!-- source:") == len(snippets.MARKED.findall(text)), "a marker has no block"
    assert snippets.refreshed(page) == text, "run python docs/snippets.py"


def test_a_missing_name_is_an_error():
    with pytest.raises(LookupError, match="nn.dense:nothing"):
        snippets.source("minicap.nn.dense", "nothing")


def test_source_is_copied_unchanged():
    assert snippets.source("minicap.nn.lstm", "FORGET_BIAS") == "FORGET_BIAS = 1.0\n"
    inner = snippets.source("minicap.nn.dense", "elu.backward")
    assert inner.startswith("@once\ndef backward(dy") and inner.splitlines()[-1].startswith(
        "    return"
    )
    assert snippets.source("minicap.model.config", "DecoderConfig").startswith(
        "@dataclass(frozen=True)\nclass"
    )


def test_docstrings_are_shortened_to_their_first_line():
    code = snippets.source("minicap.nn.dense", "elu")
    lines = code.splitlines()
    assert lines[1].endswith('exp(z) - 1 elsewhere."""') and lines[2].startswith("    xp =")


def test_a_few_lines_can_be_copied():
    code = snippets.source("minicap.nn.lstm", "lstm", "for size in", "start += size")
    assert code.startswith("for size in batch_sizes:\n    rows")
    assert code.endswith("    start += size\n")
    with pytest.raises(LookupError, match="nn.lstm:lstm has no line that begins with 'nothing'"):
        snippets.source("minicap.nn.lstm", "lstm", "for size in", "nothing")


def test_snapshots_are_updated_only_on_demand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```snapshot\n2\n```\n")
    assert blocks.run(page) == page.read_text()
    assert "```snapshot\n1\n```" in blocks.run(page, update_snapshots=True)


def parameter(page):
    """The test's parameter: slow if the page needs a model, or trains one."""
    slow = blocks.MODEL in page.read_text() or page.stem == "resume"
    return pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("page", list(map(parameter, blocks.pages())))
def test_every_block_runs_and_prints_what_the_page_says(page, tmp_path, tmp_path_factory):
    """In order, in an empty folder. If the page needs a trained model, one is trained."""
    text = page.read_text()
    if "minicap.encoder.session" in text or blocks.MODEL in text:
        pytest.importorskip("onnxruntime")
    if blocks.MODEL in text:
        (tmp_path / "runs").symlink_to(trained(tmp_path_factory))
    with contextlib.chdir(tmp_path):
        assert blocks.run(page) == text, "run python docs/blocks.py"


def figures():
    """The modules that draw figures, by name."""
    sys.path.append(str(DOCS / "figures"))
    import computed
    import drawn
    import trained

    return {"drawn": drawn, "computed": computed, "trained": trained}


def test_every_figure_exists_and_has_code():
    known = {name for module in figures().values() for name in module.FIGURES}
    drawn = {path.stem.replace("-", "_") for path in (DOCS / "images").glob("*.svg")}
    assert drawn == known
    text = "".join(page.read_text() for page in snippets.pages())
    assert all(f"images/{name.replace('_', '-')}.svg)" in text for name in known)


@pytest.mark.parametrize("name", [*figures()["drawn"].FIGURES, *figures()["computed"].FIGURES])
def test_figure_is_up_to_date(name):
    """The same shapes and words, in the same places up to rounding on another processor.
    (The figure of rounding errors consists of those.)"""
    made = {**figures()["drawn"].FIGURES, **figures()["computed"].FIGURES}[name]().svg()
    stored = (DOCS / f"images/{name.replace('_', '-')}.svg").read_text()
    number = re.compile(r"-?\d+(?:\.\d+)?")
    assert number.sub("", made) == number.sub("", stored), "run python docs/figures"
    if name != "gradient_error":
        both = zip(number.findall(made), number.findall(stored), strict=True)
        assert all(abs(float(a) - float(b)) <= 1 for a, b in both), "run python docs/figures"


def test_every_link_to_a_file_exists():
    """In the plain Markdown, as a repository browser shows it. (The site's build checks links to
    headings.)"""
    for page in [*ROOT.glob("*.md"), *snippets.pages()]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"\w+:|#", target) and not target.startswith("reference/"):
                path = page.parent / target.partition("#")[0]
                assert path.exists(), f"{page.name}: {target}"
