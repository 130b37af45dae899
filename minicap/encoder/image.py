"""A picture file -> pixels: the one preprocessing, for encoding, training, captioning and serving.

Its name is stored with features and hashed into an encoder's id, since features of differently
prepared pictures must never meet.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minicap.errors import UnusableImage

if TYPE_CHECKING:
    from PIL import Image

# As many pixels as Pillow takes without a warning; as RGB they are 256 MB. More in one picture is
# a bomb (a few kilobytes that unpack to gigabytes) far more often than a photo.
MAX_PIXELS = 89_478_485

# Photos and drawings. Pillow opens more, but EPS for one starts another program.
FORMATS = {
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF",
    "WEBP",
}  # fmt: skip

EXIF_ORIENTATION = 0x0112


def preprocessing_name(size: int) -> str:
    """The name under which `prepare` at this size is stored and hashed."""
    return f"squeeze-bilinear-{size}"


def prepare(image: "Image.Image", size: int) -> np.ndarray:
    """An RGB image squeezed to uint8 (size, size, 3), 0 to 255, bilinear.

    One that fits already stays as it is. Squeezed, not cropped: a caption may be about what stands
    at the edge. Pillow's bilinear filter averages over all pixels when it makes a picture smaller.
    """
    from PIL import Image

    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def load_image(source: "str | Path | Image.Image") -> "Image.Image":
    """A picture file or a Pillow image -> RGB Pillow image, upright.

    EXIF rotation is applied. Transparent parts show white. Grey of 16 bits is scaled to 8. CMYK
    becomes RGB by Pillow's formula, without colour profile. Of an animation, the first picture.
    Raises UnusableImage, with the file's name and the reason, for whatever is not a whole picture
    of at most MAX_PIXELS in one of FORMATS.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "image")
    else:
        name, path = str(source), Path(source)
        if path.is_dir():
            raise UnusableImage(f"{name}: is a folder; name a picture file")
        if not path.exists():
            raise UnusableImage(f"{name}: no such file; check the path")
        if not path.is_file():
            raise UnusableImage(f"{name}: not a regular file; name a picture file")
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        with Image.open(path) as image:
            if image.format not in FORMATS:
                raise UnusableImage(f"is a {image.format} file; convert it to JPEG or PNG")
            return _upright_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"more than {MAX_PIXELS:,} pixels; make it smaller"
    except UnidentifiedImageError:
        reason = "not a picture, or of an unknown format; use JPEG or PNG"
    except UnusableImage as error:
        reason = str(error)
    except Exception as error:  # a broken file may raise anything in Pillow's readers
        reason = f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
    raise UnusableImage(f"{name}: {reason}")


def _upright_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.width * image.height > MAX_PIXELS:  # known from the header: nothing is decoded yet
        size = f"{image.width} x {image.height}"
        raise UnusableImage(f"{size} is more than {MAX_PIXELS:,} pixels; make it smaller")
    if 0 in image.size:
        raise UnusableImage("has no pixels")
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
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnusableImage("32-bit grey without a known range; convert it to 8 or 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnusableImage("floating-point grey without a known range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
