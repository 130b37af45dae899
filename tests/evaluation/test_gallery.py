"""EvaluationSet to show: photos where they are, scenes drawn again."""

import numpy
import pytest
from PIL import Image

from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import random_scene, to_lines
from minicap.evaluation.gallery import gallery, scenes_beside
from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import write_text


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "1.png")
    (folder / "2.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def test_photos_by_the_last_part_of_their_name(photos):
    """Those that are there; one that cannot be read is found out when it is opened."""
    shown = gallery(["1.png", "2.png", "3.png"], None, photos, None)
    assert list(shown) == ["1.png", "2.png"]
    assert shown["1.png"]().size == (40, 30)
    with pytest.raises(UnusableImage):
        shown["2.png"]()


def test_what_training_was_given_if_it_is_still_there(photos, tmp_path):
    names = ["1.png"]
    assert list(gallery(names, None, None, str(photos))) == names
    assert gallery(names, None, None, str(tmp_path / "gone")) == {}
    assert gallery(names, None, None, None) == {}
    with pytest.raises(UserError, match="gone: no such folder"):
        gallery(names, None, tmp_path / "gone", str(photos))


def test_scenes_are_drawn_if_all_of_them_are_known(tmp_path):
    rng = numpy.random.RandomState(0)
    scenes = {f"{n}.png": random_scene(rng) for n in range(3)}
    captions = tmp_path / "captions.txt.gz"
    assert scenes_beside(captions, list(scenes)) is None
    write_text(tmp_path / "scenes.jsonl.gz", to_lines(scenes))
    assert scenes_beside(captions, ["1.png"]) == {"1.png": scenes["1.png"]}
    assert scenes_beside(captions, ["1.png", "photo.jpg"]) is None
    shown = gallery(["2.png"], scenes_beside(captions, ["2.png"]), None, None)
    assert shown["2.png"]().tobytes() == paint(scenes["2.png"]).tobytes()
