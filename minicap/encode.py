"""Compute the features of photos: `minicap encode PHOTOS --out features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minicap.data.fill_store import captioned, fill_store, open_store
from minicap.data.store import LOCK, REASONS, SKIPPED, FeatureStore
from minicap.encoder.image import Preprocessing
from minicap.encoder.maps import map_encoder
from minicap.encoder.photos import find_all
from minicap.encoder.session import EXPORTED, Encoder, open_encoder
from minicap.utils import command_line
from minicap.utils.errors import UserError, plain
from minicap.utils.files import exclusive
from minicap.utils.ranks import world

CPUS = command_line.cpu_count()


@dataclass(frozen=True)
class Options:
    """Compute the features of photos and save them in a feature store for training.

    If it is interrupted at any moment, even by a power cut, the same command resumes. Unreadable
    photos are skipped and listed with the reason. When all photos are done, the same command tries
    the skipped ones again.
    """

    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS...")]
    """folders of photos (with their subfolders), zip files, lists of paths, photos, or patterns"""
    out: Path = Path("features")
    """folder for the feature store"""
    encoder: Path = EXPORTED
    """ONNX file of the encoder, made with `minicap export`; or pretrained, for the encoder of the
    pretrained model"""
    captions: tuple[Path, ...] = ()
    """encode only the photos that have captions in these files"""
    root: Path | None = None
    """folder to which the paths in a list are relative [default: the list's folder]"""
    map: bool = False
    """store the feature map before pooling, for attention; its principal components are fitted to a
    sample of the photos and saved in OUT.onnx, the encoder to caption with"""
    components: int = 512
    """principal components of each position, for --map"""
    preprocessing: Preprocessing | None = None
    """how photos are resized, if the encoder's file does not specify it"""
    device: Literal["cpu", "cuda"] = "cpu"
    """device that runs the network"""
    workers: int = CPUS
    """threads that run the network, one batch each; always 1 on a GPU"""
    readers: int = max(2, CPUS)
    """threads that read, decode and resize photos"""


def main(arguments: list[str] | None = None) -> int | None:
    """Run the command.

    Returns:
        The exit status: 1 if no photo could be encoded, 130 after Ctrl-C, else None.
    """
    options = command_line.parse(Options, "encode", arguments)
    for name, value in ("workers", options.workers), ("readers", options.readers):
        if not 1 <= value <= 1024:
            raise UserError(f"--{name} must be from 1 to 1024, not {value}")
    if not options.photos:
        raise UserError("name a folder of photos, a zip file, a list or a photo")
    photos, places = find_all(options.photos, options.root), ", ".join(options.photos)
    print(f"photos    {len(photos.names):,} in {places}", end="")
    print(f", {photos.ignored:,} other files ignored" if photos.ignored else "")
    if options.captions:
        photos = captioned(photos, options.captions, places)
    path = options.encoder
    if options.map:
        made = Path(f"{options.out}.onnx")
        how = path, photos, options.components, made, options.preprocessing
        path = world().first(lambda: map_encoder(*how))
    encoder = open_encoder(path, options.device, 1, options.preprocessing)
    busy = f"{options.out}: another process is encoding into this store"
    with exclusive(options.out / LOCK, busy):
        store = open_store(options.out, photos, encoder)
        report(options, encoder, store)
        try:
            workers = options.workers if options.device == "cpu" else 1
            recovered = fill_store(store, photos, encoder, options.readers, workers)
        except KeyboardInterrupt:
            print(f"stopped after {store.encoded:,} photos; run the same command to resume")
            return 130
    if recovered:
        print(f"          {recovered:,} of the skipped photos are readable now")
    skipped = int((store.marks == SKIPPED).sum())
    print(f"done      {len(store.names) - skipped:,} photos encoded, {skipped:,} skipped", end="")
    print(f": see {options.out / REASONS}" if skipped else "")
    for reason, names in store.reasons().most_common(3):
        print(f"          {names:,} skipped: {reason}")
    if repaired := encoder.repaired:
        print(
            f"note      {len(repaired):,} JPEG files lack their end marker and are read: ", end=""
        )
        print(f"{plain(repaired[0])}{', ...' * (len(repaired) > 1)}")
    return 1 if skipped == len(store.names) else None


def report(options: Options, encoder: Encoder, store: FeatureStore) -> None:
    """Print what is about to be encoded."""
    about = f"{encoder.name} ({encoder.id[:12]}), {encoder.preprocessing}, {options.device}"
    print(f"encoder   {about}")
    size = 2e-6 * encoder.feature_size * len(store.names)
    print(f"store     {options.out}, {encoder.feature_size:,} features per photo", end="")
    print(f", {size:,.0f} MB" if size >= 100 else "", flush=True)
    if 0 < store.encoded < len(store.names):
        print(f"          resuming after {store.encoded:,} photos")


if __name__ == "__main__":
    command_line.run(main)
