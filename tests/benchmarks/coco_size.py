"""Train on synthetic data of COCO's size, and open ten times as much.

    python tests/benchmarks/coco_size.py [--folder DIR] [--steps 1000] [--workers 2] [--ten-times]
        [--ranks 2]

Makes 123,287 photos with 2,048 random features in a feature store, and 616,767 captions of a
vocabulary of 8,769 tokens, with word frequencies as in Zipf's law and COCO's mean length. Then
`minicap train --recipe course` trains on them for one epoch of this many steps of 64 captions
(0: of all captions), and is resumed for a second one. Printed are the seconds until the first step,
for an epoch, for saving and for resuming, words/s, and the peak memory of each process.
--ten-times makes ten times the photos and captions and only opens them. Needs /proc.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import tyro

sys.path.insert(0, str(Path(__file__).parents[2]))
from minicap.data.store import DONE, FEATURES, MARKS, FeatureStore
from tests.mpi import MPIEXEC

PHOTOS, CAPTIONS, WORDS, DEV, WIDTH = 123_287, 616_767, 8_765, 5_000, 2048
ENCODER = {
    "id": "0" * 64, "name": "synthetic", "preprocessing": "squeeze-bilinear-299",
    "feature_size": WIDTH,
}  # fmt: skip


@dataclass
class Options:
    """Train on synthetic data of COCO's size."""

    folder: Path | None = None
    """where to make the data, which stays there [default: a temporary folder]"""
    steps: int = 1000
    """training steps per epoch; 0: an epoch of all captions"""
    workers: int = 2
    """processes per rank"""
    ranks: int = 1
    """ranks of an MPI job"""
    ten_times: bool = False
    """only open ten times the data"""


def make_store(folder: Path, photos: int) -> None:
    """Make a complete feature store, 64 MB of random features repeated."""
    names = [f"COCO_train2014_{number:012}.jpg" for number in range(photos)]
    store = FeatureStore.create(folder, names, ENCODER, 4)
    features = numpy.lib.format.open_memmap(folder / FEATURES, "r+")
    some = numpy.random.default_rng(0).gamma(0.5, 0.8, (16_384, WIDTH)).astype("<f2")
    for start in range(0, photos, len(some)):
        features[start : start + len(some)] = some[: photos - start]
    numpy.lib.format.open_memmap(folder / MARKS, "r+")[...] = DONE
    assert store.names == names


def make_captions(path: Path, names: list[str], count: int) -> None:
    """Write captions in COCO's format."""
    rng = numpy.random.default_rng(0)
    words = [f"w{number}" for number in range(WORDS)]
    frequencies = 1 / (numpy.arange(WORDS) + 2.7)
    lengths = numpy.clip(8 + rng.gamma(1.2, 2.2, count), 6, 20).round().astype(int)
    ids = rng.choice(WORDS, lengths.sum(), p=frequencies / frequencies.sum())
    ids[: 5 * WORDS] = numpy.arange(5 * WORDS) % WORDS  # each word occurs five times
    texts = numpy.split(ids, numpy.cumsum(lengths)[:-1])
    annotations = [
        {"image_id": n % len(names), "id": n, "caption": " ".join(words[k] for k in text) + "."}
        for n, text in enumerate(texts)
    ]
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def make(folder: Path, times: int) -> None:
    """Make the data, unless they are there."""
    if (folder / "dev.txt").exists():
        return
    make_store(folder / "features", times * PHOTOS)
    names = FeatureStore.open(folder / "features").names
    make_captions(folder / "captions.json", names, times * CAPTIONS)
    (folder / "train.txt").write_text("\n".join(names[DEV:]))
    (folder / "dev.txt").write_text("\n".join(names[:DEV]))


def peaks(root: int, found: dict[int, tuple[str, int]]) -> None:
    """Record the peak memory of a process and of all that it has started, in MB."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.name))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if "VmHWM" in values:
            found[process] = values["Name"], int(values["VmHWM"].split()[0]) // 1024


def run(*words, ranks: int = 1) -> tuple[float, float, list[tuple[str, int]], list[str]]:
    """Run minicap; return the seconds until it said what it will do and until it ended, the peak
    memory of its processes, and what it printed."""
    command = [sys.executable, *map(str, words)]
    if ranks > 1:
        command = [str(MPIEXEC), "-n", str(ranks), *command]
    start, said, lines = time.perf_counter(), 0.0, []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found: dict[int, tuple[str, int]] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peaks(process.pid, found)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("folder") and not said:
            said = time.perf_counter() - start
    assert process.wait() == 0, lines
    ended.set()
    watcher.join()
    total = time.perf_counter() - start
    return said, total, [each for each in found.values() if "python" in each[0]], lines


TIMED_SAVE = """
import time
from minicap import train
from minicap.training.run import Run
from minicap.utils import command_line
save = Run.save
def timed(run):
    start = time.perf_counter()
    save(run)
    print(f"saved in {time.perf_counter() - start:.2f} s", flush=True)
Run.save = timed
command_line.run(train.main)
"""


def train(folder: Path, options: Options) -> None:
    """Train for an epoch, and resume for another."""
    data = [
        "--captions", folder / "captions.json", "--features", folder / "features",
        "--train-split", folder / "train.txt", "--dev-split", folder / "dev.txt",
    ]  # fmt: skip
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    size = ["--steps-per-epoch", options.steps] if options.steps else ["--sample-by", "captions"]
    size = size if options.steps else [*size, "--steps-per-epoch", 0]
    first = "-c", TIMED_SAVE, "--recipe", "course", *data, "--workers", options.workers
    report("training", *run(*first, *size, "--epochs", 1, "--out", out, ranks=options.ranks))
    report("resumed", *run("-c", TIMED_SAVE, "--resume", out, "--epochs", 2, ranks=options.ranks))


def report(what: str, said: float, total: float, memory: list, lines: list[str]) -> None:
    """Print what was measured."""
    print(f"{what}: {said:.1f} s until the first step, {total:.1f} s in all")
    print("    MB at most:", ", ".join(f"{most:,}" for _, most in memory))
    for line in lines:
        if line.startswith(("epoch", "saved", "   ", "ranks")) and "reference" not in line:
            print("   ", line)
    sys.stdout.flush()


OPEN = """
import sys, time
from pathlib import Path
def show(what, begun):
    lines = Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    print(f"{what}: {time.perf_counter() - begun:.1f} s, {most:,} MB at most so far", flush=True)
folder = Path(sys.argv[1])
from minicap.data.features import read_features
from minicap.data.captions import read_all_captions
start = time.perf_counter()
features = read_features(folder / "features")
show(f"a store of {len(features.names):,} photos", start)
start = time.perf_counter()
captions = read_all_captions((folder / "captions.json",))
show(f"{sum(map(len, captions.texts.values())):,} captions", start)
"""


def main(options: Options) -> None:
    """Make the data and measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        times = 10 if options.ten_times else 1
        start = time.perf_counter()
        make(folder, times)
        print(f"data made in {time.perf_counter() - start:.0f} s", flush=True)
        if options.ten_times:
            subprocess.run([sys.executable, "-c", OPEN, folder], check=True)
        else:
            train(folder, options)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    main(tyro.cli(Options))
