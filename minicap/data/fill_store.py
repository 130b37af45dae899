"""Encode photos into a feature store."""

import itertools
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
from minicap.utils.ranks import world


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
    """Open the feature store in a folder, or create it (rank 0 does).

    Raises:
        UserError: the store was created with other photos or another encoder, is damaged, or
            cannot be created.
    """

    def create() -> None:
        if not (folder / STORE).exists():
            FeatureStore.create(folder, photos.names, encoder.about(), encoder.batch)

    world().first(create)
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

    ranks, recovered = world(), 0
    ranks.first(store.tidy)
    rows, total = store.todo(), len(store.names)
    if not rows and (store.marks == SKIPPED).any():
        recovered = ranks.first(lambda: store.retry(encoded(store.skipped())))
    dealt, taken = itertools.tee(ranks.deal(range(len(rows))))
    features = encoded(store.batch_at(rows[number]) for number in taken)
    results = ((rows[number], *found) for number, found in zip(dealt, features))
    with tqdm(total=total, initial=store.encoded, unit=" photos", smoothing=0.1) as bar:
        for count in store.fill(results, ranks.rank):
            bar.update(min(count * ranks.size, total - bar.n))  # the others are about as far
        ranks.wait()
        bar.update(total - bar.n)
    store.marks[...] = ranks.first(store.tidy)
    return recovered
