"""Sample photos: drawn, or from a folder."""

import io

import pytest
from PIL import Image

from minicap.encoder.photos import find_photos
from minicap.server.samples import MOST, drawn_samples, folder_samples
from minicap.utils.errors import UnusableImage
from tests.server.conftest import picture


def test_drawn_scenes_differ_and_are_repeatable():
    first, again = drawn_samples(3), drawn_samples(3)
    thumbnails = [sample.thumbnail() for sample in first]
    assert len(set(thumbnails)) == 3 and thumbnails == [sample.thumbnail() for sample in again]
    assert all(sample.name.startswith("scene_") for sample in first)


def test_photos_of_a_folder(tmp_path):
    for number in range(MOST + 2):
        (tmp_path / f"{number:02}.png").write_bytes(picture("red", (900, 30)))
    (tmp_path / "00.png").write_bytes(b"nonsense")
    samples = folder_samples(find_photos(tmp_path))
    assert [sample.name for sample in samples] == [f"{number:02}.png" for number in range(MOST)]
    with Image.open(io.BytesIO(samples[1].thumbnail())) as image:
        assert image.format == "JPEG" and image.size == (640, 21)
    with pytest.raises(UnusableImage):
        samples[0].thumbnail()
