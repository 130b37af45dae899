"""Weights for the table, behind one small interface; here the seeded random ones.

A source of weights is a `Weights`: a name, and for each convolution of `inception.layers()`, in
that order, a kernel and its batch-norm numbers. A reader of a weight file is a function that
returns one.

The seeded weights need no download and are the same on every machine, to the last bit: kernels come
from NumPy's RandomState, whose stream is frozen (NEP 19), by uniform draws and correctly rounded
arithmetic alone (normal draws go through the C library's logarithm, which differs between
machines); the batch-norm statistics, measured once by `python -m minicap.encoder.calibrate`, lie
beside this file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicap.encoder.inception import Layer, layers

STATISTICS = Path(__file__).with_name("seeded_statistics.safetensors")

# The two knobs of the random network; turn one, and `python -m minicap.encoder.calibrate` must be
# run again. What they do for a linear probe of drawn scenes (600 pictures, mean accuracy over eight
# attributes): beta 0: 62 %, 0.5: 71 %, 1: 74 %; beta 1 and half of the channels copied: 79 %.
#
# Beta shifts every normalised channel before its ReLU. At 0 half of all values are cut off, and
# over 94 layers small differences grow while large ones are lost (distances become chaotic).
SEEDED_BETA = 1.0
# Share of a convolution's filters that copy one input channel. So the features at the end hold
# something of every depth: colours and edges from early layers beside mixtures from late ones.
SEEDED_COPIES = 0.5


class LayerWeights(NamedTuple):
    """One convolution's numbers; after it comes beta + (x - mean) / sqrt(variance + epsilon).

    A file whose batch norm has a gamma multiplies kernel and mean by it: the same function.
    """

    kernel: np.ndarray  # (filters, input channels, height, width)
    beta: np.ndarray  # (filters,), and so are the next two
    mean: np.ndarray
    variance: np.ndarray  # 0 or more


class Weights(NamedTuple):
    """All 94 convolutions' numbers, and what else differs between published InceptionV3s."""

    name: str
    layers: Sequence[LayerWeights]  # in the order of inception.layers()
    average_counts_padding: bool = False  # Keras: no; torchvision: yes (mixed up: cosine 0.98)


def seeded_kernel(layer: Layer, index: int, seed: int = 0) -> np.ndarray:
    """The random kernel of convolution `index` (0 to 93), float32, of layer.shape.

    Uniform, centred, with variance 2 / fan_in (He et al. 2015, equation 10); the first
    SEEDED_COPIES of the filters are 1 at the centre of one input channel and 0 elsewhere.
    The very first convolution has no such copies: it makes the colour and edge filters.
    """
    filters, channels, height, width = layer.shape
    stream = np.random.RandomState([seed, index])
    limit = np.sqrt(6 / (channels * height * width))
    kernel = (2 * stream.random_sample(layer.shape) - 1) * limit
    if index > 0:
        copies = int(SEEDED_COPIES * filters)
        kernel[:copies] = 0
        sources = np.resize(stream.permutation(channels), copies)  # each once before any twice
        kernel[np.arange(copies), sources, height // 2, width // 2] = 1
    return kernel.astype(np.float32)


def seeded_weights(seed: int = 0) -> Weights:
    """Random weights, calibrated so that every channel of every convolution stays alive.

    Statistics are shipped for seed 0; another seed needs its own (ValueError).
    """
    from safetensors.numpy import load_file

    if seed != 0:
        raise ValueError(f"statistics are shipped for seed 0, not for seed {seed}")
    statistics = load_file(STATISTICS)
    numbers = [
        LayerWeights(
            kernel=seeded_kernel(layer, index, seed),
            beta=np.full(layer.shape[0], SEEDED_BETA, np.float32),
            mean=statistics[f"{layer.name}/mean"],
            variance=statistics[f"{layer.name}/variance"],
        )
        for index, layer in enumerate(layers())
    ]
    return Weights(f"seeded-{seed}", numbers)
