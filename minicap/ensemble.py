"""From features to captions: scale, decode, and turn ids into words.

One model generates alone; several that share a vocabulary generate together, as an ensemble.
"""

from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import Array, array_module, to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import tokenise
from minicap.errors import UserError
from minicap.generate import GREEDY, Caption, Rules, Writing, beam_search
from minicap.model import Model


def check_vocabularies(models: Sequence[Model]) -> None:
    """Raise UserError unless all models have the vocabulary of the first."""
    for number, other in enumerate(models[1:], 2):
        if difference := models[0].vocabulary.difference(other.vocabulary):
            raise UserError(
                f"an ensemble needs models with the same words, and the first and number {number} "
                f"differ: {difference}"
            )


def encoder_warnings(models: Sequence[Model], encoder: Mapping, width: int) -> list[str]:
    """The models' different warnings about such features. (See Model.check_encoder.)"""
    warnings = [model.check_encoder(encoder, width) for model in models]
    return list(dict.fromkeys(filter(None, warnings)))


def scaled_for(model: Model, features: Array) -> Array:
    """Features (N, F), as an encoder returns them, as this model was trained on them, on its
    device."""
    xp = array_module(model.parameters["lstm"])
    if array_module(features) is not xp:
        features = to_device(to_host(features), xp)
    parts = {name: a for name, a in vars(model.scaling).items() if a is not None}
    return Scaling(**{name: to_device(a, xp) for name, a in parts.items()})(features)


def generate(
    models: Sequence[Model],
    features: Array,
    writing: Writing = GREEDY,
    count: int = 1,
    rng: numpy.random.Generator | None = None,
) -> list[list[Caption]]:
    """Generate captions for N photos.

    Args:
        models: one, or several that share a vocabulary and generate together.
        features: (N, F) the photos' features, as the encoder returns them.
        writing: how.
        count: how many captions to sample; the beam is at least this wide.
        rng: for sampling.

    Returns:
        For each photo all captions of its beam, best first, or `count` samples.

    Raises:
        UserError: different vocabularies; a setting that Writing.check refuses; in `beginning`,
            words the models do not know; captions longer than the models' limit.
    """
    check_vocabularies(models)
    writing.check()
    v = models[0].vocabulary
    max_words = min(model.max_len for model in models) - 1  # #END# included
    beginning = tokenise(writing.beginning)
    unknown = [word for word in beginning if word not in v.ids]
    if unknown:
        raise UserError(
            f"--beginning: not among the {len(v):,} words of the model: {', '.join(unknown)}"
        )
    for name, words in ("beginning", len(beginning)), ("min-length", writing.min_length):
        if words > max_words:
            limit = f"the model's captions have {max_words} at the most"
            raise UserError(f"--{name}: {words} words, but {limit}")
    rules = Rules(
        start=v.start,
        end=v.end,
        banned=(v.pad, v.unk),
        max_words=max_words,
        beginning=[v.ids[word] for word in beginning],
    )
    scaled = [scaled_for(model, features) for model in models]
    return beam_search([model.parameters for model in models], scaled, rules, writing, count, rng)


def generate_text(
    models: Sequence[Model],
    features: Array,
    writing: Writing = GREEDY,
    rng: numpy.random.Generator | None = None,
) -> list[str]:
    """The best caption of each photo, or one that is sampled, as words. (See `generate`.)"""
    found = generate(models, features, writing, rng=rng)
    return [models[0].vocabulary.decode(captions[0].ids) for captions in found]
