"""Every caption format: the examples in the docs, real files, and broken files."""

import csv
import io
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.captions import read_captions
from minicap.data.entries import Malformed, Problems
from minicap.data.formats import entries
from minicap.data.names import find_names
from minicap.data.splits import random_split, random_splits
from minicap.utils.errors import UserError

PAGE = Path(__file__).parents[2] / "docs/captions.md"
EXAMPLES = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TEXTS = {
    "beach.jpg": ["A dog runs along the beach .", "A brown dog near the water ."],
    "street/bus.jpg": ["A red bus turns left ."],
}


def read(tmp_path, text, strict=False):
    path = tmp_path / "captions"
    path.write_text(text)
    return read_captions(path, strict)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_page(tmp_path, number):
    found = read(tmp_path, EXAMPLES[number][1])
    plain = {
        name: [t.replace("dog, near", "dog near") for t in some] for name, some in TEXTS.items()
    }
    texts = {
        name: [t.replace("dog, near", "dog near") for t in some]
        for name, some in found.texts.items()
    }
    assert texts == plain
    if "split" in EXAMPLES[number][1]:
        assert found.splits == {"beach.jpg": "train", "street/bus.jpg": "dev"}
    else:
        assert not found.splits


def test_the_page_has_an_example_of_each_format():
    assert len(EXAMPLES) == 6


def test_a_list_in_json(tmp_path):
    objects = [{"file_name": name, "text": text} for name, some in TEXTS.items() for text in some]
    assert read(tmp_path, json.dumps(objects)).texts == TEXTS
    assert read(tmp_path, json.dumps(objects[0])).texts == {"beach.jpg": TEXTS["beach.jpg"][:1]}


def test_flickr30k_as_kaggle_has_it(tmp_path):
    text = (
        "image_name| comment_number| comment\n"
        'beach.jpg| 0| A "dog" runs , fast .\n'
        'beach.jpg| 1| "Dog" it is .\n'
    )
    assert read(tmp_path, text).texts == {"beach.jpg": ['A "dog" runs , fast .', '"Dog" it is .']}


def test_a_caption_with_commas_but_without_quotes(tmp_path):
    found = read(tmp_path, "image,caption\na.jpg,A dog, a cat, a cow .\n")
    assert found.texts == {"a.jpg": ["A dog, a cat, a cow ."]}


names = st.from_regex(r"[a-z0-9_ é]{1,8}(/[a-z]{1,3})?\.jpg", fullmatch=True).map(str.strip)
sentences = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30).map(
    lambda text: f"a {text}".strip()
)
files = st.dictionaries(names, st.lists(sentences, min_size=1, max_size=4), min_size=1, max_size=6)


@given(files, st.sampled_from(",;\t"))
def test_what_csv_writes_is_read_back(tmp_path_factory, texts, delimiter):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["image", "caption", "more"])
    writer.writerows([name, text, "x"] for name, some in texts.items() for text in some)
    assert read(tmp_path_factory.mktemp("csv"), file.getvalue()).texts == texts


@given(files)
def test_what_json_writes_is_read_back(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("json")
    objects = [{"image": name, "captions": some} for name, some in texts.items()]
    lines = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects)
    assert read(folder, lines).texts == read(folder, json.dumps(objects)).texts == texts


# ---- real files ---------------------------------------------------------------------------------


def as_coco(texts):
    images = [{"id": 3 * n, "file_name": name} for n, name in enumerate(texts)]
    return json.dumps(
        {
            "images": images,
            "annotations": [
                {"image_id": image["id"], "caption": text}
                for image in images
                for text in texts[image["file_name"]]
            ],
        }
    )


def as_karpathy(texts):
    images = [
        {"filename": name, "split": "test", "sentences": [{"raw": text} for text in some]}
        for name, some in texts.items()
    ]
    return json.dumps({"images": images, "dataset": "x"})


def as_csv(texts):
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["image", "caption"])
    writer.writerows([name, text] for name, some in texts.items() for text in some)
    return file.getvalue()


def as_lines(texts):
    return "\n".join(json.dumps({"image": n, "captions": some}) for n, some in texts.items())


def test_flickr8k_in_every_form(real_data, tmp_path):
    texts = read_captions(real_data / "flickr8k/Flickr8k.token.txt").texts
    assert len(texts) == 7000 and sum(map(len, texts.values())) == 35_000
    for write in as_coco, as_karpathy, as_csv, as_lines:
        assert read(tmp_path, write(texts)).texts == texts, write.__name__


def test_coco_is_complete_and_fast(real_data):
    path, took = real_data / "coco/captions_val2017.json", []
    for _ in range(3):
        start = time.process_time()  # of this process only: the machine may be busy
        found = read_captions(path)
        took.append(time.process_time() - start)
    assert len(found.texts) == 4941 and sum(map(len, found.texts.values())) == 24_719
    assert min(took) < 0.3


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "a.jpg#0\tA\nb.jpg A dog\n",
            r"line 2: expected name#number, a tab and a caption, got 'b.j",
        ),
        ("just some text\n", "line 1: expected name#number"),
        (
            "image,caption\na.jpg,A\nb.jpg\n",
            r"line 3: expected 2 fields \(image, caption\), got 'b",
        ),
        ("image,caption\n,A dog\n", "line 2: expected 2 fields"),
        ("image,caption,more\na.jpg,A,B,C\n", "line 2: expected 3 fields"),
        ('image,caption\na.jpg,"' + "x" * 200_000 + '"', "line 2: a quote is opened"),
        ('image,caption\na.jpg,A\nb.jpg,"B\nc.jpg,C\nd.jpg,D\n', "line 3: a quote is opened"),
        ('image,caption\na.jpg,A\nb.jpg,"B\nc.jpg,"C"\n', "line 3: a quote is opened"),
        (
            '{"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}],'
            '"annotations": []}',
            r"images\[1\]: b and a have the same id 7",
        ),
        ("image,captions_en\na.jpg,A\n", "line 1: .*or a header with image and caption"),
        ("x" * 200_000 + "\n", "line 1: expected name#number"),
        ('{"a": ' + "9" * 5_000 + "}", "a number that cannot be read"),
        ('{"image": "a", "caption": "A"}\n{"a": ' + "9" * 5_000 + "}", "line 2: broken JSON"),
        ('{"images": [}', r"line 1, column 13: broken or cut-off JSON"),
        (
            '{"image": "a.jpg", "caption": "A"}\n{"image": "b.jpg"\n',
            "line 2: broken JSON",
        ),
        (
            '{"image": "a.jpg", "caption": "A"}\n{"caption": "b"}\n',
            "line 2: needs a photo .* has cap",
        ),
        ('{"image": "a.jpg", "caption": 7}\n', "line 1: a caption must be a text, not '7'"),
        ('{"image": 7.5, "caption": "A"}\n', "line 1: `image` must be a text"),
        ('{"image": "a.jpg", "captions": ["A", null]}', "a caption must be a text, not 'None'"),
        ("[1, 2]", "entry 0: needs a photo .* has int"),
        ("[" * 100_000, "nested too deeply|broken"),
        ('{"a":' * 100_000, "nested too deeply|broken"),
        ('{"annotations": {}}', "`images` is missing"),
        ('{"annotations": [{"image_id": 7, "caption": "A"}]}', "`images` is missing"),
        ('{"annotations": [], "images": 3}', "must be lists"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\]: `file_name` must be a text"),
        (
            '{"images": [{"file_name": "a"}], "annotations": []}',
            r"images\[0\]: `id` must be a whole",
        ),
        (
            '{"images": [], "annotations": [{"image_id": 7, "caption": "A"}]}',
            r"annotations\[0\]: there is no image with the id 7",
        ),
        (
            '{"images": [{"id": 7, "file_name": "a"}],"annotations": [{"image_id": 7, "bbox": 1}]}',
            r"annotations\[0\]: has no `caption` but image_id, bbox: use captions_\*.json",
        ),
        (
            '{"images": [{"filename": "a", "split": "x", "sentences": 1}]}',
            "`sentences` must be a li",
        ),
        (
            '{"images": [{"filename": "a", "sentences": []}]}',
            "no captions",
        ),
        (
            '{"images": [{"filename": "a", "split": "train", "sentences": [{}]}]}',
            "a caption must be",
        ),
        ("image,split,caption\na.jpg,foo,A\n", "unknown split 'foo': use train, dev or test"),
        ("image,split,caption\na.jpg,val,A\na.jpg,test,B\n", "a.jpg is in the splits dev and test"),
        (
            "image,split,caption\na.jpg,val,A\nb.jpg,,B\n",
            "b.jpg has no split, but other",
        ),
        ("image,caption\n", "no captions"),
        ('{"images": [], "annotations": []}', "no captions"),
        ("{}", "no captions"),
        ("[]", "no captions"),
    ],
)
def test_one_line_with_the_place(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text, strict=True)
    assert str(caught.value).startswith(str(tmp_path / "captions")) and "\n" not in str(
        caught.value
    )


@given(st.text(st.sampled_from('{}[]",:\t\n#a1 |;')))
def test_no_text_breaks_the_reader(text):
    try:
        for name, caption, split in entries(text, Problems()):
            assert isinstance(name, str) and isinstance(caption, str) and name
            assert split is None or isinstance(split, str)
    except Malformed as error:
        assert "\n" not in str(error)


# ---- rows that cannot be read -------------------------------------------------------------------


def test_a_few_bad_rows_are_skipped_and_reported(tmp_path):
    rows = [f"{n}.jpg#0\tA dog" for n in range(40)]
    rows[5] = rows[9] = "no tab"
    found = read(tmp_path, "\n".join(rows))
    assert len(found.texts) == 38
    assert [note.partition(": ")[2][:15] for note in found.notes] == [
        "skipped line 6:",
        "skipped line 10",
    ]
    with pytest.raises(UserError, match="line 6: expected .* more like this"):
        read(tmp_path, "\n".join(rows), strict=True)


def test_many_bad_rows_are_refused(tmp_path):
    good, bad = "image,caption\n", "row without a delimiter\n"
    assert len(read(tmp_path, good + "a.jpg,A dog\n" * 5 + bad * 10).notes) == 10
    with pytest.raises(UserError, match="line 7: expected 2 fields"):
        read(tmp_path, good + "a.jpg,A dog\n" * 5 + bad * 11)
    assert len(read(tmp_path, good + "a.jpg,A dog\n" * 2000 + bad * 20).notes) == 20  # 1 %


def test_a_stray_quote_swallows_no_photo(tmp_path):
    rows = 'a.jpg,"Stop sign\nb.jpg,A dog\nc.jpg,A cat\nd.jpg,It reads stop"\ne.jpg,A car\n'
    found = read(tmp_path, "image,caption\n" + rows)
    assert found.texts == {
        "a.jpg": ['"Stop sign'],
        "b.jpg": ["A dog"],
        "c.jpg": ["A cat"],
        "d.jpg": ['It reads stop"'],
        "e.jpg": ["A car"],
    }
    assert "line 2: a quote is opened" in found.notes[0]


def test_a_caption_with_line_breaks(tmp_path):
    text = 'image,caption\na.jpg,"A dog\nruns, fast"\nb.jpg,"A ""big"" cat"\n'
    found = read(tmp_path, text)
    assert found.texts == {"a.jpg": ["A dog\nruns, fast"], "b.jpg": ['A "big" cat']}
    assert not found.notes


# ---- forms that people publish or make themselves -----------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "image_id,caption\na.jpg,A dog\n",
        "Image Path;Description\nphotos/a.jpg;A dog\n",
        "sep=;\nfilepath;title\na.jpg;A dog\n",
        '"sep=|"\nfile|caption\na.jpg|A dog\n',
        "image,caption_0,caption_1\na.jpg,A dog,\n",
        "\ufeffimg,comment\na.jpg,A dog\n",
        '{"a.jpg": ["A dog"]}',
        '{"a.jpg": "A dog"}',
        '[{"file_path": "val/a.jpg", "captions": ["A dog"], "id": 3}]',
        '{"images": [{"filename": "a.jpg", "sentences": [{"tokens": ["A", "dog"]}]}]}',
        '{"images": [{"id": "x", "file_name": "a.jpg"}],'
        ' "annotations": [{"image_id": "x", "caption": "A dog"}]}',
        '{"annotations": [{"image_id": "a.jpg", "caption": "A dog"}]}',
        '{"images": [{"file_name": "a.jpg", "captions": ["A dog"]}]}',
    ],
)
def test_other_forms(tmp_path, text):
    found = read(tmp_path, text)
    (name, captions) = found.texts.popitem()
    assert name.rpartition("/")[2] == "a.jpg" and captions == ["A dog"]
    assert not found.texts and not found.notes and not found.splits


def test_a_folder_of_texts_next_to_photos(tmp_path):
    for name in "1.jpg", "sub/2.PNG", "3.jpg":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "1.txt").write_text("A dog\n\nA brown dog\n")
    (tmp_path / "sub/2.txt").write_text("A cat")
    (tmp_path / "notes.txt").write_text("nothing")
    assert read_captions(tmp_path).texts == {
        "1.jpg": ["A dog", "A brown dog"],
        "sub/2.PNG": ["A cat"],
    }


# ---- names --------------------------------------------------------------------------------------


def test_names_match_by_their_last_part():
    available = ["val/1.jpg", "val/2.jpg", "3.jpg", "a/4.jpg", "b/4.jpg"]
    found = find_names(["1.jpg", "val/2.jpg", "other/3.jpg", "a/4.jpg", "5.jpg"], available)
    assert found == {
        "1.jpg": "val/1.jpg",
        "val/2.jpg": "val/2.jpg",
        "other/3.jpg": "3.jpg",
        "a/4.jpg": "a/4.jpg",
    }
    with pytest.raises(UserError, match=r"^4.jpg could be a/4.jpg or b/4.jpg: use one"):
        find_names(["4.jpg"], available)
    with pytest.raises(UserError, match=r"x/3.jpg and y/3.jpg would both be 3.jpg"):
        find_names(["x/3.jpg", "y/3.jpg"], available)


@pytest.mark.parametrize(
    ("wanted", "available"),
    [
        ("C:\\\\photos\\\\a.jpg", "a.jpg"),
        ("./sub/a.jpg", "sub/a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a", "a.jpg"),
        ("a.jpeg", "a.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("COCO_val2014_000000000139.jpg", "000000000139.jpg"),
        ("139", "val2017/000000000139.jpg"),
    ],
)
def test_names_that_differ(wanted, available):
    assert find_names([wanted], [available, "other.jpg"]) == {wanted: available}
    assert find_names([available], [wanted, "other.jpg"]) == {available: wanted}


def test_an_exact_match_comes_first():
    assert find_names(["a.jpg"], ["A.jpg", "a.jpg", "x/a.jpg"]) == {"a.jpg": "a.jpg"}
    with pytest.raises(UserError, match=r"a.png could be a.jpg or a.gif"):
        find_names(["a.png"], ["a.jpg", "a.gif"])


# ---- splits -------------------------------------------------------------------------------------

photos = st.lists(names, unique=True, max_size=40)
fractions = st.floats(0.01, 0.49)


@given(photos, photos, fractions, fractions, st.integers(0, 9))
def test_random_splits_partition_the_photos_and_none_moves(some, more, dev, test, seed):
    splits = random_splits(some, dev, test, seed)
    assert sorted(sum(splits.values(), [])) == sorted(some)
    larger = random_splits(dict.fromkeys([*more, *some]), dev, test, seed)
    for split, members in splits.items():
        own = {name for name in members if random_split(name, dev, test, seed) == split}
        assert len(own) >= len(members) - 1  # a split that would be empty gets one photo
        assert len(own - set(larger.get(split, []))) <= 2  # and train gives it away


def test_few_photos_have_a_dev_split_as_well():
    for seed in range(20):
        splits = random_splits([f"{n}.jpg" for n in range(3)], 0.01, 0.01, seed)
        assert {split: len(names) for split, names in splits.items()} == {
            "train": 1,
            "dev": 1,
            "test": 1,
        }
    assert random_splits(["a"], 0.1, 0.1, 0) == {"train": ["a"]}


def test_random_splits_have_the_given_fractions():
    found = [random_split(f"{n}.jpg", 0.2, 0.1, 5) for n in range(10_000)]
    assert abs(found.count("dev") - 2000) < 200 and abs(found.count("test") - 1000) < 150
    other = [random_split(f"{n}.jpg", 0.2, 0.1, 6) for n in range(10_000)]
    assert 0.4 < sum(a == b for a, b in zip(found, other)) / 10_000 < 0.7  # 0.54 by chance
