"""Prepare an uploaded photo, with limits on what it may cost."""

import io

import numpy

from minicap.encoder.session import Encoder
from minicap.utils.errors import UnusableImage

MAX_BYTES = 16_000_000
MAX_PIXELS = 50_000_000  # a phone's largest photos; decoded, 150 MB
MAX_SCANS = 100  # a progressive JPEG has ten; a hostile one millions, each with its own time


def prepare_upload(content: bytes, encoder: Encoder) -> numpy.ndarray:
    """Decode and resize an uploaded photo.

    Args:
        content: the file's bytes.
        encoder: what to prepare it for.

    Returns:
        uint8 (size, size, 3).

    Raises:
        UnusableImage: not an image, damaged, or over a limit.
    """
    # Within a JPEG's compressed data, 0xFF is never followed by 0xDA.
    if content[:2] == b"\xff\xd8" and content.count(b"\xff\xda") > MAX_SCANS:
        raise UnusableImage("photo", f"a JPEG of more than {MAX_SCANS} scans; save it again")
    file = io.BytesIO(content)
    file.name = "photo"
    pixels = encoder.pixels(file, MAX_PIXELS)
    encoder.repaired.clear()
    return pixels
