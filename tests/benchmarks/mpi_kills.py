"""Kill random ranks at random moments: python tests/benchmarks/mpi_kills.py [--rounds 50]

Each round starts or resumes a job of three ranks, on tiny data, and kills one of them with SIGKILL.
The job must end, no process may be left, and what is saved must be usable. At the end, the run and
the feature store must be bitwise those of jobs that nobody disturbed.
"""

import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from minicap.data.store import STORE, FeatureStore
from minicap.model import checkpoint
from minicap.training.run import RUN
from tests.mpi import succeed
from tests.test_caption import save_encoder
from tests.test_mpi import job, rank_processes, train

RANKS = 3


@dataclass
class Options:
    """Kill ranks of training and encoding."""

    rounds: int = 50
    """rounds of each"""
    seed: int = 0
    """of the moments and the ranks"""


def kill_round(words, folder: Path, rng: random.Random) -> float:
    """Start a job and kill one rank; return how long the job took to end, 0 if it was over."""
    process = job(RANKS, *words)
    time.sleep(rng.uniform(0.2, 3))
    victims = rank_processes(folder)
    if process.poll() is not None or not victims:
        process.communicate(timeout=60)
        return 0.0
    os.kill(rng.choice(victims), signal.SIGKILL)
    begun = time.monotonic()
    text, _ = process.communicate(timeout=60)
    assert "Traceback" not in text, text
    while rank_processes(folder):
        assert time.monotonic() - begun < 60, "a rank is left"
        time.sleep(0.01)
    return time.monotonic() - begun


def training(folder: Path, rounds: int, rng: random.Random) -> list[float]:
    """Kill ranks of a training run."""
    out, seconds = folder / "run", []
    first = train(folder, "--epochs=1000000", f"--out={out}")
    resumed = "-m", "minicap.train", f"--resume={out}"
    for _ in range(rounds):
        saved = (out / RUN).exists()
        seconds.append(kill_round(resumed if saved else first, folder, rng))
        if saved:
            checkpoint.load(out / RUN, "run")
    epoch = checkpoint.load(out / RUN, "run")[1]["place"]["epoch"]
    succeed(RANKS, *resumed, f"--epochs={epoch + 1}")
    succeed(RANKS, *train(folder, f"--epochs={epoch + 1}", f"--out={folder / 'whole'}"))
    (arrays, _), (expected, _) = (
        checkpoint.load(each / RUN, "run") for each in (out, folder / "whole")
    )
    assert all(array.tobytes() == expected[name].tobytes() for name, array in arrays.items())
    print(f"training: {epoch + 1:,} epochs, bitwise those of an undisturbed run")
    return seconds


def encoding(folder: Path, rounds: int, rng: random.Random) -> list[float]:
    """Kill ranks that encode photos."""
    (folder / "photos").mkdir()
    for number in range(4000):
        colour = tuple(rng.randrange(256) for _ in range(3))
        path = folder / f"photos/{number:04}.png"
        Image.new("RGB", (300, 300), colour).save(path)
        if number % 50 == 7:
            path.write_bytes(b"broken")
    save_encoder(folder / "encoder.onnx")
    out, seconds, complete = folder / "store", [], 0

    def words(place: Path) -> tuple:
        photos, encoder = folder / "photos", folder / "encoder.onnx"
        return "-m", "minicap.encode", photos, "--encoder", encoder, "--out", place

    def contents(place: Path) -> dict:
        return {path.name: path.read_bytes() for path in place.iterdir()}

    succeed(1, *words(folder / "whole"))
    for _ in range(rounds):
        seconds.append(kill_round(words(out), folder, rng))
        if (out / STORE).exists() and not FeatureStore.open(out).todo():
            succeed(RANKS, *words(out))
            assert contents(out) == contents(folder / "whole")
            complete += 1
            for path in out.iterdir():
                path.unlink()
    succeed(RANKS, *words(out))
    assert contents(out) == contents(folder / "whole")
    print(f"encoding: {complete + 1} stores, bitwise those of one process")
    return seconds


def main(options: Options) -> None:
    """Run the rounds and print how long jobs take to end."""
    rng = random.Random(options.seed)
    for part in training, encoding:
        with tempfile.TemporaryDirectory() as folder:
            seconds = [s for s in part(Path(folder), options.rounds, rng) if s]
        middle, most = statistics.median(seconds), max(seconds)
        print(
            f"          {len(seconds)} jobs ended {middle:.2f} s after the kill, at most {most:.2f}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
