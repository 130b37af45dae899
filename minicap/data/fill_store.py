"""Encode photos into a feature store."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from minicap.data.captions import read_all_captions
from minicap.data.names import find_names
from minicap.data.store import SKIPPED, STORE, FeatureStore
from minicap.encoder.photos import PhotoSource
from minicap.encoder.pipeline import encode_batches
from minicap.encoder.session import Encoder
from minicap.utils.errors import UserError
from minicap.utils.files import listed


def captioned(photos: PhotoSource, files: Sequence[Path], places: str) -> PhotoSource:
    """Select the photos that have captions, and print how many.

    Args:
        photos: all photos.
        files: caption files.
        places: where the photos are, for messages.

    Raises:
        UserError: a caption file is unusable, or none of its photos is there.
    """
    captions = read_all_captions(files)
    for note in captions.notes:
        print(f"note      {note}")
    paths = find_names(captions.texts, photos.names)
    if not paths:
        raise UserError(
            f"none of the {len(captions.texts):,} photos in {listed(files)}, for example "
            f"{next(iter(captions.texts))!r}, is in {places}, which has {photos.names[0]!r}"
        )
    print(f"          {len(paths):,} of the {len(captions.texts):,} photos in {listed(files)}")
    return photos.only(paths.get(name, name) for name in captions.texts)


def open_store(folder: Path, photos: PhotoSource, encoder: Encoder) -> FeatureStore:
    """Open the feature store in a folder, or create it.

    Raises:
        UserError: the store was created with other photos or another encoder, is damaged, or
            cannot be created.
    """
    if not (folder / STORE).exists():
        return FeatureStore.create(folder, photos.names, encoder.about(), encoder.batch)
    store = FeatureStore.open(folder)
    store.check(photos.names, encoder.about())
    return store


def fill_store(
    store: FeatureStore, photos: PhotoSource, encoder: Encoder, readers: int, workers: int
) -> int:
    """Encode the missing photos, with a progress bar; if none is missing, retry the skipped ones.

    Args:
        store: from `open_store`.
        photos: the same photos.
        encoder: the same encoder.
        readers, workers: as for `encode_batches`.

    Returns:
        The number of photos that were skipped before and are encoded now.

    Raises:
        UserError: the disk is full.
    """

    def encoded(batches: Iterator[list[str]]) -> Iterator:
        return encode_batches(encoder, batches, photos.open, readers, workers)

    recovered = 0
    if store.encoded == len(store.names) and (store.marks == SKIPPED).any():
        recovered = store.retry(encoded(store.skipped()))
    with tqdm(total=len(store.names), initial=store.encoded, unit=" photos", smoothing=0.1) as bar:
        for count in store.fill(encoded(store.batches())):
            bar.update(count)
    return recovered
