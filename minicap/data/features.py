"""Stored features of photos."""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy

from minicap.data.canonical import canonical_directions
from minicap.data.compressed import compress, decompress
from minicap.data.store import DONE, FeatureStore
from minicap.utils.errors import UserError
from minicap.utils.files import replacing

LARGE = 1 << 30  # bytes; what unpacks to no more than this is never refused


@dataclass(frozen=True)
class Features:
    """What an encoder made of P photos.

    names: P photo names; array: (P, F) float32 or float16; encoder: what is known of the encoder
    ("id", "name", "preprocessing", "feature_size"), or None if the file does not say.
    """

    names: list[str]
    array: numpy.ndarray
    encoder: dict | None = None

    def save(self, path: Path, directions: numpy.ndarray | None = None) -> None:
        """Write an .npz file that `read_features` reads, all or nothing.

        directions: (F, K) compress the features to the subspace these span; None keeps them as they
        are.
        """
        arrays = {"features": self.array}
        if directions is not None:
            arrays = compress(self.array, directions)
        about = {"names": numpy.array(self.names), "encoder": numpy.array(json.dumps(self.encoder))}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            numpy.savez(file, **about, **arrays)  # type: ignore[arg-type]


def read_features(path: Path) -> Features:
    """Features from the folder that minicap.encode has filled, mapped into memory and not read; or
    from an .npz file with `names` (P,), `features` (P, F) and perhaps `encoder`, JSON. The features
    may be compressed (minicap.data.compressed).

    UserError: no file, another kind of file, shapes that do not fit, a name that comes twice,
    NaN or infinite numbers, a folder that is not full yet. Nothing is unpickled. Photos that
    minicap.encode has skipped are left out.
    """
    if path.is_dir():
        return _read_store(path)
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > max(LARGE, 100 * path.stat().st_size):  # features hardly ever shrink to half
            raise ValueError(f"it would unpack to {unpacked:,} bytes")
        with numpy.load(path, allow_pickle=False) as file:
            names = file["names"]
            array = _decompressed(file) if "codes" in file else file["features"]
            encoder = json.loads(str(file["encoder"])) if "encoder" in file else None
    except OSError as error:
        raise UserError(f"{path}: cannot read the features ({error.strerror or error})") from error
    except KeyError as error:
        raise UserError(f"{path}: an .npz file with `names` and `features` is needed") from error
    except Exception as error:  # zipfile, zlib and numpy have a dozen classes for what is broken
        raise UserError(f"{path}: broken, or not an .npz file of features ({error})") from error
    fit = array.ndim == 2 and names.shape == array.shape[:1] and array.size
    if not fit or names.dtype.kind != "U" or array.dtype.kind != "f":
        raise UserError(
            f"{path}: names {names.shape} {names.dtype} and features {array.shape} {array.dtype} "
            "do not fit: expected (P,) text and (P, F) floating-point numbers"
        )
    if not _describes_an_encoder(encoder):
        raise UserError(
            f"{path}: `encoder` must be a JSON object with texts `id`, `name` and perhaps "
            f"`preprocessing`, not {encoder!r}"
        )
    if array.itemsize > 4:
        with numpy.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            array = array.astype(numpy.float32)
    listed = names.tolist()
    if len(set(listed)) < len(listed):
        twice = next(name for name, count in Counter(listed).items() if count > 1)
        raise UserError(f"{path}: {twice} is there more than once")
    finite = numpy.isfinite(array).all(axis=1)
    if not finite.all():
        bad = int(numpy.argmin(finite))
        raise UserError(
            f"{path}, row {bad} ({listed[bad]}): NaN or infinite; "
            f"{int((~finite).sum())} of {len(listed)} photos are so: encode them again"
        )
    return Features(listed, array, encoder)


def _describes_an_encoder(about: object) -> bool:
    """Is this what a features file may say of its encoder: nothing, or texts by these names?"""
    if not isinstance(about, dict) or not about:
        return about is None or about == {}
    texts = [about.get("id"), about.get("name"), about.get("preprocessing", "")]
    return all(isinstance(text, str) for text in texts)


def _decompressed(file) -> numpy.ndarray:
    """The features of a file that `Features.save` compressed. ValueError: parts that do not fit."""
    names = "codes", "steps", "basis", "mean"
    if missing := [name for name in names if name not in file]:
        raise ValueError(f"compressed features without `{missing[0]}`")
    codes, steps, basis, mean = (file[name] for name in names)
    if codes.dtype.kind != "i" or {part.dtype.kind for part in (steps, basis, mean)} != {"f"}:
        raise ValueError("compressed features whose numbers are of another type")
    count = codes.shape[0] if codes.ndim == 2 else 0
    if not count or steps.shape != codes.shape[1:] or basis.shape != steps.shape + mean.shape:
        raise ValueError(f"codes {codes.shape} and basis {basis.shape} do not fit")
    if count * mean.size * 4 > LARGE:
        raise ValueError(f"it would unpack to {count * mean.size * 4:,} bytes")
    return decompress(codes, steps, basis, mean)


def _read_store(folder: Path) -> Features:
    store = FeatureStore.open(folder)
    if store.begun < len(store.names):
        raise UserError(
            f"{folder}: only {store.begun:,} of {len(store.names):,} photos are encoded; let the "
            "`python -m minicap.encode` that began it go on"
        )
    good = store.marks == DONE
    if good.all():
        return Features(store.names, store.features(), store.encoder)
    names = [name for name, is_good in zip(store.names, good, strict=True) if is_good]
    return Features(names, store.features()[good], store.encoder)


@dataclass(frozen=True)
class Scaling:
    """A linear map of the features, fitted on train: ((x - mean) * scale) @ rotation.

    mean, scale: (F,); rotation: (F, K), or None to leave it out.
    """

    mean: numpy.ndarray
    scale: numpy.ndarray
    rotation: numpy.ndarray | None = None

    @classmethod
    def standard(cls, array: numpy.ndarray) -> "Scaling":
        """Give each feature mean 0 and standard deviation 1 over train.

        Args:
            array: (P, F) the training photos' features. One that never varies is left alone.
        """
        wide = array.astype(numpy.float64)
        mean, deviation = wide.mean(axis=0), wide.std(axis=0)
        scale = numpy.where(deviation > 1e-6, 1 / numpy.maximum(deviation, 1e-6), 1)
        return cls(mean.astype(numpy.float32), scale.astype(numpy.float32))

    @classmethod
    def canonical(cls, array: numpy.ndarray, words: numpy.ndarray, components: int) -> "Scaling":
        """Reduce features to the `components` linear combinations that correlate most with the
        words of the captions. (See minicap.data.canonical.)

        All features are scaled alike, so that the map stays within the subspace they span.

        Args:
            array: (P, F) the training photos' features.
            words: (P, W) how often each photo's captions use each word.
            components: K; fewer are returned if the features or the words have no more.

        Raises:
            UserError: the features, or the words, of all training photos are the same.
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
        return cls(*(part.astype(numpy.float32) for part in (mean, scale, rotation)))

    @classmethod
    def none(cls, width: int) -> "Scaling":
        """Features as they are."""
        return cls(numpy.zeros(width, numpy.float32), numpy.ones(width, numpy.float32))

    @property
    def width(self) -> int:
        """How many numbers of a photo the decoder sees."""
        return len(self.mean) if self.rotation is None else self.rotation.shape[1]

    def __call__(self, array: numpy.ndarray) -> numpy.ndarray:
        """(N, F) float16 or float32 -> (N, K or F) float32."""
        scaled = (array.astype(numpy.float32) - self.mean) * self.scale
        return scaled if self.rotation is None else scaled @ self.rotation
