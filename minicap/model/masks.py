"""Dropout masks of a decoder."""

from collections.abc import Mapping

import numpy

from minicap.model.config import DecoderConfig
from minicap.nn.dropout import draw_mask

AXES = {  # what each row of a layer's mask belongs to
    "features": "captions",
    "img_embed_bottleneck_to_h0": "captions",
    "lstm": "words",
    "token_logits_bottleneck": "rows",
    "token_logits": "rows",
}


def draw_masks(
    config: DecoderConfig,
    rng: numpy.random.Generator,
    rates: tuple[float, float, float],
    feature_size: int,
    counts: Mapping[str, int],
) -> dict[str, numpy.ndarray]:
    """Draw the dropout masks for one batch, on the host.

    A word that occurs several times in a batch has the same mask each time, because it is projected
    only once. (Gal and Ghahramani 2016 recommend this within a sequence.)

    Args:
        config: the decoder's architecture.
        rng: random number generator.
        rates: dropout rates of the image's features, of the bottlenecks and the LSTM's outputs, and
            of the word embeddings.
        feature_size: number of features per image.
        counts: the batch's numbers of captions, distinct words and rows, as in Batch.counts.

    Returns:
        The mask of each layer's input, by the layer's name ("features": the image's). A rate of 0
        gives no mask.
    """
    image_rate, rate, embedding_rate = rates
    bottleneck = config.logit_bottleneck
    drawn = {}
    if image_rate:
        shape = counts["captions"], feature_size
        drawn["features"] = draw_feature_mask(config, rng, image_rate, shape)
    masks = {
        "img_embed_bottleneck_to_h0": (rate, config.image_bottleneck),
        "lstm": (embedding_rate, config.embedding_size),
        "token_logits_bottleneck": (rate, config.hidden_size if bottleneck else 0),
        "token_logits": (rate, bottleneck or config.hidden_size),
    }
    return drawn | {
        name: draw_mask(rng, (counts[AXES[name]], width), own_rate)
        for name, (own_rate, width) in masks.items()
        if own_rate and width
    }


def draw_feature_mask(
    config: DecoderConfig, rng: numpy.random.Generator, rate: float, shape: tuple[int, int]
) -> numpy.ndarray:
    """Draw the dropout mask of images' features, on the host.

    All positions of an image lose the same features. If each lost its own, their mean would still
    contain nearly everything, and dropout would have little effect.

    Args:
        config, rng: as for `draw_masks`.
        rate: dropout rate.
        shape: (N, F), the numbers of images and of features of each.
    """
    N, F = shape
    return numpy.tile(draw_mask(rng, (N, F // config.positions), rate), config.positions)


def masks_of_part(
    masks: Mapping[str, numpy.ndarray], index: Mapping[str, numpy.ndarray]
) -> dict[str, numpy.ndarray]:
    """Select the rows of a batch's masks that belong to one part of it.

    Args:
        masks: from `draw_masks`, for the whole batch.
        index: the part's captions, words and rows, from Batch.split.
    """
    return {name: mask[index[AXES[name]]] for name, mask in masks.items()}
