"""Where photos come from: a folder, a zip file, or a list of paths."""

import errno
import io
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import read_lines

# By their names, photos among whatever else lies in a folder. What is in them is found out later.
ENDINGS = {
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
LARGEST = 1 << 28  # bytes of one file in a zip, unpacked


@dataclass(frozen=True)
class PhotoSource:
    """Photos by name, in a fixed order.

    names: each once; open: a name -> what image.read takes, or UnusableImage; left_out: how many
    other files there were, and folders that may not be looked into.
    """

    names: list[str]
    open: Callable[[str], Path | IO[bytes]]
    left_out: int = 0

    def only(self, names: Iterable[str]) -> "PhotoSource":
        """These names in this order; one that is not there is found out when it is opened."""
        return PhotoSource(list(dict.fromkeys(names)), self.open)


def find_photos(source: Path, root: Path | None = None) -> PhotoSource:
    """The photos of a folder, with all folders in it, of a zip file, or of a list of paths; or one
    photo.

    A photo's name is its path within the folder or zip, with "/", or its line in the list. Paths
    in a list are relative to `root`, or to where the list lies. Names are sorted, but for a list's.
    UserError: nothing there, no photos in it, a list that is no text.
    """
    if source.is_dir():
        photos = _folder(source)
    elif source.is_file() and zipfile.is_zipfile(source):
        photos = _zip(source)
    elif _is_photo(source.name) and source.exists():
        photos = PhotoSource([source.name], source.parent.joinpath)
    elif source.exists():
        photos = _list(source, root or source.parent)
    else:
        raise UserError(f"{source}: no such folder, zip file or list of photos")
    if not photos.names:
        others = f" among its {photos.left_out} files" if photos.left_out else ""
        raise UserError(f"{source}: no photos{others}; their names end in .jpg, .png or the like")
    return photos


def _is_photo(name: str) -> bool:
    """Neither hidden (macOS puts a ._IMG.jpg beside each IMG.jpg) nor with another ending."""
    *folders, file = name.split("/")
    hidden = file.startswith(".") or "__MACOSX" in folders
    return not hidden and os.path.splitext(file)[1].lower() in ENDINGS


def _sort(names: list[str], open: Callable[[str], Path | IO[bytes]]) -> PhotoSource:
    photos = sorted(filter(_is_photo, names))
    return PhotoSource(photos, open, len(names) - len(photos))


def _folder(folder: Path) -> PhotoSource:
    names, closed = [], []

    def unreadable(error: OSError) -> None:
        if error.errno != errno.EACCES or Path(error.filename) == folder:
            raise UserError(f"{error.filename}: cannot be looked into ({error.strerror})")
        closed.append(error.filename)  # another's: lost+found, for one

    # Links to folders are not followed: they may be loops.
    for place, _, files in os.walk(folder, onerror=unreadable):
        inner = Path(place).relative_to(folder)
        names += [(inner / file).as_posix() for file in files]

    def open(name: str) -> Path:
        if not folder.exists():  # a drive that is gone says nothing about the photos
            raise UserError(f"{folder}: this folder is no longer there")
        return folder / name

    return _sort([*names, *closed], open)


def _zip(path: Path) -> PhotoSource:
    try:
        packed = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be read as a zip file ({error})") from error
    members = {info.filename: info for info in packed.infolist() if not info.is_dir()}

    def open(name: str) -> IO[bytes]:
        if name not in members:
            raise UnusableImage(name, f"not in {path.name}")
        if members[name].file_size > LARGEST:
            raise UnusableImage(name, f"more than {LARGEST:,} bytes; make it smaller")
        try:
            with packed.open(name) as file:
                content = io.BytesIO(file.read(LARGEST))
        except Exception as error:  # zipfile and zlib have a dozen classes for what is broken
            raise UnusableImage(name, f"cannot be unpacked ({error})") from error
        content.name = name
        return content

    return _sort(list(members), open)


def _list(path: Path, root: Path) -> PhotoSource:
    lines = (line.strip() for line in read_lines(path, "list of photos"))
    return PhotoSource(list(dict.fromkeys(filter(None, lines))), root.joinpath)
