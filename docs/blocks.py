"""Run the code blocks of a page in order: `python docs/blocks.py [--snapshots] [PAGE...]`.

An ```output block shows what the ```python or ```sh block before it prints. This command updates
those blocks; a test fails where one is stale. A ```snapshot block is like an ```output block whose
text differs from machine to machine, like the captions of a trained model: only --snapshots updates
it, and no test compares it. Blocks of source that snippets.py writes do not run: the other blocks
import that code. Sybil finds the blocks, and names the line of one that fails.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import snippets
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

ROOT = Path(__file__).parents[1]
TRAIN = "minicap train\n"  # the block that trains the model some pages need
MODEL = "runs/scenes/model.safetensors"


def pages() -> list[Path]:
    """The pages whose blocks run. (own-photos.md and captions.md have their own tests.)"""
    others = [ROOT / f"docs/{name}.md" for name in ("architecture", "program", "resume")]
    return [*sorted((ROOT / "docs/walkthrough").glob("*.md")), *others]


def python(example: Example) -> None:
    """Run a block, and keep what it prints."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        PythonEvaluator()(example)
    example.document.printed = caught.getvalue()


def shell(example: Example) -> None:
    """Run a block in a shell that stops at the first error, and keep what it prints."""
    command = str(example.parsed)
    if command == TRAIN and Path(MODEL).exists():
        return  # the model is shared by all pages
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-ec", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    example.document.printed = done.stdout


def output(example: Example) -> None:
    """Record what was printed next to what the page says."""
    example.document.outputs.append((example, example.document.printed))


def snapshot(example: Example) -> None:
    """Record what was printed if snapshots are to be updated."""
    if example.document.update_snapshots:
        output(example)


EVALUATORS = {"python": python, "sh": shell, "output": output, "snapshot": snapshot}


def blocks(document: Document) -> Iterable[Region]:
    """Sybil's parser: all blocks of these languages, except those of source."""
    document.outputs = []
    marked = {match.end() for match in snippets.MARKED.finditer(document.text)}
    for region in FencedCodeBlockLexer("|".join(EVALUATORS))(document):
        if region.end not in marked:
            region.parsed = region.lexemes["source"]
            region.evaluator = EVALUATORS[region.lexemes["language"]]
            yield region


def run(page: Path, update_snapshots: bool = False) -> str:
    """Run a page's blocks in the current folder. Returns its text with the outputs updated."""
    document = Sybil([blocks]).parse(page)
    document.update_snapshots = update_snapshots
    for example in document:
        example.evaluate()
    text = document.text
    for example, printed in reversed(document.outputs):
        start = example.start + example.parsed.offset
        text = text[:start] + printed + text[start + len(example.parsed) :]
    return text


def train(folder: Path) -> Path:
    """Train the model the pages use, if it is not there. Returns the folder `runs`."""
    runs = folder / "runs"
    if not (folder / MODEL).exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", *TRAIN.split()]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return runs


def main(names: list[str]) -> None:
    """Update the outputs of these pages, or of all."""
    update_snapshots = "--snapshots" in names
    wanted = [Path(name).resolve() for name in names if name != "--snapshots"] or pages()
    with tempfile.TemporaryDirectory() as place:
        for page in wanted:
            if MODEL in page.read_text() and not Path(place, "runs").exists():
                given = os.environ.get("MINICAP_DOCS_RUNS")
                Path(place, "runs").symlink_to(given or train(ROOT / "build/docs"))
            with contextlib.chdir(place):
                text = run(page, update_snapshots)
            if text != page.read_text():
                page.write_text(text)
                print(page.relative_to(ROOT))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
