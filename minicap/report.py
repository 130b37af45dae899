"""Pictures of results, drawn with Pillow: a loss curve, and a sheet of pictures with captions."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from minicap.files import replacing

Entry = tuple[Image.Image, str, bool | None]  # a picture, its caption, whether that is true

INK, PALE, TRAIN, DEV = "#222222", "#dddddd", "#8ab4d8", "#c8553d"
RIGHT, WRONG = "#2e7d4f", "#b3261e"


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, all or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        image.save(file, format="PNG", optimize=True)


def write_report(folder: Path, history: Sequence[dict], entries: Sequence[Entry]) -> list[Path]:
    """loss.png and, if there are pictures to show, captions.png in `folder`: their paths."""
    supervised = [line for line in history if "train_loss" in line]
    pictures = {"loss.png": loss_curve(supervised, "loss: nats per word")}
    if entries:
        pictures["captions.png"] = contact_sheet(entries)
    for name, picture in pictures.items():
        save_png(picture, folder / name)
    return [folder / name for name in pictures]


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within [low, high], `about` so many of them."""
    raw = max(high - low, 1e-9) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def loss_curve(history: Sequence[dict], title: str) -> Image.Image:
    """Train and dev loss against epochs. history: the lines of metrics.jsonl, one or more."""
    width, height, left, right, top, bottom, scale = 760, 460, 70, 30, 50, 50, 2
    image = Image.new("RGB", (width * scale, height * scale), "white")
    draw = ImageDraw.Draw(image)
    font, small = (ImageFont.load_default(size * scale) for size in (17, 14))
    losses = [line[key] for line in history for key in ("train_loss", "dev_loss")]
    low, high = min(losses), max(losses)
    low, high = low - 0.05 * (high - low + 0.1), high + 0.05 * (high - low + 0.1)
    last = max(history[-1]["epoch"], 2)

    def at(epoch: float, loss: float) -> tuple[float, float]:
        x = left + (epoch - 1) / (last - 1) * (width - left - right)
        y = top + (high - loss) / (high - low) * (height - top - bottom)
        return x * scale, y * scale

    for loss in ticks(low, high):
        draw.line([at(1, loss), at(last, loss)], PALE, scale)
        x, y = at(1, loss)
        draw.text((x - 10 * scale, y), f"{loss:.4g}", INK, small, "rm")
    for epoch in ticks(1, last, 10):
        if epoch == int(epoch):
            x, y = at(epoch, low)
            draw.text((x, y + 8 * scale), f"{epoch:.0f}", INK, small, "ma")
    for key, colour in (("train_loss", TRAIN), ("dev_loss", DEV)):
        points = [at(line["epoch"], line[key]) for line in history]
        draw.line(points, colour, 3 * scale, "curve")
        for x, y in points:
            draw.circle((x, y), 3.5 * scale, colour)
    best = min(history, key=lambda line: line["dev_loss"])
    x, y = at(best["epoch"], best["dev_loss"])
    draw.circle((x, y), 7 * scale, None, DEV, 2 * scale)
    draw.text((left * scale, 16 * scale), title, INK, font)
    legend = (("train", TRAIN), (f"dev, best {best['dev_loss']:.3f}", DEV))
    for row, (text, colour) in enumerate(legend):
        y = (top + 16 + 22 * row) * scale
        draw.line([((width - 190) * scale, y), ((width - 160) * scale, y)], colour, 3 * scale)
        draw.text(((width - 152) * scale, y), text, INK, small, "lm")
    draw.text(((width + left) / 2 * scale, (height - 8) * scale), "epoch", INK, small, "md")
    return image


def contact_sheet(entries: Iterable[Entry], columns: int = 4) -> Image.Image:
    """Pictures with a caption under each. entries: picture, caption, and whether the caption is
    true (its colour says so), or None where that is not known."""
    entries = list(entries)
    side, gap, lines, font_size, scale = 224, 16, 3, 15, 2
    height = side + lines * (font_size + 5) + gap
    rows = math.ceil(len(entries) / columns)
    size = (columns * (side + gap) + gap) * scale, (rows * height + gap) * scale
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(font_size * scale)
    for place, (picture, caption, true) in enumerate(entries):
        x = (gap + place % columns * (side + gap)) * scale
        y = (gap + place // columns * height) * scale
        image.paste(picture.resize((side * scale, side * scale), Image.Resampling.LANCZOS), (x, y))
        wrapped = "\n".join(textwrap.wrap(caption or "(no words)", 31, max_lines=lines))
        colour = INK if true is None else RIGHT if true else WRONG
        draw.text((x, y + (side + 6) * scale), wrapped, colour, font, spacing=4 * scale)
    return image
