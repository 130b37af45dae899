"""Caption files and lists of photos, good and bad."""

import pytest

from minicap.data.captions import read_captions, read_names
from minicap.utils.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Read captions from bytes or text."""

    def write_and_read(content, reader=read_captions):
        path = tmp_path / "captions.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return reader(path)

    return write_and_read


def refusal(call, *arguments):
    """The error message, which must be one line and name the file."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "captions.txt" in text and "\n" not in text
    return text


def test_captions_by_photo_in_the_file_s_order(read):
    assert read("b.jpg#0\tOne .\na.jpg#0\tTwo\nb.jpg#1\t Three \n").texts == {
        "b.jpg": ["One .", "Three"],
        "a.jpg": ["Two"],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_line_ends_and_byte_order_mark_do_not_matter(read, end, mark):
    """Neither do empty lines, nor a last line without a line end."""
    text = end.join(["a.jpg#0\tA cat", "", "   ", "b.jpg#0\tA dog"])
    assert read(mark + text.encode()).texts == {"a.jpg": ["A cat"], "b.jpg": ["A dog"]}


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_unicode_s_own_line_separators_do_not_end_a_line(read, odd):
    assert read(f"a.jpg#0\tA cat{odd}sits\n").texts == {"a.jpg": [f"A cat{odd}sits"]}


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("a.jpg#0", "a.jpg"),
        ("a.jpg#12", "a.jpg"),
        ("a#b.jpg#0", "a#b.jpg"),
        ("a#b.jpg", "a#b.jpg"),
        ("a.jpg", "a.jpg"),
        ("folder/a b.jpg#1", "folder/a b.jpg"),
    ],
)
def test_only_a_number_after_the_last_hash_is_cut_off(read, entry, name):
    assert list(read(f"{entry}\tA cat\n").texts) == [name]


def test_a_second_tab_belongs_to_the_caption(read):
    assert read("a.jpg#0\tA\tcat\n").texts == {"a.jpg": ["A\tcat"]}


def test_captions_without_a_word_are_left_out(read):
    found = read("a.jpg#0\t...\na.jpg#1\tA cat\nb.jpg#0\t \n")
    assert found.texts == {"a.jpg": ["A cat"]} and not found.splits
    assert found.notes == ["2 captions without a word are left out"]


def test_missing_file(tmp_path):
    assert "No such file" in refusal(read_captions, tmp_path / "captions.txt")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "captions.txt").mkdir()
    assert "no captions in this folder" in refusal(read_captions, tmp_path / "captions.txt")


@pytest.mark.parametrize("content", ["", "\n\n", "a.jpg#0\t.\n"])
def test_nothing_to_read(read, content):
    assert "no captions" in refusal(read, content)


@pytest.mark.parametrize("line", ["a.jpg#0 A cat", "\tA cat", "#0\tA cat"])
def test_a_line_without_tab_or_name_is_named_by_number(read, line):
    """Line numbers are those of an editor; empty lines count."""
    (note,) = read(f"a.jpg#0\tOne\u2028line\n\n{line}\n").notes
    assert "line 3" in note and "a tab" in note


def test_not_utf_8_is_named_by_line(read):
    assert "line 2" in (text := refusal(read, b"a.jpg#0\tA cat\nb.jpg#0\tM\xe4dchen\n"))
    assert "UTF-8" in text


def test_an_image_is_no_caption_file(read):
    refusal(read, b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")


def test_names_once_each_in_order(read):
    assert read("b.jpg\r\n a.jpg \n\nb.jpg\n", read_names) == ["b.jpg", "a.jpg"]


def test_no_names(read):
    assert "no photo names" in refusal(read, "\n", read_names)
