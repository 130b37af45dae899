"""Copy code from the source into the pages: `python docs/snippets.py`.

A page names the code it wants, and this command fills in the block below:

    <!-- source: minicap.nn.lstm:lstm_step -->
    ```python
    ...
    ```

The marker holds a module's name, a colon, and the name of a function, class, method or constant;
`lstm_step.backward` is a nested function. A test fails when a page is stale. Pages stay plain
Markdown, so the code also shows in a repository browser.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
MARKED = re.compile(
    r"^<!-- source: (?P<module>[\w.]+):(?P<name>[\w.]+) -->\n```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def pages() -> Iterator[Path]:
    """All pages except the generated reference."""
    yield from sorted(HERE.glob("*.md"))
    yield from sorted(HERE.glob("walkthrough/*.md"))


def file_of(module: str) -> Path:
    """The path of a module's source in this repository."""
    path = HERE.parent / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def source(module: str, name: str) -> str:
    """The source of one named function, class, method or constant, dedented."""
    text = file_of(module).read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = inner(node, part, f"{module}:{name}")
    lines = text.splitlines()
    decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
    start = min([node.lineno, *decorators])  # type: ignore[attr-defined]
    return textwrap.dedent("\n".join(lines[start - 1 : node.end_lineno])) + "\n"  # type: ignore


def inner(node: ast.AST, name: str, wanted: str) -> ast.AST:
    """Find the definition of `name` within `node`."""
    for child in ast.walk(node):
        names = [getattr(child, "name", None)]
        if isinstance(child, ast.Assign):
            names = [t.id for t in child.targets if isinstance(t, ast.Name)]
        elif isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name):
            names = [child.target.id]
        if child is not node and name in names:
            return child
    raise LookupError(f"there is no {wanted} in the source")


def refreshed(page: Path) -> str:
    """The text of a page with every marked block up to date."""

    def block(match: re.Match) -> str:
        marker = match[0].partition("\n")[0]
        return f"{marker}\n```python\n{source(match['module'], match['name'])}```"

    return MARKED.sub(block, page.read_text())


if __name__ == "__main__":
    for page in pages():
        text = refreshed(page)
        if text != page.read_text():
            page.write_text(text)
            print(page.relative_to(HERE), file=sys.stderr)
