"""Read an image file and prepare its pixels, in the same way for every command.

The preprocessing's name is stored with features and is part of an encoder's id, so that features of
differently prepared images are never mixed.
"""

import errno
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, get_args

import numpy as np

from minicap.utils.errors import UnusableImage, UserError

if TYPE_CHECKING:
    from PIL import Image

# Pillow's own limit; decoded, this takes 360 MB. A larger image is far more often a decompression
# bomb (a few kilobytes that unpack to gigabytes) than a photo.
MAX_PIXELS = 89_478_485

# Pillow opens more formats, but EPS, for example, starts another program, and ICO is decoded before
# its size is known.
FORMATS = {
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF",
    "WEBP",
}  # fmt: skip

EXIF_ORIENTATION = 0x0112
STRIP = 256  # rows converted at once, where that needs more than 4 bytes a pixel
# Errors that say nothing about the image: too many open files, a network that does not answer.
TRANSIENT_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}


# How an image is resized:
#   squeeze-bilinear  the whole image, ignoring its aspect ratio; when it shrinks, Pillow's bilinear
#                     filter averages over all pixels. Keras' load_img(interpolation="bilinear")
#   squeeze-nearest   the whole image, nearest neighbour. Keras' load_img
#   crop-bilinear     the central square, interpolated between the four nearest pixels without
#                     averaging, as the original course notebook does with OpenCV
# Squeezing keeps the edges of the image, which its caption may mention.
Preprocessing = Literal["squeeze-bilinear", "squeeze-nearest", "crop-bilinear"]
PREPROCESSINGS: tuple[Preprocessing, ...] = get_args(Preprocessing)

# A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, at half the cost or less, if that is still
# at least DRAFT times the target size. After bilinear averaging, an image with detail at every
# scale then differs by 0.7 of 255 on average and 5 at most, pure noise by 1 and 6
# (tests/encoder/test_image.py).
DRAFT = 3


def preprocessing_name(method: str, size: int) -> str:
    """Name a preprocessing, as it is stored with features and hashed: method and size in pixels."""
    return f"{method}-{size}"


def prepare(image: "Image.Image", method: str, size: int) -> np.ndarray:
    """Resize an RGB image to a square; one of the right size stays unchanged.

    Args:
        image: an RGB image.
        method: one of PREPROCESSINGS.
        size: height and width of the result in pixels.

    Returns:
        uint8 (size, size, 3), 0 to 255.

    Raises:
        ValueError: an unknown method.
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
        box, extent = (0, 0, side, side), Image.Transform.EXTENT
        image = middle.transform((size, size), extent, box, Image.Resampling.BILINEAR)
    else:
        raise ValueError(f"preprocessing {method!r}: choose one of {', '.join(PREPROCESSINGS)}")
    return np.asarray(image)


def read(source: "str | Path | IO[bytes] | Image.Image", method: str, size: int) -> np.ndarray:
    """Load an image with `load_image` and resize it with `prepare`: uint8 (size, size, 3)."""
    averages = method == "squeeze-bilinear"  # the others take single pixels: no draft is possible
    return prepare(load_image(source, DRAFT * size if averages else None), method, size)


def load_image(
    source: "str | Path | IO[bytes] | Image.Image", min_side: int | None = None
) -> "Image.Image":
    """Load an image as upright RGB.

    EXIF rotation is applied. Transparent pixels are blended with white. 16-bit grey is scaled to 8
    bits. CMYK is converted with Pillow's formula, without a colour profile. An animation gives its
    first frame.

    Args:
        source: a path, a file object or a Pillow image.
        min_side: if given, a JPEG may be decoded smaller, with at least this many pixels per side.

    Returns:
        An RGB Pillow image.

    Raises:
        UnusableImage: not a complete image of at most MAX_PIXELS in one of FORMATS.
        UserError: a temporary failure, such as too many open files.
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
            return _upright_rgb(image, min_side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than {MAX_PIXELS:,} pixels; make it smaller"
    except UnidentifiedImageError:
        reason = "not an image, or in an unknown format; use JPEG or PNG"
    except _Unusable as error:
        reason = str(error)
    except OSError as error:
        if error.errno in TRANSIENT_ERRORS:
            raise UserError(
                f"{name}: cannot be read at the moment ({error.strerror}); try again"
            ) from error
        reason = f"cannot be read ({error.strerror or ' '.join(str(error).split())})"
    except Exception as error:  # a broken file may raise anything in Pillow's readers
        reason = f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    raise UnusableImage(name, reason)


class _Unusable(Exception):
    """The reason for an UnusableImage, raised where the file's name is not known."""


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise _Unusable("is a folder; name an image file")
    if not path.exists():
        raise _Unusable("no such file; check the path")
    if not path.is_file():
        raise _Unusable("not a regular file; name an image file")


def _upright_rgb(image: "Image.Image", min_side: int | None) -> "Image.Image":
    from PIL import Image

    if image.width * image.height > MAX_PIXELS:  # from the header: nothing is decoded yet
        size = f"{image.width} x {image.height}"
        raise _Unusable(f"{size} is more than {MAX_PIXELS:,} pixels; make it smaller")
    if 0 in image.size:
        raise _Unusable("has no pixels")
    if min_side and image.format == "JPEG":
        for factor in 8, 4, 2:  # only exact divisors: a remainder would shift the far edge
            if all(side % factor == 0 and side // factor >= min_side for side in image.size):
                image.draft(None, (image.width // factor, image.height // factor))
                break
    image.load()
    transpose = Image.Transpose
    method = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_270,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_90,
    }.get(_orientation(image))
    image = _rgb(image)
    return image if method is None else image.transpose(method)


def _orientation(image: "Image.Image") -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF data does not make the image unusable
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
        image, rgb = image.convert("RGBA"), Image.new("RGB", image.size)
        for top in range(0, image.height, STRIP):
            strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
            white = Image.new("RGBA", strip.size, "white")
            rgb.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
        return rgb
    return image.convert("RGB")
