"""Uploads are prepared as files are, within limits."""

import struct
import zlib

import numpy
import pytest

from minicap.server import photo
from minicap.server.photo import prepare_upload
from minicap.utils.errors import UnusableImage
from tests.server.conftest import noise, picture


def chunk(name, content):
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(width, height):
    """A PNG that claims a size, with hardly any data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))


def test_pixels_are_those_of_the_file(captioner, tmp_path):
    (tmp_path / "a.jpg").write_bytes(noise())
    expected = captioner.encoder.pixels(tmp_path / "a.jpg")
    assert numpy.array_equal(prepare_upload(noise(), captioner.encoder), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(100_000, 100_000), "more than"),
        (png(8_000, 8_000), "more than 50,000,000 pixels"),
        (b"", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"%PDF-1.7", "not an image"),
        (noise()[:2000], "cannot be read"),
        (picture("red")[:60], "cannot be read"),
    ],
    ids=["bomb", "large", "empty", "svg", "pdf", "half a jpeg", "half a png"],
)
def test_unusable_uploads(captioner, content, reason):
    with pytest.raises(UnusableImage, match=reason) as caught:
        prepare_upload(content, captioner.encoder)
    assert str(caught.value).startswith("photo: ")


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(captioner, monkeypatch):
    monkeypatch.setattr(captioner.encoder, "pixels", None)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    with pytest.raises(UnusableImage, match="more than 100 scans"):
        prepare_upload(noise()[:-2] + scan * photo.MAX_SCANS + b"\xff\xd9", captioner.encoder)


def test_a_missing_end_marker_is_not_remembered(captioner):
    prepare_upload(noise()[:-2], captioner.encoder)
    assert captioner.encoder.repaired == []
