"""A trained model: decoder, vocabulary and what it must know of its features, in one file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy

from minicap import checkpoint
from minicap.backend import Array, to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.decoder import Sizes
from minicap.errors import UserError
from minicap.generate import Choice, generate, greedy
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
        sizes, vocabulary = Sizes(**about["sizes"]), Vocabulary(about["vocabulary"])
        if len(vocabulary) != sizes.vocabulary or vocabulary.words != about["vocabulary"]:
            raise UserError(
                f"{path}: model and vocabulary do not fit: the model has {sizes.vocabulary} words, "
                f"the vocabulary {len(about['vocabulary'])}, {len(vocabulary)} of them different"
            )
        scaling = Scaling(
            arrays.pop("features.mean"),
            arrays.pop("features.scale"),
            arrays.pop("features.rotation", None),
        )
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != sizes.shapes():
            raise UserError(f"{path}: the arrays {shapes} are not those of {sizes}")
        parameters = Parameters(sizes.shapes(), "float32", xp)
        for name, array in arrays.items():
            parameters[name][...] = to_device(array, xp)
        return cls(sizes, parameters, vocabulary, scaling, about["max_len"], about["encoder"])

    def write(self, features: Array, choose: Choice = greedy) -> list[str]:
        """A caption for each row of features (N, F), scaled already and on the model's device."""
        v = self.vocabulary
        ids = generate(
            self.parameters,
            features,
            v.start,
            v.end,
            banned=(v.pad, v.start, v.unk),
            max_words=self.max_len - 1,
            choose=choose,
        )
        return [v.decode(caption) for caption in ids]
