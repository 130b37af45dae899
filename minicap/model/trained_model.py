"""A trained model: a decoder, its vocabulary, and what it knows of its features, in one file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy

from minicap.backend import to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.model import checkpoint
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.nn.parameters import Parameters
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Model:
    """Everything that turns an encoder's features into captions.

    Attributes:
        decoder: architecture and parameters, on any device.
        vocabulary: the words.
        scaling: of the encoder's features, as it was fitted on the training images.
        max_length: maximum number of tokens in a caption, as it was trained.
        encoder: what is known of the encoder of its features (Encoder.about), or None.
    """

    decoder: Decoder
    vocabulary: Vocabulary
    scaling: Scaling
    max_length: int
    encoder: dict | None = None

    def save(self, path: Path, **about) -> None:
        """Write everything into one file, all or nothing.

        Args:
            path: the file, which is replaced if it exists.
            about: more to store, as JSON allows it.
        """
        arrays = {name: to_host(array) for name, array in self.decoder.parameters.items()}
        scaling = {f"features.{name}": array for name, array in vars(self.scaling).items()}
        arrays |= {name: array for name, array in scaling.items() if array is not None}
        description = {
            "decoder": asdict(self.decoder.config),
            "vocabulary": self.vocabulary.words,
            "max_length": self.max_length,
            "encoder": self.encoder,
            **about,
        }
        checkpoint.save(path, "model", arrays, description)

    @classmethod
    def load(cls, path: Path, xp: ModuleType = numpy) -> "Model":
        """Read a file that `save` wrote, onto the device of `xp`.

        Raises:
            UserError: what `checkpoint.load` refuses, or parts that do not fit together.
        """
        arrays, about = checkpoint.load(path, "model")
        try:
            config = checkpoint.build(DecoderConfig, about["decoder"], path)
            vocabulary = Vocabulary(about["vocabulary"])
            scaling = Scaling(
                arrays.pop("features.mean"),
                arrays.pop("features.scale"),
                arrays.pop("features.rotation", None),
            )
            max_length, encoder = about["max_length"], about["encoder"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged, or of another version ({error!r})") from error
        if vocabulary.words != about["vocabulary"]:
            raise UserError(f"{path}: damaged: the vocabulary is not a sorted list of words")
        found = {name: array.shape for name, array in arrays.items()}
        shapes = config.shapes(scaling.width, len(vocabulary))
        if found != shapes:
            raise UserError(
                f"{path}: model and vocabulary or features do not fit together: with "
                f"{len(vocabulary)} words and {scaling.width} features, the arrays should have the "
                f"shapes {shapes}, but have {found}"
            )
        parameters = Parameters(shapes, "float32", xp)
        for name, array in arrays.items():
            parameters[name][...] = to_device(array, xp)
        return cls(Decoder(config, parameters), vocabulary, scaling, max_length, encoder)

    def check_encoder(self, encoder: Mapping, width: int) -> str:
        """Whether this model has learned from such features: "", or a note with the doubts.

        encoder: what is known of the one that made them, as Encoder.about() has it, or nothing;
        width: how many there are of a picture. UserError: it has learned from others.
        """
        known = self.encoder or {}
        learned, given = (
            f"{about.get('name')} ({about.get('id', '')[:12]}, {about.get('preprocessing')})"
            if about
            else "an encoder that is not known"
            for about in (known, encoder)
        )
        ids = [{about.get("id"), about.get("float32_id")} - {None} for about in (known, encoder)]
        if all(ids) and not ids[0] & ids[1]:
            raise UserError(
                f"this model has learned from the features of the encoder {learned}, "
                f"not from those of {given}: use the first"
            )
        if width != (needed := len(self.scaling.mean)):
            raise UserError(
                f"this model has learned from {needed} features of {learned}, those of {given} are "
                f"{width}: use the encoder it was trained on"
            )
        if bool(known) != bool(encoder):
            whose = "the model's features" if encoder else "the features"
            return (
                f"{whose} did not say which encoder made them: with another than "
                f"{given if encoder else learned}, captions would be about nothing"
            )
        if known.get("id") != encoder.get("id"):
            return (
                f"the model has learned from features of {learned}, and now sees those of {given}, "
                "the same network in another precision: near, not equal"
            )
        return ""

    def for_scaled_features(self) -> "Model":
        """The same model for features that are already scaled, such as a Dataset's."""
        return replace(self, scaling=Scaling.none(self.scaling.width))
