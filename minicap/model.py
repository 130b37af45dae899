"""A trained model: decoder, vocabulary and what it must know of its features, in one file."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy

from minicap import checkpoint
from minicap.backend import Array, array_module, to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary, tokenise
from minicap.decoder import Sizes
from minicap.errors import UserError
from minicap.generate import GREEDY, Caption, Rules, Writing, beam_search
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

    def learned_from(self, encoder: Mapping, width: int) -> str:
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

    def candidates(
        self,
        features: Array,
        writing: Writing = GREEDY,
        count: int = 1,
        rng: numpy.random.Generator | None = None,
    ) -> list[list[Caption]]:
        """As `Ensemble.candidates`. features: (N, F), scaled already, on the model's device."""
        return Ensemble((self,)).candidates([features], writing, count, rng)

    def write(
        self,
        features: Array,
        writing: Writing = GREEDY,
        rng: numpy.random.Generator | None = None,
    ) -> list[str]:
        """The best caption for each row of features, or a drawn one, as words."""
        found = self.candidates(features, writing, rng=rng)
        return [self.vocabulary.decode(captions[0].ids) for captions in found]


@dataclass(frozen=True)
class Ensemble:
    """Models of one vocabulary that write together; one model alone is the simplest of them.

    UserError: vocabularies that differ.
    """

    models: tuple[Model, ...]

    def __post_init__(self):
        for number, other in enumerate(self.models[1:], 2):
            difference = self.vocabulary.difference(other.vocabulary)
            if difference:
                raise UserError(
                    f"models write together only if they know the same words, and the first and "
                    f"number {number} do not: {difference}"
                )

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that all of them have."""
        return self.models[0].vocabulary

    @property
    def max_words(self) -> int:
        """After so many words, #END# among them, a caption is cut: as the models were trained."""
        return min(model.max_len for model in self.models) - 1

    def learned_from(self, encoder: Mapping, width: int) -> list[str]:
        """The models' different notes on such features. (See Model.learned_from.)"""
        notes = [model.learned_from(encoder, width) for model in self.models]
        return list(dict.fromkeys(filter(None, notes)))

    @functools.cached_property
    def _scalings(self) -> list[Scaling]:
        """Each model's, on its device."""
        scalings = []
        for model in self.models:
            xp = array_module(model.parameters["lstm"])
            parts = {name: a for name, a in vars(model.scaling).items() if a is not None}
            scalings.append(Scaling(**{name: to_device(a, xp) for name, a in parts.items()}))
        return scalings

    def scale(self, features: Array) -> list[Array]:
        """Features as an encoder made them, (N, F), as each of the models has learned from them,
        on its device."""
        xp = array_module(self.models[0].parameters["lstm"])
        if array_module(features) is not xp:
            features = to_device(to_host(features), xp)
        return [scaling(features) for scaling in self._scalings]

    def candidates(
        self,
        features: Sequence[Array],
        writing: Writing = GREEDY,
        count: int = 1,
        rng: numpy.random.Generator | None = None,
    ) -> list[list[Caption]]:
        """For each of N pictures all captions of its beam, best first, or `count` that are drawn.

        features: what `scale` returns; count: the beam is at least as wide; rng: for drawing.
        UserError: what Writing.check refuses, words that the models do not know in its
        `beginning`, captions longer than the models'.
        """
        writing.check()
        v = self.vocabulary
        beginning = tokenise(writing.beginning)
        unknown = [word for word in beginning if word not in v.ids]
        if unknown:
            raise UserError(
                f"--beginning: not among the {len(v):,} words of the model: {', '.join(unknown)}"
            )
        for name, words in ("beginning", len(beginning)), ("min-length", writing.min_length):
            if words > self.max_words:
                limit = f"the model's captions have {self.max_words} at the most"
                raise UserError(f"--{name}: {words} words, but {limit}")
        rules = Rules(
            start=v.start,
            end=v.end,
            banned=(v.pad, v.unk),
            max_words=self.max_words,
            beginning=[v.ids[word] for word in beginning],
        )
        parameters = [model.parameters for model in self.models]
        return beam_search(parameters, features, rules, writing, count, rng)
