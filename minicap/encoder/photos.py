"""List and open the photos of a folder, a zip file or a list of paths."""

import errno
import glob
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import read_lines

# Files that count as photos, by name. Their content is checked only when they are opened.
SUFFIXES = {
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
MAX_BYTES = 1 << 28  # of one unpacked file in a zip


@dataclass(frozen=True)
class PhotoSource:
    """Photos by name, in a fixed order.

    Attributes:
        names: distinct names of the photos.
        open: returns for a name what `image.read` takes, or raises UnusableImage.
        ignored: number of other files and of folders without permission.
    """

    names: list[str]
    open: Callable[[str], Path | IO[bytes]]
    ignored: int = 0

    def only(self, names: Iterable[str]) -> "PhotoSource":
        """Select these names, in this order; a missing photo fails only when it is opened."""
        return PhotoSource(list(dict.fromkeys(names)), self.open)


def find_photos(source: Path, root: Path | None = None) -> PhotoSource:
    """List the photos of a folder (with its subfolders), a zip file, a list of paths, or one photo.

    Args:
        source: the folder or file.
        root: folder to which the paths in a list are relative; by default the list's own folder.

    Returns:
        The photos, sorted by name except for a list. A name is the path within the folder or zip
        file, with "/", or the line of the list.

    Raises:
        UserError: the source does not exist, has no photos, or is a list that is not UTF-8.
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
        others = f" among its {photos.ignored} files" if photos.ignored else ""
        raise UserError(
            f"{source}: no photos{others}; photos have names that end in .jpg, .png or the like"
        )
    return photos


def expand(names: Sequence[str]) -> list[Path]:
    """List the photos that a command line names.

    Args:
        names: photos; folders, which stand for the photos in them and in their subfolders; and
            patterns like new/*.jpg that the shell has left as they are.

    Raises:
        UserError: a web address, a folder without photos, or a pattern that matches nothing.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if re.match(r"\w+://", name):
            raise UserError(f"{name}: a web address; download the photo and name the file")
        if path.is_dir():
            found += [path / photo for photo in _folder(path).names]
        elif not path.exists() and glob.has_magic(name):
            matches = sorted(filter(_is_photo, glob.glob(name, recursive=True)))
            if not matches:
                raise UserError(f"{name}: no photo matches this pattern")
            found += map(Path, matches)
        else:
            found.append(path)
    return found


def _is_photo(name: str) -> bool:
    """Whether a file has a photo's suffix and is not hidden (macOS adds ._IMG.jpg to IMG.jpg)."""
    *folders, file = name.split("/")
    hidden = file.startswith(".") or "__MACOSX" in folders
    return not hidden and os.path.splitext(file)[1].lower() in SUFFIXES


def _source(names: list[str], open: Callable[[str], Path | IO[bytes]]) -> PhotoSource:
    """Sort the photos and count the other files."""
    photos = sorted(filter(_is_photo, names))
    return PhotoSource(photos, open, len(names) - len(photos))


def _folder(folder: Path) -> PhotoSource:
    names, unreadable = [], []

    def on_error(error: OSError) -> None:
        if error.errno != errno.EACCES or Path(error.filename) == folder:
            raise UserError(f"{error.filename}: cannot list this folder ({error.strerror})")
        unreadable.append(error.filename)  # belongs to another user, like lost+found

    # Links to folders are not followed: they may form loops.
    for path, _, files in os.walk(folder, onerror=on_error):
        subfolder = Path(path).relative_to(folder)
        names += [(subfolder / file).as_posix() for file in files]

    def open(name: str) -> Path:
        if not folder.exists():  # a drive that is gone says nothing about its photos
            raise UserError(f"{folder}: this folder no longer exists")
        return folder / name

    return _source([*names, *unreadable], open)


def _zip(path: Path) -> PhotoSource:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: cannot be read as a zip file ({error})") from error
    members = {info.filename: info for info in archive.infolist() if not info.is_dir()}

    def open(name: str) -> IO[bytes]:
        if name not in members:
            raise UnusableImage(name, f"not in {path.name}")
        if members[name].file_size > MAX_BYTES:
            raise UnusableImage(name, f"more than {MAX_BYTES:,} bytes; make it smaller")
        try:
            with archive.open(name) as file:
                content = io.BytesIO(file.read(MAX_BYTES))
        except Exception as error:  # zipfile and zlib raise a dozen classes for damaged files
            raise UnusableImage(name, f"cannot be unpacked ({error})") from error
        content.name = name
        return content

    return _source(list(members), open)


def _list(path: Path, root: Path) -> PhotoSource:
    lines = (line.strip() for line in read_lines(path, "list of photos"))
    return PhotoSource(list(dict.fromkeys(filter(None, lines))), root.joinpath)
