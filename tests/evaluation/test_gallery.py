"""The images of a report: photos that are found, scenes painted again, and which are chosen."""

import numpy
import pytest
from PIL import Image

from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import random_scene, to_lines
from minicap.evaluation.gallery import choose, gallery, read_scenes
from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import write_text
from tests.evaluation.examples import evaluation


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "1.png")
    (folder / "2.png").write_bytes(b"not an image")
    return tmp_path / "photos"


def test_photos_are_found_by_file_name(photos):
    """Missing ones are left out; a broken one raises when it is opened."""
    shown = gallery(["1.png", "2.png", "3.png"], None, [photos], None)
    assert list(shown) == ["1.png", "2.png"]
    assert shown["1.png"]().size == (40, 30)
    with pytest.raises(UnusableImage):
        shown["2.png"]()


def test_the_photos_of_training_are_used_if_they_still_exist(photos, tmp_path):
    names = ["1.png"]
    assert list(gallery(names, None, [], str(photos))) == names
    assert gallery(names, None, [], str(tmp_path / "gone")) == {}
    assert gallery(names, None, [], None) == {}
    with pytest.raises(UserError, match="gone: no such folder"):
        gallery(names, None, [tmp_path / "gone"], str(photos))


def test_scenes_are_painted_if_all_are_known(tmp_path):
    rng = numpy.random.RandomState(0)
    scenes = {f"{n}.png": random_scene(rng) for n in range(3)}
    captions = tmp_path / "captions.txt.gz"
    assert read_scenes([captions], list(scenes)) is None
    write_text(tmp_path / "scenes.jsonl.gz", to_lines(scenes))
    assert read_scenes([captions], ["1.png"]) == {"1.png": scenes["1.png"]}
    assert read_scenes([captions], ["1.png", "photo.jpg"]) is None
    shown = gallery(["2.png"], read_scenes([captions], ["2.png"]), [], None)
    assert shown["2.png"]().tobytes() == paint(scenes["2.png"]).tobytes()


def test_choose_best_between_and_worst():
    result = evaluation([f"c {n}" for n in range(30)])
    result.evaluated.each["CIDEr"][:] = [((n * 7) % 30) / 10 for n in range(30)]

    def values(rows):
        return [round(10 * result.evaluated.each["CIDEr"][row]) for row in rows]

    chosen = choose(result, range(30), 12)
    assert [values(rows) for rows in chosen.values()] == [
        [29, 28, 27, 26],
        sorted(values(chosen["In between, best first"]), reverse=True),
        [0, 1, 2, 3],
    ]
    assert len({row for rows in chosen.values() for row in rows}) == 12
    few = choose(result, [3, 4, 5], 12)
    assert list(few) == ["All by CIDEr, best first"] and values(*few.values()) == [28, 21, 5]
    for count in range(13):
        shown = [row for rows in choose(result, range(30), count).values() for row in rows]
        assert len(shown) == len(set(shown)) == count
