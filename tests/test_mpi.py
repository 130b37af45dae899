"""The commands under mpiexec: the same files as one process writes, and no rank that is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
from PIL import Image

from minicap.data.store import FEATURES, MARKS
from minicap.model import checkpoint
from minicap.training.run import MODEL, RUN
from tests.mpi import MPIEXEC, ROOT, needs_mpi, ranks, succeed
from tests.tiny import arguments, write_data

pytestmark = needs_mpi
PHOTOS = 90


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photos, of which two are broken; an encoder; a model of its features."""
    pytest.importorskip("onnxruntime")
    from minicap.encoder.session import Encoder
    from tests.test_caption import save_encoder
    from tests.tiny import model

    folder = tmp_path_factory.mktemp("mpi")
    (folder / "photos").mkdir()
    rng = numpy.random.default_rng(0)
    for number in range(PHOTOS):
        colour = tuple(rng.integers(256, size=3).tolist())
        Image.new("RGB", (20, 30), colour).save(folder / f"photos/{number:02}.png")
    for number in 7, 64:
        (folder / f"photos/{number:02}.png").write_bytes(b"broken")
    encoder = Encoder(save_encoder(folder / "encoder.onnx"))
    model({"id": encoder.id, "name": encoder.name}).save(folder / "model.safetensors")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def encode(files, out):
    return (
        "-m",
        "minicap.encode",
        files / "photos",
        "--encoder",
        files / "encoder.onnx",
        "--out",
        out,
    )


@pytest.fixture(scope="module")
def store(files):
    """The store of one process."""
    succeed(1, *encode(files, files / "store"))
    return contents(files / "store")


@pytest.mark.parametrize("count", [2, 3])
def test_a_store_has_the_bytes_of_one_process(files, store, tmp_path, count):
    printed = succeed(count, *encode(files, tmp_path / "store"))
    assert contents(tmp_path / "store") == store
    assert printed.count("88 photos encoded, 2 skipped") == 1


def test_a_store_with_holes_is_completed(files, store, tmp_path):
    """Ranks that were killed leave batches anywhere, and reasons in files of their own."""
    out = tmp_path / "store"
    succeed(1, *encode(files, out))
    with open(out / MARKS, "r+b") as file:
        size = len(store[MARKS]) - PHOTOS
        for row in 5, 30, 31, 64:
            file.seek(size + row)
            file.write(b"\0")
    with open(out / FEATURES, "r+b") as file:
        file.seek(-20, 2)
        file.write(bytes(4))  # of a row that is marked, so nobody writes it again
    damaged = (out / FEATURES).read_bytes()
    (out / "skipped.jsonl").write_bytes(store["skipped.jsonl"].splitlines(keepends=True)[1])
    (out / "skipped-1.jsonl").write_bytes(
        store["skipped.jsonl"].splitlines(keepends=True)[0] + b'{"row": 9, "pho'
    )
    succeed(2, *encode(files, out))
    assert contents(out) == store | {FEATURES: damaged}


@pytest.mark.parametrize("more", [[], ["--temperature", "1", "--count", "2"]])
def test_captions_in_a_file_are_those_of_one_process(files, tmp_path, more):
    found = []
    for count in 1, 3:
        out = tmp_path / f"{count}.jsonl"
        words = files / "photos", "--model", files / "model.safetensors", "--out", out
        printed = succeed(
            count, "-m", "minicap.caption", *words, "--encoder", files / "encoder.onnx", *more
        )
        assert printed.count("88 photos captioned") == 1
        found.append(out.read_bytes())
    assert found[0] == found[1] and found[0].count(b"\n") == 88 * (2 if more else 1)


def train(folder, *more):
    return "-m", "minicap.train", *arguments(write_data(folder / "data", 24), *more)


SELF_CRITICAL = (
    "--epochs=3", "--self-critical-epochs=1", "--dropout=0.2", "--clip-norm=1", "--monitor=cider",
    "--learning-rate=0.01", "--samples-per-image=2",
)  # fmt: skip


def test_a_run_on_two_ranks_is_nearly_that_of_two_workers(tmp_path):
    """Also its self-critical epoch. Resumed on one rank, it continues."""
    one, two = tmp_path / "one", tmp_path / "two"
    succeed(1, *train(tmp_path, *SELF_CRITICAL, "--workers=2", f"--out={one}"))
    printed = succeed(2, *train(tmp_path, *SELF_CRITICAL, "--workers=1", f"--out={two}"))
    assert printed.count("epoch   3") == 1 and "ranks     2; gradients are added by MPI" in printed
    (expected, _), (arrays, about) = (checkpoint.load(each / RUN, "run") for each in (one, two))
    assert about["place"] == {"epoch": 3, "step": 0, "t": about["place"]["t"]}
    for name, array in arrays.items():
        numpy.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-4)
    lines = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3] and "dev_cider" in lines[0]
    succeed(1, "-m", "minicap.train", f"--resume={two}", "--epochs=4")
    succeed(2, "-m", "minicap.train", f"--resume={two}", "--epochs=5")
    assert checkpoint.load(two / RUN, "run")[1]["place"]["epoch"] == 5

    scores = []
    for count in 1, 2:
        out = tmp_path / f"scores{count}"
        words = "--model", two / MODEL, "--out", out, "--temperature", "0.7"
        succeed(count, "-m", "minicap.evaluate", *words)
        scores.append((out / "captions.json").read_bytes())
    assert scores[0] == scores[1]


def test_a_run_is_deterministic(tmp_path):
    found = []
    for name in "one", "other":
        succeed(2, *train(tmp_path, *SELF_CRITICAL, f"--out={tmp_path / name}"))
        arrays, _ = checkpoint.load(tmp_path / name / RUN, "run")
        found.append({key: array.tobytes() for key, array in arrays.items()})
    assert found[0] == found[1]


def rank_processes(folder: Path) -> list[int]:
    """The process ids of the ranks of `job` that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if words[0] == sys.executable.encode() and str(folder).encode() in b"".join(words):
            found.append(int(path.name))
    return sorted(found)


def job(count: int, *words) -> subprocess.Popen:
    command = [str(MPIEXEC), "-n", str(count), sys.executable, *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_rank_or_ctrl_c_ends_the_job_and_the_run_resumes(tmp_path, number):
    out = tmp_path / "run"
    process = job(2, *train(tmp_path, "--epochs=100000", f"--out={out}"))
    wait_for((out / MODEL).exists)
    victims = rank_processes(tmp_path)
    assert len(victims) == 2
    if number == signal.SIGKILL:
        os.kill(victims[1], number)
    else:
        process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode != 0 and "Traceback" not in text
    wait_for(lambda: not rank_processes(tmp_path))
    if number == signal.SIGINT:
        assert text.count("stopped and saved; resume with: minicap train --resume") == 1
    epoch = checkpoint.load(out / RUN, "run")[1]["place"]["epoch"]
    succeed(2, "-m", "minicap.train", f"--resume={out}", f"--epochs={epoch + 1}")
    assert checkpoint.load(out / RUN, "run")[1]["place"]["epoch"] == epoch + 1


def test_a_command_that_ranks_cannot_share_says_so():
    done = ranks(2, "-m", "minicap.gradcheck")
    assert done.returncode == 1 and done.stderr.count("start it without mpiexec") == 1


def test_an_error_of_all_ranks_is_printed_once(tmp_path):
    done = ranks(3, "-m", "minicap.train", "--captions", tmp_path / "none.txt")
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
