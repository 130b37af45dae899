"""What a word costs as batches, the vocabulary and the data grow, beside what operations explain.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/cost_curves.py [--threads 2]
        [--out docs/images/cost.png]

The course's decoder with 2,048 features and captions as COCO's. Each step's time is explained as
a x (operations of the matrix products) + b x (parameters) + c, fitted to all points at once (least
relative squares); prints each point and how far it is from that. The picture needs matplotlib.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).parent))
import training_step
from training_step import WORKS, make_batches, operations

from minicap.data.batches import pack
from minicap.model.config import Sizes
from minicap.training.recipes import RECIPES
from minicap.training.trainer import Trainer

WIDTHS = (2048, 120, 300, 100, 120)
BATCHES = (16, 32, 64, 128, 256, 512)
VOCABULARIES = (1000, 2500, 5000, 8769, 16000, 32000)
DATA = (4, 16, 64, 256)  # different batches of 64: what an epoch goes through


def measure(vocabulary: int, batch: int, threads: int, count: int) -> dict:
    """Seconds of a step (the median over `count` batches; of three times through, the quickest, as
    a shared machine has slow moments), words, operations and parameters."""
    training_step.WORKS["curve"] = (vocabulary, batch, WIDTHS)
    batches = make_batches("curve", count)
    packed = [pack(*each) for each in batches]
    recipe = replace(RECIPES["course"], clip_norm=5.0)
    trainer = Trainer(recipe, Sizes(vocabulary, *WIDTHS), 0, threads)
    passes = []
    for number in range(4):  # the first is for warming up
        seconds = []
        for each in packed:
            began = time.perf_counter()
            trainer.train_step(each)
            seconds.append(time.perf_counter() - began)
        if number:
            passes.append(statistics.median(seconds))
    return {
        "seconds": min(passes),
        "words": float(numpy.mean([len(each.targets) for each in packed])),
        "operations": operations("curve", batches),
        "parameters": trainer.parameters.flat.size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    base = WORKS["coco"][0]
    curves = {
        "captions in a batch": [(n, measure(base, n, options.threads, 8)) for n in BATCHES],
        "words in the vocabulary": [(n, measure(n, 64, options.threads, 8)) for n in VOCABULARIES],
        "captions in the data": [(64 * n, measure(base, 64, options.threads, n)) for n in DATA],
    }
    points = [point for curve in curves.values() for _, point in curve]
    causes = numpy.array([[p["operations"], p["parameters"], 1] for p in points])
    seconds = numpy.array([p["seconds"] for p in points])
    rates = numpy.linalg.lstsq(causes / seconds[:, None], numpy.ones(len(points)), rcond=None)[0]
    speed, each, constant = 1e-9 / rates[0], rates[1] * 1e9, rates[2] * 1e3
    print(f"{speed:.0f} GFLOP/s, {each:.2f} ns a parameter, {constant:.1f} ms a step")
    for name, curve in curves.items():
        print(f"{name:26}{'us a word':>12}{'explained':>12}{'off by':>8}")
        for size, p in curve:
            p["explained"] = rates @ [p["operations"], p["parameters"], 1]
            each, told = (1e6 * p[key] / p["words"] for key in ("seconds", "explained"))
            print(f"{size:26,}{each:12.1f}{told:12.1f}{each / told - 1:8.0%}")
    if options.out:
        draw(curves, options.out)


def draw(curves: dict, path: Path) -> None:
    """One panel for each curve, measured and explained."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        sizes = [size for size, _ in curve]
        for key, style in (("explained", "-"), ("seconds", "o")):
            each = [1e6 * p[key] / p["words"] for _, p in curve]
            label = "measured" if key == "seconds" else "explained by operations"
            axes.plot(sizes, each, style, color="#c8553d" if key == "seconds" else "#8ab4d8",
                      label=label)  # fmt: skip
        top = 1.15 * max(1e6 * p["seconds"] / p["words"] for _, p in curve)
        axes.set(xscale="log", xlabel=name, ylim=(0, top), ylabel="microseconds a word")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        axes.minorticks_off()
        axes.grid(color="#dddddd")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
