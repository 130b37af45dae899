"""Turn the chapters into Jupyter notebooks; the site offers them for download.

Code that runs becomes code cells, and what a page says they print becomes their stored output. Code
that is quoted from the source stays text. Figures are embedded. The first cell finds or installs
minicap.
"""

import base64
import re
from pathlib import Path

import jupytext
import nbformat
import snippets

HERE = Path(__file__).parent
FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL)
IMAGE = re.compile(r"!\[(?P<about>[^\]]*)\]\((?P<path>\.\./images/[\w-]+\.svg)\)")
LINK = re.compile(r"\[(?P<words>[^\]]+)\]\((?!https?:|data:)[^)]*\)")
DETAILS = re.compile(r"<details>.*?</details>", re.DOTALL)
FIRST_CELL = """\
# Run this cell first. It needs minicap's repository: on your computer, start Jupyter in its folder;
# on a hosted service, upload the repository as minicap.zip.
import importlib.util, os, subprocess, sys, zipfile
from pathlib import Path

here = Path.cwd()
for archive in here.glob("minicap*.zip"):
    zipfile.ZipFile(archive).extractall(here)
places = [here, *here.parents, *here.glob("minicap*"), *here.glob("*/minicap*")]
if installed := importlib.util.find_spec("minicap"):
    places.append(Path(installed.origin).parents[1])
roots = [p for p in places if (p / "setup.cfg").exists() and (p / "minicap").is_dir()]
if not roots:
    raise SystemExit("Upload minicap's repository as minicap.zip, and run this cell again.")
sys.path.insert(0, str(roots[0]))
if not all(map(importlib.util.find_spec, ("tyro", "onnxruntime", "pytest"))):
    install = [sys.executable, "-m", "pip", "install", "-q", "-e", f"{roots[0]}[cpu,test]"]
    subprocess.run(install, check=True)
"""
TRAIN = """
if not Path("runs/scenes/model.safetensors").exists():  # about a minute
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", "minicap.train"], env=environment, check=True)
"""


def chapters() -> list[Path]:
    """The pages that become notebooks."""
    return sorted((HERE / "walkthrough").glob("[0-9]*.md"))


def embedded(match: re.Match) -> str:
    """An image as a data URL."""
    data = (HERE / "walkthrough" / match["path"]).read_bytes()
    return f"![{match['about']}](data:image/svg+xml;base64,{base64.b64encode(data).decode()})"


def as_text(match: re.Match) -> str:
    """A block of code that is not to run: jupytext makes cells of fences of backticks only."""
    return re.sub("^```", "~~~", match[0], flags=re.MULTILINE)


def notebook(page: Path) -> nbformat.NotebookNode:
    """Convert one chapter."""
    outputs: list[str | None] = []  # of each code cell

    def cell(match: re.Match) -> str:
        match match["language"]:
            case "python":
                outputs.append(None)
                return match[0]
            case "output" | "snapshot":
                outputs[-1] = match["code"]
                return ""
            case "sh":  # the first cell has trained the model
                return as_text(match)
        return as_text(match)

    text = page.read_text()
    first = FIRST_CELL + (TRAIN if "runs/scenes/model.safetensors" in text else "")
    text = DETAILS.sub(as_text, snippets.MARKED.sub(as_text, text))
    text = FENCE.sub(cell, text)
    made = jupytext.reads(text, "md")
    for c in made.cells:
        if c.cell_type == "markdown":
            c.source = LINK.sub(lambda match: match["words"], IMAGE.sub(embedded, c.source))
    code = [c for c in made.cells if c.cell_type == "code"]
    assert len(code) == len(outputs), page
    for c, output in zip(code, outputs, strict=True):
        if output:
            c.outputs = [nbformat.v4.new_output("stream", name="stdout", text=output)]
    made.cells.insert(0, nbformat.v4.new_code_cell(first))
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, c in enumerate(made.cells):
        c.id = f"cell-{number}"  # the same page gives the same file
    return made


def write(folder: Path) -> None:
    """Write all notebooks into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in chapters():
        nbformat.write(notebook(page), folder / f"{page.stem}.ipynb")
