"""Initialisation of a decoder's parameters."""

from collections.abc import Mapping

import numpy

from minicap.model.config import DecoderConfig
from minicap.model.decoder import split_lstm
from minicap.nn.initializers import glorot_uniform
from minicap.nn.parameters import Parameters


def initial_parameters(
    config: DecoderConfig,
    shapes: Mapping[str, tuple[int, int]],
    rng: numpy.random.Generator,
    embedding_range: float = 0.05,
    image_gain: float = 1.0,
    frequencies: numpy.ndarray | None = None,
) -> Parameters:
    """Initialise as TensorFlow 1 does: weights Glorot-uniform, biases zero, embedding uniform.

    Args:
        config: the architecture.
        shapes: the shape of each parameter, from `config.shapes`.
        rng: random number generator.
        embedding_range: the embedding is uniform within +- this.
        image_gain: factor of the weights whose input is the image's features.
        frequencies: (V,) positive, how often each word occurs, or None. The last layer's bias
            becomes their logarithm, so that an untrained decoder predicts words by frequency (as
            in the code of Karpathy and Fei-Fei 2015).

    Returns:
        Parameters in float32, on the host.
    """
    parameters = Parameters(shapes)
    W_image, _, _, UWb = split_lstm(config, parameters["lstm"])
    for name, Wb in parameters.items():
        if name == "word_embed":
            Wb[...] = rng.uniform(-embedding_range, embedding_range, Wb.shape)
        else:  # the bias, which is the last row, stays zero
            W = (UWb if name == "lstm" else Wb)[:-1]
            W[...] = glorot_uniform(rng, *W.shape)
    if len(W_image):  # with a fan-in of its own
        W_image[...] = image_gain * glorot_uniform(rng, *W_image.shape)
    parameters[config.image_layers[0]][:-1] *= image_gain
    if "attention_keys" in parameters:  # so that it starts with nearly equal weights
        parameters["attention_keys"][:-1] *= image_gain
    if frequencies is not None:
        parameters["token_logits"][-1] = numpy.log(frequencies / frequencies.sum())
    return parameters
