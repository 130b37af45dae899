"""Random splits of photos into a training, a dev and a test set."""

import hashlib
from collections.abc import Iterable


def random_split(name: str, dev: float, test: float, seed: int) -> str:
    """Choose the split of one photo from a hash of the seed and its name.

    All captions of a photo are therefore in one split, and adding photos moves no other photo.

    Args:
        name: of the photo.
        dev: fraction of the photos in the dev split, 0..1.
        test: fraction of the photos in the test split, 0..1.
        seed: another seed gives an independent split.

    Returns:
        "train", "dev" or "test".
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    uniform = int.from_bytes(digest[:8], "big") / 2**64
    return "dev" if uniform < dev else "test" if uniform < dev + test else "train"


def random_splits(names: Iterable[str], dev: float, test: float, seed: int) -> dict[str, list[str]]:
    """Split photos with `random_split`.

    Args:
        names: of the photos.
        dev, test, seed: as for `random_split`.

    Returns:
        Split -> its photos in their original order. Empty splits are left out.
    """
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for name in names:
        splits[random_split(name, dev, test, seed)].append(name)
    return {split: photos for split, photos in splits.items() if photos}
