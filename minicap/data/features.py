"""Files of image features, and their scaling."""

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from minicap.data.canonical import canonical_directions
from minicap.data.compressed import compress, decompress
from minicap.data.store import DONE, FeatureStore
from minicap.utils.errors import UserError
from minicap.utils.files import replacing

FORMAT = 1  # of the .npz files; one without a format is of format 1
LARGE = 1 << 30  # bytes; a file that unpacks to no more than this is never refused


@dataclass(frozen=True)
class Features:
    """The features of P photos.

    Attributes:
        names: P photo names.
        array: (P, F) float32 or float16.
        encoder: a description of the encoder with "id", "name", "preprocessing" and
            "feature_size", or None if the file has none.
    """

    names: list[str]
    array: numpy.ndarray
    encoder: dict | None = None

    def save(self, path: Path, directions: numpy.ndarray | None = None) -> None:
        """Save an .npz file that `read_features` reads. A failed save leaves no partial file.

        Args:
            path: where to save.
            directions: (F, K) vectors; if given, the features are compressed to the subspace they
                span (see `minicap.data.compressed`).

        Raises:
            UserError: the file cannot be written.
        """
        arrays = {"features": self.array}
        if directions is not None:
            arrays = compress(self.array, directions)
        about = {
            "format": numpy.array(FORMAT),
            "names": numpy.array(self.names),
            "encoder": numpy.array(json.dumps(self.encoder)),
        }
        with replacing(path) as temporary, open(temporary, "wb") as file:
            numpy.savez(file, **about, **arrays)  # type: ignore[arg-type]


def read_features(path: Path) -> Features:
    """Read features from a feature store or from an .npz file. Nothing is unpickled.

    Args:
        path: the folder of a `FeatureStore`, which is memory-mapped and not read; or an .npz file
            with ``names`` (P,), ``features`` (P, F) and optionally ``encoder`` (JSON). The .npz
            file may be compressed (see `minicap.data.compressed`).

    Returns:
        The features, without the photos that `minicap encode` skipped.

    Raises:
        UserError: the file is missing or broken, shapes do not match, a name occurs twice, numbers
            are NaN or infinite, or the feature store is incomplete.
    """
    if path.is_dir():
        return _read_store(path)
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > max(LARGE, 100 * path.stat().st_size):  # features hardly ever shrink to half
            raise ValueError(f"it would unpack to {unpacked:,} bytes")
        with numpy.load(path, allow_pickle=False) as file:
            version = int(file["format"]) if "format" in file else 1
            if version > FORMAT:
                raise ValueError(f"format {version}, this minicap reads formats up to {FORMAT}")
            names = file["names"]
            array = _decompressed(file) if "codes" in file else file["features"]
            encoder = json.loads(str(file["encoder"])) if "encoder" in file else None
    except OSError as error:
        raise UserError(f"{path}: cannot read the features ({error.strerror or error})") from error
    except KeyError as error:
        raise UserError(f"{path}: an .npz file with `names` and `features` is needed") from error
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for a broken file
        raise UserError(f"{path}: broken, or not an .npz file of features ({error})") from error
    fit = array.ndim == 2 and names.shape == array.shape[:1] and array.size
    if not fit or names.dtype.kind != "U" or array.dtype.kind != "f":
        raise UserError(
            f"{path}: names {names.shape} {names.dtype} and features {array.shape} {array.dtype} "
            "do not match: expected (P,) text and (P, F) floating-point numbers"
        )
    if not _describes_an_encoder(encoder):
        raise UserError(
            f"{path}: `encoder` must be a JSON object with texts `id`, `name` and perhaps "
            f"`preprocessing`, not {encoder!r}"
        )
    if array.itemsize > 4:
        with numpy.errstate(over="ignore"):  # overflows are refused below
            array = array.astype(numpy.float32)
    listed = names.tolist()
    if len(set(listed)) < len(listed):
        twice = next(name for name, count in Counter(listed).items() if count > 1)
        raise UserError(f"{path}: {twice} occurs more than once")
    finite = numpy.isfinite(array).all(axis=1)
    if not finite.all():
        bad = int(numpy.argmin(finite))
        raise UserError(
            f"{path}, row {bad} ({listed[bad]}): NaN or infinite features "
            f"({int((~finite).sum())} of {len(listed)} photos): encode them again"
        )
    return Features(listed, array, encoder)


def read_all_features(paths: Sequence[Path]) -> Features:
    """Read one or more files of features with `read_features`, as if they were one.

    Raises:
        UserError: as for `read_features`; or the files are of different encoders or sizes, or have
            a photo in common.
    """
    parts = [read_features(path) for path in paths]
    first = parts[0]
    if len(parts) == 1:
        return first
    seen: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        ids = [(each.encoder or {}).get("id") for each in (first, part)]
        sizes = [each.array.shape[1] for each in (first, part)]
        if ids[0] != ids[1] or sizes[0] != sizes[1]:
            names = [
                (each.encoder or {}).get("name", "an unknown encoder") for each in (first, part)
            ]
            raise UserError(
                f"{paths[0]} has {sizes[0]:,} features of {names[0]}, and {path} {sizes[1]:,} of "
                f"{names[1]}: encode all photos with the same encoder"
            )
        for name in part.names:
            if seen.setdefault(name, path) != path:
                raise UserError(f"{name} is in {seen[name]} and in {path}: give one of them")
    arrays = [part.array for part in parts]
    return Features(list(seen), numpy.concatenate(arrays), first.encoder)


def _describes_an_encoder(about: object) -> bool:
    """Whether a features file's description of its encoder is empty or well formed."""
    if not isinstance(about, dict) or not about:
        return about is None or about == {}
    texts = [about.get("id"), about.get("name"), about.get("preprocessing", "")]
    return all(isinstance(text, str) for text in texts)


def _decompressed(file) -> numpy.ndarray:
    """The features of a compressed file; ValueError if its arrays do not match."""
    names = "codes", "steps", "basis", "mean"
    if missing := [name for name in names if name not in file]:
        raise ValueError(f"compressed features without `{missing[0]}`")
    codes, steps, basis, mean = (file[name] for name in names)
    if codes.dtype.kind != "i" or {array.dtype.kind for array in (steps, basis, mean)} != {"f"}:
        raise ValueError("compressed features with the wrong data types")
    count = codes.shape[0] if codes.ndim == 2 else 0
    if not count or steps.shape != codes.shape[1:] or basis.shape != steps.shape + mean.shape:
        raise ValueError(f"codes {codes.shape} and basis {basis.shape} do not match")
    if count * mean.size * 4 > LARGE:
        raise ValueError(f"it would unpack to {count * mean.size * 4:,} bytes")
    return decompress(codes, steps, basis, mean)


def _read_store(folder: Path) -> Features:
    """The features of a complete store, without skipped photos."""
    store = FeatureStore.open(folder)
    if store.encoded < len(store.names):
        raise UserError(
            f"{folder}: only {store.encoded:,} of {len(store.names):,} photos are encoded; run the "
            "same `minicap encode` command again to finish"
        )
    good = store.marks == DONE
    if good.all():
        return Features(store.names, store.features(), store.encoder)
    names = [name for name, is_good in zip(store.names, good, strict=True) if is_good]
    return Features(names, store.features()[good], store.encoder)


@dataclass(frozen=True)
class Scaling:
    """A linear map of the features, fitted on the training set: ((x - mean) * scale) @ rotation.

    Attributes:
        mean, scale: (F,) float32.
        rotation: (F, K) float32, or None for the identity.
    """

    mean: numpy.ndarray
    scale: numpy.ndarray
    rotation: numpy.ndarray | None = None

    @classmethod
    def standard(cls, array: numpy.ndarray) -> "Scaling":
        """Standardise: each feature gets mean 0 and standard deviation 1 over the training set.

        Args:
            array: (P, F) features of the training images. A constant feature is only centred.
        """
        wide = array.astype(numpy.float64)
        mean, deviation = wide.mean(axis=0), wide.std(axis=0)
        scale = numpy.where(deviation > 1e-6, 1 / numpy.maximum(deviation, 1e-6), 1)
        return cls(mean.astype(numpy.float32), scale.astype(numpy.float32))

    @classmethod
    def canonical(cls, array: numpy.ndarray, words: numpy.ndarray, components: int) -> "Scaling":
        """Reduce the features to the linear combinations that correlate most with caption words.

        See `minicap.data.canonical`. All features have the same scale, so that the map stays within
        the subspace they span.

        Args:
            array: (P, F) features of the training images.
            words: (P, W) word counts of their captions, from `word_counts`.
            components: K; fewer if the features or the word counts have a lower rank.

        Raises:
            UserError: all training images have the same features or the same words.
        """
        wide = array.astype(numpy.float64)
        mean, variance = wide.mean(axis=0), wide.var(axis=0).mean()
        if not variance:
            raise UserError("--components: the features of all training photos are the same")
        scale = numpy.full(len(mean), 1 / numpy.sqrt(variance))
        counts = cls.standard(words)(words).astype(numpy.float64)
        rotation = canonical_directions((wide - mean) * scale, counts, components)
        if not rotation.shape[1]:
            raise UserError("--components: the captions of all training photos use the same words")
        return cls(*(array.astype(numpy.float32) for array in (mean, scale, rotation)))

    @classmethod
    def none(cls, width: int) -> "Scaling":
        """Leave features unchanged; `width` is F."""
        return cls(numpy.zeros(width, numpy.float32), numpy.ones(width, numpy.float32))

    @property
    def width(self) -> int:
        """The number of features per image after scaling, K or F."""
        return len(self.mean) if self.rotation is None else self.rotation.shape[1]

    def __call__(self, array: numpy.ndarray) -> numpy.ndarray:
        """Scale features: (N, F) float16 or float32 -> (N, K or F) float32."""
        scaled = array.astype(numpy.float32)
        scaled -= self.mean  # in place: a large training set takes a gigabyte
        scaled *= self.scale
        return scaled if self.rotation is None else scaled @ self.rotation
