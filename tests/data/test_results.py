"""Results files: saving, reading, and errors with their place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.results import coco_numbers, image_ids, read_results, results_text
from minicap.utils.errors import UserError

IDS = {"beach.jpg": "beach.jpg", "street/bus.jpg": 9, "000000000139.jpg": 139}
GOOD = [
    {"image_id": "beach.jpg", "caption": "a dog"},
    {"image_id": 9, "caption": ""},
    {"image_id": 139, "caption": "#UNK#"},
]


@pytest.fixture
def read(tmp_path):
    def call(content, ids=IDS):
        path = tmp_path / "results.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(text.encode())
        return read_results(path, ids)

    return call


def test_images_are_identified_by_id_or_name(read):
    wanted = {"beach.jpg": "a dog", "street/bus.jpg": "", "000000000139.jpg": "#UNK#"}
    assert read(GOOD) == wanted
    named = ["beach.jpg", "bus.jpg", "val2017/000000000139.jpg"]
    assert read([e | {"image_id": n} for e, n in zip(GOOD, named, strict=True)]) == wanted
    assert read([e | {"id": 7, "score": 0.5} for e in GOOD]) == wanted  # other fields are ignored
    texts = ["beach.jpg", "9", "COCO_val2014_000000000139.jpg"]
    assert read([e | {"image_id": n} for e, n in zip(GOOD, texts, strict=True)]) == wanted


NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, unique=True)


@given(NAMES, st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_round_trip(tmp_path_factory, names, caption, numbered):
    """With any names and captions; the file is plain JSON."""
    path = tmp_path_factory.mktemp("results") / "results.json"
    names = [name.replace("/", "_") for name in names]
    names = [name for name in dict.fromkeys(names) if name not in ("", ".")] or ["x"]
    ids = {name: number if numbered else name for number, name in enumerate(names)}
    captions = {name: f"{caption}{number}" for number, name in enumerate(names)}
    text = results_text(captions, ids)
    path.write_text(text, encoding="utf-8", newline="")
    assert read_results(path, ids) == captions
    assert [set(entry) for entry in json.loads(text)] == [{"image_id", "caption"}] * len(names)


BAD = {
    "": "line 1, column 1: broken or cut-off JSON",
    '[{"image_id": 9,\n "caption": "a': "line 2, column 13: broken or cut-off JSON",
    "[" * 100_000: "JSON that cannot be read",
    "[" + "9" * 9_999 + "]": "JSON that cannot be read",
    '{"image_id": 9, "caption": "a"}': "expected a list of .*, got '{",
    "[]": "no captions in this file",
    "[5]": "entry 0: no `image_id`: expected a list of",
    '[{"caption": "a"}]': "entry 0: no `image_id`",
    '[{"image_id": 9}]': "entry 0: no `caption`",
    '[{"image_id": 9, "caption": ["a"]}]': 'entry 0: `caption` must be a text, not \\["a"\\]',
    '[{"image_id": 9, "caption": null}]': "entry 0: `caption` must be a text, not null",
    '[{"image_id": true, "caption": "a"}]': "entry 0: `image_id` must be a whole number or a text",
    '[{"image_id": 9.0, "caption": "a"}]': "entry 0: `image_id` must be .*, not 9.0",
    '[{"image_id": 9, "caption": "\\ud83d"}]': "entry 0: `caption` has half a character",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_malformed_file_is_refused_with_the_place(read, text):
    with pytest.raises(UserError, match=f"results.json[,:] {BAD[text]}"):
        read(text)


def test_duplicates_are_refused(read):
    """Under the same name or another one."""
    with pytest.raises(UserError, match=r"entry 3: image_id 9 occurs twice, first in entry 1"):
        read([*GOOD, GOOD[1]])
    again = {"image_id": "street/bus.jpg", "caption": "b"}
    with pytest.raises(UserError, match=r"entry 3: image_id 'street/bus.jpg' occurs twice"):
        read([*GOOD, again])


def test_unknown_and_missing_images_are_refused(read):
    unknown = [{"image_id": id_, "caption": "a"} for id_ in (4, "cat.jpg", 5, 6)]
    with pytest.raises(
        UserError, match=r"not among the 3 evaluated images .*: image_id 4, 'cat.jpg', 5 .4 in all"
    ):
        read(GOOD + unknown)
    with pytest.raises(UserError, match="no caption for beach.jpg, street/bus.jpg .2 of the 3 e"):
        read(GOOD[2:])


def test_no_file_and_no_text(tmp_path, read):
    with pytest.raises(UserError, match="cannot read the results file"):
        read_results(tmp_path / "none.json", IDS)
    (tmp_path / "results.json").write_bytes(b"[\n\xff]")
    with pytest.raises(UserError, match="line 2: the results file must be UTF-8"):
        read_results(tmp_path / "results.json", IDS)


def test_ids_are_coco_s_numbers_if_possible():
    """From the caption file, else from the name; two images never get the same id."""
    names = ["COCO_val2014_000000000139.jpg", "val2017/000000000285.jpg", "42.jpg", "b/beach.jpg"]
    assert image_ids(names, {"beach.jpg": 7, "other.jpg": 8}) == {
        names[0]: 139,
        names[1]: 285,
        "42.jpg": "42.jpg",
        "b/beach.jpg": 7,
    }
    twice = ["train/000000000139.jpg", "val/000000000139.jpg"]
    assert image_ids(twice, {}) == {name: name for name in twice}


def test_numbers_of_a_coco_file(tmp_path):
    """Files in other formats have none, JSON or not."""
    images = [{"id": 7, "file_name": "beach.jpg"}, {"id": 9, "file_name": "bus.jpg"}]
    path = tmp_path / "captions"
    path.write_text(json.dumps({"images": images, "annotations": []}))
    assert coco_numbers([path]) == {"beach.jpg": 7, "bus.jpg": 9}
    for text in (
        "beach.jpg#0\ta dog",
        "[1]",
        '{"images": [{"filename": "beach.jpg"}]}',
        '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg", "caption": "y"}',
        "[" * 100_000,
    ):
        path.write_text(text)
        assert coco_numbers([path]) == {}
