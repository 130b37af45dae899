"""A trained model: a decoder, its vocabulary and the scaling of its features, in one file."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from minicap.backend import to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.model import checkpoint
from minicap.model.attending_decoder import make_decoder
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.doubt import Doubt
from minicap.nn.parameters import Parameters
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Model:
    """Everything that turns an encoder's features into captions.

    Attributes:
        decoder: architecture and parameters, on the CPU or a GPU.
        vocabulary: the words it knows.
        scaling: applied to the encoder's features; fitted on the training images.
        max_length: maximum number of tokens in a caption it was trained on, #START# and #END#
            included.
        encoder: the encoder of its features, as Encoder.about describes it, or None if unknown.
        doubt: when to doubt its captions, or None if that is not calibrated.
    """

    decoder: Decoder
    vocabulary: Vocabulary
    scaling: Scaling
    max_length: int
    encoder: dict[str, Any] | None = None
    doubt: Doubt | None = None

    def save(self, path: Path, dtype: str = "float32", **about: Any) -> None:
        """Write the model to one file, atomically.

        Args:
            path: the file, which is replaced if it exists.
            dtype: of the stored parameters: "float32", or "float16" for half the size.
            **about: anything else to store, as JSON.

        Raises:
            UserError: the file cannot be written.
        """
        parameters = self.decoder.parameters.items()
        arrays = {name: to_host(array).astype(dtype) for name, array in parameters}
        limits = vars(self.doubt).copy() if self.doubt else None
        if limits:
            arrays["doubt.basis"] = limits.pop("basis")
        scaling = {f"features.{name}": array for name, array in vars(self.scaling).items()}
        arrays |= {name: array for name, array in scaling.items() if array is not None}
        description = {
            "decoder": asdict(self.decoder.config),
            "vocabulary": self.vocabulary.words,
            "tokenizer": self.vocabulary.tokenizer,
            "max_length": self.max_length,
            "encoder": self.encoder,
            "doubt": limits,
            **about,
        }
        checkpoint.save(path, "model", arrays, description)

    @classmethod
    def load(cls, path: Path, xp: ModuleType = numpy) -> "Model":
        """Read a file that `save` wrote.

        Args:
            path: the file.
            xp: numpy or cupy; the parameters go to its device of the parameters.

        Raises:
            UserError: a file that `checkpoint.load` refuses, or whose contents do not fit together.
        """
        arrays, about = checkpoint.load(path, "model")
        try:
            config = checkpoint.build(DecoderConfig, about["decoder"], path)
            vocabulary = Vocabulary(about["vocabulary"], about.get("tokenizer", "course"))
            scaling = Scaling(
                arrays.pop("features.mean"),
                arrays.pop("features.scale"),
                arrays.pop("features.rotation", None),
            )
            max_length, encoder = about["max_length"], about["encoder"]
            basis = arrays.pop("doubt.basis", None)
            doubt = Doubt(**about["doubt"], basis=basis) if basis is not None else None
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path}: damaged, or written by another version of minicap ({error!r})"
            ) from error
        if vocabulary.words != about["vocabulary"]:
            raise UserError(f"{path}: damaged: the vocabulary is not a sorted list of words")
        found = {name: array.shape for name, array in arrays.items()}
        shapes = config.shapes(scaling.width, len(vocabulary))
        if found != shapes:
            name = min(n for n in found | shapes if found.get(n) != shapes.get(n))
            raise UserError(
                f"{path}: the contents do not fit together: {name} has the shape "
                f"{found.get(name)}, but {len(vocabulary)} words and {scaling.width} features need "
                f"{shapes.get(name)}"
            )
        parameters = Parameters(shapes, "float32", xp)
        for name, array in arrays.items():
            parameters[name][...] = to_device(array, xp)
        decoder = make_decoder(config, parameters)
        return cls(decoder, vocabulary, scaling, max_length, encoder, doubt)

    def check_encoder(self, encoder: Mapping[str, Any], width: int) -> str:
        """Check that this model was trained on the features of an encoder.

        Args:
            encoder: the encoder, as Encoder.about describes it; empty if unknown.
            width: number of features per image.

        Returns:
            "", or a warning: one of the two encoders is unknown, or they are the same network in
            different precisions.

        Raises:
            UserError: the model was trained on the features of another encoder.
        """
        known = self.encoder or {}
        trained, given = (
            f"{about.get('name')} ({about.get('id', '')[:12]}, {about.get('preprocessing')})"
            if about
            else "an unknown encoder"
            for about in (known, encoder)
        )
        ids = [{about.get("id"), about.get("float32_id")} - {None} for about in (known, encoder)]
        if all(ids) and not ids[0] & ids[1]:
            raise UserError(
                f"this model was trained on the features of the encoder {trained}, not on those of "
                f"{given}: use the first"
            )
        if width != (needed := len(self.scaling.mean)):
            raise UserError(
                f"this model was trained on {needed} features of {trained}, but those of {given} "
                f"are {width}: use the encoder it was trained on"
            )
        if bool(known) != bool(encoder):
            whose = "the model" if encoder else "the features file"
            return (
                f"{whose} does not say which encoder made its features: unless it was "
                f"{given if encoder else trained}, captions will be meaningless"
            )
        if known.get("id") != encoder.get("id"):
            return (
                f"the model was trained on features of {trained}, but those of {given} come from "
                "the same network in another precision: captions may differ a little"
            )
        return ""

    def fingerprint(self) -> str:
        """Compute a SHA-256, in hex, of everything that captions depend on."""
        digest = hashlib.sha256("\n".join(self.vocabulary.words).encode(errors="replace"))
        about = self.decoder.config, self.vocabulary.tokenizer, self.max_length
        digest.update(repr(about).encode())
        scaling = [array for array in vars(self.scaling).values() if array is not None]
        for array in (*self.decoder.parameters.values(), *scaling):
            digest.update(to_host(array).tobytes())
        return digest.hexdigest()

    def for_scaled_features(self) -> "Model":
        """Return this model for features that are already scaled, such as a Dataset's."""
        return replace(self, scaling=Scaling.none(self.scaling.width))
