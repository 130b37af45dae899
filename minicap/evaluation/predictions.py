"""Captions for a whole evaluation set, with their probabilities."""

import itertools
import sys
from collections.abc import Sequence

import numpy
from tqdm import tqdm

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.vocabulary import Vocabulary
from minicap.evaluation.evaluation import Prediction
from minicap.generation.beam_search import Caption
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import encoder_warnings, generate
from minicap.generation.trace import trace
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError
from minicap.utils.ranks import world

BATCH = 256  # images captioned together


def check_features(models: Sequence[Model], images: EvaluationSet) -> list[str]:
    """Check that the models can use the images' features.

    Returns:
        Warnings, if it is not certain that the models were trained on such features.

    Raises:
        UserError: the images have no features, or those of another encoder than the models'.
    """
    if images.features is None:
        raise UserError("the model needs the images' features: name them with --features")
    return encoder_warnings(models, images.encoder or {}, images.features.shape[1])


def predict(
    models: Sequence[Model],
    images: EvaluationSet,
    config: GenerationConfig,
    seed: int,
) -> list[list[Prediction]]:
    """Generate captions for each image. The ranks of an MPI job share the images.

    Args:
        models: one, or several that generate together.
        images: with features that `check_features` accepts.
        config: how to generate.
        seed: of samples.

    Returns:
        The candidates for each image, best first.
    """
    features = images.features
    assert features is not None
    draws = min(model.max_length for model in models) - 1  # for each image

    def predict_batch(start: int) -> list[list[Prediction]]:
        batch = features[start : start + BATCH]
        rng = numpy.random.Generator(numpy.random.PCG64(seed).advance(start * draws))
        found = generate(models, batch, config, rng=rng)
        bar.update(len(batch))
        return [[as_prediction(models[0].vocabulary, c) for c in captions] for captions in found]

    with tqdm(total=len(features), unit="image", disable=not sys.stderr.isatty()) as bar:
        batches = world().share(range(0, len(features), BATCH), predict_batch)
    return list(itertools.chain(*batches))


def as_prediction(vocabulary: Vocabulary, caption: Caption) -> Prediction:
    """Convert token ids and log-probabilities to text and probabilities."""
    probabilities = numpy.exp(caption.log_probabilities).tolist()
    ids = [*caption.ids, vocabulary.end][: len(probabilities)]
    return Prediction(vocabulary.decode(caption.ids), probabilities, caption.score, ids)


def attention_weights(
    models: Sequence[Model],
    images: EvaluationSet,
    predictions: Sequence[Sequence[Prediction]],
    rows: Sequence[int],
) -> dict[int, numpy.ndarray]:
    """Find out where the first model looked for each token of some images' best captions.

    Args:
        models, images: as for `predict`.
        predictions: from `predict`.
        rows: the images.

    Returns:
        Row -> the weights (T, L) of the positions; nothing if the model has no attention.
    """
    if not models or models[0].decoder.config.image_input != "attention" or not rows:
        return {}
    assert images.features is not None
    captions = [predictions[row][0].ids for row in rows]
    traces = trace(models, images.features[list(rows)], captions, 1)
    return {
        row: found.weights
        for row, found in zip(rows, traces, strict=True)
        if found.weights is not None
    }
