"""Figures of a trained model, by default that of `minicap train`."""

import json
import math
from functools import cache
from pathlib import Path

import numpy
from picture import Axes, Picture

from minicap.data.captions import read_captions
from minicap.data.dataset import shipped_scenes
from minicap.data.features import read_features
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import load_scenes
from minicap.data.vocabulary import tokenise
from minicap.evaluation.scene_truth import truths
from minicap.generation.generate import generate_text
from minicap.model.decoder import split_lstm
from minicap.model.trained_model import Model
from minicap.nn.dense import affine
from minicap.nn.lstm import FORGET_BIAS

ROOT = Path(__file__).parents[2]


@cache
def load(path: Path | None) -> tuple[Model, list[dict]]:
    """Load the model at `path` and its run's metrics. By default it is that of build/docs, which is
    trained if it is not there."""
    import blocks

    path = path or blocks.train(ROOT / "build/docs") / "scenes/model.safetensors"
    lines = (path.parent / "metrics.jsonl").read_text().splitlines()
    return Model.load(path), [json.loads(line) for line in lines]


def features_of(model: Model, names: list[str]) -> numpy.ndarray:
    """The features of shipped scenes, as the encoder returns them."""
    features = read_features(shipped_scenes() / "features.npz")
    rows = [features.names.index(name) for name in names]
    return features.array[rows]


def example(model: Model):
    """Features, drawing, caption and name of the first test scene that gets a true caption of seven
    to nine words."""
    scenes = load_scenes(shipped_scenes() / "scenes.jsonl.gz")
    names = (shipped_scenes() / "test.txt").read_text().split()
    features = features_of(model, names)
    captions = generate_text([model], features)
    for row, true in enumerate(truths(captions, [scenes[name] for name in names])):
        if true and 7 <= len(captions[row].split()) <= 9:
            return features[[row]], paint(scenes[names[row]]), captions[row], names[row]
    raise LookupError("not one caption is true")


def sigmoid(z):
    """The sigmoid of a number or an array."""
    return numpy.tanh(z / 2) / 2 + 0.5


def step(model: Model, state, word: int):
    """The probabilities of the next word (V,), the gates by name, and the new state."""
    decoder, p = model.decoder, model.decoder.parameters
    h, c, *image = state
    _, U, Wb, _ = split_lstm(decoder.config, p["lstm"])
    z = affine(p["word_embed"][[word]], Wb) + h @ U + sum(image)
    i, j, f, o = numpy.split(z, 4, axis=1)
    i, j, f, o = sigmoid(i), numpy.tanh(j), sigmoid(f + FORGET_BIAS), sigmoid(o)
    c = f * c + i * j
    h = o * numpy.tanh(c)
    y, _ = decoder.dense_layers(decoder.config.output_layers, h)
    logits = affine(y, p["token_logits"])[0]
    e = numpy.exp(logits - logits.max())
    return e / e.sum(), {"i": i[0], "f": f[0], "o": o[0], "c": c[0]}, (h, c, *image)


def steps_of(model: Model, features: numpy.ndarray, caption: str):
    """The word read, the probabilities of the next one, and the gates, along a caption."""
    state = model.decoder.initial_state(model.scaling(features))
    for word in ["#START#", *caption.split()]:
        probabilities, gates, state = step(model, state, model.vocabulary.ids[word])
        yield word, probabilities, gates


def one_minute(model: Model, history: list[dict]) -> Picture:
    """A scene, its features, and the likeliest next words at every step."""
    features, image, caption, name = example(model)
    steps = list(steps_of(model, features, caption))
    p = Picture(840, 412, f"From an image to its caption, word by word: {caption}")
    p.photo(20, 20, 150, image)
    p.line([(176, 95), (206, 95)], arrow=True)
    p.box(210, 65, 110, 60, "InceptionV3", size=14)
    p.line([(322, 95), (352, 95)], arrow=True)
    numbers = model.scaling(features)[0]
    scale = numpy.abs(numbers[:160]).max()
    for k, value in enumerate(numbers[:160]):
        x, y = 358 + k % 40 * 6, 71 + k // 40 * 12
        colour = "blue" if value > 0 else "red"
        p.box(
            x, y, 5, 11, "", fill=colour, border=0, round=1, opacity=0.08 + 0.9 * abs(value) / scale
        )
    p.text(478, 134, "some of the features", 12, "soft")
    p.line([(602, 95), (632, 95)], arrow=True)
    p.box(636, 65, 180, 60, "LSTM\nstarts here", "gold", size=14)
    top, width = 230, 800 / len(steps)
    p.line(
        [(726, 128), (726, 182), (20 + width / 2, 182), (20 + width / 2, top - 32)],
        "gold",
        arrow=True,
    )
    for k, (word, probabilities, _) in enumerate(steps):
        x = 20 + k * width
        p.box(x + 4, top - 28, width - 8, 32, word, "gold", size=12, style="mono")
        best = numpy.argsort(-probabilities)[:4]
        for row, number in enumerate(best):
            y = top + 26 + row * 30
            probability = float(probabilities[number])
            p.box(
                x + 4,
                y,
                max(1, (width - 8) * probability),
                20,
                "",
                fill="blue",
                border=0,
                round=2,
                opacity=0.35,
            )
            style = "mono bold" if row == 0 else "mono"
            p.text(x + 7, y + 10, model.vocabulary.words[number], 11, "ink", "start", style)
    p.text(
        24,
        top + 158,
        "Bars: probability of the next word. The most probable one (bold) is fed back.",
        13,
        "soft",
        "start",
    )
    return p


def loss_curve(model: Model, history: list[dict]) -> Picture:
    """Train and dev loss of the run that made the model."""
    p = Picture(
        760, 340, "Training loss and dev loss, epoch by epoch, and that of an untrained model"
    )
    last = history[-1]["epoch"]
    untrained = math.log(len(model.vocabulary))
    axes = Axes(p, (60, 34, 640, 240), (0, last), (0, 6))
    axes.ticks(range(last + 1), range(7))
    axes.curve([0, last], [untrained, untrained], "soft", 1.5, "5 4")
    x, y = axes.at(last, untrained)
    p.text(x - 6, y - 12, f"log V = {untrained:.2f}: untrained", 14, "soft", "end")
    epochs = [0, *(line["epoch"] for line in history)]
    for key, colour, words, dy in (
        ("train_loss", "blue", "training", -16),
        ("dev_loss", "red", "dev", 18),
    ):
        ys = [untrained, *(line[key] for line in history)]
        axes.curve(epochs, ys, colour)
        axes.dots(epochs, ys, colour, 3.5)
        x, y = axes.at(1, ys[1])
        p.text(x + 8, y + dy, f"{words} {ys[1]:.2f}", 14, colour, "start", "bold")
        x, y = axes.at(last, ys[-1])
        p.text(x - 6, y + dy, f"{ys[-1]:.2f}", 14, colour, "end", "bold")
    p.text(380, 318, "epoch", 14, "soft")
    p.text(60, 14, "loss in nats per word", 14, "soft", "start")
    return p


def beam_tree(model: Model, history: list[dict]) -> Picture:
    """A beam search of width three: the three best extensions of each hypothesis, and the three
    best of all that are kept."""
    features, _, _, name = example(model)
    v, width, depth, shown = model.vocabulary, 3, 5, 3
    banned = [v.pad, v.unk, v.start]
    # A hypothesis: its log-probability, words, state, and place in the figure.
    start_state = model.decoder.initial_state(model.scaling(features))
    beam = [(0.0, [v.start], start_state, (20.0, 180.0))]
    p = Picture(850, 380, f"A beam search of width three for {name}, its first {depth} steps")
    column, row, box = 146, 30, 114
    p.box(8, 167, 84, 26, "#START#", "gold", size=12, style="mono")
    for t in range(depth):
        candidates = []
        for score, words, state, place in beam:
            if words[-1] == v.end:
                candidates.append((score, words, state, place))
                continue
            probabilities, _, new = step(model, state, words[-1])
            probabilities[banned] = 0
            for word in numpy.argsort(-probabilities)[:shown]:
                log_probability = math.log(probabilities[word])
                candidates.append((score + log_probability, [*words, int(word)], new, place))
        candidates.sort(key=lambda item: -item[0])
        kept = candidates[:width]
        beam, x = [], 20 + 100 + t * column
        by_place = sorted(candidates, key=lambda item: (item[3][1], -item[0]))
        top = 180 - (len(by_place) - 1) * row / 2 - 4
        for k, candidate in enumerate(by_place):
            score, words, state, place = candidate
            y = top + k * row + 2
            stays = any(candidate is other for other in kept)
            colour = "green" if stays else "pale"
            start = (place[0] + (72 if t == 0 else box - 0), place[1])
            p.line([start, (x - 2, y)], colour, 2 if stays else 1)
            word = v.words[words[-1]]
            p.box(x, y - 12, box, 24, "", colour, "shade" if stays else "paper", round=4)
            ink = "ink" if stays else "soft"
            p.text(x + 7, y, word, 11.5, ink, "start", "mono bold" if stays else "mono")
            p.text(x + box - 6, y, f"{score:.1f}", 10.5, ink, "end")
            if stays:
                beam.append((score, words, state, (x, y)))
    words = "Number: log-probability of the caption so far. Green: the three best at each step."
    p.text(20, 358, words, 13, "soft", "start")
    return p


def gates(model: Model, history: list[dict]) -> Picture:
    """The gates and the value of four chosen cells along a caption."""
    features, _, caption, _ = example(model)
    steps = list(steps_of(model, features, caption))
    i, f, o, c = (numpy.array([values[name] for *_, values in steps]) for name in "ifoc")
    c0 = model.decoder.initial_state(model.scaling(features))[1][0]
    before = numpy.vstack([c0, c[:-1]])
    lost = numpy.abs(before) * (1 - f)
    size = numpy.abs(c).max(axis=0)
    chosen = [  # the cell that shows most clearly what each title says
        ("keeps the image", int(numpy.argmax(f.min(axis=0) * numpy.abs(c0)))),
        ("forgets the image at once", int(numpy.argmax(numpy.abs(c0) * (1 - f[0]) ** 2))),
        ("forgets at one word", int(numpy.argmax(2 * lost[1:-1].max(axis=0) - lost.sum(axis=0)))),
        (
            "is kept, and shown late",
            int(numpy.argmax((o[-3:].mean(axis=0) - o[:3].mean(axis=0)) * size)),
        ),
    ]
    p = Picture(800, 500, f"Four cells along the caption “{caption}”")
    wide = 318 / len(steps)
    for number, (title, cell) in enumerate(chosen):
        left, top = 62 + number % 2 * 394, 46 + number // 2 * 212
        p.text(left, top - 18, f"Cell {cell} {title}", 14, anchor="start", style="bold")
        for row, (name, values) in enumerate(zip("ifoc", (i, f, o, c))):
            p.text(left - 12, top + 13 + row * 30, name, 15, style="italic")
            for k, value in enumerate(map(float, values[:, cell])):
                colour = "blue" if value >= 0 else "red"
                strength = min(abs(value) / (2 if name == "c" else 1), 1)
                at = left + k * wide, top + row * 30, wide - 2, 27
                p.box(*at, "", fill=colour, border=0, round=2, opacity=max(0.85 * strength, 0.03))
                p.text(at[0] + wide / 2 - 1, at[1] + 14, f"{value:.1f}".replace("-", "−"), 11)
        for k, (word, *_) in enumerate(steps):
            p.turned(left + (k + 0.6) * wide, top + 130, word, -40, 11, "soft", "end", "mono")
    p.text(62, 478, "Gates i, f, o:", 13, "soft", "start")
    for k in range(6):
        p.box(
            150 + k * 34,
            466,
            32,
            24,
            f"{k / 5:.1f}",
            fill="blue",
            border=0,
            size=11,
            opacity=max(0.17 * k, 0.03),
        )
    p.text(400, 478, "cell state c:", 13, "soft", "start")
    for k in range(-4, 5):
        value = k / 2
        colour = "blue" if value >= 0 else "red"
        p.box(
            630 + k * 34,
            466,
            32,
            24,
            f"{value:.1f}".replace("-", "−"),
            fill=colour,
            border=0,
            size=11,
            opacity=max(0.425 * abs(value), 0.03),
        )
    return p


def kept(model: Model, history: list[dict]) -> Picture:
    """What is left of the first cell, the product of forget gates, over all test captions."""
    names = (shipped_scenes() / "test.txt").read_text().split()
    features, longest = features_of(model, names), 12
    products: list[list[numpy.ndarray]] = [[] for _ in range(longest + 1)]
    for row, caption in enumerate(generate_text([model], features)):
        left = numpy.ones(model.decoder.config.hidden_size)
        products[0].append(left)
        for t, (_, _, gates) in enumerate(steps_of(model, features[[row]], caption), 1):
            left = left * gates["f"]
            if t <= longest:
                products[t].append(left)
    p = Picture(760, 330, "The fraction of the first cell state that is left after each word")
    axes = Axes(p, (60, 30, 560, 240), (0, longest), (0, 1))
    axes.ticks(range(longest + 1), [0, 0.25, 0.5, 0.75, 1])
    steps = range(longest + 1)
    last = 40.0
    for level, colour in (0.98, "green"), (0.9, "blue"), (0.5, "violet"), (0.1, "red"):
        ys = [float(numpy.quantile(numpy.concatenate(some), level)) for some in products]
        axes.curve(steps, ys, colour)
        y = max(axes.at(0, ys[-1])[1], last)
        last = y + 18
        p.text(628, y, f"{level:.0%} of cells: less", 13, colour, "start")
    axes.curve(steps, [sigmoid(FORGET_BIAS) ** t for t in steps], "soft", 1.5, "4 4")
    p.text(280, 212, "untrained", 13, "soft")
    p.text(340, 308, "words read", 14, "soft")
    p.text(60, 14, "fraction of c₀ that is left", 13, "soft", "start")
    return p


def self_critical(model: Model, history: list[dict]) -> Picture:
    """Sixty sampled captions of one scene: the fraction of each one's words that the scene's
    references use, next to that of the greedy caption."""
    v, rng = model.vocabulary, numpy.random.default_rng(0)
    names = (shipped_scenes() / "test.txt").read_text().split()
    texts = read_captions(shipped_scenes() / "captions.txt.gz").texts

    def reward(words: list[str], name: str) -> float:
        known = {word for text in texts[name] for word in tokenise(text)}
        return sum(word in known for word in words) / max(len(words), 1)

    every = features_of(model, names)
    captions = generate_text([model], every)
    found = [reward(caption.split(), name) for caption, name in zip(captions, names)]
    row = next(row for row, value in enumerate(found) if 0.6 < value < 0.8)  # neither good nor bad
    features, name, base = every[[row]], names[row], found[row]

    def sample() -> list[str]:
        state = model.decoder.initial_state(model.scaling(features))
        word, words = v.start, []
        for _ in range(model.max_length):
            probabilities, _, state = step(model, state, word)
            exact = probabilities.astype(float)
            word = int(rng.choice(len(v), p=exact / exact.sum()))
            if word == v.end:
                break
            words.append(v.words[word])
        return words

    rewards = sorted(reward(sample(), name) for _ in range(60))
    p = Picture(760, 310, "Rewards of sixty sampled captions, compared with the greedy caption's")
    axes = Axes(p, (60, 34, 670, 210), (-1, 60), (0, 1))
    axes.ticks([], [0, 0.25, 0.5, 0.75, 1])
    for k, value in enumerate(rewards):
        x, y = axes.at(k, value)
        _, zero = axes.at(k, base)
        colour = "green" if value >= base else "red"
        p.line([(x, zero), (x, y)], colour, 5)
        p.dot(x, y, 3.4, colour)
    p.line([axes.at(-1, base), axes.at(60, base)], "ink", 1.5)
    left, line = axes.at(0, base)
    p.text(left, line - 12, "greedy caption (baseline)", 14, "ink", "start")
    p.text(left, line - 40, "better: made more probable", 14, "green", "start")
    p.text(720, line + 22, "worse: made less probable", 14, "red", "end")
    p.text(395, 266, "sixty sampled captions, sorted by reward", 14, "soft")
    words = "reward: the fraction of the caption's words that occur in a reference"
    p.text(60, 14, words, 14, "soft", "start")
    p.text(395, 290, f"scene: {name}", 12, "soft")
    return p


FIGURES = {f.__name__: f for f in (one_minute, loss_curve, beam_tree, self_critical, gates, kept)}
