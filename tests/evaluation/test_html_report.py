"""The HTML report: complete, escaped, and without any network access."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy
import pytest
from PIL import Image

from minicap.data.vocabulary import Vocabulary
from minicap.evaluation.evaluation import Prediction
from minicap.evaluation.html_report import html_report, read_history
from minicap.utils.errors import UnusableImage
from tests.evaluation.examples import evaluation

HOSTILE = '<script>alert("1")</script> & <img src=x onerror=y> \' </style>'
HISTORY = [
    {"epoch": n, "train_loss": 4.0 - n / 2, "dev_loss": 4.2 - n / 3, "seconds": 1}
    for n in (1, 2, 3)
]
EMPTY = {"img", "meta", "!doctype"}


class Reader(HTMLParser):
    """Collects elements and texts; fails where an element is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.seen.append((name, dict(attributes)))
        if name not in EMPTY:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attributes for seen, attributes in self.seen if seen == name]


def image_of(colour="red"):
    return lambda: Image.new("RGB", (900, 600), colour)


@pytest.fixture
def result():
    """An evaluation of three images, the first with candidates and probabilities."""
    base = evaluation(["a dog runs", "a cat", ""], cider=(0.123, 0.456), true=1.0)
    first = [
        Prediction("a dog runs", (0.9, 0.5, 0.25, 0.75), -0.61),
        Prediction("a brown dog", (0.9, 0.1, 0.5, 0.5), -1.25),
    ]
    base.settings.update(
        evaluated="model.x", captions="c.txt", references=3, CIDEr="frequencies of 3"
    )
    return replace(base, predictions=[first, *base.predictions[1:]])


def test_the_report_is_complete(result):
    text = html_report(result, {"Best": [0, 1], "Worst": [2]}, {"0.jpg": image_of()}, HISTORY)
    read = Reader(text)
    words = " ".join(" ".join(read.texts).split())
    for part in (
        "Captions of 3 images, dev",
        "model.x, scored with c.txt. Tokenizer course; 3 references; CIDEr with frequencies of 3.",
        "CIDEr 12.3 is not above 45.6",  # the warning
        "1 of 3 captions are empty",
        "shuffled features 45.6",
        "distinct captions 3 of 3",
        "a brown dog -1.25",  # the other candidate with its score
        "a 0.90, dog 0.50, runs 0.25, ∎ 0.75",
        "a dog and 1 cats",  # a reference
        "(no words)",
        "dev, best 3.200",
    ):
        assert part in words, part
    assert [e["style"] for e in read.all("span") if "style" in e][:4] == [
        f"--p: {p:.3f}" for p in (0.9, 0.5, 0.25, 0.75)
    ]
    assert [e["title"] for e in read.all("span") if "title" in e] == ["90%", "50%", "25%", "75%"]
    assert len(read.all("article")) == 3 and len(read.all("svg")) == 2
    assert read.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all(
        "meta"
    )
    assert "prefers-color-scheme: dark" in text


def test_images_are_embedded_and_small(result):
    (image,) = Reader(html_report(result, {"": [0]}, {"0.jpg": image_of("blue")}, [])).all("img")
    kind, data = image["src"].split(",")
    assert kind == "data:image/jpeg;base64" and image["alt"] == "a dog runs"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (320, 213) and small.getpixel((5, 5))[2] > 240


def test_the_report_needs_no_network(result):
    """Only data: addresses, no script, and a policy that forbids both."""
    text = html_report(result, {"": [0, 1, 2]}, {"0.jpg": image_of()}, HISTORY)
    read = Reader(text)
    addresses = [
        v for _, a in read.seen for k, v in a.items() if k in ("src", "href", "xlink:href")
    ]
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert not read.all("script") and not read.all("link") and not read.all("iframe")
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", text)
    policy = {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    assert policy in read.all("meta")


def test_hostile_captions_stay_text(result):
    """Every untrusted text is read back unchanged, and adds no element."""
    hostile = evaluation([HOSTILE, HOSTILE, "b"], true=0.0)
    hostile.images.names[:] = [HOSTILE, HOSTILE + "2", "b.jpg"]
    hostile.images.captions[0][:] = [HOSTILE]
    hostile.settings.update(
        dict.fromkeys(("evaluated", "captions", "split", "tokenizer", "CIDEr"), HOSTILE)
    )
    hostile.settings["references"] = 1
    hostile.notes.append(HOSTILE)
    candidates = [Prediction(HOSTILE, (0.5,) * 9, -1.0), Prediction(HOSTILE, (), -2.0)]
    hostile = replace(hostile, predictions=[candidates, *hostile.predictions[1:]])

    def broken():
        raise UnusableImage(HOSTILE, "broken")

    text = html_report(
        hostile, {HOSTILE: [0, 1, 2]}, {HOSTILE: image_of(), HOSTILE + "2": broken}, HISTORY
    )
    read, clean = (
        Reader(text),
        Reader(html_report(result, {"": [0, 1, 2]}, {"0.jpg": image_of()}, HISTORY)),
    )
    assert {name for name, _ in read.seen} <= {name for name, _ in clean.seen} | {"i"}
    assert not any("onerror" in attributes for _, attributes in read.seen)
    assert len(read.all("img")) == 1 and read.all("img")[0]["alt"] == HOSTILE
    assert "".join(read.texts).count(HOSTILE) >= 8
    assert f"{HOSTILE}: broken" in read.texts  # the image that cannot be read


def test_half_a_character_does_not_stop_the_html_report(result):
    result.images.captions[0][:] = ["a \ud83d dog"]
    assert "a ? dog" in html_report(result, {"": [0]}, {}, [])


def test_history(tmp_path):
    """The losses of each epoch, and nothing from any other file."""
    assert read_history(tmp_path) == []
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "train_loss": 3, "dev_loss": 4, "more": 5}\n')
    assert read_history(tmp_path) == [{"epoch": 1.0, "train_loss": 3.0, "dev_loss": 4.0}]
    for text in ("{", "[1]\n", '{"epoch": 1}', '{"epoch": 1, "train_loss": NaN, "dev_loss": 2}'):
        path.write_text(text)
        assert read_history(tmp_path) == []


@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_curves_need_two_epochs(result, epochs):
    charts = Reader(html_report(result, {}, {}, HISTORY[:epochs])).all("svg")
    assert len(charts) == 1 + (epochs > 1)


def test_the_maps_of_each_word_are_shown(result):
    vocabulary = Vocabulary(["a", "dog", HOSTILE])
    words = ("a", "dog", HOSTILE, vocabulary.words[vocabulary.end])
    captions = [replace(result.predictions[0][0], ids=[vocabulary.ids[word] for word in words])]
    shown = replace(result, predictions=[captions, *result.predictions[1:]], vocabulary=vocabulary)
    weights = numpy.full((4, 9), 1 / 9)
    gallery = {"0.jpg": image_of(), "1.jpg": image_of()}
    text = html_report(shown, {"": [0, 1]}, gallery, [], {0: weights})
    read = Reader(text)
    assert len(read.all("img")) == 2 + 4
    assert HOSTILE not in text
    for word in ("a", "dog", HOSTILE, "∎"):
        assert word in read.texts
    with_map, without = text.split("1.jpg")[0], text.split("1.jpg")[-1]
    assert "Where it looked" in with_map and "Where it looked" not in without


def test_an_unreadable_image_has_no_maps(result):
    def unreadable():
        raise UnusableImage("0.jpg", "damaged")

    captions = [replace(result.predictions[0][0], ids=[4])]
    shown = replace(
        result,
        predictions=[captions, *result.predictions[1:]],
        vocabulary=Vocabulary(["dog"]),
    )
    text = html_report(shown, {"": [0]}, {"0.jpg": unreadable}, [], {0: numpy.full((1, 9), 1 / 9)})
    assert "damaged" in text and "Where it looked" not in text
