"""Copy code from the source into the pages: `python docs/snippets.py`.

A page names the code it wants, and this command fills in the block below:

    <!-- source: minicap.nn.lstm:lstm_step -->
    ```python
    ...
    ```

The marker holds a module's name, a colon, and the name of a function, class, method or constant;
`lstm_step.backward` is a nested function. Docstrings are shortened to their first line. To show a
few lines only, add the beginnings of the first and the last of them:

    <!-- source: minicap.nn.lstm:lstm | for size in batch_sizes | start += size -->

A test fails when a page is stale. Pages stay plain Markdown, so the code also shows in a repository
browser.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
MARKED = re.compile(
    r"^<!-- source: (?P<module>[\w.]+):(?P<name>[\w.]+)"
    r"(?: \| (?P<first>.+?) \| (?P<last>.+?))? -->\n```python\n(?P<code>.*?)^```$",
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


def source(module: str, name: str, first: str | None = None, last: str | None = None) -> str:
    """The source of one named function, class, method or constant, dedented.

    With `first` and `last`: its lines from the one that begins with `first` to the next one that
    begins with `last`.
    """
    where = f"{module}:{name}"
    text = file_of(module).read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = inner(node, part, where)
    decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
    start = min([node.lineno, *decorators])  # type: ignore[attr-defined]
    end = node.end_lineno  # type: ignore[attr-defined]
    lines = dict(enumerate(text.splitlines(), 1))
    for inside in ast.walk(node):
        shorten_docstring(inside, lines)
    kept = [lines[number] for number in range(start, end + 1) if number in lines]
    if first and last:
        begin = find(kept, first, 0, where)
        kept = kept[begin : find(kept, last, begin, where) + 1]
    return textwrap.dedent("\n".join(kept)) + "\n"


def shorten_docstring(node: ast.AST, lines: dict[int, str]) -> None:
    """Remove all lines of a docstring but the first."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or ast.get_docstring(node) is None:
        return
    docstring = node.body[0]
    if docstring.end_lineno == docstring.lineno:
        return
    lines[docstring.lineno] += '"""'
    for number in range(docstring.lineno + 1, (docstring.end_lineno or 0) + 1):
        del lines[number]


def find(lines: list[str], beginning: str, start: int, where: str) -> int:
    """The index of the first line from `start` on that begins with `beginning`."""
    for number in range(start, len(lines)):
        if lines[number].strip().startswith(beginning):
            return number
    raise LookupError(f"{where} has no line that begins with {beginning!r}")


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
        return f"{marker}\n```python\n{source(*match.group('module', 'name', 'first', 'last'))}```"

    return MARKED.sub(block, page.read_text())


if __name__ == "__main__":
    for page in pages():
        text = refreshed(page)
        if text != page.read_text():
            page.write_text(text)
            print(page.relative_to(HERE), file=sys.stderr)
