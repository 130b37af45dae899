"""`minicap encode`, from a folder to a store: kills, hostile files, many photos."""

import errno
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicap import encode
from minicap.data.features import read_features
from minicap.data.store import FEATURES, LOCK, MARKS, REASONS, STORE, FeatureStore
from minicap.utils import command_line
from minicap.utils.files import exclusive

pytest.importorskip("onnxruntime")
from minicap.encoder.session import Encoder
from tests.encoder.test_session import tiny

ROOT = Path(__file__).parents[1]


def save_photo(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(21):
        save_photo(folder / f"{number:02}.png", number)
    return folder


@pytest.fixture
def onnx(tmp_path):
    return tiny(tmp_path / "e.onnx")


def run(*words):
    """The command as a user runs it, in this process. Returns the exit status."""
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: encode.main([str(word) for word in words]))
    return ended.value.code


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def reasons(folder):
    lines = (folder / REASONS).read_text().splitlines()
    return {entry["photo"]: entry["reason"] for entry in map(json.loads, lines)}


def test_a_folder_a_zip_and_a_list_give_the_same(photos, onnx, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in photos.iterdir():
            file.write(path, path.name)
    (tmp_path / "list.txt").write_text("\n".join(sorted(path.name for path in photos.iterdir())))
    sources = photos, tmp_path / "photos.zip", tmp_path / "list.txt"
    found = []
    for number, source in enumerate(sources):
        out = tmp_path / f"out{number}"
        assert not run(source, "--encoder", onnx, "--out", out, "--root", photos)
        found.append(contents(out))
    assert found[0] == found[1] == found[2]
    assert "21 photos encoded, 0 skipped" in capsys.readouterr().out

    encoder, features = Encoder(onnx), read_features(tmp_path / "out0")
    assert features.names == [f"{number:02}.png" for number in range(21)]
    assert features.encoder == encoder.about()
    alone = encoder([photos / name for name in features.names])
    np.testing.assert_array_equal(features.array, alone.astype("float16"))


def test_a_second_run_does_nothing_and_other_settings_are_refused(photos, onnx, tmp_path, capsys):
    out = tmp_path / "out"
    command = photos, "--encoder", onnx, "--out", out
    assert not run(*command)
    before = contents(out)
    assert not run(*command) and contents(out) == before
    assert run(*command, "--preprocessing", "crop-bilinear") == 1
    assert "squeeze-bilinear-4, not of" in capsys.readouterr().err
    save_photo(photos / "new.png", 99)
    assert run(*command) == 1
    assert "1 are new and 0 gone: new.png" in capsys.readouterr().err
    assert contents(out) == before


def test_a_store_locked_by_another_process_is_refused(photos, onnx, tmp_path, capsys):
    out = tmp_path / "out"
    with exclusive(out / LOCK, ""):
        assert run(photos, "--encoder", onnx, "--out", out) == 1
        assert contents(out) == {LOCK: b""}
    error = capsys.readouterr().err
    assert f"{out}: another process is encoding" in error and error.count("\n") == 1
    (out / LOCK).touch()  # as after a kill
    assert not run(photos, "--encoder", onnx, "--out", out)
    assert LOCK not in contents(out)


def test_skipped_photos_are_tried_again(photos, onnx, tmp_path, capsys):
    """After all photos are done. The store then equals that of photos that were never broken."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert not run(photos, "--out", whole, "--encoder", onnx)
    hidden = {}
    for name in ("03.png", "04.png", "20.png"):
        hidden[name] = (photos / name).read_bytes()
        (photos / name).write_bytes(b"broken")
    assert not run(photos, "--out", out, "--encoder", onnx)
    assert list(reasons(out)) == list(hidden)
    for name in ("03.png", "20.png"):
        (photos / name).write_bytes(hidden[name])
    capsys.readouterr()
    assert not run(photos, "--out", out, "--encoder", onnx)
    text = capsys.readouterr().out
    assert (
        "2 of the skipped photos are readable now" in text
        and "20 photos encoded, 1 skipped" in text
    )
    assert list(reasons(out)) == ["04.png"]
    (photos / "04.png").write_bytes(hidden["04.png"])
    assert not run(photos, "--out", out, "--encoder", onnx)
    assert contents(out) == contents(whole)


def test_temporary_errors_stop_instead_of_skipping(photos, onnx, tmp_path, capsys, monkeypatch):
    """Too many open files, or a drive that is gone: one line, and the same command resumes."""
    opened, real = [], Image.open

    def failing(path, *rest):
        opened.append(path)
        if len(opened) == 7:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *rest)

    out = tmp_path / "out"
    monkeypatch.setattr(Image, "open", failing)
    assert run(photos, "--out", out, "--encoder", onnx) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be read at the moment (Too many open files); try again" in error
    monkeypatch.setattr(Image, "open", real)
    assert not run(photos, "--out", out, "--encoder", onnx) and not reasons(out)
    gone, again = tmp_path / "gone", tmp_path / "again"

    def leaving(path, *rest):
        if photos.exists():
            photos.rename(gone)
        return real(path, *rest)

    monkeypatch.setattr(Image, "open", leaving)
    assert run(photos, "--out", again, "--encoder", onnx) == 1
    assert "this folder no longer exists" in capsys.readouterr().err.splitlines()[-1]


def test_a_name_that_is_too_long_is_skipped(photos, onnx, tmp_path):
    (photos / "list.txt").write_text("00.png\n" + "x" * 300 + ".png\n01.png\n")
    out = tmp_path / "out"
    assert not run(photos / "list.txt", "--out", out, "--encoder", onnx)
    (reason,) = reasons(out).values()
    assert "File name too long" in reason and FeatureStore.open(out).marks.tolist() == [1, 2, 1]


def test_only_the_photos_with_captions(photos, onnx, tmp_path, capsys):
    (tmp_path / "captions.csv").write_text(
        "image,caption\nphotos/07.png,A dog\n03.png,A cat\ngone.png,A bat\n03.png,A rat\n"
    )
    command = tmp_path, "--encoder", onnx, "--captions", tmp_path / "captions.csv"
    assert not run(*command, "--out", tmp_path / "out")
    assert "2 of the 3 photos in" in capsys.readouterr().out
    assert read_features(tmp_path / "out").names == ["photos/07.png", "photos/03.png"]
    assert reasons(tmp_path / "out") == {"gone.png": "no such file; check the path"}


@pytest.mark.parametrize(
    "words, message",
    [
        (["gone"], "gone: no such folder"),
        (["photos", "--encoder", "gone.onnx"], "gone.onnx: no such encoder file.*minicap export"),
        (["photos", "--workers", "0"], "--workers must be from 1"),
        (["photos", "--readers", "0"], "--readers must be from 1"),
        (["photos", "--out", "photos"], "photos: holds other files"),
    ],
)
def test_user_errors_are_one_line(photos, onnx, monkeypatch, capsys, words, message):
    monkeypatch.chdir(photos.parent)
    defaults = [] if "--encoder" in words else ["--encoder", "e.onnx"]
    before = set(photos.parent.rglob("*"))
    assert run(*words, *defaults) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert pytest.importorskip("re").search(message, line)
    assert set(photos.parent.rglob("*")) == before


def test_hostile_photos_are_skipped_and_listed(photos, onnx, tmp_path, capsys):
    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    side = 30_000  # 900 million pixels in a hundred kilobytes
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    whole = (photos / "00.png").read_bytes()
    hostile = {
        "bomb.png": (bomb, "more than 89,478,485 pixels"),
        "cut.png": (whole[: len(whole) // 2], "cannot be read"),
        "empty.jpg": (b"", "not an image"),
        "page.jpg": (b"<html>404</html>", "not an image"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a EPS file"),
    }
    for name, (content, _) in hostile.items():
        (photos / name).write_bytes(content)
    (photos / "dangling.png").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")  # opening it would block forever
    hostile |= {"dangling.png": (b"", "no such file"), "pipe.png": (b"", "not a regular file")}
    out = tmp_path / "out"
    assert not run(photos, "--encoder", onnx, "--out", out)
    assert "21 photos encoded, 7 skipped: see" in capsys.readouterr().out
    found = reasons(out)
    assert found.keys() == hostile.keys()
    for name, (_, reason) in hostile.items():
        assert reason in found[name]
    features = read_features(out)
    assert features.names == [f"{number:02}.png" for number in range(21)]
    alone = Encoder(onnx)([photos / name for name in features.names])
    np.testing.assert_array_equal(features.array, alone.astype("float16"))


def test_only_hostile_photos_is_a_failure(tmp_path, onnx):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_text("no")
    assert run(tmp_path / "photos", "--encoder", onnx, "--out", tmp_path / "out") == 1


# ---- kill -9 ------------------------------------------------------------------------------------

DYING = """
import os, signal, sys, threading, time
from minicap import encode
from minicap.utils import command_line
from minicap.encoder.session import Encoder

batches, delay = int(sys.argv[1]), float(sys.argv[2])
encode_batch, running = Encoder.encode, threading.Semaphore(batches)

def slow(self, pixels):
    if not running.acquire(blocking=False):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    time.sleep(0.02)
    return encode_batch(self, pixels)

Encoder.encode = slow
command_line.run(lambda: encode.main(sys.argv[3:]))
"""


def killed_repeatedly(photos, onnx, out, seed):
    """Run, and kill each run a random time after a random batch, until one finishes.

    Counting batches ensures that encoding has started, on a machine of any speed; the random time
    lets the kill hit any line. Returns the number of runs.
    """
    words = [str(word) for word in (photos, "--encoder", onnx, "--out", out, "--workers", 1)]
    chance, rounds = random.Random(seed), 0
    while True:
        rounds += 1
        assert rounds < 200, "no run gets on"
        moment = [str(chance.randrange(12)), str(chance.uniform(0, 0.04))]
        ended = subprocess.run(
            [sys.executable, "-c", DYING, *moment, *words], capture_output=True, cwd=ROOT
        ).returncode
        if ended == 0:
            return rounds
        assert ended == -signal.SIGKILL


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_runs_killed_at_random_end_with_the_same_bytes(tmp_path, onnx, seed):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(200):
        save_photo(photos / f"{number:03}.png", number)
        if number % 17 == 5:
            (photos / f"{number:03}.png").write_bytes(b"broken")
    assert not run(photos, "--encoder", onnx, "--out", tmp_path / "whole")
    rounds = killed_repeatedly(photos, onnx, tmp_path / "out", seed)
    print(f"{rounds} rounds")
    assert rounds > 2, "killed too late for a meaningful test"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(reasons(tmp_path / "out")) == 12


def test_an_interrupted_run_reports_its_progress(photos, onnx, tmp_path, capsys, monkeypatch):
    whole, calls = Encoder.encode, []

    def interrupted(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, pixels)

    monkeypatch.setattr(Encoder, "encode", interrupted)
    command = photos, "--encoder", onnx, "--out", tmp_path / "out", "--workers", 1
    assert run(*command) == 130
    assert "stopped after 4 photos; run the same command to resume" in capsys.readouterr().out
    monkeypatch.undo()
    assert not run(*command)
    assert "resuming after 4 photos" in capsys.readouterr().out
    assert read_features(tmp_path / "out").array.shape == (21, 3)


# ---- many ---------------------------------------------------------------------------------------

PEAK = """
import resource, sys
from minicap import encode
from minicap.utils import command_line
try:
    command_line.run(lambda: encode.main(sys.argv[1:]))
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(photos, onnx, out):
    """Peak memory of one run, in megabytes."""
    words = map(str, [photos, "--encoder", onnx, "--out", out])
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(done.stdout.split()[-1]) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@pytest.mark.parametrize("many", [4_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_photos(photos, onnx, tmp_path, many):
    """With links to a few files, only the names may take memory: 400 bytes each, all copies."""
    links = tmp_path / "links"
    links.mkdir()
    files = sorted(photos.iterdir())
    for number in range(many):
        (links / f"{number:06}.png").symlink_to(files[number % len(files)])
    few, more = peak(photos, onnx, tmp_path / "few"), peak(links, onnx, tmp_path / "more")
    assert more - few < 10 + many * 400 / 1e6
    store = FeatureStore.open(tmp_path / "more")
    assert store.encoded == many and (store.marks == 1).all()


def test_a_store_of_cocos_size_opens_in_under_a_second(tmp_path):
    names = [f"train2014/COCO_train2014_{number:012}.jpg" for number in range(123_000)]
    about = {"id": "x", "name": "x", "preprocessing": "x-4", "feature_size": 2048}
    store = FeatureStore.create(tmp_path / "out", names, about, 32)
    marks = np.lib.format.open_memmap(store.folder / MARKS, mode="r+")
    marks[:] = 1
    marks.flush()
    started = time.process_time()  # CPU time: other processes may keep the machine busy
    features = read_features(store.folder)
    assert time.process_time() - started < 1
    assert features.array.shape == (123_000, 2048) and len(features.names) == 123_000
    assert {path.name for path in store.folder.iterdir()} == {STORE, FEATURES, MARKS, REASONS}


# ---- real photos --------------------------------------------------------------------------------


def test_real_photos_give_the_stored_features(real_data, tmp_path):
    """Features of 250 photos from a real network match the stored ones to float16 precision."""
    out, onnx = tmp_path / "out", real_data / "encoders/mobilenetv2.onnx"
    assert not run(real_data / "flickr8k/images", "--encoder", onnx, "--out", out)
    features = read_features(out)
    assert len(features.names) == 250
    stored = np.load(real_data / "flickr8k/mobilenetv2_features.npz")
    row = {name: n for n, name in enumerate(stored["names"])}
    expected = stored["features"][[row[name] for name in features.names]].astype("float64")
    found = features.array.astype("float64")
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert (cosine / np.linalg.norm(expected, axis=1)).min() >= 0.9999
