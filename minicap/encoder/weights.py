"""Weights for the table, behind one small interface; here the seeded random ones.

(Those of published files: `weight_files`.)

A source of weights is a `Weights`: a name, and for each convolution of `inception.layers()`, in
that order, a kernel and its batch-norm numbers. A reader of a weight file is a function that
returns one.

The seeded weights need no download and are the same on every machine, to the last bit: kernels come
from NumPy's RandomState, whose stream is frozen (NEP 19), by uniform draws and correctly rounded
arithmetic alone (normal draws go through the C library's logarithm, which differs between
machines); the batch-norm statistics, measured once by `python -m minicap.data.scenes.calibrate`, lie
beside this file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicap.encoder.inception import Layer, layers

STATISTICS = Path(__file__).with_name("seeded_statistics.safetensors")

# The knob of the random network; turn it, and `python -m minicap.data.scenes.calibrate` must be run
# again. Beta shifts every normalised channel before its ReLU. At 0 half of all values are cut off,
# and over 94 layers small differences grow while large ones are lost; at 4 a channel is cut only
# where it meets what is rare, so that most of the picture passes and what is cut tells shapes
# apart. The first five convolutions, the stem, cut more: they make the edges. What a linear probe
# reads from the features of drawn scenes: `python -m minicap.scenes --probe`.
STEM, STEM_BETA, BETA = 5, 1.0, 4.0


def seeded_beta(index: int) -> float:
    """The beta of every filter of convolution `index` (0 to 93)."""
    return STEM_BETA if index < STEM else BETA


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
    sha256: str = ""  # of the file that they were read from, in hex


def seeded_kernel(layer: Layer, index: int, seed: int = 0) -> np.ndarray:
    """The random kernel of convolution `index` (0 to 93), float32, of layer.shape.

    Uniform, centred, with variance 2 / fan_in (He et al. 2015, equation 10).
    """
    stream = np.random.RandomState([seed, index])
    limit = np.sqrt(6 / np.prod(layer.shape[1:]))
    return ((2 * stream.random_sample(layer.shape) - 1) * limit).astype(np.float32)


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
            beta=np.full(layer.shape[0], seeded_beta(index), np.float32),
            mean=statistics[f"{layer.name}/mean"],
            variance=statistics[f"{layer.name}/variance"],
        )
        for index, layer in enumerate(layers())
    ]
    return Weights(f"seeded-{seed}", numbers)
