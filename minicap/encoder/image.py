"""Read an image file and prepare its pixels, in the same way for every command.

The preprocessing's name is stored with features and is part of an encoder's id, so that features of
differently prepared images are never mixed.
"""

import errno
import io
import math
import os
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
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF",
    "WEBP",
}  # fmt: skip
# The first bytes of AVIF and HEIC files: a box of type "ftyp" with one of these brands.
AVIF = {b"avif", b"avis"}
HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}

EXIF_ORIENTATION = 0x0112
NO_END = "end marker missing"  # a key of an image's `info`
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
        middle = image.crop(visible_box(width, height, method))
        box, extent = (0, 0, *middle.size), Image.Transform.EXTENT
        image = middle.transform((size, size), extent, box, Image.Resampling.BILINEAR)
    else:
        raise ValueError(f"preprocessing {method!r}: choose one of {', '.join(PREPROCESSINGS)}")
    return np.asarray(image)


def visible_box(width: int, height: int, method: str) -> tuple[int, int, int, int]:
    """Return which part of an image stays: left, top, right and bottom, in pixels.

    Args:
        width, height: of the image.
        method: a preprocessing, or its name with the size.
    """
    if not method.startswith("crop"):
        return 0, 0, width, height
    side = min(width, height)
    left, top = math.ceil((width - side) / 2), math.ceil((height - side) / 2)
    return left, top, left + side, top + side


def draft_side(method: str, size: int) -> int | None:
    """Return the smallest side at which a large JPEG may be decoded; None for its full size."""
    return DRAFT * size if method == "squeeze-bilinear" else None  # others take single pixels


def is_image(path: Path) -> bool:
    """Return whether a file has the first bytes of an image, whatever its name is."""
    from PIL import Image

    try:
        if _brand(path):
            return True
        with Image.open(path) as image:
            return image.format in FORMATS
    except Exception:  # a broken file may raise anything in Pillow's readers
        return False


def load_image(
    source: "str | Path | IO[bytes] | Image.Image",
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "Image.Image":
    """Load an image as upright RGB.

    EXIF rotation is applied. Transparent pixels are blended with white. 16-bit grey is scaled to 8
    bits. CMYK is converted with Pillow's formula, without a colour profile. An animation gives its
    first frame. A JPEG that lacks only its end marker is read, as viewers do.

    Args:
        source: a path, a file object or a Pillow image.
        min_side: if given, a JPEG may be decoded smaller, with at least this many pixels per side.
        max_pixels: a larger image is refused. Above MAX_PIXELS it always is.

    Returns:
        An RGB Pillow image. `image.info[NO_END]` is true if the end marker is missing.

    Raises:
        UnusableImage: not a complete image of at most `max_pixels` in one of FORMATS.
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
            return _upright_rgb(source, None, max_pixels)
        with _open(source) as image:
            if image.format not in FORMATS:
                raise _Unusable(f"is a {image.format} file; convert it to JPEG or PNG")
            try:
                loaded = _upright_rgb(image, min_side, max_pixels)
            except OSError as error:
                jpeg = image.format == "JPEG"
                repaired = _with_end(source, min_side, max_pixels) if jpeg else None
                if not repaired:
                    raise error
                loaded = repaired
            loaded.info[NO_END] = image.format == "JPEG" and _lacks_end(source)
            return loaded
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


def _open(source: "str | Path | IO[bytes]") -> "Image.Image":
    """Open an image; HEIC needs an optional package."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source)
    except UnidentifiedImageError:
        brand = _brand(source)
        if brand in AVIF:
            raise _Unusable(
                "is an AVIF file, damaged or for a newer Pillow: pip install -U pillow"
            ) from None
        if brand not in HEIC:
            raise
    try:
        import pillow_heif
    except ImportError:
        raise _Unusable(
            "is a HEIC file: pip install -e '.[heic]' (pillow-heif), or convert it to JPEG"
        ) from None
    pillow_heif.register_heif_opener()
    if not isinstance(source, str | Path):
        source.seek(0)
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        raise _Unusable("is a damaged HEIC file") from None


def _brand(source: "str | Path | IO[bytes]") -> bytes:
    """The brand of an AVIF or HEIC file, b"" for other files."""
    start = _content(source, 12)
    return start[8:] if start[4:8] == b"ftyp" and start[8:] in AVIF | HEIC else b""


def _content(source: "str | Path | IO[bytes]", size: int = -1, start: int = 0) -> bytes:
    """Bytes of a file: `size` or all, from `start`, which counts from the end if negative."""
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            return _content(file, size, start)
    source.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
    return source.read(size)


def _lacks_end(source: "str | Path | IO[bytes]") -> bool:
    """Whether a JPEG has no end marker."""
    if _content(source, 2, -2) == b"\xff\xd9":
        return False
    data, place = _content(source), 2
    # Skip segments, one of which may hold a thumbnail, until the pixels begin.
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return b"\xff\xd9" not in data[place:]


def _with_end(
    source: "str | Path | IO[bytes]", min_side: int | None, max_pixels: int
) -> "Image.Image | None":
    """Load a JPEG whose end marker is missing; None if more than the marker is missing.

    If pixels are missing, bytes after the end of the file change the decoded image. So the file is
    decoded twice, with different bytes appended.
    """
    from PIL import Image

    data = _content(source).rstrip(b"\xff")  # the first half of the marker
    images = []
    for byte in b"\x00", b"\x55":
        with Image.open(io.BytesIO(data + 64 * byte + b"\xff\xd9")) as image:
            images.append(_upright_rgb(image, min_side, max_pixels))
    first, second = images
    return first if first.tobytes() == second.tobytes() else None


def _upright_rgb(image: "Image.Image", min_side: int | None, max_pixels: int) -> "Image.Image":
    from PIL import Image

    if image.width * image.height > max_pixels:  # from the header: nothing is decoded yet
        size = f"{image.width} x {image.height}"
        raise _Unusable(f"{size} is more than {max_pixels:,} pixels; make it smaller")
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
