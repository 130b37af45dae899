"""Saving and loading: safetensors with a JSON description and a SHA-256 over both.

No pickle. safetensors 0.8.0 writes arrays that are not C-contiguous in the wrong order and does
not notice flipped bits, in silence both times; so arrays are made contiguous here, and a hash of
all names, shapes, numbers and the description is checked before anything is used.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from minicap.model.config import DecoderConfig
from minicap.utils.errors import UserError
from minicap.utils.files import replacing
from minicap.utils.renamed import REMOVED, RENAMED, option

FORMAT = 2


def _digest(arrays: dict[str, numpy.ndarray], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _plain(array: numpy.ndarray) -> numpy.ndarray:
    """The same numbers, contiguous and in this machine's byte order."""
    return numpy.asarray(array, array.dtype.newbyteorder("="), order="C")


def save(path: Path, kind: str, arrays: dict[str, numpy.ndarray], description: dict) -> None:
    """Replace the file at `path`, all or nothing.

    kind: "model" or "run", asked for again when loading; arrays: host arrays by name;
    description: whatever JSON can say. UserError when it cannot be written (a full disk).
    """
    arrays = {name: _plain(array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, "kind": kind, **description}, allow_nan=False)
    metadata = {"minicap": text, "sha256": _digest(arrays, text)}
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:  # it wraps the operating system's own error
            raise OSError(str(error)) from error


def load(path: Path, kind: str) -> tuple[dict[str, numpy.ndarray], dict]:
    """What `save` wrote: arrays by name and the description.

    UserError: no file, a truncated or changed one, one that minicap did not write or of another
    kind or a newer format.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the minicap {kind} in it")
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a minicap {kind}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: truncated, damaged, or no safetensors file at all ({error})"
        ) from error
    if not {"minicap", "sha256"} <= metadata.keys():
        raise UserError(f"{path}: a safetensors file, but not one that minicap wrote")
    if metadata["sha256"] != _digest(arrays, metadata["minicap"]):
        raise UserError(f"{path}: damaged: its contents do not match its SHA-256; use another copy")
    description = json.loads(metadata["minicap"])
    if description["format"] not in range(1, FORMAT + 1):
        raise UserError(
            f"{path}: format {description['format']}, this minicap reads formats 1 to {FORMAT}: "
            "update it"
        )
    if description["kind"] != kind:
        raise UserError(f"{path}: this is a {description['kind']}, but a {kind} is needed here")
    return arrays, upgrade(description) if description["format"] == 1 else description


def upgrade(about: dict) -> dict:
    """The description of a file of format 1, as format 2 has it.

    Format 2 renamed options, and split a run's settings into the decoder's and the training's.
    """
    about = dict(about)
    if "sizes" in about:  # a model
        sizes = renamed(about.pop("sizes"))
        known_from_data = "vocabulary", "feature"
        about["decoder"] = {n: v for n, v in sizes.items() if n not in known_from_data}
        about["max_length"] = about.pop("max_length")
    if isinstance(about.get("options"), Mapping) and "settings" in about["options"]:
        options = renamed(about["options"])
        settings = renamed(options.pop("settings"))
        settings["self_critical_temperature"] = settings.pop("temperature", None)
        decoder = {field.name for field in fields(DecoderConfig)}
        options["decoder"] = {n: v for n, v in settings.items() if n in decoder}
        options["training"] = {n: v for n, v in settings.items() if n not in decoder}
        about["options"] = options
    return about


def renamed(options: Mapping) -> dict:
    """Options under their new names, and the values of `image_input` and `sample_by` too."""
    values = {"first": "initial_state", "always": "every_step", "photos": "images"}
    new = {RENAMED.get(name, name): value for name, value in options.items()}
    for name in "image_input", "sample_by":
        if name in new:
            new[name] = values.get(new[name], new[name])
    return new


def build(kind: type, saved: Mapping, path: Path):
    """Build the dataclass `kind` from the options that the file at `path` was saved with.

    Raises:
        UserError: an option that this version does not have, or one that the file lacks, by name.
    """
    values = dict(saved)
    for name, off in REMOVED.items():
        if values.pop(name, off) != off:
            raise UserError(
                f"{path}: was trained with {option(name)}, which this version of minicap does not "
                "have: train it again without it"
            )
    known = {field.name for field in fields(kind)}
    for names, problem in (
        (values.keys() - known, "has the option {}, which this version of minicap does not know"),
        (known - values.keys(), "lacks the option {}, which this version of minicap needs"),
    ):
        if names:
            raise UserError(f"{path}: {problem.format(min(names))}: it is of another version")
    return kind(**values)
