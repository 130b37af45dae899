"""Measure a training step of data parallel training: compute, imbalance, all-reduce, update.

    python tests/benchmarks/mpi_step.py [--work coco] [--ranks 2] [--workers 1] [--rounds 5]

Runs one rank and several ranks in turn, each with the same number of workers, on the same batches.
Printed are medians of the slowest rank, in milliseconds: the gradients of the rank's part of the
batch; waiting until the last rank has its gradients (imbalance); adding the gradients of all ranks;
clipping, Adam and the rest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from training_step import WORKS, make_batches, new_trainer

NAMES = "gradients", "imbalance", "all-reduce", "the rest", "step"


def measure(work: str, workers: int, steps: int) -> None:
    """Print the milliseconds of this job's steps as JSON."""
    from minicap.data.batches import pack
    from minicap.utils.ranks import world

    ranks = world()
    trainer = new_trainer(work, workers)
    add, reduce, times = trainer.sum_gradients, trainer.all_reduce, {}

    def timed_sum(count: int) -> list:
        times["gradients"] = times["imbalance"] = times["all-reduce"] = time.perf_counter()
        return add(count)

    def timed_reduce(array) -> None:
        ranks.wait()
        times["imbalance"] = time.perf_counter()
        reduce(array)
        times["all-reduce"] = time.perf_counter()

    trainer.sum_gradients, trainer.all_reduce = timed_sum, timed_reduce
    batches = [pack(*batch) for batch in make_batches(work)]
    rows = []
    for number in range(steps + 5):
        times.clear()
        ranks.wait()
        start = time.perf_counter()
        trainer.train_step(batches[number % len(batches)])
        end = time.perf_counter()
        moments = [start, *(times[name] for name in NAMES[:3]), end]
        rows.append([*numpy.diff(moments), end - start])
    trainer.workers.stop()
    all_rows = ranks.share(range(ranks.size), lambda _: rows[5:])
    if ranks.rank == 0:
        found = 1e3 * numpy.median(all_rows, axis=1)  # (ranks, columns)
        slowest = found[found[:, 0].argmax()]
        slowest[1] = found[:, 1].max()  # the others wait for the slowest
        print(json.dumps(slowest.tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", choices=WORKS, default="coco")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        measure(options.work, options.workers, options.steps)
        return
    from tests.mpi import MPIEXEC

    again = [sys.executable, __file__, *sys.argv[1:], "--job"]
    jobs = {1: again, options.ranks: [str(MPIEXEC), "-n", str(options.ranks), *again]}
    found: dict[int, list] = {count: [] for count in jobs}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(options.rounds):
        for count, command in jobs.items():
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, env=environment, check=True
            )
            found[count].append(json.loads(done.stdout))
    print(f"{options.work}, {options.workers} workers per rank, ms")
    print(f"{'ranks':6}" + "".join(f"{name:>12}" for name in NAMES))
    for count, rows in found.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"{count:<6}" + "".join(f"{ms:12.1f}" for ms in medians))


if __name__ == "__main__":
    main()
