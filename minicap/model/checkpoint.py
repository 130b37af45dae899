"""Model and run files: safetensors with a JSON description and a SHA-256 of both.

Nothing is pickled. safetensors 0.8.0 silently saves arrays that are not C-contiguous in the wrong
order, and silently loads flipped bits. So arrays are made contiguous here, and a hash of all names,
shapes, numbers and the description is checked before anything is used.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minicap.model.config import DecoderConfig
from minicap.model.pretrained import model_path
from minicap.utils.errors import UserError
from minicap.utils.files import replacing
from minicap.utils.renamed import ADDED, REMOVED, RENAMED, option

FORMAT = 2

Built = TypeVar("Built")


def _digest(arrays: dict[str, numpy.ndarray], description: str) -> str:
    """SHA-256 of everything in the file, in hex."""
    digest = hashlib.sha256(description.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _contiguous(array: numpy.ndarray) -> numpy.ndarray:
    """Copy an array if it is not contiguous or not in this machine's byte order."""
    return numpy.asarray(array, array.dtype.newbyteorder("="), order="C")


def save(
    path: Path, kind: str, arrays: Mapping[str, numpy.ndarray], description: Mapping[str, Any]
) -> None:
    """Write a file atomically: `path` has either its old or its new contents.

    Args:
        path: the file, which is replaced if it exists.
        kind: "model" or "run"; `load` checks it.
        arrays: arrays on the host, by name.
        description: anything JSON can represent.

    Raises:
        UserError: the file cannot be written (a full disk, for example).
        ValueError: the description contains NaN or infinity.
    """
    contiguous = {name: _contiguous(array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, **description}, allow_nan=False)
    metadata = {"minicap": text, "sha256": _digest(contiguous, text)}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:  # it wraps an OSError
            raise OSError(str(error)) from error


def load(path: Path, kind: str) -> tuple[dict[str, numpy.ndarray], dict[str, Any]]:
    """Read a file that `save` wrote, in this format or an older one.

    Args:
        path: the file, or "pretrained" for the shipped model.
        kind: "model" or "run", whichever is expected.

    Returns:
        The arrays by name, and the description in the current format.

    Raises:
        UserError: there is no such file; it is truncated or damaged; minicap did not write it; it
            is of another kind or a newer format.
    """
    path = model_path(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name the minicap {kind} file in it")
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a minicap {kind}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: truncated, damaged, or not a safetensors file ({error})"
        ) from error
    if not {"minicap", "sha256"} <= metadata.keys():
        raise UserError(f"{path}: a safetensors file, but not a minicap {kind}")
    if metadata["sha256"] != _digest(arrays, metadata["minicap"]):
        raise UserError(f"{path}: damaged: its SHA-256 does not match; use another copy")
    description: dict[str, Any] = json.loads(metadata["minicap"])
    if description["format"] not in range(1, FORMAT + 1):
        raise UserError(
            f"{path}: format {description['format']}, but this version of minicap reads formats "
            f"1 to {FORMAT}: update minicap"
        )
    if description["kind"] != kind:
        raise UserError(f"{path}: this is a {description['kind']}, but a {kind} is needed here")
    return arrays, upgrade(description) if description["format"] == 1 else description


def upgrade(description: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the description of a file of format 1 to format 2.

    Format 2 renamed options, and split a run's settings into the decoder's and the training's.
    """
    new = renamed(description)
    if "sizes" in new:  # a model
        sizes = renamed(new.pop("sizes"))
        from_data = "vocabulary", "feature"  # the file's other contents have these sizes
        new["decoder"] = {n: value for n, value in sizes.items() if n not in from_data}
    if isinstance(new.get("options"), Mapping) and "settings" in new["options"]:
        options = renamed(new["options"])
        settings = renamed(options.pop("settings"))
        decoder = {field.name for field in fields(DecoderConfig)}
        options["decoder"] = {n: value for n, value in settings.items() if n in decoder}
        options["training"] = {n: value for n, value in settings.items() if n not in decoder}
        new["options"] = options
    return new


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Rename options from format 1, and the values of `image_input` and `sample_by` too."""
    values = {"first": "initial_state", "always": "every_step", "photos": "images"}
    new = {RENAMED.get(name, name): value for name, value in options.items()}
    for name in "image_input", "sample_by":
        if name in new:
            new[name] = values.get(new[name], new[name])
    return new


def build(kind: type[Built], saved: Mapping[str, Any], path: Path) -> Built:
    """Build a dataclass from the options saved in a file.

    Args:
        kind: the dataclass.
        saved: a value for each of its fields. Options of earlier versions are ignored if they were
            off, and later ones may be missing.
        path: the file, for messages.

    Raises:
        UserError: an option that this version does not have, or one that the file lacks.
    """
    values = dict(saved)
    for name, off in REMOVED.items():
        if values.pop(name, off) != off:
            raise UserError(
                f"{path}: was trained with {option(name)}, which this version of minicap no longer "
                "has: train it again without it"
            )
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in ADDED.items() if name in known} | values
    for names, problem in (
        (values.keys() - known, "has the option {}, which this version of minicap does not know"),
        (known - values.keys(), "lacks the option {}, which this version of minicap needs"),
    ):
        if names:
            raise UserError(
                f"{path}: {problem.format(min(names))}: another version of minicap wrote it"
            )
    return kind(**values)
