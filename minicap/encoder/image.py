"""A picture file -> pixels: the one preprocessing, for encoding, training, captioning and serving.

Its name is stored with features and hashed into an encoder's id, since features of differently
prepared pictures must never meet.
"""

import errno
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from minicap.utils.errors import UnusableImage, UserError

if TYPE_CHECKING:
    from PIL import Image

# As many pixels as Pillow takes without a warning; unpacked, they are 360 MB. More in one picture
# is a bomb (a few kilobytes that unpack to gigabytes) far more often than a photo.
MAX_PIXELS = 89_478_485

# Photos and drawings. Pillow opens more, but EPS for one starts another program, and ICO unpacks
# before it says how large it is.
FORMATS = {
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF",
    "WEBP",
}  # fmt: skip

EXIF_ORIENTATION = 0x0112
STRIP = 256  # rows that are worked on at once where a picture takes more than 4 bytes a pixel
# What says nothing about the picture: too many open files, a net that does not answer.
PASSING = {errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}


# How a picture is made to fit, and what it was made for:
#   squeeze-bilinear  the whole picture; Pillow's bilinear filter averages over all pixels when it
#                     makes a picture smaller. Keras' load_img(interpolation="bilinear")
#   squeeze-nearest   the whole picture, of which some pixels are taken. Keras' load_img
#   crop-bilinear     the square in the middle, between the four nearest pixels without averaging,
#                     as the course's notebook does with OpenCV
# Squeezing keeps what stands at the edge: a caption may be about it.
PREPROCESSINGS = ("squeeze-bilinear", "squeeze-nearest", "crop-bilinear")

# A large JPEG is unpacked at a half, a quarter or an eighth, at half the cost or less, if that is
# still so many times the size asked for. After bilinear averaging, a picture with detail of every
# size then differs by 0.7 of 255 in the mean and 5 at the most, pure noise by 1 and 6
# (tests/encoder/test_image.py).
DRAFT = 3


def preprocessing_name(method: str, size: int) -> str:
    """The name under which `prepare` with this method, at this size, is stored and hashed."""
    return f"{method}-{size}"


def prepare(image: "Image.Image", method: str, size: int) -> np.ndarray:
    """An RGB image made to fit: uint8 (size, size, 3), 0 to 255.

    method: one of PREPROCESSINGS. A picture that fits already stays as it is.
    """
    from PIL import Image

    width, height = image.size
    if image.size == (size, size):
        pass
    elif method == "squeeze-bilinear":
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    elif method == "squeeze-nearest":
        image = image.resize((size, size), Image.Resampling.NEAREST)
    elif method == "crop-bilinear":
        side = min(width, height)
        left, top = math.ceil((width - side) / 2), math.ceil((height - side) / 2)
        middle = image.crop((left, top, left + side, top + side))
        box, way = (0, 0, side, side), Image.Transform.EXTENT
        image = middle.transform((size, size), way, box, Image.Resampling.BILINEAR)
    else:
        raise ValueError(f"preprocessing {method!r}: choose one of {', '.join(PREPROCESSINGS)}")
    return np.asarray(image)


def read(source: "str | Path | IO[bytes] | Image.Image", method: str, size: int) -> np.ndarray:
    """`load_image`, then `prepare`: uint8 (size, size, 3). UnusableImage as the first says."""
    averages = method == "squeeze-bilinear"  # the others take single pixels: no draft may be made
    return prepare(load_image(source, DRAFT * size if averages else None), method, size)


def load_image(
    source: "str | Path | IO[bytes] | Image.Image", enough: int | None = None
) -> "Image.Image":
    """A picture file, its path, or a Pillow image -> RGB Pillow image, upright.

    enough: None, or how many pixels of each side will do: a JPEG may then be unpacked smaller.
    EXIF rotation is applied. Transparent parts show white. Grey of 16 bits is scaled to 8. CMYK
    becomes RGB by Pillow's formula, without colour profile. Of an animation, the first picture.
    Raises UnusableImage, with the file's name and the reason, for whatever is not a whole picture
    of at most MAX_PIXELS in one of FORMATS; UserError where that could not be found out.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, str | Path):
        name = str(source)
    else:
        name = str(getattr(source, "filename", "") or getattr(source, "name", "image"))
    try:
        if isinstance(source, str | Path):
            _check_path(Path(source))
        if isinstance(source, Image.Image):
            return _upright_rgb(source, None)
        with Image.open(source) as image:
            if image.format not in FORMATS:
                raise _Unusable(f"is a {image.format} file; convert it to JPEG or PNG")
            return _upright_rgb(image, enough)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than {MAX_PIXELS:,} pixels; make it smaller"
    except UnidentifiedImageError:
        reason = "not a picture, or of an unknown format; use JPEG or PNG"
    except _Unusable as error:
        reason = str(error)
    except OSError as error:
        if error.errno in PASSING:
            raise UserError(
                f"{name}: cannot be read for now ({error.strerror}): try again"
            ) from error
        reason = f"cannot be read ({error.strerror or ' '.join(str(error).split())})"
    except Exception as error:  # a broken file may raise anything in Pillow's readers
        reason = f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    raise UnusableImage(name, reason)


class _Unusable(Exception):
    """The reason for an UnusableImage, where the file's name is not known."""


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise _Unusable("is a folder; name a picture file")
    if not path.exists():
        raise _Unusable("no such file; check the path")
    if not path.is_file():
        raise _Unusable("not a regular file; name a picture file")


def _upright_rgb(image: "Image.Image", enough: int | None) -> "Image.Image":
    from PIL import Image

    if image.width * image.height > MAX_PIXELS:  # known from the header: nothing is decoded yet
        size = f"{image.width} x {image.height}"
        raise _Unusable(f"{size} is more than {MAX_PIXELS:,} pixels; make it smaller")
    if 0 in image.size:
        raise _Unusable("has no pixels")
    if enough and image.format == "JPEG":
        for part in 8, 4, 2:  # without a remainder, which would shift what lies at the far edge
            if all(side % part == 0 and side // part >= enough for side in image.size):
                image.draft(None, (image.width // part, image.height // part))
                break
    image.load()
    turn = Image.Transpose
    turned = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(_orientation(image))
    image = _rgb(image)
    return image if turned is None else image.transpose(turned)


def _orientation(image: "Image.Image") -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a picture with broken EXIF is still a picture
        return 1


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise _Unusable("32-bit grey without a known range; convert it to 8 or 16 bits")
        grey8 = np.empty(grey.shape, np.uint8)
        for top in range(0, len(grey), STRIP):
            rows = slice(top, top + STRIP)
            grey8[rows] = (grey[rows].astype(np.int64) + 128) // 257
        return Image.fromarray(grey8).convert("RGB")
    if image.mode == "F":
        raise _Unusable("floating-point grey without a known range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image, found = image.convert("RGBA"), Image.new("RGB", image.size)
        for top in range(0, image.height, STRIP):
            strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
            white = Image.new("RGBA", strip.size, "white")
            found.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
        return found
    return image.convert("RGB")
