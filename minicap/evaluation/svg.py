"""Charts as SVG. Their colours, light or dark, come from the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from minicap.evaluation.html import Html, join, tag

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 230, 40, 14, 12, 32
LOSS = "Loss in nats per word, by epoch"
BIN_WIDTH, BINS = 10, 16  # of the histogram; the last bin has all higher scores


def style_sheet() -> Html:
    """Read the style sheet of pages and charts."""
    return Html((Path(__file__).parent / "html_report.css").read_text(encoding="utf-8"))


def chart(title: str, shapes: Iterable, **attributes: str) -> Html:
    """Put shapes into an svg element of the common size."""
    view_box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", shapes, view_box=view_box, role="img", aria_label=title, **attributes)


def document(title: str, shapes: Html) -> str:
    """Make a chart that is a file of its own."""
    name_space = "http://www.w3.org/2000/svg"
    return chart(title, [tag("style", style_sheet()), shapes], xmlns=name_space) + "\n"


def figure(title: str, shapes: Iterable) -> Html:
    """Make a chart on a page, under its title."""
    return tag("figure", tag("figcaption", title), chart(title, shapes))


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Choose round numbers within [low, high], about this many."""
    raw = max(high - low, 1e-9) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Html:
    """Draw a line between two points."""
    ends = {
        name: round(value, 1) for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2))
    }
    return tag("line", **ends, **attributes)


def label(text: str, x: float, y: float, anchor: str = "middle") -> Html:
    """Draw a text."""
    return tag("text", text, x=round(x, 1), y=round(y, 1), text_anchor=anchor)


def grid_line(text: str, y: float) -> list[Html]:
    """Draw a labelled horizontal line at height y."""
    return [line(LEFT, y, WIDTH - RIGHT, y, class_="grid"), label(text, LEFT - 6, y + 4, "end")]


def loss_curves(history: Sequence[dict]) -> Html:
    """Draw the training and the dev loss.

    Args:
        history: one epoch or more, each with "epoch", "train_loss" and "dev_loss".

    Returns:
        The shapes, for `document` or `figure`.
    """
    losses = [epoch[key] for epoch in history for key in ("train_loss", "dev_loss")]
    margin = 0.05 * (max(losses) - min(losses)) + 1e-6
    low, high = min(losses) - margin, max(losses) + margin
    first, last = history[0]["epoch"], history[-1]["epoch"]

    def at(epoch: float, loss: float) -> tuple[float, float]:
        x = LEFT + (epoch - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    shapes: list = [grid_line(f"{loss:.4g}", at(first, loss)[1]) for loss in ticks(low, high)]
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
    return join(shapes)


def histogram(cider: Sequence[float]) -> Html:
    """Draw how many images have which CIDEr, times 100.

    Args:
        cider: the score of each image, from 0 to 10.
    """
    counts = [0] * BINS
    for score in cider:
        counts[min(BINS - 1, int(100 * score / BIN_WIDTH))] += 1
    width, bottom = (WIDTH - LEFT - RIGHT) / BINS, HEIGHT - BOTTOM
    scale = (bottom - TOP) / max(counts)
    marks = [count for count in ticks(0, max(counts), 4) if count == int(count)]
    shapes: list = [grid_line(f"{count:,.0f}", bottom - count * scale) for count in marks]
    for place, count in enumerate(counts):
        x, height = LEFT + place * width, count * scale
        sides = {"x": x + 1, "y": bottom - height, "width": width - 2, "height": height}
        sides = {name: round(value, 1) for name, value in sides.items()}
        shapes.append(tag("rect", tag("title", f"{count:,}"), **sides))
        if place % 5 == 0:
            plus = "+" if place == BINS - 1 else ""
            shapes.append(label(f"{place * BIN_WIDTH}{plus}", x, HEIGHT - 14))
    return figure("Images by CIDEr", shapes)
