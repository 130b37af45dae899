"""Draw where a decoder looked for each word: its attention weights, over the photo."""

import math
from collections.abc import Sequence

import numpy
from PIL import Image, ImageDraw, ImageFont

from minicap.encoder.image import visible_box
from minicap.utils.errors import UserError

# From dark blue over grey to yellow. Its lightness only rises, and it has no red and green, so
# people with any kind of colour blindness see the same order.
COLOURS = numpy.array([(10, 30, 95), (128, 124, 118), (255, 232, 70)], "float32")
OPACITY = 0.6  # of the colours over the photo, which is grey below them
SIDE, COLUMNS, GAP, FONT = 224, 5, 14, 18  # pixels; columns of a sheet


def colour(values: numpy.ndarray) -> numpy.ndarray:
    """Map numbers from 0 to 1, of any shape (...), to colours (..., 3) from 0 to 255."""
    places = numpy.linspace(0, 1, len(COLOURS))
    return numpy.stack([numpy.interp(values, places, c) for c in COLOURS.T], axis=-1)


def smooth_map(weights: numpy.ndarray, width: int, height: int) -> numpy.ndarray:
    """Enlarge attention weights to the size of a photo, smoothly.

    Args:
        weights: (L,) of the positions of a square map, row by row.
        width, height: in pixels.

    Returns:
        (height, width), not negative.

    Raises:
        UserError: the map is not square.
    """
    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise UserError(f"{len(weights)} positions are not a square map: it cannot be drawn")
    small = Image.fromarray(weights.reshape(side, side).astype("float32"))
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    return numpy.maximum(numpy.asarray(large), 0)


def overlay(
    photo: Image.Image, weights: numpy.ndarray, highest: float, preprocessing: str
) -> Image.Image:
    """Draw attention weights over a photo, which becomes grey.

    Args:
        photo: RGB.
        weights: (L,) of one word.
        highest: the weight with the last colour; 0 has the first one.
        preprocessing: of the encoder, see `minicap.encoder.image.Preprocessing`.
    """
    grey = numpy.asarray(photo.convert("L").convert("RGB"), "float32")
    left, top, right, bottom = visible_box(*photo.size, preprocessing)
    values = numpy.zeros(grey.shape[:2], "float32")
    values[top:bottom, left:right] = smooth_map(weights, right - left, bottom - top) / highest
    mixed = (1 - OPACITY) * grey + OPACITY * colour(values)
    return Image.fromarray(mixed.round().astype("uint8"))


def overlays(
    photo: Image.Image, weights: numpy.ndarray, preprocessing: str, side: int = SIDE
) -> list[Image.Image]:
    """Draw a photo as it is, and then with the map of each word.

    All maps of a photo have the same scale: the last colour is the largest weight of any word.

    Args:
        photo: RGB.
        weights: (T, L).
        preprocessing: of the encoder, see `minicap.encoder.image.Preprocessing`.
        side: pixels of the longer side of the drawings.
    """
    scale = side / max(photo.size)
    width, height = (max(1, round(pixels * scale)) for pixels in photo.size)
    small = photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    highest = float(weights.max())
    return [small, *(overlay(small, each, highest, preprocessing) for each in weights)]


def attention_sheet(
    photo: Image.Image, words: Sequence[str], weights: numpy.ndarray, preprocessing: str
) -> Image.Image:
    """Draw a photo, and for each word the photo with the map of where the decoder looked.

    Args:
        photo, weights, preprocessing: as for `overlays`.
        words: T of them.
    """
    images = overlays(photo, weights, preprocessing)
    width, height = images[0].size
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    cell = width + GAP, height + FONT + GAP
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for place, (image, word) in enumerate(zip(images, ["", *words], strict=True)):
        x, y = GAP + place % columns * cell[0], GAP + place // columns * cell[1]
        sheet.paste(image, (x, y))
        draw.text((x, y + height + 2), word, "#222222", font)
    return sheet
