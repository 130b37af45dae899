"""Generate captions from an encoder's features with one model or an ensemble."""

from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import Array, array_module, to_device, to_host
from minicap.data.features import Scaling
from minicap.generation.beam_search import Caption, Observer, beam_search
from minicap.generation.config import GREEDY, Constraints, GenerationConfig
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError


def check_vocabularies(models: Sequence[Model]) -> None:
    """Check that models can form an ensemble.

    Raises:
        UserError: a model's vocabulary is not that of the first.
    """
    for number, other in enumerate(models[1:], 2):
        if difference := models[0].vocabulary.difference(other.vocabulary):
            raise UserError(
                f"the models of an ensemble need the same vocabulary, but the first and number "
                f"{number} differ: {difference}"
            )


def encoder_warnings(models: Sequence[Model], encoder: Mapping, width: int) -> list[str]:
    """Collect the models' warnings about features, each once (see Model.check_encoder)."""
    warnings = [model.check_encoder(encoder, width) for model in models]
    return list(dict.fromkeys(filter(None, warnings)))


def scaled_for(model: Model, features: Array) -> Array:
    """Scale features as in a model's training, on the model's device.

    Args:
        model: the model.
        features: (N, F), as the encoder returns them, on any device.
    """
    xp = array_module(model.decoder.parameters["lstm"])
    if array_module(features) is not xp:
        features = to_device(to_host(features), xp)
    arrays = {name: a for name, a in vars(model.scaling).items() if a is not None}
    return Scaling(**{name: to_device(a, xp) for name, a in arrays.items()})(features)


def generate(
    models: Sequence[Model],
    features: Array,
    config: GenerationConfig = GREEDY,
    count: int = 1,
    rng: numpy.random.Generator | None = None,
    *,
    observe: Observer | None = None,
) -> list[list[Caption]]:
    """Generate captions for N images.

    Args:
        models: one model, or an ensemble (see `beam_search`).
        features: (N, F), as the encoder returns them.
        config: how to generate.
        count: number of samples, or minimum beam size.
        rng: random number generator for sampling.
        observe: see `beam_search`.

    Returns:
        For each image, the captions of its final beam, best first, or `count` samples.

    Raises:
        UserError: the models' vocabularies differ; an option is out of range; `prefix` has words
            that are not in the vocabulary, or is longer than the models' captions.
    """
    check_vocabularies(models)
    config.check()
    v = models[0].vocabulary
    max_words = min(model.max_length for model in models) - 1  # #END# included
    prefix = v.tokenise(config.prefix)
    unknown = [word for word in prefix if word not in v.ids]
    if unknown:
        raise UserError(
            f"--prefix: not in the model's vocabulary of {len(v):,} words: {', '.join(unknown)}"
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
    return beam_search(decoders, scaled, constraints, config, count, rng, observe=observe)


def generate_text(
    models: Sequence[Model],
    features: Array,
    config: GenerationConfig = GREEDY,
    rng: numpy.random.Generator | None = None,
) -> list[str]:
    """Generate one caption for each image, the best or a sample, as text (see `generate`)."""
    found = generate(models, features, config, rng=rng)
    return [models[0].vocabulary.decode(captions[0].ids) for captions in found]
