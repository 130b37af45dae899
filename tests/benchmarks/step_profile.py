"""Profile a training step: the forward and backward pass of each layer in one worker.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/step_profile.py [--work coco] [--threads 2]

Measures one worker's part of a batch, alone on its core and with one BLAS thread, then the whole
training step. Prints medians over 16 batches and several rounds.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy
from threadpoolctl import ThreadpoolController

sys.path.insert(0, str(Path(__file__).parent))
from training_step import WORKS, make_batches, new_trainer

from minicap.data.batches import pack
from minicap.model import decoder

LAYERS = ("embedding", "dense", "lstm", "project_cross_entropy")


def timed(name: str, layer, seconds):
    """Wrap a layer so that its forward and backward passes add their times to `seconds`."""

    def measure(direction: str, call, *args, **options):
        start = time.perf_counter()
        result = call(*args, **options)
        seconds[name, direction] += time.perf_counter() - start
        return result

    def forward(*args, **options):
        *outputs, backward = measure("forward", layer, *args, **options)
        return *outputs, lambda *a, **o: measure("backward", backward, *a, **o)

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", choices=WORKS, default="coco")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    batches = [pack(*batch) for batch in make_batches(options.work)]
    seconds: dict = defaultdict(float)
    for name in LAYERS:
        setattr(decoder, name, timed(name, getattr(decoder, name), seconds))
    trainer = new_trainer(options.work, 1)
    gradients = trainer.parameters.like()
    rounds = defaultdict(list)
    with ThreadpoolController().limit(limits=1):
        for batch in options.rounds * batches:
            part, _ = next(iter(batch.split(options.threads)))
            seconds.clear()
            start = time.perf_counter()
            loss, backward = trainer.decoder.loss(part, len(batch.targets))
            backward(gradients)
            rounds["all", ""].append(time.perf_counter() - start)
            for place, value in seconds.items():
                rounds[place].append(value)
    print(f"{options.work}: the part of one of {options.threads} workers, ms")
    print(f"{'':24}{'forward':>9}{'backward':>9}")
    for name in LAYERS:
        both = (1e3 * statistics.median(rounds[name, way]) for way in ("forward", "backward"))
        print(f"{name:24}{''.join(f'{ms:9.2f}' for ms in both)}")
    print(f"{'all layers':24}{1e3 * statistics.median(rounds['all', '']):18.2f}")
    trainer = new_trainer(options.work, options.threads)
    steps = []
    for batch in options.rounds * batches:
        start = time.perf_counter()
        trainer.train_step(batch)
        steps.append(time.perf_counter() - start)
    print(f"{'the whole step':24}{1e3 * numpy.median(steps[len(batches) :]):18.2f}")


if __name__ == "__main__":
    main()
