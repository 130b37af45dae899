"""Public data sets of photos and captions, and how to download them."""

import shlex
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicap.utils.downloads import fetch
from minicap.utils.errors import UserError
from minicap.utils.files import replacing

COCO = "http://images.cocodataset.org/"  # its certificate names another host: https is refused
FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/"
LARGEST = 1 << 30  # bytes of one unpacked file of captions
ROOM = 1 << 30  # bytes that are left free on the disk


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set.

    size: bytes; md5: in hex; files: what is taken out of it, {name in the zip: name on the disk},
    after which it is removed. Without files it holds photos and stays as it is: encode and train
    read them from there. exact: whether the size is known to the byte, or only about.
    """

    url: str
    size: int
    md5: str
    files: tuple[str, ...] = ()
    exact: bool = True

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """title, source, licence: lines to show; parts: name -> archive, captions first; next: part ->
    how to go on with it, where {folder} is to be filled in."""

    title: str
    source: str
    licence: str
    parts: dict[str, Archive]
    next: dict[str, str]


def coco(
    year: int, captions: tuple[int, str], train: tuple[int, str], val: tuple[int, str]
) -> DataSet:
    """COCO of a year; size and MD5 of its three archives."""
    splits = [f"train{year}", f"val{year}"]
    files = tuple(f"captions_{split}.json" for split in splits)
    photos = {
        2014: "82,783 photos to train on and 40,504",
        2017: "118,287 photos to train on and 5,000",
    }
    return DataSet(
        f"COCO {year}: {photos[year]} to validate with, 5 captions each",
        f"{COCO} (https://cocodataset.org)",
        "captions: CC BY 4.0. Photos: by Flickr users, each under its own licence; "
        "https://cocodataset.org/#termsofuse",
        {
            "captions": Archive(
                f"{COCO}annotations/annotations_trainval{year}.zip", *captions, files
            ),
            "val": Archive(f"{COCO}zips/{splits[1]}.zip", *val),
            "train": Archive(f"{COCO}zips/{splits[0]}.zip", *train),
        },
        {
            part: f"python -m minicap.encode {{folder}}/{split}.zip --out {{folder}}/{split}\n"
            f"python -m minicap.train --captions {{folder}}/captions_{split}.json "
            f"--features {{folder}}/{split} --photos {{folder}}/{split}.zip"
            for part, split in zip(["train", "val"], splits, strict=True)
        },
    )


# Sizes and checksums as they have been published by several users of these files.
DATA_SETS = {
    ("flickr8k", 2013): DataSet(
        "Flickr8k: 8,000 photos, 5 captions each (Hodosh, Young, Hockenmaier 2013)",
        f"{FLICKR8K} (a public copy; the authors give it out at "
        "https://forms.illinois.edu/sec/1713398)",
        "for research and teaching only, not for commercial use. Photos: by Flickr users, theirs",
        {
            "captions": Archive(
                f"{FLICKR8K}Flickr8k_text.zip",
                2_300_000,
                "bf6c1abcb8e4a833b7f922104de18627",
                (
                    "Flickr8k.token.txt",
                    "Flickr_8k.trainImages.txt",
                    "Flickr_8k.devImages.txt",
                    "Flickr_8k.testImages.txt",
                ),
                exact=False,
            ),
            "photos": Archive(
                f"{FLICKR8K}Flickr8k_Dataset.zip",
                1_115_000_000,
                "f18a1e2920de5bd84dae7cf08ec78978",
                exact=False,
            ),
        },
        {
            "photos": "python -m minicap.encode {folder}/Flickr8k_Dataset.zip "
            "--out {folder}/features\n"
            "python -m minicap.train --captions {folder}/Flickr8k.token.txt "
            "--features {folder}/features --train-split {folder}/Flickr_8k.trainImages.txt "
            "--dev-split {folder}/Flickr_8k.devImages.txt --photos {folder}/Flickr8k_Dataset.zip"
        },
    ),
    ("coco", 2014): coco(
        2014,
        (252_872_794, "0a379cfc70b0e71301e0f377548639bd"),
        (13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"),
        (6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"),
    ),
    ("coco", 2017): coco(
        2017,
        (252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"),
        (19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
        (815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    ),
}


def data_set(name: str, year: int) -> DataSet:
    """The data set of this name; `year` is COCO's."""
    return DATA_SETS[name, 2013 if name == "flickr8k" else year]


def description(data: DataSet, parts: Iterable[str], folder: Path) -> list[str]:
    """Lines about a data set: source, licence, sizes, and the room on the disk."""
    archives = {part: data.parts[part] for part in parts}
    return [
        data.title,
        f"source    {data.source}",
        f"licence   {data.licence}",
        *(
            f"{part:9} {archive.name}, {in_words(archive.size)}"
            + (", is there" if is_there(archive, folder) else "")
            for part, archive in archives.items()
        ),
        f"to        {folder}; {in_words(free_bytes(folder))} are free there",
    ]


def check_room(archives: Iterable[Archive], folder: Path) -> None:
    """Raise UserError if the disk has no room for what is missing of these archives."""
    missing = [archive for archive in archives if not is_there(archive, folder)]
    needed = sum(archive.size - begun(archive, folder) for archive in missing) + ROOM
    free = free_bytes(folder)
    if missing and free < needed:
        raise UserError(
            f"{folder}: {in_words(needed)} must be free, and {in_words(free)} are; make room, give "
            "--out a folder on another disk, or choose --parts"
        )


def next_commands(data: DataSet, parts: Sequence[str], folder: Path) -> list[str]:
    """The commands to go on with, or nothing if captions or photos are missing."""
    part = next((name for name in data.next if name in parts), "")
    if not part or not is_there(data.parts["captions"], folder):
        return []
    words = data.next[part].format(folder=shlex.quote(str(folder)))
    return ["minicap export", *words.splitlines()]


def is_there(archive: Archive, folder: Path) -> bool:
    """Whether nothing of this archive needs to be fetched."""
    files = archive.files or (archive.name,)
    return all((folder / name).exists() for name in files)


def begun(archive: Archive, folder: Path) -> int:
    """Bytes that an earlier try has left."""
    part = folder / f"{archive.name}.part"
    return part.stat().st_size if part.exists() else 0


def get(archive: Archive, folder: Path) -> None:
    """Fetch an archive into `folder`, and take its files out, if it has some to take.

    Raises UserError as `fetch` does, or if the archive is damaged.
    """
    if archive.files and is_there(archive, folder):
        return
    path = folder / archive.name
    size = archive.size if archive.exact else None
    most = 2 * archive.size
    fetch(archive.url, path, f"md5:{archive.md5}", size, archive.name, most=most)
    if archive.files:
        unpack(path, archive.files, folder)
        path.unlink()


def unpack(path: Path, files: tuple[str, ...], folder: Path) -> None:
    """Take `files` out of the zip file, from whatever folder they are in there, into `folder`.

    Nothing else is unpacked, whatever names and sizes the zip file speaks of. UserError: one is
    not in it, is damaged, or longer than LARGEST bytes.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            members = {name.rpartition("/")[2]: name for name in reversed(packed.namelist())}
            for name in files:
                if name not in members:
                    raise UserError(f"{path}: {name} is not in it")
                with (
                    packed.open(members[name]) as file,
                    replacing(folder / name) as temporary,
                    temporary.open("wb") as out,
                ):
                    while block := file.read(1 << 20):
                        out.write(block)
                        if out.tell() > LARGEST:
                            raise UserError(f"{path}: {name} in it is too long")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); delete it and try again") from error


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk where `folder` is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def in_words(size: float) -> str:
    """A number of bytes, rounded."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
