"""What a training run draws: its loss curves, and a contact sheet of images with captions."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from minicap.evaluation.svg import LOSS, document, loss_curves
from minicap.utils.files import save_png, write_text

Entry = tuple[Image.Image, str, bool | None]  # an image, its caption, whether that is true

INK, RIGHT, WRONG = "#222222", "#2e7d4f", "#b3261e"


def write_report(folder: Path, history: Sequence[dict], entries: Sequence[Entry]) -> list[Path]:
    """Write loss.svg and, if there are images to show, captions.png.

    Args:
        folder: to write to.
        history: one entry per epoch, as metrics.jsonl has them.
        entries: images, their captions, and whether these are true (None: not known).

    Returns:
        The paths written.
    """
    paths = [folder / "loss.svg"]
    supervised = [line for line in history if "train_loss" in line]
    write_text(paths[0], document(LOSS, loss_curves(supervised)))
    if entries:
        paths.append(folder / "captions.png")
        save_png(contact_sheet(entries), paths[1])
    return paths


def contact_sheet(entries: Iterable[Entry], columns: int = 4) -> Image.Image:
    """Draw images in a grid, each with its caption below.

    Args:
        entries: images, their captions, and whether these are true: the caption is green, red, or
            grey where this is None.
        columns: images per row.
    """
    entries = list(entries)
    side, gap, lines, font_size, scale = 224, 16, 3, 15, 2
    height = side + lines * (font_size + 5) + gap
    rows = math.ceil(len(entries) / columns)
    size = (columns * (side + gap) + gap) * scale, (rows * height + gap) * scale
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(font_size * scale)
    for place, (image, caption, true) in enumerate(entries):
        x = (gap + place % columns * (side + gap)) * scale
        y = (gap + place // columns * height) * scale
        sheet.paste(image.resize((side * scale, side * scale), Image.Resampling.LANCZOS), (x, y))
        wrapped = "\n".join(textwrap.wrap(caption or "(no words)", 31, max_lines=lines))
        colour = INK if true is None else RIGHT if true else WRONG
        draw.text((x, y + (side + 6) * scale), wrapped, colour, font, spacing=4 * scale)
    return sheet
