"""Measure the cost per word as batches, the vocabulary and the data grow, and model it.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/cost_curves.py [--threads 2]
        [--out docs/images/cost.png]

The original notebook's decoder with 2,048 features, and captions like COCO's. The time of a step is
modelled as a x (operations of the matrix products) + b x (parameters) + c, fitted to all points
(least relative squares). Prints each point and its deviation from the model. The plot needs
matplotlib.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).parent))
import training_step
from training_step import WORKS, make_batches, new_trainer, operations

from minicap.data.batches import pack

WIDTHS = (2048, 120, 300, 100, 120)
BATCHES = (16, 32, 64, 128, 256, 512)
VOCABULARIES = (1000, 2500, 5000, 8769, 16000, 32000)
DATA = (4, 16, 64, 256)  # number of different batches of 64


def measure(vocabulary: int, batch: int, threads: int, count: int) -> dict:
    """Measure a step: seconds, words, operations and parameters.

    The time is the median over `count` batches, and the minimum of three passes over them, because
    a shared machine is slow at times.
    """
    training_step.WORKS["curve"] = (vocabulary, batch, WIDTHS)
    batches = make_batches("curve", count)
    packed = [pack(*each) for each in batches]
    trainer = new_trainer("curve", threads)
    passes = []
    for number in range(4):  # the first is a warm-up
        seconds = []
        for each in packed:
            start = time.perf_counter()
            trainer.train_step(each)
            seconds.append(time.perf_counter() - start)
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
    inputs = numpy.array([[p["operations"], p["parameters"], 1] for p in points])
    seconds = numpy.array([p["seconds"] for p in points])
    rates = numpy.linalg.lstsq(inputs / seconds[:, None], numpy.ones(len(points)), rcond=None)[0]
    speed, each, constant = 1e-9 / rates[0], rates[1] * 1e9, rates[2] * 1e3
    print(f"{speed:.0f} GFLOP/s, {each:.2f} ns per parameter, {constant:.1f} ms per step")
    for name, curve in curves.items():
        print(f"{name:26}{'us per word':>12}{'model':>12}{'deviation':>11}")
        for size, p in curve:
            p["model"] = rates @ [p["operations"], p["parameters"], 1]
            each, model = (1e6 * p[key] / p["words"] for key in ("seconds", "model"))
            print(f"{size:26,}{each:12.1f}{model:12.1f}{each / model - 1:11.0%}")
    if options.out:
        draw(curves, options.out)


def draw(curves: dict, path: Path) -> None:
    """Plot one panel for each curve, measured and modelled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        sizes = [size for size, _ in curve]
        for key, style in (("model", "-"), ("seconds", "o")):
            each = [1e6 * p[key] / p["words"] for _, p in curve]
            label = "measured" if key == "seconds" else "modelled from operations"
            axes.plot(sizes, each, style, color="#c8553d" if key == "seconds" else "#8ab4d8",
                      label=label)  # fmt: skip
        top = 1.15 * max(1e6 * p["seconds"] / p["words"] for _, p in curve)
        axes.set(xscale="log", xlabel=name, ylim=(0, top), ylabel="microseconds per word")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        axes.minorticks_off()
        axes.grid(color="#dddddd")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
