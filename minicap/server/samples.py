"""The sample photos of the lab: drawn scenes, or the photos of a folder."""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from minicap.data.scenes.dataset import shipped_split
from minicap.data.scenes.drawing import paint
from minicap.encoder.image import load_image
from minicap.encoder.photos import PhotoSource
from minicap.server.photo import MAX_PIXELS

MOST = 24
THUMBNAIL = 640  # pixels, the longer side


@dataclass(frozen=True)
class Sample:
    """A photo to try.

    Attributes:
        name: shown to the user.
        open: returns what `Encoder.pixels` takes.
    """

    name: str
    open: Callable[[], Any]

    def thumbnail(self) -> bytes:
        """Return the photo as a small JPEG.

        Raises:
            UnusableImage: it cannot be read.
        """
        image = load_image(self.open(), THUMBNAIL, MAX_PIXELS)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        return out.getvalue()


def folder_samples(photos: PhotoSource) -> list[Sample]:
    """Return the first photos of a folder."""
    names = photos.names[:MOST]
    return [Sample(name, functools.partial(photos.open, name)) for name in names]


def drawn_samples(count: int = 8, seed: int = 5) -> list[Sample]:
    """Draw scenes of the shipped test split.

    Args:
        count: number of scenes.
        seed: for choosing them.
    """
    scenes = [*shipped_split("test").items()]
    chosen = numpy.random.default_rng(seed).choice(len(scenes), count, replace=False)
    return [Sample(scenes[n][0], functools.partial(paint, scenes[n][1])) for n in chosen]
