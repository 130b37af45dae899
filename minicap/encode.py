"""Encode photos: `minicap encode PHOTOS --out features`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from minicap.data.captions import find_names, read_captions
from minicap.data.store import LOCK, SKIPPED, STORE, FeatureStore
from minicap.encoder.photos import PhotoSource, find_photos
from minicap.encoder.pipeline import encode_batches
from minicap.encoder.session import EXPORTED, Encoder
from minicap.utils import command_line
from minicap.utils.errors import UserError
from minicap.utils.files import exclusive

CPUS = command_line.cpu_count()


@dataclass(frozen=True)
class Options:
    """Encode photos into a feature store, to train on.

    Stopped at any moment, even by a power cut, the same command goes on where it was. Photos that
    cannot be read are skipped, and listed with the reason; once all are through, the same command
    tries these again.
    """

    photos: tyro.conf.Positional[Path]
    """a folder of photos (with the folders in it), a zip file, a list of paths, or one photo"""
    out: Path = Path("features")
    """the feature store: a folder of its own"""
    encoder: Path = EXPORTED
    """ONNX file of the encoder, as `minicap export` writes it"""
    captions: Path | None = None
    """encode only the photos that this caption file has captions of"""
    root: Path | None = None
    """where the paths in a list begin [default: the list's folder]"""
    preprocessing: Literal["squeeze-bilinear", "squeeze-nearest", "crop-bilinear"] | None = None
    """how a photo is made to fit, for an encoder whose file does not say"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where the network runs"""
    workers: int = CPUS
    """batches that the network works on at once, each in a thread of its own; on a GPU it is one"""
    readers: int = max(2, CPUS)
    """threads that read, unpack and resize"""


def main(arguments: list[str] | None = None) -> int | None:
    """The command. Returns the exit status."""
    options = command_line.parse(Options, "encode", arguments)
    for name, number in ("workers", options.workers), ("readers", options.readers):
        if not 1 <= number <= 1024:
            raise UserError(f"--{name} must be from 1 to 1024")
    photos = find_photos(options.photos, options.root)
    print(f"photos    {len(photos.names):,} in {options.photos}", end="")
    print(f", {photos.left_out:,} other files left out" if photos.left_out else "")
    if options.captions:
        named = read_captions(options.captions).texts
        places = find_names(named, photos.names)
        photos = photos.only(places.get(name, name) for name in named)
        print(f"          {len(places):,} of the {len(named):,} that {options.captions} speaks of")
    encoder = Encoder(options.encoder, options.device, 1, options.preprocessing)
    busy = f"{options.out}: another process is encoding into this store"
    with exclusive(options.out / LOCK, busy):
        return fill_store(options, photos, encoder)


def fill_store(options: Options, photos: PhotoSource, encoder: Encoder) -> int | None:
    """Encode what the store still lacks. Returns the exit status."""
    if (options.out / STORE).exists():
        store = FeatureStore.open(options.out)
        store.check(photos.names, encoder.about())
    else:
        store = FeatureStore.create(options.out, photos.names, encoder.about(), encoder.batch)
    print(
        f"encoder   {encoder.name} ({encoder.id[:12]}), {encoder.preprocessing}, {options.device}"
    )
    print(f"store     {options.out}, {encoder.feature_size:,} features a photo", flush=True)
    if 0 < store.begun < len(store.names):
        print(f"          going on after {store.begun:,} photos")
    runs = options.workers if options.device == "cpu" else 1

    def encoded(batches: Iterator[list[str]]) -> Iterator:
        return encode_batches(encoder, batches, photos.open, options.readers, runs)

    try:
        if store.begun == len(store.names) and (store.marks == SKIPPED).any():
            mended = store.mend(encoded(store.skipped()))
            print(f"          {mended:,} that were skipped can be read now")
        with tqdm(
            total=len(store.names), initial=store.begun, unit=" photos", smoothing=0.1
        ) as bar:
            for count in store.fill(encoded(store.batches())):
                bar.update(count)
    except KeyboardInterrupt:
        print(f"stopped after {store.begun:,} photos; the same command goes on from there")
        return 130
    skipped = int((store.marks == SKIPPED).sum())
    print(f"done      {len(store.names) - skipped:,} photos encoded, {skipped:,} skipped", end="")
    print(f": see {options.out / 'skipped.jsonl'}" if skipped else "")
    return 1 if skipped == len(store.names) else None


if __name__ == "__main__":
    command_line.run(main)
