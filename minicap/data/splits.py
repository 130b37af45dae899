"""Random splits of photos into a training, a dev and a test set."""

import hashlib
from collections.abc import Iterable


def uniform(name: str, seed: int) -> float:
    """Compute a number in [0, 1) for a photo from a hash of the seed and its name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def random_split(name: str, dev: float, test: float, seed: int) -> str:
    """Choose the split of one photo by its `uniform` number.

    All captions of a photo are therefore in one split, and adding photos moves no other photo.

    Args:
        name: of the photo.
        dev: fraction of the photos in the dev split, 0..1.
        test: fraction of the photos in the test split, 0..1.
        seed: another seed gives an independent split.

    Returns:
        "train", "dev" or "test".
    """
    u = uniform(name, seed)
    return "dev" if u < dev else "test" if u < dev + test else "train"


def random_splits(names: Iterable[str], dev: float, test: float, seed: int) -> dict[str, list[str]]:
    """Split photos with `random_split`.

    With few photos, a split may stay empty by chance. Then it gets the photo of train whose number
    is the smallest.

    Args:
        names: of the photos.
        dev, test, seed: as for `random_split`.

    Returns:
        Split -> its photos in their original order. Empty splits are left out.
    """
    names = list(names)
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in names:
        splits[random_split(name, dev, test, seed)].append(name)
    for split, fraction in ("dev", dev), ("test", test):
        if fraction and not splits[split] and len(splits["train"]) > 1:
            first = min(splits["train"], key=lambda name: uniform(name, seed))
            splits["train"].remove(first)
            splits[split] = [first]
    return {split: photos for split, photos in splits.items() if photos}
