"""Public data sets of photos and captions: where they are, and how to download them."""

import shlex
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicap.data.captions import read_captions
from minicap.data.dataset import DataFiles
from minicap.data.splits import uniform
from minicap.utils.downloads import fetch
from minicap.utils.errors import UserError
from minicap.utils.files import replacing, write_text

COCO = "http://images.cocodataset.org/"  # its certificate is for another host: https fails
FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/"
COCO_DEV = 5000  # photos of val in the dev set
LARGEST = 1 << 30  # bytes of one unpacked file of captions
RESERVE = 1 << 30  # bytes that must stay free on the disk


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set.

    Attributes:
        url: where it is published.
        size: in bytes.
        md5: checksum in hex.
        files: names of the files to unpack; the zip file is then deleted. If empty, it contains
            photos and is kept as it is: `minicap encode` and `minicap train` read it directly.
        exact: whether ``size`` is exact or rounded.
    """

    url: str
    size: int
    md5: str
    files: tuple[str, ...] = ()
    exact: bool = True

    @property
    def name(self) -> str:
        """The file name in the URL."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublicDataset:
    """A data set that can be downloaded.

    Attributes:
        title, source, licence: one line each, to print.
        parts: name -> archive, captions first.
        next: part of photos -> the commands to run after its download, one per line, with
            "{folder}" for the folder.
        training: how long training with the recipe `best` takes.
    """

    title: str
    source: str
    licence: str
    parts: dict[str, Archive]
    next: dict[str, str]
    training: str


def coco(
    year: int, captions: tuple[int, str], train: tuple[int, str], val: tuple[int, str]
) -> PublicDataset:
    """Describe an edition of COCO.

    Args:
        year: 2014 or 2017.
        captions, train, val: size and MD5 of each archive.
    """
    splits = [f"train{year}", f"val{year}"]
    files = tuple(f"captions_{split}.json" for split in splits)
    photos = {
        2014: "82,783 training and 40,504 validation photos",
        2017: "118,287 training and 5,000 validation photos",
    }
    return PublicDataset(
        f"COCO {year}: {photos[year]}, 5 captions each",
        f"{COCO} (https://cocodataset.org)",
        "captions: CC BY 4.0. Photos: by Flickr users, each with its own licence; "
        "https://cocodataset.org/#termsofuse",
        {
            "captions": Archive(
                f"{COCO}annotations/annotations_trainval{year}.zip", *captions, files
            ),
            "val": Archive(f"{COCO}zips/{splits[1]}.zip", *val),
            "train": Archive(f"{COCO}zips/{splits[0]}.zip", *train),
        },
        {
            part: f"minicap encode {{folder}}/{split}.zip --out {{folder}}/{split}\n"
            f"minicap train --captions {{folder}}/captions_{split}.json "
            f"--features {{folder}}/{split} --photos {{folder}}/{split}.zip"
            for part, split in zip(["train", "val"], splits, strict=True)
        },
        "about four hours on two cores",
    )


# Sizes and checksums that several users of these files have published.
DATA_SETS = {
    ("flickr8k", 2013): PublicDataset(
        "Flickr8k: 8,000 photos, 5 captions each (Hodosh, Young, Hockenmaier 2013)",
        f"{FLICKR8K} (a public copy; the authors distribute it at "
        "https://forms.illinois.edu/sec/1713398)",
        "for research and teaching only, no commercial use. Photos: copyright of the Flickr users",
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
            "photos": "minicap encode {folder}/Flickr8k_Dataset.zip "
            "--out {folder}/features\n"
            "minicap train --captions {folder}/Flickr8k.token.txt "
            "--features {folder}/features --train-split {folder}/Flickr_8k.trainImages.txt "
            "--dev-split {folder}/Flickr_8k.devImages.txt --photos {folder}/Flickr8k_Dataset.zip"
        },
        "about ten minutes on two cores",
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


def data_set(name: str, year: int) -> PublicDataset:
    """Return a data set by name.

    Args:
        name: "flickr8k" or "coco".
        year: COCO's edition, 2014 or 2017.
    """
    return DATA_SETS[name, 2013 if name == "flickr8k" else year]


def data_files(data: PublicDataset, folder: Path) -> DataFiles:
    """Return the files to train on, features included. COCO's lists of photos are written here.

    COCO has no test captions. As in Karpathy and Fei-Fei (2015), 5,000 photos of val are the dev
    set, and the others are added to train.

    Args:
        data: a data set whose captions are in `folder`.
        folder: where they are, and where the features will be.
    """
    texts = [folder / name for name in data.parts["captions"].files]
    features = (folder / "features",)
    if "photos" in data.parts:  # Flickr8k, with lists of its own
        return DataFiles((texts[0],), features, texts[1], texts[2], texts[3])
    train, dev = folder / "train.txt", folder / "dev.txt"
    if not (train.exists() and dev.exists()):
        names = [list(read_captions(path).texts) for path in texts]
        order = sorted(names[1], key=lambda name: uniform(name, 0))
        write_text(dev, "\n".join(order[:COCO_DEV]) + "\n")
        write_text(train, "\n".join(names[0] + order[COCO_DEV:]) + "\n")
    return DataFiles(tuple(texts), features, train, dev)


def photo_archives(data: PublicDataset, folder: Path) -> list[Path]:
    """Return the zip files of photos."""
    return [folder / part.name for part in data.parts.values() if not part.files]


def description(data: PublicDataset, parts: Iterable[str], folder: Path) -> list[str]:
    """Describe a download in lines to print: source, licence, sizes, free disk space."""
    archives = {part: data.parts[part] for part in parts}
    return [
        data.title,
        f"source    {data.source}",
        f"licence   {data.licence}",
        *(
            f"{part:9} {archive.name}, {format_bytes(archive.size)}"
            + (", already downloaded" if is_complete(archive, folder) else "")
            for part, archive in archives.items()
        ),
        f"to        {folder}, {format_bytes(free_bytes(folder))} free",
    ]


def check_disk_space(archives: Iterable[Archive], folder: Path) -> None:
    """Raise UserError if the disk has no space for the missing part of these archives."""
    missing = [archive for archive in archives if not is_complete(archive, folder)]
    needed = sum(archive.size - partial_size(archive, folder) for archive in missing) + RESERVE
    free = free_bytes(folder)
    if missing and free < needed:
        raise UserError(
            f"{folder}: {format_bytes(needed)} must be free, but only {format_bytes(free)} are; "
            "free disk space, choose a folder on another disk with --out, or fewer --parts"
        )


def next_commands(data: PublicDataset, parts: Sequence[str], folder: Path) -> list[str]:
    """Return the commands to run next; none if captions or photos are missing.

    Args:
        data: the data set.
        parts: the downloaded parts.
        folder: where they are.
    """
    part = next((name for name in data.next if name in parts), "")
    if not part or not is_complete(data.parts["captions"], folder):
        return []
    words = data.next[part].format(folder=shlex.quote(str(folder)))
    return ["minicap export", *words.splitlines()]


def is_complete(archive: Archive, folder: Path) -> bool:
    """Return whether the archive, or all files unpacked from it, exist."""
    files = archive.files or (archive.name,)
    return all((folder / name).exists() for name in files)


def partial_size(archive: Archive, folder: Path) -> int:
    """Return the number of bytes that an interrupted download left."""
    part = folder / f"{archive.name}.part"
    return part.stat().st_size if part.exists() else 0


def download(archive: Archive, folder: Path) -> None:
    """Download an archive into `folder` and unpack its files, if it lists any.

    Raises:
        UserError: the download failed, or the archive is damaged.
    """
    if archive.files and is_complete(archive, folder):
        return
    path = folder / archive.name
    size = archive.size if archive.exact else None
    most = 2 * archive.size
    fetch(archive.url, path, f"md5:{archive.md5}", size, archive.name, max_size=most)
    if archive.files:
        unpack(path, archive.files, folder)
        path.unlink()


def unpack(path: Path, files: tuple[str, ...], folder: Path) -> None:
    """Unpack some files of a zip file, and no others.

    Args:
        path: the zip file.
        files: names of the files, in any folder of the zip file.
        folder: where to unpack them, without folders.

    Raises:
        UserError: a file is missing, damaged or longer than LARGEST bytes.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            members = {name.rpartition("/")[2]: name for name in reversed(packed.namelist())}
            for name in files:
                if name not in members:
                    raise UserError(f"{path}: {name} is missing in this zip file")
                with (
                    packed.open(members[name]) as file,
                    replacing(folder / name) as temporary,
                    temporary.open("wb") as out,
                ):
                    while block := file.read(1 << 20):
                        out.write(block)
                        if out.tell() > LARGEST:
                            raise UserError(f"{path}: {name} in this zip file is too long")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be unpacked ({error}); delete it and run the command again"
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, which need not exist yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def format_bytes(size: float) -> str:
    """Format a number of bytes in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
