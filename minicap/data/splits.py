"""Which photos are to train on, which to choose by, which to judge by."""

import hashlib
from collections.abc import Iterable


def drawn_split(name: str, dev: float, test: float, seed: int) -> str:
    """ "train", "dev" or "test" for one photo, with these shares of dev and test.

    Drawn from the seed and the photo's name alone: all captions of a photo fall together, and
    photos that are added later change no other's split.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    return "dev" if drawn < dev else "test" if drawn < dev + test else "train"


def draw_splits(names: Iterable[str], dev: float, test: float, seed: int) -> dict[str, list[str]]:
    """Split -> its photos, in their order; without the splits that nothing fell into."""
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in names:
        splits[drawn_split(name, dev, test, seed)].append(name)
    return {split: photos for split, photos in splits.items() if photos}
