"""The reference: a page for every module, with its public functions, and one for the commands.

Written by `write` when the site is built, from docstrings, signatures and dataclasses as they stand
in the source. Nothing of it is committed: in a repository browser, the source itself is there.
"""

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = [  # source that pages link to, beside the package's
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


def as_markdown(docstring: str | None) -> str:
    """A docstring as Markdown: what stands outside backticks and indented blocks is escaped."""

    def escaped(line: str) -> str:
        if line.startswith("    "):
            return line
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*_$<>\[\]{}\\|#~])", r"\\\1", part) for part in parts[::2]]
        return "".join(parts)

    return "\n".join(map(escaped, (docstring or "").splitlines()))


def public(body: list[ast.stmt]) -> Iterator[Definition]:
    """The functions and classes of a body that are for everybody."""
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
            told = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                told = " ".join(str(after.value.value).split())
            default = ast.unparse(item.value) if item.value else ""
            yield item.target.id, ast.unparse(item.annotation), default, told


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
            rows = [
                (f"`{n}`", f"`{t}`", d and f"`{d}`", as_markdown(doc)) for n, t, d, doc in found
            ]
            parts.append(table(rows, ("field", "type", "default", "")))
        parts += [definition(inner, level + 1) for inner in public(node.body)]
    return "\n\n".join(parts)


def module_page(path: Path) -> str:
    """The page of one module: what it offers, then its source."""
    tree = ast.parse(path.read_text())
    parts = [f"# {module_name(path)}", as_markdown(ast.get_docstring(tree))]
    parts += [definition(node, 2) for node in public(tree.body)]
    place = path.relative_to(ROOT)
    return "\n\n".join([*parts, "## Source", f"`{place}`", whole(str(place))]) + "\n"


def whole(name: str) -> str:
    """A block that shows a file with its lines' numbers."""
    return f"```{{literalinclude}} ../../{name}\n:language: python\n:linenos:\n```"


def source_page(name: str) -> str:
    """The page of a file that is no part of the package."""
    title = name.removesuffix(".py").replace("/", ".")
    return f"# {as_markdown(title)}\n\n{whole(name)}\n"


def options(cls: type) -> Iterator[tuple[str, str, str]]:
    """The options that a dataclass stands for on the command line: name, default and meaning."""
    module = importlib.import_module(cls.__module__)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
    defaults = {field.name: field for field in dataclasses.fields(cls)}
    for name, annotation, default, told in fields(node):
        inner = re.match(r"Annotated\[(\w+),", annotation)
        if inner and dataclasses.is_dataclass(getattr(module, inner[1], None)):
            yield from options(getattr(module, inner[1]))
            continue
        flag = "--" + name.replace("_", "-")
        if "Positional" in annotation:
            flag = name.upper() + (" ..." if "tuple" in annotation else "")
        elif "tuple" in annotation:
            flag += " ..."
        value = defaults[name].default
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        shown = f"`{value}`" if plain and len(default) < 30 else ""
        yield f"`{flag}`", shown, as_markdown(told)


def command_section(path: Path) -> str:
    """What one command is for, and its options."""
    module = importlib.import_module(module_name(path))
    parts = [f"## `python -m {module_name(path)}`"]
    if hasattr(module, "Options"):
        parts.append(as_markdown(ast.get_docstring(class_node(module.Options))))
        parts.append(table(list(options(module.Options)), ("option", "default", "")))
    else:
        parts.append(as_markdown(ast.get_docstring(ast.parse(path.read_text()))))
    return "\n\n".join([*parts, f"Code: [{module_name(path)}]({module_name(path)}.md)"])


def class_node(cls: type) -> ast.ClassDef:
    """A class as it stands in the source."""
    tree = ast.parse(Path(str(importlib.import_module(cls.__module__).__file__)).read_text())
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


def is_command(path: Path) -> bool:
    """Whether `python -m` starts it."""
    return '__name__ == "__main__"' in path.read_text()


def write(folder: Path) -> None:
    """Write all pages into `folder`; those of modules that are gone go too."""
    pages = {f"{module_name(path)}.md": module_page(path) for path in files()}
    modules = list(pages)
    pages |= {f"{n.removesuffix('.py').replace('/', '.')}.md": source_page(n) for n in SHOWN}
    commands = [command_section(path) for path in files() if is_command(path)]
    head = (
        "# Commands\n\nEvery command prints this with `--help`. Given something unusable, each "
        "says in one line what is wrong and what to do; its status is then not 0."
    )
    pages["commands.md"] = "\n\n".join([head, *commands]) + "\n"
    tree = "\n".join(name.removesuffix(".md") for name in ["commands.md", *modules])
    shown = "\n".join(n.removesuffix(".py").replace("/", ".") for n in SHOWN)
    pages["index.md"] = (
        "# Reference\n\nEvery command, and every public function of every module, from the "
        "source's docstrings and signatures, with the source itself below.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n\nFrom the tests and the exercises:\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{shown}\n```\n"
    )
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # Sphinx reads again what has changed
            path.write_text(text)
