"""Sources of photos: their names, the order, and opening them."""

import os
import zipfile

import pytest

from minicap.encoder import photos as module
from minicap.encoder.photos import find_all, find_photos
from minicap.utils.errors import UnusableImage, UserError

FILES = {
    "b.JPG": b"B",
    "a.png": b"A",
    "inner/c.jpeg": b"C",
    "inner/deeper/é ü.webp": b"E",
    "notes.txt": b"no photo",
    "._a.png": b"no photo",
    "__MACOSX/a.png": b"no photo",
    "jpg": b"no photo",
}
NAMES = ["a.png", "b.JPG", "inner/c.jpeg", "inner/deeper/é ü.webp"]


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "photos"


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for place in sorted(folder.rglob("*"), reverse=True):
            file.write(place, place.relative_to(folder))
    return path


def test_a_folder(folder):
    photos = find_photos(folder)
    assert photos.names == NAMES and photos.ignored == 4
    assert [photos.open(name).read_bytes() for name in NAMES] == [FILES[name] for name in NAMES]


def test_a_zip_file_is_as_its_folder(archive):
    photos = find_photos(archive)
    assert photos.names == NAMES and photos.ignored == 4
    for name in NAMES:
        with photos.open(name) as file:
            assert file.read() == FILES[name] and file.name == name
    with pytest.raises(UnusableImage, match=r"^gone.jpg: not in photos.zip"):
        photos.open("gone.jpg")


def test_a_list(folder, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("photos/b.JPG\r\n\n  photos/a.png \nphotos/b.JPG\ngone.jpg\n")
    photos = find_photos(path)
    assert photos.names == ["photos/b.JPG", "photos/a.png", "gone.jpg"]  # as in the list, each once
    assert photos.open("photos/a.png").read_bytes() == b"A"
    path.write_text("b.JPG\na.png")
    assert find_photos(path, folder).open("a.png").read_bytes() == b"A"
    path.write_text(str(folder / "a.png"))
    assert find_photos(path).open(str(folder / "a.png")).read_bytes() == b"A"


def test_links_to_photos_are_followed_and_to_folders_not(folder):
    (folder / "link.jpg").symlink_to(folder / "a.png")
    (folder / "loop").symlink_to(folder)
    photos = find_photos(folder)
    assert photos.names == sorted([*NAMES, "link.jpg"])
    assert photos.open("link.jpg").read_bytes() == b"A"


def test_only_some(folder):
    photos = find_photos(folder).only(["inner/c.jpeg", "a.png", "a.png"])
    assert photos.names == ["inner/c.jpeg", "a.png"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "no such folder, zip file or list"),
        (lambda path: path.mkdir(), "no photos; photos have names that end in"),
        (lambda path: path.write_bytes(b""), "no photos"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff"), "list of photos must be UTF-8"),
    ],
)
def test_sources_that_are_refused(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=message) as caught:
        find_photos(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_with_other_files_says_how_many(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="no photos among its 1 files"):
        find_photos(tmp_path)


def test_a_damaged_member_does_not_affect_others(folder, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.jpg", b"whole " * 10)
        file.writestr("b.jpg", b"broken" * 10)
    path.write_bytes(path.read_bytes().replace(b"broken", b"Broken", 1))  # its checksum is wrong
    photos = find_photos(path)
    assert photos.open("a.jpg").read() == b"whole " * 10
    with pytest.raises(UnusableImage, match=r"^b.jpg: cannot be unpacked"):
        photos.open("b.jpg")


def test_a_bomb_in_a_zip_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(10_001))
    with pytest.raises(UnusableImage, match="more than 10,000 bytes"):
        find_photos(path).open("a.png")


def test_a_zip_file_that_lost_its_end(archive):
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UserError, match="list of photos must be UTF-8|zip"):
        find_photos(archive)


def test_one_photo_is_a_source_too(tmp_path):
    (tmp_path / "A photo.JPG").write_bytes(b"x")
    found = find_photos(tmp_path / "A photo.JPG")
    assert found.names == ["A photo.JPG"] and found.open("A photo.JPG").read_bytes() == b"x"


def test_an_unreadable_folder_is_counted_or_refused(folder, monkeypatch):
    real = os.scandir

    unreadable = folder / "inner"

    def scandir(path):
        if str(path) == str(unreadable):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_photos(folder)  # like lost+found for an ordinary user
    assert found.names == ["a.png", "b.JPG"] and found.ignored == 5
    unreadable = folder
    with pytest.raises(UserError, match="cannot list this folder"):
        find_photos(folder)


def test_several_sources(folder, archive, tmp_path, monkeypatch):
    """Names stay as they are in each source; or they are paths."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "z.png").write_bytes(b"Z")
    photos = find_all([folder, other])
    assert photos.names == [*find_photos(folder).names, "z.png"]
    assert photos.open("z.png").read_bytes() == b"Z"
    assert photos.open("a.png").read_bytes() == b"A"
    with pytest.raises(UserError, match=r"a.png is in .* and in .*: rename"):
        find_all([folder, archive])
    paths = find_all([folder, archive, other / "gone.png"], paths=True)
    assert str(folder / "a.png") in paths.names and str(archive / "a.png") in paths.names
    assert paths.open(str(archive / "a.png")).read() == b"A"
    assert paths.names[-1] == str(other / "gone.png")
    monkeypatch.chdir(tmp_path)
    assert find_all(["other/*.png"]).names == ["z.png"]
    for source, message in (
        ("https://example.com/a.jpg", "a web address"),
        ("other/*.jpg", "no photo matches"),
        ("gone", "no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            find_all([source])


def test_a_photo_under_any_name(tmp_path):
    """A JPEG without an ending is a photo, and not a list of photos."""
    from PIL import Image

    path = tmp_path / "photo"
    Image.new("RGB", (9, 9)).save(path, format="JPEG")
    assert find_photos(path).names == ["photo"]
