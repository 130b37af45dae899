"""Generate the reference: a page for each module's public functions, and one for the commands.

`write` runs when the site is built. It takes docstrings, signatures and dataclasses from the
source. The pages are not committed: in a repository browser, read the source itself.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOT_MODULE = "minicap.__main__"  # lists the commands
SHOWN = [  # source outside the package that pages link to
    "tests/mutants.py",
    "tests/checks.py",
    *(f"exercises/{path.name}" for path in sorted((ROOT / "exercises").glob("*.py"))),
]
Definition = ast.FunctionDef | ast.ClassDef


def files() -> Iterator[Path]:
    """Every module of the package."""
    yield from sorted((ROOT / "minicap").rglob("*.py"))


def module_name(path: Path) -> str:
    """minicap.nn.lstm for minicap/nn/lstm.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns|Yields):")


def escaped(text: str) -> str:
    """Text with Markdown's special characters escaped, except within backticks."""
    parts = re.split(r"(``[^`]*``|`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*_$<>\[\]{}\\#~])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def as_markdown(docstring: str | None) -> str:
    """A Google-style docstring as Markdown. Indented blocks outside its sections stay code."""
    parts: list[str] = []
    lines = (docstring or "").splitlines()
    while lines:
        line = lines.pop(0)
        if not SECTION.fullmatch(line):
            parts.append(line if line.startswith("    ") else escaped(line))
            continue
        body = []
        while lines and (not lines[0] or lines[0].startswith("    ")):
            body.append(lines.pop(0).removeprefix("    "))
        while body and not body[-1]:
            body.pop()
        parts += ["", f"**{line}**", "", *section(line.removesuffix(":"), body), ""]
    return "\n".join(parts)


def section(title: str, body: list[str]) -> list[str]:
    """The lines of a docstring's section: code, a paragraph, or a list with an item per name."""
    if title == "Example":
        language = "pycon" if body[0].startswith(">>>") else "text"
        return [f"```{language}", *body, "```"]
    if title in ("Returns", "Yields"):
        return list(map(escaped, body))
    lines = []
    for line in body:
        entry = re.fullmatch(r"([\w*][\w*, ]*): (.*)", line)
        if entry:
            lines.append(f"- `{entry[1]}`: {escaped(entry[2])}")
        else:
            lines.append("  " + escaped(line.strip()) if line else "")
    return lines


def public(body: list[ast.stmt]) -> Iterator[Definition]:
    """The public functions and classes of a body."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def signature(node: Definition) -> str:
    """The lines of a definition up to its colon."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    one = f"def {node.name}({ast.unparse(node.args)}){returns}"
    if len(one) <= 88:
        return one
    arguments = re.sub(r", (?=\*?\*?\w+(?::|=|,|$))", ",\n    ", ast.unparse(node.args))
    return f"def {node.name}(\n    {arguments},\n){returns}"


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """A dataclass' fields: name, type, default and docstring, "" where there is none."""
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            docstring = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                docstring = " ".join(str(after.value.value).split())
            default = ast.unparse(item.value) if item.value else ""
            yield item.target.id, ast.unparse(item.annotation), default, docstring


def is_dataclass(node: ast.ClassDef) -> bool:
    """Whether it is decorated as one."""
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in lines
    )


def definition(node: Definition, level: int) -> str:
    """One function or class."""
    parts = [
        f"{'#' * level} `{node.name}`",
        f"```python\n{signature(node)}\n```",
        as_markdown(ast.get_docstring(node)),
    ]
    if isinstance(node, ast.ClassDef):
        if is_dataclass(node) and (found := list(fields(node))):
            rows = [(f"`{n}`", f"`{t}`", d and f"`{d}`", escaped(doc)) for n, t, d, doc in found]
            parts.append(table(rows, ("field", "type", "default", "")))
        parts += [definition(inner, level + 1) for inner in public(node.body)]
    return "\n\n".join(parts)


def module_page(path: Path) -> str:
    """The page of one module: its public functions and classes, then its source."""
    tree = ast.parse(path.read_text())
    parts = [f"# {module_name(path)}", as_markdown(ast.get_docstring(tree))]
    parts += [definition(node, 2) for node in public(tree.body)]
    place = path.relative_to(ROOT)
    return "\n\n".join([*parts, "## Source", f"`{place}`", whole(str(place))]) + "\n"


def whole(name: str) -> str:
    """A block that shows a file with line numbers."""
    return f"```{{literalinclude}} ../../{name}\n:language: python\n:linenos:\n```"


def source_page(name: str) -> str:
    """The page of a file outside the package."""
    title = name.removesuffix(".py").replace("/", ".")
    return f"# {escaped(title)}\n\n{whole(name)}\n"


def options(cls: type) -> Iterator[tuple[str, str, str]]:
    """The command-line options that a dataclass defines: name, default and description."""
    own = {
        name: (annotation, default, docstring)
        for base in reversed(cls.__mro__[:-1])
        for name, annotation, default, docstring in fields(class_node(base))
    }
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        annotation, default, docstring = own[field.name]
        if dataclasses.is_dataclass(types[field.name]):
            yield from options(types[field.name])
            continue
        flag = "--" + field.name.replace("_", "-")
        if "Positional" in annotation:
            flag = field.name.upper() + (" ..." if "tuple" in annotation else "")
        elif "tuple" in annotation:
            flag += " ..."
        value = field.default
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        shown = f"`{value}`" if plain and value != "" and len(default) < 30 else ""
        yield f"`{flag}`", shown, escaped(docstring)


def command_section(path: Path) -> str:
    """The purpose and the options of one command."""
    module = importlib.import_module(module_name(path))
    direct = path.parent == ROOT / "minicap"
    parts = [f"## `minicap {path.stem}`" if direct else f"## `python -m {module_name(path)}`"]
    if cls := getattr(module, "Options", None) or getattr(module, "RunOptions", None):
        parts.append(as_markdown(inspect.cleandoc(cls.__doc__ or "")))
        parts.append(table(list(options(cls)), ("option", "default", "")))
    else:
        parts.append(as_markdown(ast.get_docstring(ast.parse(path.read_text()))))
    return "\n\n".join([*parts, f"Code: [{module_name(path)}]({module_name(path)}.md)"])


def class_node(cls: type) -> ast.ClassDef:
    """The definition of a class in the source."""
    tree = ast.parse(Path(str(sys.modules[cls.__module__].__file__)).read_text())
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


def is_command(path: Path) -> bool:
    """Whether it can be run: a command of `minicap`, or a module with `python -m`."""
    return '__name__ == "__main__"' in path.read_text() and module_name(path) != ROOT_MODULE


def write(folder: Path) -> None:
    """Write all pages into `folder`, and delete those of modules that no longer exist."""
    pages = {f"{module_name(path)}.md": module_page(path) for path in files()}
    modules = list(pages)
    pages |= {f"{n.removesuffix('.py').replace('/', '.')}.md": source_page(n) for n in SHOWN}
    commands = [command_section(path) for path in files() if is_command(path)]
    head = (
        "# Commands\n\nEvery command prints this with `--help`. For an error it prints one line "
        "that says what is wrong and how to fix it, and exits with a status other than 0. "
        "`minicap train` and `python -m minicap.train` are the same."
    )
    pages["commands.md"] = "\n\n".join([head, *commands]) + "\n"
    tree = "\n".join(name.removesuffix(".md") for name in ["commands.md", *modules])
    shown = "\n".join(n.removesuffix(".py").replace("/", ".") for n in SHOWN)
    pages["index.md"] = (
        "# Reference\n\nEvery command, and every public function of every module: docstrings, "
        "signatures and source.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n\nFrom the tests and the exercises:\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{shown}\n```\n"
    )
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # Sphinx rereads changed files
            path.write_text(text)
