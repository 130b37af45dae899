"""Where the time of a training step goes: each layer's way forward and back, in one worker.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/step_profile.py [--work coco] [--threads 2]

One worker's share of a batch, alone on its core and with one BLAS thread, then the whole step as
the trainer takes it. Medians over 16 batches and several rounds.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy
from threadpoolctl import ThreadpoolController

sys.path.insert(0, str(Path(__file__).parent))
from training_step import WORKS, make_batches

from minicap.data.batches import pack
from minicap.model import decoder
from minicap.training.recipes import RECIPES
from minicap.training.trainer import Trainer

LAYERS = ("embedding", "dense", "lstm", "project_cross_entropy")


def timed(name: str, layer, seconds):
    """The layer, which notes in `seconds` how long each of its two ways takes."""

    def note(way: str, call, *args, **options):
        began = time.perf_counter()
        result = call(*args, **options)
        seconds[name, way] += time.perf_counter() - began
        return result

    def forward(*args, **options):
        *outputs, backward = note("forward", layer, *args, **options)
        return *outputs, lambda *a, **o: note("back", backward, *a, **o)

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", choices=WORKS, default="coco")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    vocabulary, _, widths = WORKS[options.work]
    sizes = decoder.Sizes(vocabulary, *widths)
    recipe = replace(RECIPES["course"], clip_norm=5.0)
    batches = [pack(*batch) for batch in make_batches(options.work)]
    seconds: dict = defaultdict(float)
    for name in LAYERS:
        setattr(decoder, name, timed(name, getattr(decoder, name), seconds))
    trainer = Trainer(recipe, sizes, 0, 1)
    rounds = defaultdict(list)
    with ThreadpoolController().limit(limits=1):
        for batch in options.rounds * batches:
            share, _ = next(iter(batch.split(options.threads)))
            seconds.clear()
            began = time.perf_counter()
            loss, backward = decoder.caption_loss(trainer.parameters, share, len(batch.targets))
            backward(trainer.gradients[0])
            rounds["all", ""].append(time.perf_counter() - began)
            for place, value in seconds.items():
                rounds[place].append(value)
    print(f"{options.work}: the share of one of {options.threads} workers, ms")
    print(f"{'':24}{'forward':>9}{'back':>9}")
    for name in LAYERS:
        ways = (1e3 * statistics.median(rounds[name, way]) for way in ("forward", "back"))
        print(f"{name:24}{''.join(f'{ms:9.2f}' for ms in ways)}")
    print(f"{'together':24}{1e3 * statistics.median(rounds['all', '']):18.2f}")
    trainer = Trainer(recipe, sizes, 0, options.threads)
    steps = []
    for batch in options.rounds * batches:
        began = time.perf_counter()
        trainer.train_step(batch)
        steps.append(time.perf_counter() - began)
    print(f"{'the whole step':24}{1e3 * numpy.median(steps[len(batches) :]):18.2f}")


if __name__ == "__main__":
    main()
