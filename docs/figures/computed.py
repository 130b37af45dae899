"""Figures of computed numbers: the code runs, and its results are drawn."""

from collections import Counter

import numpy
from picture import Axes, Picture, power

from minicap.data.captions import read_captions
from minicap.data.dataset import shipped_scenes
from minicap.data.vocabulary import tokenise
from minicap.nn.adam import Adam
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import elu
from minicap.nn.gradient_cases import layer_cases
from minicap.nn.gradient_check import as_loss, gradients_of
from minicap.nn.lstm import lstm_step


def curves() -> Picture:
    """The ELU with its slope, and the sigmoid and tanh."""
    p = Picture(760, 260, "ELU with its slope; sigmoid and tanh")
    z = numpy.linspace(-4, 3, 141)
    y, backward = elu(z)
    axes = Axes(p, (50, 30, 300, 180), (-4, 3), (-1.5, 3))
    axes.ticks([-4, -2, 0, 2], [-1, 0, 1, 2, 3])
    axes.curve(z, y, "blue")
    axes.curve(z, backward(numpy.ones_like(z)), "red", dash="5 4")
    p.text(300, 60, "ELU(z)", 14, "blue", "end")
    p.text(150, 130, "its slope", 14, "red")
    x = numpy.linspace(-5, 5, 201)
    axes = Axes(p, (430, 30, 300, 180), (-5, 5), (-1.2, 1.2))
    axes.ticks([-4, -2, 0, 2, 4], [-1, 0, 1])
    axes.curve(x, 1 / (1 + numpy.exp(-x)), "green")
    axes.curve(x, numpy.tanh(x), "violet")
    p.text(490, 92, "σ(z)", 14, "green")
    p.text(640, 178, "tanh(z)", 14, "violet")
    p.text(200, 242, "z", 13, "soft", style="italic")
    p.text(580, 242, "z", 13, "soft", style="italic")
    return p


def loss() -> Picture:
    """Logits, probabilities and the gradient of the logits, for one word of a small vocabulary."""
    words = ["#END#", "a", "boat", "boats", "red", "sea", "two"]
    logits = numpy.array([[0.2, -0.6, 2.1, 2.9, 0.4, 1.2, -1.5]])
    target = 2
    Wb = numpy.vstack([numpy.zeros((1, 7)), logits])  # the bias alone makes these logits
    value, backward = project_cross_entropy(numpy.zeros((1, 1)), Wb, numpy.array([target]), None, 1)
    gradient = backward()[1][-1]
    P = gradient + (numpy.arange(7) == target)
    p = Picture(760, 300, "Logits, their softmax, and the gradient that comes back")
    for left, title, values, low, high, colour in (
        (90, "logits a", logits[0], -2, 4, "blue"),
        (330, "softmax p", P, 0, 1, "green"),
        (570, "gradient p − [target]", gradient, -1, 1, "red"),
    ):
        p.text(left + 80, 24, title, 14, colour, style="bold")
        zero = left + 160 * (0 - low) / (high - low)
        p.line([(zero, 42), (zero, 256)], "soft", 1)
        for row, x in enumerate(values):
            y = 46 + row * 30
            end = left + 160 * (x - low) / (high - low)
            p.box(
                min(zero, end),
                y,
                max(abs(end - zero), 0.8),
                20,
                "",
                fill=colour,
                border=0,
                round=2,
                opacity=0.6,
            )
            side = end + 6 if x >= 0 else zero + 6
            p.text(side, y + 10, f"{x:.2f}", 11, "ink", "start")
            if left == 90:
                chosen = row == target
                p.text(
                    left - 10 if chosen else left - 10,
                    y + 10,
                    words[row],
                    13,
                    "ink",
                    "end",
                    "mono bold" if chosen else "mono",
                )
    p.text(
        380,
        280,
        f"The target is “boat”: loss = −log {P[target]:.3f} = {float(value):.2f} nats",
        13,
        "soft",
    )
    return p


def bleu() -> Picture:
    """Which n-grams of a caption count towards BLEU, for the first of the shipped scenes."""
    candidate = tokenise("two big blue boats on the water")
    texts = read_captions(shipped_scenes() / "captions.txt.gz").texts["scene_00001.png"]
    references = [tokenise(text) for text in texts]

    def ngrams(words: list[str], n: int) -> Counter:
        return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))

    p = Picture(790, 360, "N-grams of one to four words that a caption shares with its references")
    step, top = 96, 52
    for k, word in enumerate(candidate):
        p.text(60 + k * step + step / 2, 30, word, 16, style="mono")
    for n in 1, 2, 3, 4:
        there: Counter = Counter()
        for reference in references:
            there |= ngrams(reference, n)
        correct, used = 0, Counter()
        for k in range(len(candidate) - n + 1):
            gram = tuple(candidate[k : k + n])
            used[gram] += 1
            hit = used[gram] <= there[gram]
            correct += hit
            x, row = 60 + k * step + 6, top + k % n * 22
            colour = "green" if hit else "pale"
            p.box(x, row, n * step - 12, 18, "", colour, "green" if hit else "paper", opacity=0.3)
        middle = top + n * 11 - 2
        p.text(30, middle, f"n = {n}", 13, "soft")
        p.text(776, middle, f"{correct}/{len(candidate) - n + 1}", 14, "ink", "end", "bold")
        top += n * 22 + 14
    p.text(60, top + 8, "Green: the n-gram also occurs in a reference.", 13, "soft", "start")
    return p


def gradient_error() -> Picture:
    """The error of three numerical derivatives of an LSTM against the step size. The reference is
    the hand-written gradient."""
    rng = numpy.random.default_rng(0)
    layer, inputs = layer_cases(rng)["lstm"]
    loss = as_loss(layer, inputs, rng)
    gradient = gradients_of(loss, inputs)["h0"]
    direction = rng.standard_normal(gradient.shape)
    products = gradient * direction
    truth, size = products.sum(), numpy.abs(products).sum()

    def along(step):
        return loss({**inputs, "h0": inputs["h0"] + step * direction})[0]

    def error(derivative):
        return max(float(abs(derivative - truth) / size), 1e-17)

    steps = 10.0 ** numpy.arange(-18, -0.4, 0.25)
    central = [error((along(h) - along(-h)) / (2 * h)) for h in steps]
    one_sided = [error((along(h) - along(0)) / h) for h in steps]
    imaginary = [error(numpy.imag(along(1j * h)) / h) for h in steps]
    p = Picture(760, 376, "Relative error of three numerical derivatives against the step size")
    axes = Axes(p, (80, 30, 640, 280), (1e-18, 1), (1e-17, 10), "xy")
    axes.ticks([10.0**k for k in range(-18, 1, 3)], [10.0**k for k in range(-16, 1, 4)], power)
    for ys, colour, dash in (
        (one_sided, "gold", ""),
        (imaginary, "blue", ""),
        (central, "red", "6 5"),
    ):
        axes.curve(steps, ys, colour, 3 if colour == "blue" else 2, dash)
    p.text(672, 100, "forward", 14, "gold", "start", "bold")
    p.text(672, 116, "difference", 14, "gold", "start", "bold")
    p.text(400, 130, "central difference", 14, "red", "middle", "bold")
    p.text(250, 272, "complex step", 14, "blue", "middle", "bold")
    p.text(604, 250, "on the right, central", 13, "soft", "start")
    p.text(604, 266, "and complex coincide", 13, "soft", "start")
    p.text(400, 352, "step size δ", 14, "soft")
    p.text(80, 16, "relative error of the derivative", 14, "soft", "start")
    return p


def adam_path() -> Picture:
    """Gradient descent and Adam in a valley that is fifty times as steep across as along."""

    def slope(x):
        return numpy.array([x[0], 50 * x[1]])

    start = numpy.array([-4.0, 0.9])
    descent = [start.copy()]
    for _ in range(60):
        descent.append(descent[-1] - 0.036 * slope(descent[-1]))
    x = start.copy()
    adam, path = Adam(x, learning_rate=0.25), [x.copy()]
    for _ in range(60):
        adam.step(slope(x))
        path.append(x.copy())
    p = Picture(760, 300, "Sixty steps of plain gradient descent and of Adam in a narrow valley")
    axes = Axes(p, (50, 30, 660, 210), (-4.6, 4.6), (-1.2, 1.2))
    axes.ticks([-4, -2, 0, 2, 4], [-1, 0, 1])
    angles = numpy.linspace(0, 2 * numpy.pi, 121)
    for radius in 1, 2, 3, 4:
        axes.curve(radius * numpy.cos(angles), radius / 50**0.5 * numpy.sin(angles), "soft", 0.8)
    for points, colour in (descent, "red"), (path, "blue"):
        xs, ys = zip(*points)
        axes.curve(xs, ys, colour, 1.4)
        axes.dots(xs, ys, colour, 2.2)
    p.text(130, 60, "gradient descent", 14, "red", "start")
    p.text(250, 190, "Adam", 14, "blue")
    return p


def memory() -> Picture:
    """The norm of the gradient after t steps of backpropagation through time, in a plain recurrent
    network and in minicap's LSTM: the mean of twenty runs."""
    rng = numpy.random.default_rng(0)
    steps, H, runs = 30, 64, 20

    def plain(scale):
        lengths = numpy.zeros(steps)
        for _ in range(runs):
            U = scale * rng.standard_normal((H, H)) / H**0.5
            h, slopes = rng.standard_normal(H), []
            for _ in range(steps):
                h = numpy.tanh(h @ U + 0.5 * rng.standard_normal(H))
                slopes.append(1 - h * h)
            for last in range(steps):
                d = rng.standard_normal(H) / H**0.5
                for t in range(last, -1, -1):
                    d = (d * slopes[t]) @ U.T
                lengths[last] += numpy.linalg.norm(d) / runs
        return lengths

    def cell(bias):
        lengths = numpy.zeros(steps)
        for _ in range(runs):
            U = 0.05 * rng.standard_normal((H, 4 * H)) / H**0.5
            zx = 0.5 * rng.standard_normal((steps, 4 * H))
            zx[:, 2 * H : 3 * H] += bias - 1
            c0 = rng.standard_normal((1, H))
            for last in range(steps):
                c, back = c0, []
                h = numpy.tanh(c)
                for t in range(last + 1):
                    h, c, backward = lstm_step(zx[[t]] + h @ U, c)
                    back.append(backward)
                dc = rng.standard_normal((1, H)) / H**0.5
                dh = numpy.zeros((1, H))
                for t in range(last, -1, -1):
                    dz, dc = back[t](dh, dc)
                    dh = dz @ U.T
                lengths[last] += numpy.linalg.norm(dc) / runs
        return lengths

    p = Picture(
        760,
        360,
        "The norm of a gradient after t steps back, in plain recurrent networks and in LSTMs",
    )
    axes = Axes(p, (70, 34, 500, 260), (1, steps), (1e-9, 1e3), "y")
    axes.ticks([1, 5, 10, 15, 20, 25, 30])
    axes.ticks([], [10.0**k for k in range(-9, 4, 2)], power)
    t = numpy.arange(1, steps + 1)
    for ys, colour, words in (
        (plain(0.7), "red", "plain, small weights"),
        (plain(2.2), "gold", "plain, large weights"),
        (cell(0), "violet", "LSTM, forget bias 0"),
        (cell(1), "blue", "LSTM, forget bias 1"),
        (cell(5), "green", "LSTM, open forget gate"),
    ):
        axes.curve(t, numpy.maximum(ys, 1e-9), colour)
        p.text(578, axes.at(1, max(ys[-1], 1e-9))[1], words, 13, colour, "start")
    p.text(320, 336, "steps back", 14, "soft")
    p.text(70, 16, "norm of the gradient (1 at the start)", 14, "soft", "start")
    x, y = axes.at(13, 2e-7)
    p.text(x - 6, y + 26, "σ(0) = ½ per step", 13, "violet", "end")
    return p


FIGURES = {f.__name__: f for f in (curves, memory, loss, bleu, gradient_error, adam_path)}
