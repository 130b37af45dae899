"""Loss curves and contact sheets: size, colours, text, and files."""

from xml.etree import ElementTree

import numpy
import pytest
from PIL import Image

from minicap.evaluation.plots import INK, RIGHT, WRONG, contact_sheet, write_report
from minicap.utils.errors import UserError


def history(*losses):
    return [
        {"epoch": number, "train_loss": loss + 0.1, "dev_loss": loss}
        for number, loss in enumerate(losses, 1)
    ]


def count(image, colour):
    """Pixels that are exactly of this colour."""
    wanted = tuple(bytes.fromhex(colour[1:]))
    return int((numpy.asarray(image) == wanted).all(axis=2).sum())


IMAGE = Image.new("RGB", (50, 20), "#123456")


@pytest.mark.parametrize("number", [1, 4, 5, 12])
def test_contact_sheet_has_a_row_for_every_four(number):
    image = contact_sheet([(IMAGE, "a dog", None)] * number)
    one = contact_sheet([(IMAGE, "a dog", None)])
    rows = -(-number // 4)
    assert image.width == one.width
    assert image.height - 32 == rows * (one.height - 32)
    assert abs(count(image, "#123456") - number * 448 * 448) < 10


def test_caption_colours_say_whether_it_is_true():
    for true, colour in ((True, RIGHT), (False, WRONG), (None, INK)):
        image = contact_sheet([(IMAGE, "a dog runs", true)])
        assert count(image, colour) > 50
        assert sum(count(image, other) for other in (RIGHT, WRONG, INK)) == count(image, colour)


def ink_rows(caption):
    """Rows of pixels with ink below the image, and the columns of the sheet that have some."""
    ink = numpy.asarray(contact_sheet([(IMAGE, caption, None)]).convert("L")) < 100
    ink[: 32 + 448] = False
    return numpy.flatnonzero(ink.any(axis=1)), numpy.flatnonzero(ink.any(axis=0))


def test_captions_wrap_and_stay_below_their_image():
    """One line, two lines; longer ones are cut; nothing reaches the next column."""
    short, _ = ink_rows("a dog")
    longer, columns = ink_rows("a dog runs over the hill to its small house")
    endless, wide = ink_rows("word " * 100)
    one_word, wide_word = ink_rows("x" * 300)
    assert numpy.ptp(short) < 40 < numpy.ptp(longer) < numpy.ptp(endless) < 120
    assert numpy.ptp(one_word) < 120
    assert max(columns.max(), wide.max(), wide_word.max()) < 32 + 448 + 32


def test_an_empty_caption_says_so():
    rows, _ = ink_rows("")
    assert len(rows)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode(mode):
    contact_sheet([(Image.new(mode, (9, 9)), "a dog", None)])


def test_write_report(tmp_path):
    assert write_report(tmp_path, history(2.0), []) == [tmp_path / "loss.svg"]
    curves, sheet = write_report(tmp_path, history(2.0), [(IMAGE, "a dog", True)])
    assert (curves, sheet) == (tmp_path / "loss.svg", tmp_path / "captions.png")
    root = ElementTree.parse(curves).getroot()
    assert root.tag.endswith("svg") and "dev, best 2.000" in curves.read_text()
    with Image.open(sheet) as image:
        assert image.format == "PNG" and len(image.getcolors(1 << 20)) > 5


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    _, path = write_report(tmp_path, history(2.0), [(IMAGE, "a dog", True)])
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="captions.png: No space left"):
        write_report(tmp_path, history(1.0), [(IMAGE, "a cat", True)])
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"loss.svg", "captions.png"}


def test_images_have_a_white_gap_between_them():
    """As wide as the one at the edge of the sheet."""
    sheet = numpy.asarray(contact_sheet([(IMAGE, "a dog", None)] * 3).convert("L"))
    ink = (sheet[32:480] < 200).any(axis=0)
    starts = numpy.flatnonzero(ink[1:] & ~ink[:-1]) + 1
    assert starts.tolist() == [32, 32 + 480, 32 + 960]
