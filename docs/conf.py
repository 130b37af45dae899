"""The documentation site: `python -m sphinx -W -n docs site` builds it, readable offline."""

import importlib.metadata
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import notebooks  # noqa: E402
import reference  # noqa: E402
import snippets  # noqa: E402
from pygments.lexers.special import TextLexer  # noqa: E402

project = "minicap"
author = "the minicap authors"
copyright = "the minicap authors, MIT licence"
release = importlib.metadata.version("minicap")

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

html_theme = "furo"
html_title = "minicap"
html_static_path = ["static"]
html_css_files = ["minicap.css"]
html_js_files = [("lstm-step.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "native"


def mathjax() -> Path:
    """The path of MathJax 3 as one file, from the package sphinx-mathjax-offline."""
    for file in importlib.metadata.files("sphinx-mathjax-offline") or []:
        if file.name == "tex-svg.js":
            return Path(str(file.locate()))
    raise LookupError("sphinx-mathjax-offline has no tex-svg.js: reinstall minicap[docs]")


def before(app, config) -> None:
    """Fail on stale pages, as the tests do; then write the reference, notebooks and MathJax."""
    stale = [page.name for page in snippets.pages() if snippets.refreshed(page) != page.read_text()]
    if stale:
        raise LookupError(f"run python docs/snippets.py: code has changed in {', '.join(stale)}")
    reference.write(HERE / "reference")
    notebooks.write(Path(app.outdir) / "notebooks")
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    (static / "tex-svg.js").write_bytes(mathjax().read_bytes())


def link_sources(app, docname: str, content: list[str]) -> None:
    """Turn links to source files into links to the reference pages that show them."""
    depth = "../" * docname.count("/")

    def page(match: re.Match) -> str:
        name = match["path"].removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        return f"]({depth}reference/{name}.md)"

    content[0] = re.sub(
        rf"\]\({re.escape(depth)}\.\./(?P<path>(minicap|tests|exercises)/[\w/]+\.py)\)",
        page,
        content[0],
    )


def link_notebook(app, docname: str, content: list[str]) -> None:
    """Add a link to the notebook at the end of each chapter."""
    if any(docname == f"walkthrough/{page.stem}" for page in notebooks.chapters()):
        href = f"../notebooks/{docname.partition('/')[2]}.ipynb"
        content[0] += (
            f'\n<p><a href="{href}" download>Download this chapter as a notebook</a></p>\n'
        )


def setup(app) -> None:
    """Register the lexers and hooks."""
    for language in "output", "snapshot", "flickr", "csv":
        app.add_lexer(language, TextLexer)
    app.connect("config-inited", before)
    app.connect("source-read", link_sources)
    app.connect("source-read", link_notebook)
