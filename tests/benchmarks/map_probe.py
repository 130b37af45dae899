"""What can be read from feature maps that their mean does not tell?

    python tests/benchmarks/map_probe.py --maps STORE --captions FILE --train-split FILE
        --dev-split FILE [--words 400]

Fits a linear probe (ridge regression) on train that predicts, for each of the most frequent caption
words but the first 40, whether it occurs in an image's captions. Prints the mean average precision
on dev for the mean over all positions, and for the mean together with other summaries of the map.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy

from minicap.data.captions import read_captions, read_names
from minicap.data.features import read_features
from minicap.data.vocabulary import tokenise

COMMON = 40  # the most frequent words are in nearly all captions
PENALTIES = 1e3, 3e3, 1e4, 3e4  # of the ridge regression; the best one on dev is used for each


def summaries(maps: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Summarise maps (P, L, A) in different ways, (P, ...) each."""
    side = round(maps.shape[1] ** 0.5)
    middle = slice(side // 4, side - side // 4)
    squares = maps.reshape(len(maps), side, side, -1)
    found = {"mean": maps.mean(axis=1)}
    others = {
        "standard deviation": maps.std(axis=1),
        "maximum and minimum": numpy.hstack([maps.max(axis=1), maps.min(axis=1)]),
        "mean of the centre": squares[:, middle, middle].mean(axis=(1, 2)),
    }
    mean = found["mean"]
    return found | {f"mean, {name}": numpy.hstack([mean, x]) for name, x in others.items()}


def average_precision(scores: numpy.ndarray, present: numpy.ndarray) -> float:
    """The mean average precision of scores (P, W) for booleans (P, W)."""
    ranked = numpy.take_along_axis(present, numpy.argsort(-scores, axis=0), axis=0)
    precision = ranked.cumsum(axis=0) / numpy.arange(1, len(ranked) + 1)[:, None]
    some = ranked.any(axis=0)
    return float(((precision * ranked).sum(axis=0)[some] / ranked.sum(axis=0)[some]).mean())


def probe(train: tuple, dev: tuple) -> float:
    """Fit on train, a pair of features and booleans, and score on dev."""
    (x, y), (x_dev, y_dev) = train, dev
    mean, deviation, rate = x.mean(axis=0), x.std(axis=0) + 1e-6, y.mean(axis=0)
    x, x_dev = (x - mean) / deviation, (x_dev - mean) / deviation
    products, right = (x.T @ x).astype(float), x.T @ (y - rate)
    weights = [
        numpy.linalg.solve(products + size * numpy.eye(len(products)), right) for size in PENALTIES
    ]
    return max(average_precision(x_dev @ W, y_dev) for W in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--train-split", type=Path, required=True)
    parser.add_argument("--dev-split", type=Path, required=True)
    parser.add_argument("--words", type=int, default=400)
    options = parser.parse_args()
    captions = read_captions(options.captions).texts
    said = {name: set(tokenise(" ".join(texts))) for name, texts in captions.items()}
    stored = read_features(options.maps)
    place = {name: row for row, name in enumerate(stored.names)}
    splits = [read_names(path) for path in (options.train_split, options.dev_split)]
    counts = Counter(word for name in splits[0] for word in said[name])
    words = [word for word, _ in counts.most_common(COMMON + options.words)][COMMON:]
    assert stored.encoder
    pairs = []
    for names in splits:
        parts: dict[str, list] = {}
        for start in range(0, len(names), 500):
            rows = [place[name] for name in names[start : start + 500]]
            array = numpy.asarray(stored.array[rows], "float32")
            maps = array.reshape(len(rows), stored.encoder["positions"], -1)
            for name, found in summaries(maps).items():
                parts.setdefault(name, []).append(found)
        y = numpy.array([[word in said[name] for word in words] for name in names], "float32")
        pairs.append(({name: numpy.concatenate(part) for name, part in parts.items()}, y))
    (train, y), (dev, y_dev) = pairs
    for name in train:
        score = probe((train[name], y), (dev[name], y_dev))
        print(f"{name:28} {100 * score:.1f}", flush=True)


if __name__ == "__main__":
    main()
