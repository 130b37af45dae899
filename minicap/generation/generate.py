"""From features to captions: scale, decode, and turn ids into words.

One model generates alone; several that share a vocabulary generate together, as an ensemble.
"""

from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import Array, array_module, to_device, to_host
from minicap.data.features import Scaling
from minicap.data.vocabulary import tokenise
from minicap.generation.beam_search import Caption, beam_search
from minicap.generation.config import GREEDY, Constraints, GenerationConfig
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError


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
    xp = array_module(model.decoder.parameters["lstm"])
    if array_module(features) is not xp:
        features = to_device(to_host(features), xp)
    parts = {name: a for name, a in vars(model.scaling).items() if a is not None}
    return Scaling(**{name: to_device(a, xp) for name, a in parts.items()})(features)


def generate(
    models: Sequence[Model],
    features: Array,
    config: GenerationConfig = GREEDY,
    count: int = 1,
    rng: numpy.random.Generator | None = None,
) -> list[list[Caption]]:
    """Generate captions for N photos.

    Args:
        models: one, or several that share a vocabulary and generate together.
        features: (N, F) the photos' features, as the encoder returns them.
        config: how to generate.
        count: how many captions to sample; the beam is at least this wide.
        rng: for sampling.

    Returns:
        For each photo all captions of its beam, best first, or `count` samples.

    Raises:
        UserError: different vocabularies; a setting that GenerationConfig.check refuses; a `prefix` with words the
            models do not know; captions longer than the models' limit.
    """
    check_vocabularies(models)
    config.check()
    v = models[0].vocabulary
    max_words = min(model.max_length for model in models) - 1  # #END# included
    prefix = tokenise(config.prefix)
    unknown = [word for word in prefix if word not in v.ids]
    if unknown:
        raise UserError(
            f"--prefix: not among the {len(v):,} words of the model: {', '.join(unknown)}"
        )
    for name, words in ("prefix", len(prefix)), ("min-length", config.min_length):
        if words > max_words:
            limit = f"the model's captions have at most {max_words}"
            raise UserError(f"--{name}: {words} words, but {limit}")
    constraints = Constraints(
        start=v.start,
        end=v.end,
        banned=(v.pad, v.unk),
        max_words=max_words,
        prefix=[v.ids[word] for word in prefix],
    )
    scaled = [scaled_for(model, features) for model in models]
    decoders = [model.decoder for model in models]
    return beam_search(decoders, scaled, constraints, config, count, rng)


def generate_text(
    models: Sequence[Model],
    features: Array,
    config: GenerationConfig = GREEDY,
    rng: numpy.random.Generator | None = None,
) -> list[str]:
    """The best caption of each photo, or one that is sampled, as words. (See `generate`.)"""
    found = generate(models, features, config, rng=rng)
    return [models[0].vocabulary.decode(captions[0].ids) for captions in found]
