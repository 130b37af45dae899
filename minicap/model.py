"""A trained model: decoder, vocabulary and what it must know of its features, in one file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy

from minicap import checkpoint
from minicap.backend import Array, to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.decoder import Sizes
from minicap.errors import UserError
from minicap.nn.parameters import Parameters


@dataclass(frozen=True)
class Model:
    """What turns features into captions.

    parameters: the decoder's, on any device; max_len: ids in a caption at the most, as it was
    trained; encoder: what is known of the encoder of its features, or None.
    """

    sizes: Sizes
    parameters: Mapping[str, Array]
    vocabulary: Vocabulary
    scaling: Scaling
    max_len: int
    encoder: dict | None = None

    def save(self, path: Path, **about) -> None:
        """Write everything into one file, all or nothing. about: more to tell, JSON."""
        arrays = {name: to_host(array) for name, array in self.parameters.items()}
        scaling = {f"features.{name}": array for name, array in vars(self.scaling).items()}
        arrays |= {name: array for name, array in scaling.items() if array is not None}
        description = {
            "sizes": asdict(self.sizes),
            "vocabulary": self.vocabulary.words,
            "max_len": self.max_len,
            "encoder": self.encoder,
            **about,
        }
        checkpoint.save(path, "model", arrays, description)

    @classmethod
    def load(cls, path: Path, xp: ModuleType = numpy) -> "Model":
        """From a file that `save` wrote, onto the device of `xp`.

        UserError: what minicap.checkpoint.load refuses, and parts that do not fit each other.
        """
        arrays, about = checkpoint.load(path, "model")
        try:
            sizes = checkpoint.options(Sizes, about["sizes"], path)
            vocabulary = Vocabulary(about["vocabulary"])
            scaling = Scaling(
                arrays.pop("features.mean"),
                arrays.pop("features.scale"),
                arrays.pop("features.rotation", None),
            )
            max_len, encoder = about["max_len"], about["encoder"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged, or of another version ({error!r})") from error
        if len(vocabulary) != sizes.vocabulary or vocabulary.words != about["vocabulary"]:
            raise UserError(
                f"{path}: model and vocabulary do not fit: the model has {sizes.vocabulary} words, "
                f"the vocabulary {len(about['vocabulary'])}, {len(vocabulary)} of them different"
            )
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != sizes.shapes():
            raise UserError(f"{path}: the arrays {shapes} are not those of {sizes}")
        parameters = Parameters(sizes.shapes(), "float32", xp)
        for name, array in arrays.items():
            parameters[name][...] = to_device(array, xp)
        return cls(sizes, parameters, vocabulary, scaling, max_len, encoder)

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
