"""Every image mode gives its defined result, and every hostile file a one-line error."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from minicap.encoder.image import (
    EXIF_ORIENTATION,
    NO_END,
    PREPROCESSINGS,
    draft_side,
    load_image,
    prepare,
    preprocessing_name,
)
from minicap.utils.errors import UnusableImage

RED = (255, 0, 0)


def read(source, method, size):
    return prepare(load_image(source, draft_side(method, size)), method, size)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def pixel(path: Path, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = load_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


# ---- modes ----------------------------------------------------------------------------------


def test_rgb_is_passed_on_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(load_image(path)), pixels)
    image = Image.fromarray(pixels)
    assert load_image(image) is image  # no copy where none is needed


def test_grey_and_one_bit(tmp_path):
    assert pixel(saved(Image.new("L", (3, 3), 77), tmp_path / "l.png")) == (77, 77, 77)
    assert pixel(saved(Image.new("1", (3, 3), 1), tmp_path / "1.png")) == (255, 255, 255)
    assert pixel(saved(Image.new("1", (3, 3), 0), tmp_path / "0.png")) == (0, 0, 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.array([[0, 256, 1000, 32896, 65535]], np.uint16)
    path = saved(Image.fromarray(values), tmp_path / f"grey.{suffix}")
    found = [load_image(path).getpixel((x, 0))[0] for x in range(5)]
    assert found == [0, 1, 4, 128, 255] == np.round(values[0] / 257).tolist()


def test_sixteen_bits_in_32(tmp_path):
    image = Image.fromarray(np.array([[0, 32896, 65535]], np.int32))
    assert image.mode == "I"
    assert [load_image(image).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize(
    "values", [np.array([[-1]], np.int32), np.array([[65536]], np.int32), np.zeros((1, 1), "f4")]
)
def test_grey_without_a_known_range_is_refused(tmp_path, values):
    path = saved(Image.fromarray(values), tmp_path / "wide.tif")
    with pytest.raises(UnusableImage, match=r"wide\.tif: .* without a known range"):
        load_image(path)


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, *RED])
    image.putpixel((0, 0), 0)
    assert pixel(saved(image, tmp_path / "p.png")) == (0, 0, 255)
    path = saved(image, tmp_path / "t.png", transparency=0)
    assert pixel(path) == (255, 255, 255)
    assert pixel(path, (1, 1)) == RED


def test_alpha_shows_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (255, 0, 0, 51))  # 1/5 red, 4/5 white
    path = saved(image, tmp_path / "rgba.png")
    assert [pixel(path, (x, 0)) for x in range(3)] == [(255, 255, 255), RED, (255, 204, 204)]
    assert pixel(saved(Image.new("LA", (2, 2), (9, 0)), tmp_path / "la.png")) == (255, 255, 255)
    assert pixel(saved(Image.new("LA", (2, 2), (9, 255)), tmp_path / "lo.png")) == (9, 9, 9)
    path = saved(Image.new("RGB", (2, 2), RED), tmp_path / "key.png", transparency=RED)
    assert pixel(path) == (255, 255, 255)
    path = saved(Image.new("L", (2, 2), 9), tmp_path / "grey_key.png", transparency=9)
    assert pixel(path) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA", "RGBX", "YCbCr", "HSV"])
def test_modes_that_only_memory_holds(mode):
    image = load_image(Image.new(mode, (2, 2)))
    assert image.mode == "RGB" and image.size == (2, 2)


def test_cmyk(tmp_path):
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "cmyk.jpg", quality=100)
    r, g, b = pixel(path)
    assert r > 250 and g < 5 and b < 5


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    path = tmp_path / f"moving.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert len(list(ImageSequence.Iterator(image))) == 3
    assert pixel(path) == RED


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, suffix):
    """A red corner at the top left of the scene, stored as each orientation stores it."""
    upright = Image.new("RGB", (48, 32))
    upright.paste(RED, (0, 0, 16, 16))
    turn = Image.Transpose
    stored_by = [
        None,
        turn.FLIP_LEFT_RIGHT,
        turn.ROTATE_180,
        turn.FLIP_TOP_BOTTOM,
        turn.TRANSPOSE,
        turn.ROTATE_90,
        turn.TRANSVERSE,
        turn.ROTATE_270,
    ][orientation - 1]
    stored = upright if stored_by is None else upright.transpose(stored_by)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = saved(stored, tmp_path / f"turned.{suffix}", exif=exif)
    image = load_image(path)
    assert image.size == (48, 32)
    assert image.getpixel((4, 4))[0] > 200
    assert all(image.getpixel(at)[0] < 50 for at in [(44, 4), (4, 28), (44, 28)])
    with Image.open(path) as lazy:  # a Pillow image that is not loaded yet
        np.testing.assert_array_equal(np.asarray(load_image(lazy)), np.asarray(image))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_ignored(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    path = saved(Image.new("RGB", (8, 8), RED), tmp_path / "exif.jpg", exif=exif)
    assert load_image(path).size == (8, 8)


# ---- hostile files --------------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"", chunks: bytes = b"") -> bytes:
    """A grey PNG whose header need not match its data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        length, check = struct.pack(">I", len(body)), struct.pack(">I", zlib.crc32(kind + body))
        return length + kind + body + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


HOSTILE = {
    "empty.jpg": (b"", "not an image"),
    "text.jpg": (b"no image at all\n" * 9, "not an image"),
    "half.jpg": (jpeg()[: len(jpeg()) // 2], "cannot be read"),
    "head.jpg": (jpeg()[:300], "not an image|cannot be read"),
    "no_data.png": (png(50, 50), "cannot be read"),
    "bad_zlib.png": (png(50, 50, b"\0" * 99), "cannot be read"),
    "cut.png": (png(50, 50, zlib.compress(os.urandom(2550)))[:1500], "cannot be read"),
    "bomb.png": (png(50_000, 50_000, zlib.compress(b"\0" * 99)), "89,478,485 pixels"),
    "hundred_megapixels.png": (png(10_000, 10_000), "89,478,485 pixels"),
    "line.png": (png(100_000_000, 1), "89,478,485 pixels"),
    "zero.png": (png(0, 7), "not an image|has no pixels|cannot be read"),
    "page.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS"),
}


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_give_a_one_line_error(tmp_path, name):
    content, reason = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnusableImage, match=reason) as caught:
        load_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_refused_where_warnings_are_errors(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(10_000, 10_000))
    with pytest.raises(UnusableImage, match="89,478,485 pixels"):
        load_image(path)


def test_a_bomb_is_refused_where_pillow_has_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(png(50_000, 50_000))
    with pytest.raises(UnusableImage, match="50000 x 50000 is more than 89,478,485 pixels"):
        load_image(path)


def test_paths_that_are_not_files(tmp_path):
    with pytest.raises(UnusableImage, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(UnusableImage, match=r"gone\.jpg: no such file"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(UnusableImage, match="no such file"):
        load_image("nul\0byte.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")  # opening it would block forever
        with pytest.raises(UnusableImage, match="not a regular file"):
            load_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path):
    path = saved(Image.new("RGB", (2, 2)), tmp_path / "secret.png")
    path.chmod(0)
    with pytest.raises(UnusableImage, match=r"secret\.png: cannot be read"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_random_damage_gives_an_image_or_a_one_line_error(tmp_path):
    """With flipped bytes, whatever Pillow's readers raise becomes UnusableImage."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    refused = 0
    for suffix in ("jpg", "png", "gif", "tif", "webp", "bmp"):
        whole = saved(noise, tmp_path / f"whole.{suffix}").read_bytes()
        for number in range(40):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 1 + number // 4):
                damaged[at] = rng.integers(256)
            path = tmp_path / f"damaged.{suffix}"
            path.write_bytes(damaged)
            try:
                assert load_image(path).mode == "RGB"
            except UnusableImage as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 20


# ---- preparing ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["squeeze-bilinear", "squeeze-nearest"])
def test_squeezing_keeps_both_edges(method):
    image = Image.new("RGB", (100, 20))
    image.paste(RED, (50, 0, 100, 20))
    pixels = prepare(image, method, 30)
    assert pixels.shape == (30, 30, 3) and pixels.dtype == np.uint8
    assert (pixels[:, :13] == 0).all() and (pixels[:, 17:] == RED).all()


def test_nearest_takes_the_central_pixels():
    """As in Keras' load_img, column k of 4 is the pixel at (k + 1/2) / 4 of the width."""
    pixels = np.arange(10 * 12 * 3, dtype=np.uint16).astype(np.uint8).reshape(10, 12, 3)
    found = prepare(Image.fromarray(pixels), "squeeze-nearest", 4)
    np.testing.assert_array_equal(found, pixels[[1, 3, 6, 8]][:, [1, 4, 7, 10]])


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize("extra, start", [(0, 0), (1, 1), (2, 1), (3, 2), (7, 4)])
def test_the_crop_starts_at_half_the_difference_rounded_up(tall, extra, start):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5 + extra, 3), np.uint8)
    middle = pixels[:, start : start + 5]
    if tall:
        pixels, middle = pixels.swapaxes(0, 1).copy(), middle.swapaxes(0, 1)
    found = prepare(Image.fromarray(pixels), "crop-bilinear", 5)
    np.testing.assert_array_equal(found, middle)


@pytest.mark.parametrize("side", [13, 29, 30, 31, 100])
def test_the_crop_is_interpolated_between_the_four_nearest_pixels(side):
    """Against the formula in float64: pixel x of n is at (x + 1/2) side / n - 1/2."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    n = 30
    at = np.clip((np.arange(n) + 0.5) * side / n - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    weight = at - low
    rows = pixels[low] * (1 - weight)[:, None, None] + pixels[low + 1] * weight[:, None, None]
    expected = rows[:, low] * (1 - weight)[:, None] + rows[:, low + 1] * weight[:, None]
    found = prepare(Image.fromarray(pixels), "crop-bilinear", n)
    assert (found <= expected + 1e-9).all() and (found >= expected - 1 - 1e-9).all()  # truncated


@pytest.mark.parametrize("method", PREPROCESSINGS)
def test_an_image_of_the_right_size_is_unchanged(method):
    fitting = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    np.testing.assert_array_equal(prepare(Image.fromarray(fitting), method, 30), fitting)


def test_an_unknown_preprocessing_is_refused():
    with pytest.raises(ValueError, match="choose one of squeeze-bilinear"):
        prepare(Image.new("RGB", (3, 3)), "squeeze", 30)


def test_the_name_of_a_preprocessing_includes_its_size():
    assert preprocessing_name("squeeze-bilinear", 299) == "squeeze-bilinear-299"


# ---- large JPEGs ----------------------------------------------------------------------------


def fractal(width: int, height: int) -> Image.Image:
    """Noise with equal energy at every scale, as in photos."""
    rng = np.random.default_rng(0)
    steps = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    steps[0, 0] = np.inf
    colours = [
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / steps, (height, width))
        for _ in range(3)
    ]
    pixels = 128 + 50 * np.stack([c / c.std() for c in colours], axis=-1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("content, mean, maximum", [("fractal", 0.7, 5), ("noise", 1, 6)])
@pytest.mark.parametrize("shape", [(600, 600), (900, 700), (800, 1600), (1600, 1200)])
def test_a_draft_stays_within_the_stated_difference(tmp_path, content, shape, mean, maximum):
    if content == "fractal":
        image = fractal(*shape)
    else:
        image = Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (*shape[::-1], 3), np.uint8)
        )
    path = saved(image, tmp_path / "large.jpg", quality=95)
    difference = read(path, "squeeze-bilinear", 99).astype(int)
    difference -= prepare(load_image(path), "squeeze-bilinear", 99)
    assert 0 < np.abs(difference).mean() < mean  # not 0: a draft was made
    assert np.abs(difference).max() <= maximum


def test_no_draft_for_single_pixels_or_small_images(tmp_path):
    large = saved(fractal(600, 600), tmp_path / "large.jpg")
    odd = saved(fractal(601, 600), tmp_path / "odd.jpg")  # half of it ends half a pixel later
    for path, method, size in (
        (large, "squeeze-nearest", 99),
        (large, "crop-bilinear", 99),
        (large, "squeeze-bilinear", 101),
        (odd, "squeeze-bilinear", 99),
    ):
        whole = prepare(load_image(path), method, size)
        np.testing.assert_array_equal(read(path, method, size), whole)


def test_a_draft_is_rotated_too(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # rotate clockwise by 90 degrees
    image = Image.new("RGB", (1600, 800))
    image.paste(RED, (0, 0, 800, 800))
    pixels = read(saved(image, tmp_path / "a.jpg", exif=exif), "squeeze-bilinear", 100)
    assert pixels[10, 50, 0] > 200 and pixels[90, 50, 0] < 50  # the left half is now on top


def test_a_file_object_is_read_as_its_path_is(tmp_path):
    path = saved(fractal(70, 50), tmp_path / "a.jpg")
    with open(path, "rb") as file:
        np.testing.assert_array_equal(np.asarray(load_image(file)), np.asarray(load_image(path)))
    broken = io.BytesIO(b"no image")
    broken.name = "photos.zip/a.jpg"
    with pytest.raises(UnusableImage, match=r"^photos.zip/a.jpg: not an image"):
        load_image(broken)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_read(tmp_path, progressive):
    """As viewers do. One that lacks pixels too is refused."""
    rng = np.random.default_rng(0)
    colours = np.kron(rng.integers(0, 255, (30, 40, 3)), np.ones((8, 8, 1))).astype("uint8")
    whole = saved(Image.fromarray(colours), tmp_path / "a.jpg", progressive=progressive)
    data = whole.read_bytes()
    for cut in 1, 2:
        (tmp_path / "cut.jpg").write_bytes(data[:-cut])
        for source in tmp_path / "cut.jpg", io.BytesIO(data[:-cut]):
            image = load_image(source)
            assert image.tobytes() == load_image(whole).tobytes()
            assert image.info[NO_END]
    for content in data, data + b"\xff\xda and a video":
        (tmp_path / "whole.jpg").write_bytes(content)
        assert not load_image(tmp_path / "whole.jpg").info[NO_END]
    for cut in 12, 300, len(data) // 2:
        (tmp_path / "cut.jpg").write_bytes(data[:-cut])
        with pytest.raises(UnusableImage, match="cut.jpg: cannot be read"):
            load_image(tmp_path / "cut.jpg")


def test_heic_needs_an_extra(tmp_path, monkeypatch):
    """It is recognised by its content, whatever its name is."""
    heif = pytest.importorskip("pillow_heif")
    colours = np.zeros((32, 48, 3), "uint8") + np.uint8([200, 30, 60])
    heif.from_pillow(Image.fromarray(colours)).save(tmp_path / "photo.heic")
    content = (tmp_path / "photo.heic").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content)
    for source in tmp_path / "photo.heic", tmp_path / "photo.jpg", io.BytesIO(content):
        image = load_image(source)
        assert image.size == (48, 32) and abs(np.asarray(image).astype(int) - colours).max() < 9
    (tmp_path / "short.heic").write_bytes(content[:100])
    with pytest.raises(UnusableImage, match="short.heic"):
        load_image(tmp_path / "short.heic")

    Image.init()  # as in a process that has not registered the format
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in "photo.heic", "photo.jpg":
        with pytest.raises(UnusableImage, match=r"is a HEIC file: pip install -e '.\[heic\]'"):
            load_image(tmp_path / name)
