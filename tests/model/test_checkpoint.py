"""Saving and loading: everything is restored, and damaged files are refused."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from minicap.model import checkpoint
from minicap.utils.errors import UserError

GRID = numpy.arange(24, dtype="float32").reshape(4, 6)
LAYOUTS = {
    "Fortran order": numpy.asfortranarray(GRID),
    "transposed": GRID.T,
    "strided": GRID[::2, ::3],
    "reversed": GRID[::-1],
    "column": GRID[:, 1],
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refusal(path, kind="model"):
    """The one line a user reads."""
    with pytest.raises(UserError) as caught:
        checkpoint.load(path, kind)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def test_round_trip(path):
    """Arrays of several kinds and shapes, and a description with awkward text."""
    arrays = {
        "x": GRID,
        "half": GRID.astype("float16"),
        "double": numpy.pi * GRID.astype("float64"),
        "count": numpy.int64(7),
        "nothing": numpy.zeros((0, 3), "float32"),
        "other order": GRID.astype(">f4"),
    }
    about = {"words": ["#END#", "ä", '"', "\\", "\n", "\u2028"], "inner": {"loss": 0.1 + 0.2}}
    checkpoint.save(path, "run", arrays, about)
    back, description = checkpoint.load(path, "run")
    assert description == {"format": 2, "kind": "run", **about}
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].shape == array.shape and numpy.array_equal(back[name], array)
        assert back[name].dtype == array.dtype.newbyteorder("=")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_that_are_not_contiguous_are_restored(path, layout):
    checkpoint.save(path, "model", {"x": LAYOUTS[layout]}, {})
    assert numpy.array_equal(checkpoint.load(path, "model")[0]["x"], LAYOUTS[layout])


known_version = pytest.mark.skipif(
    safetensors.__version__ != "0.8.0",
    reason="checks bugs of safetensors 0.8.0",
)


@known_version
@pytest.mark.parametrize("layout", LAYOUTS)
def test_safetensors_alone_corrupts_them(path, layout):
    """Why checkpoint.save makes them contiguous."""
    save_file({"x": LAYOUTS[layout]}, path)
    assert not numpy.array_equal(load_file(path)["x"], LAYOUTS[layout])


@known_version
def test_safetensors_alone_accepts_a_flipped_bit(path):
    """Why there is a SHA-256."""
    save_file({"x": GRID}, path)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert not numpy.array_equal(load_file(path)["x"], GRID)


def test_numbers_that_json_lacks_are_refused_before_writing(path):
    with pytest.raises(ValueError):
        checkpoint.save(path, "model", {}, {"loss": float("nan")})
    assert not path.exists()


def damaged(path, contents):
    path.write_bytes(contents)
    return refusal(path)


def test_every_flipped_bit_is_refused(path):
    """In the length, the header, the description, the hash and the numbers: all of them."""
    checkpoint.save(path, "model", {"x": GRID[0], "y": numpy.arange(3)}, {"words": ["a", "é"]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8) if place < 8 else (place % 8, (place + 5) % 8):
            damaged(path, whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])


def test_every_truncation_and_any_addition_is_refused(path):
    checkpoint.save(path, "model", {"x": GRID}, {"words": ["a"]})
    whole = path.read_bytes()
    for length in range(len(whole)):
        damaged(path, whole[:length])
    damaged(path, whole + b"\0")
    damaged(path, whole + whole)


@pytest.mark.parametrize("contents", [b"", b"hello\n", b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 99])
def test_another_kind_of_file(path, contents):
    assert "not a safetensors file" in damaged(path, contents)


def test_a_foreign_safetensors_file(path):
    save_file({"x": GRID}, path, {"format": "pt"})
    assert "not a minicap model" in refusal(path)
    save_file({"x": GRID}, path)
    assert "not a minicap model" in refusal(path)


def test_arrays_that_were_swapped_or_renamed_are_refused(path):
    """The hash is over names and shapes too, not the numbers alone."""
    checkpoint.save(path, "model", {"x": GRID, "y": GRID + 1}, {})
    whole = path.read_bytes()
    swapped = whole.replace(b'"x"', b'"z"').replace(b'"y"', b'"x"').replace(b'"z"', b'"y"')
    assert "SHA-256" in damaged(path, swapped)
    assert "SHA-256" in damaged(path, whole.replace(b"[4,6]", b"[6,4]", 1))


def test_another_kind(path):
    checkpoint.save(path, "run", {"x": GRID}, {})
    assert "this is a run, but a model is needed" in refusal(path)


def test_a_newer_format(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    checkpoint.save(path, "model", {"x": GRID}, {})
    monkeypatch.undo()
    assert "format 3" in (text := refusal(path)) and "update" in text


def test_no_file_and_a_folder(path):
    assert "no such file" in refusal(path)
    path.mkdir()
    refusal(path)


def saving(path, before="", **options):
    """A process that replaces a small array by a large one."""
    code = (
        "import sys, numpy; from pathlib import Path; from minicap.model import checkpoint\n"
        "from minicap.utils.errors import UserError\n"
        f"{before}\n"
        "try:\n"
        "    checkpoint.save(Path(sys.argv[1]), 'model', {'x': numpy.ones(100_000, 'f4')}, {})\n"
        "except UserError as error:\n"
        "    sys.exit(str(error))"
    )
    return subprocess.Popen([sys.executable, "-c", code, path], text=True, **options)


def test_a_full_disk_leaves_the_old_file(path):
    """A real refusal by the operating system: files may not grow beyond 32 kB."""
    checkpoint.save(path, "model", {"x": GRID}, {})
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))"
    child = saving(path, limit, stderr=subprocess.PIPE)
    _, error = child.communicate()
    assert child.returncode == 1
    assert error.startswith(f"cannot write {path}: ") and "File too large" in error
    assert error.count("\n") == 1
    assert numpy.array_equal(checkpoint.load(path, "model")[0]["x"], GRID)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(
    not (sys.platform == "linux" and os.geteuid() == 0), reason="only root may mount a tiny disk"
)
def test_a_really_full_disk(tmp_path):
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine allows no mounts")
    try:
        path = disk / "model.safetensors"
        checkpoint.save(path, "model", {"x": GRID}, {})
        with pytest.raises(UserError, match="No space left on device"):
            checkpoint.save(path, "model", {"x": numpy.ones(100_000, "f4")}, {})
        assert numpy.array_equal(checkpoint.load(path, "model")[0]["x"], GRID)
        assert list(disk.iterdir()) == [path]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_killed_while_saving_leaves_the_old_file(path):
    """kill -9 between writing and renaming: the old model still loads."""
    checkpoint.save(path, "model", {"x": GRID}, {})
    wait = "import os, time\nos.replace = lambda *_: (print('written', flush=True), time.sleep(60))"
    child = saving(path, wait, stdout=subprocess.PIPE)
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert numpy.array_equal(checkpoint.load(path, "model")[0]["x"], GRID)


def test_the_description_is_plain_json_that_other_tools_read(path):
    checkpoint.save(path, "model", {"x": GRID}, {"words": ["a"]})
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    assert json.loads(header["__metadata__"]["minicap"])["words"] == ["a"]


def test_a_folder_is_not_a_model(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the minicap model file in it"):
        checkpoint.load(tmp_path, "model")
