"""List and open the photos of folders, zip files, lists of paths and patterns."""

import errno
import glob
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from minicap.encoder.image import is_image
from minicap.utils.errors import UnusableImage, UserError
from minicap.utils.files import read_lines

# Files that count as photos, by name. Their content is checked only when they are opened.
SUFFIXES = {
    ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".mpo", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
MAX_BYTES = 1 << 28  # of one unpacked file in a zip


@dataclass(frozen=True)
class PhotoSource:
    """Photos by name, in a fixed order.

    Attributes:
        names: distinct names of the photos.
        open: returns for a name what `image.load_image` takes, or raises UnusableImage.
        ignored: number of other files and of folders without permission.
        place: the folder or zip file in which the names are paths.
    """

    names: list[str]
    open: Callable[[str], Path | IO[bytes]]
    ignored: int = 0
    place: Path = Path()

    def only(self, names: Iterable[str]) -> "PhotoSource":
        """Select these names, in this order; a missing photo fails only when it is opened."""
        return replace(self, names=list(dict.fromkeys(names)), ignored=0)


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
    elif source.exists() and (_is_photo(source.name) or is_image(source)):
        photos = _photo(source)
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


def find_all(
    sources: Sequence[str | Path], root: Path | None = None, paths: bool = False
) -> PhotoSource:
    """List the photos of several sources, as a command line names them.

    Args:
        sources: each as for `find_photos`, or a pattern such as new/*.jpg that the shell has left
            as it is.
        root: as for `find_photos`.
        paths: name photos by their path, and not by their path within the source. A file that does
            not exist then counts as a photo, which fails when it is opened.

    Returns:
        The photos, in the order of the sources.

    Raises:
        UserError: a source is a web address, does not exist or has no photos, a pattern matches
            nothing, or two sources have a photo of the same name.
    """
    found = []
    for source in sources:
        for path in _expanded(str(source)):
            missing = paths and not path.exists()
            found.append(_photo(path) if missing else find_photos(path, root))
    if len(found) == 1 and not paths:
        return found[0]
    owner: dict[str, tuple[PhotoSource, str]] = {}
    for photos in found:
        for name in photos.names:
            full = str(photos.place / name) if paths else name
            other = owner.setdefault(full, (photos, name))[0]
            if other is not photos and not paths:
                raise UserError(
                    f"{name} is in {other.place} and in {photos.place}: rename one of the photos, "
                    "or encode them into two stores and give both to `minicap train --features`"
                )

    def open(name: str) -> Path | IO[bytes]:
        if name not in owner:
            raise UnusableImage(name, "not among the photos")
        photos, inner = owner[name]
        return photos.open(inner)

    return PhotoSource(list(owner), open, sum(photos.ignored for photos in found))


def _expanded(source: str) -> list[Path]:
    """The paths that a pattern stands for, or the path itself."""
    if re.match(r"\w+://", source):
        raise UserError(f"{source}: a web address; download the photo and name the file")
    if Path(source).exists() or not glob.has_magic(source):
        return [Path(source)]
    matches = sorted(filter(_is_photo, glob.glob(source, recursive=True)))
    if not matches:
        raise UserError(f"{source}: no photo matches this pattern")
    return list(map(Path, matches))


def _photo(path: Path) -> PhotoSource:
    return PhotoSource([path.name], path.parent.joinpath, place=path.parent)


def _is_photo(name: str) -> bool:
    """Whether a file has a photo's suffix and is not hidden (macOS adds ._IMG.jpg to IMG.jpg)."""
    *folders, file = name.split("/")
    hidden = file.startswith(".") or "__MACOSX" in folders
    return not hidden and os.path.splitext(file)[1].lower() in SUFFIXES


def _source(names: list[str], open: Callable[[str], Path | IO[bytes]], place: Path) -> PhotoSource:
    """Sort the photos and count the other files."""
    photos = sorted(filter(_is_photo, names))
    return PhotoSource(photos, open, len(names) - len(photos), place)


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

    return _source([*names, *unreadable], open, folder)


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

    return _source(list(members), open, path)


def _list(path: Path, root: Path) -> PhotoSource:
    lines = (line.strip() for line in read_lines(path, "list of photos"))
    names = list(dict.fromkeys(filter(None, lines)))
    return PhotoSource(names, root.joinpath, place=root)
