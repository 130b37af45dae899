"""The package as a whole: who knows whom, what is imported when, and what is never used."""

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
    """All that a module imports, but for the eyes of a type checker alone."""
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


KNOWS = {
    name: {other for other in imports(tree) if other.partition(".")[0] == "minicap"}
    for name, tree in MODULES.items()
}


def room(prefix):
    """A module, or a package with all that is in it."""
    return {name for name in MODULES if name == prefix or name.startswith(prefix + ".")}


NN, DATA, ENCODER = map(room, ("minicap.nn", "minicap.data", "minicap.encoder"))
GROUND = {"minicap.utils.errors", "minicap.utils.files"}
COMMANDS = {
    name
    for name, tree in MODULES.items()
    if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
}


@pytest.mark.parametrize(
    ("who", "may_know"),
    [
        (NN, NN | {"minicap.backend"}),
        ({"minicap.backend"}, GROUND),
        ({"minicap.model.decoder"}, NN | {"minicap.backend"}),
        (DATA, DATA | GROUND),
        (
            ENCODER - COMMANDS,
            ENCODER | GROUND | {"minicap.backend"},
        ),  # calibrate, a command, draws scenes
        ({"minicap.generation.sampling"}, {"minicap.backend"}),
        (
            {"minicap.generation.beam_search"},
            {
                "minicap.backend",
                "minicap.model.decoder",
                "minicap.generation.sampling",
                "minicap.utils.errors",
            },
        ),
        (GROUND, GROUND),
    ],
    ids=["nn", "backend", "decoder", "data", "encoder", "choosing", "generate", "errors and files"],
)
def test_who_may_know_whom(who, may_know):
    assert who, "a room without modules shows nothing"
    for name in who:
        assert KNOWS[name] <= may_know, f"{name} knows {KNOWS[name] - may_know}"


def test_nobody_imports_a_command():
    assert {"minicap.train", "minicap.caption"} <= COMMANDS
    for name, known in KNOWS.items():
        assert not known & COMMANDS, f"{name} imports the command {known & COMMANDS}"


def test_nothing_is_imported_in_a_circle():
    """Neither at the start nor inside functions."""
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for other in KNOWS[name] - {name}:
                visit(other)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


def test_no_pickle_no_eval_no_shell():
    for name, tree in MODULES.items():
        known = {module.partition(".")[0] for module in imports(tree)}
        assert not known & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "__import__", "os.system", "os.popen"}, name
                settings = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert settings.get("shell", "False") == "False", name
                assert settings.get("allow_pickle", "False") == "False", name
                assert not re.fullmatch(r"(np|numpy)\.load", called) or "allow_pickle" in settings


def test_every_exception_can_be_pickled():
    """As a user's pool of processes does with the one that a bad photo raises."""
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
    """The names of all modules that a fresh process has loaded after this code."""
    code += "\nprint('loaded', *sys.modules)"
    command = [sys.executable, "-c", "import sys\n" + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_minicap_costs_nothing():
    loaded = loaded_after("import minicap; minicap.__version__; minicap.UserError")
    assert "minicap" in loaded and len(room("minicap") & loaded) == 2  # and minicap.utils.errors
    assert not loaded & {"numpy", "PIL", "tyro", "safetensors", "tqdm", "onnxruntime"}


def test_training_on_features_imports_no_heavy_part(tmp_path):
    """A whole run, report included, without what only encoders and GPUs need."""
    words = arguments(write_data(tmp_path / "data"), f"--out={tmp_path / 'out'}", "--epochs=1")
    loaded = loaded_after("from minicap import train; train.main(sys.argv[1:])", *words)
    assert "numpy" in loaded and (tmp_path / "out/loss.svg").exists()
    heavy = {"onnx", "onnxruntime", "cupy", "matplotlib", "torch", "scipy", "starlette", "mpi4py"}
    assert not loaded & heavy


def test_minicap_offers_what_it_says():
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
    """setup.cfg finds packages by their __init__.py: a folder without one is missing in a wheel."""
    assert all((folder / "__init__.py").exists() for folder in {path.parent for path in FILES})


def test_setup_cfg_and_package_agree_on_the_version(setup):
    import minicap

    assert setup["metadata"]["version"] == minicap.__version__


def test_every_import_is_a_dependency_that_is_declared(setup):
    """The core needs seven libraries; all else is an
    extra, and imported inside a function."""
    distributions = {"PIL": "pillow"}

    def declared(text):
        return set(re.findall(r"^\s*([A-Za-z0-9_]+)", text, re.MULTILINE))

    core = declared(setup["options"]["install_requires"])
    assert core == {"filelock", "numpy", "pillow", "safetensors", "threadpoolctl", "tqdm", "tyro"}
    extra = {"onnx", "onnxruntime", "cupy", "cupyx", "h5py", "pycocoevalcap"}
    extra |= {"torch", "keras"}  # a user's own, to read a .pth file and to compare with
    for name, tree in MODULES.items():
        known = {module.partition(".")[0] for module in imports(tree)}
        foreign = known - sys.stdlib_module_names - {"minicap"}
        assert {distributions.get(n, n) for n in foreign} <= core | extra, name
        top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        heavy = {module.partition(".")[0] for module in imports(top)} & extra
        assert not heavy, f"{name} imports {heavy} at once"


def test_no_file_names_a_place_of_one_machine():
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
