"""Drawings for a page: their colours, light or dark, come from its style sheet."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from minicap.evaluation.html import Html, tag, together

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 230, 40, 14, 12, 32
LOSS = "Loss in nats per word, by epoch"
BIN, BINS = 10, 16  # of the histogram; the last has all above


def style_sheet() -> Html:
    """The colours and sizes of pages and drawings."""
    return Html((Path(__file__).parent / "html_report.css").read_text(encoding="utf-8"))


def drawing(title: str, shapes: Iterable, **attributes: str) -> Html:
    """Shapes in the common frame."""
    frame = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", shapes, view_box=frame, role="img", aria_label=title, **attributes)


def document(title: str, shapes: Html) -> str:
    """A drawing as a file of its own."""
    name_space = "http://www.w3.org/2000/svg"
    return drawing(title, [tag("style", style_sheet()), shapes], xmlns=name_space) + "\n"


def figure(title: str, shapes: Iterable) -> Html:
    """A drawing on a page, under its title."""
    return tag("figure", tag("figcaption", title), drawing(title, shapes))


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within [low, high], `about` so many of them."""
    raw = max(high - low, 1e-9) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Html:
    """From one point to another."""
    ends = {
        name: round(value, 1) for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2))
    }
    return tag("line", **ends, **attributes)


def label(text: str, x: float, y: float, anchor: str = "middle") -> Html:
    """Words, or a number."""
    return tag("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def level(text: str, y: float) -> list[Html]:
    """A line across at height y, and what it stands for."""
    return [line(LEFT, y, WIDTH - RIGHT, y, class_="grid"), label(text, LEFT - 6, y + 4, "end")]


def loss_curves(history: Sequence[dict]) -> Html:
    """The shapes of both loss curves: train and dev loss against epochs, one or more."""
    losses = [epoch[key] for epoch in history for key in ("train_loss", "dev_loss")]
    margin = 0.05 * (max(losses) - min(losses)) + 1e-6
    low, high = min(losses) - margin, max(losses) + margin
    first, last = history[0]["epoch"], history[-1]["epoch"]

    def at(epoch: float, loss: float) -> tuple[float, float]:
        x = LEFT + (epoch - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    shapes: list = [level(f"{loss:.4g}", at(first, loss)[1]) for loss in ticks(low, high)]
    for epoch in ticks(first, last, 6):
        if epoch == int(epoch):
            shapes.append(label(f"{epoch:.0f}", at(epoch, low)[0], HEIGHT - 14))
    best = min(history, key=lambda epoch: epoch["dev_loss"])
    names = {"train_loss": "train", "dev_loss": f"dev, best {best['dev_loss']:.3f}"}
    for place, (key, name) in enumerate(names.items()):
        colour, y = ("cool", "warm")[place], TOP + 14.0 + 18 * place
        points = " ".join("{},{}".format(*at(epoch["epoch"], epoch[key])) for epoch in history)
        shapes.append(tag("polyline", points=points, class_=colour))
        shapes.append(line(WIDTH - 146, y - 4, WIDTH - 126, y - 4, stroke_width=2.5, class_=colour))
        shapes.append(label(name, WIDTH - 120, y, "start"))
    x, y = at(best["epoch"], best["dev_loss"])
    shapes.append(tag("circle", cx=x, cy=y, r=4, class_="warm"))
    return together(shapes)


def histogram(cider: Sequence[float]) -> Html:
    """How many pictures have which CIDEr, times 100."""
    counts = [0] * BINS
    for score in cider:
        counts[min(BINS - 1, int(100 * score / BIN))] += 1
    wide, floor = (WIDTH - LEFT - RIGHT) / BINS, HEIGHT - BOTTOM
    scale = (floor - TOP) / max(counts)
    marks = [count for count in ticks(0, max(counts), 4) if count == int(count)]
    shapes: list = [level(f"{count:,.0f}", floor - count * scale) for count in marks]
    for place, count in enumerate(counts):
        x, tall = LEFT + place * wide, count * scale
        sides = {"x": x + 1, "y": floor - tall, "width": wide - 2, "height": tall}
        sides = {name: round(value, 1) for name, value in sides.items()}
        shapes.append(tag("rect", tag("title", f"{count:,}"), **sides))
        if place % 5 == 0:
            above = "+" if place == BINS - 1 else ""
            shapes.append(label(f"{place * BIN}{above}", x, HEIGHT - 14))
    return figure("EvaluationSet by their CIDEr", shapes)
