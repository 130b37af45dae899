"""Drawings for a page: their colours, light or dark, come from its style sheet."""

from collections.abc import Iterable, Sequence

from minicap.markup import Html, tag
from minicap.report import ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 260, 44, 14, 12, 34


def plot(title: str, shapes: Iterable[Html]) -> Html:
    """A drawing with a title."""
    drawing = tag("svg", shapes, view_box=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), drawing)


def loss_curves(history: Sequence[dict]) -> Html:
    """Train and dev loss against epochs, two or more."""
    losses = [line[key] for line in history for key in ("train_loss", "dev_loss")]
    margin = 0.05 * (max(losses) - min(losses)) + 1e-6
    low, high = min(losses) - margin, max(losses) + margin
    first, last = history[0]["epoch"], history[-1]["epoch"]

    def at(epoch: float, loss: float) -> tuple[float, float]:
        x = LEFT + (epoch - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    shapes = []
    for loss in ticks(low, high):
        _, y = at(first, loss)
        shapes.append(
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        )
        shapes.append(tag("text", f"{loss:.4g}", x=LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end"))
    for epoch in ticks(first, last, 8):
        if epoch == int(epoch):
            x, _ = at(epoch, low)
            shapes.append(
                tag("text", f"{epoch:.0f}", x=f"{x:.1f}", y=HEIGHT - 16, text_anchor="middle")
            )
    for key, colour in (("train_loss", "cool"), ("dev_loss", "warm")):
        points = [at(line["epoch"], line[key]) for line in history]
        shapes.append(
            tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=colour)
        )
    best = min(history, key=lambda line: line["dev_loss"])
    x, y = at(best["epoch"], best["dev_loss"])
    shapes.append(tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_="warm"))
    for place, (text, colour) in enumerate(
        (("train", "cool"), (f"dev, best {best['dev_loss']:.3f}", "warm"))
    ):
        y = TOP + 14 + 18 * place
        shapes.append(
            tag(
                "line",
                x1=WIDTH - 160,
                x2=WIDTH - 138,
                y1=y - 4,
                y2=y - 4,
                stroke_width=2.5,
                class_=colour,
            )
        )
        shapes.append(tag("text", text, x=WIDTH - 132, y=y))
    return plot("Loss in nats per word, by epoch", shapes)


def histogram(cider: Sequence[float], step: int = 10, bins: int = 16) -> Html:
    """How many pictures have which CIDEr, times 100; the last bar has all above."""
    counts = [0] * bins
    for score in cider:
        counts[min(bins - 1, int(100 * score / step))] += 1
    wide = (WIDTH - LEFT - RIGHT) / bins
    scale = (HEIGHT - TOP - BOTTOM) / max(counts)
    shapes = []
    for count in ticks(0, max(counts), 4):
        y = f"{HEIGHT - BOTTOM - count * scale:.1f}"
        shapes.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        shapes.append(tag("text", f"{count:,.4g}", x=LEFT - 6, y=float(y) + 4, text_anchor="end"))
    for place, count in enumerate(counts):
        x, tall = LEFT + place * wide, count * scale
        bar = tag("title", f"{count:,}")
        shapes.append(
            tag(
                "rect",
                bar,
                x=f"{x + 1:.1f}",
                y=f"{HEIGHT - BOTTOM - tall:.1f}",
                width=f"{wide - 2:.1f}",
                height=f"{tall:.1f}",
            )
        )
        if place % 5 == 0 or place == bins - 1:
            label = f"{place * step}" + "+" * (place == bins - 1)
            shapes.append(
                tag(
                    "text",
                    label,
                    x=f"{x + wide / 2 * (place == bins - 1):.1f}",
                    y=HEIGHT - 16,
                    text_anchor="middle",
                )
            )
    return plot("Pictures by their CIDEr", shapes)
