"""The network's weights as one type, `Weights`, and the seeded random weights.

`weight_files` reads the published weights.

The seeded weights need no download and are bitwise the same on every machine. Kernels are uniform
samples from NumPy's RandomState, whose stream is frozen (NEP 19), scaled with correctly rounded
arithmetic. Normal samples would need the C library's logarithm, which differs between machines. The
batch-norm statistics were measured once with `python -m minicap.data.scenes.calibrate` and are
shipped with this module.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicap.encoder.inception import Layer, layers

STATISTICS = Path(__file__).with_name("seeded_statistics.safetensors")

# If you change these, run `python -m minicap.data.scenes.calibrate` again. Beta shifts each
# normalised channel before its ReLU. At 0 the ReLU cuts half of all values, and over 94 layers
# small differences grow while large ones are lost. At 4 it cuts only rare values, so most of the
# image passes and the cuts distinguish shapes. The first five convolutions, the stem, cut more:
# they detect edges. `python -m minicap.scenes --probe` measures what a linear probe reads from
# the features of rendered scenes.
STEM, STEM_BETA, BETA = 5, 1.0, 4.0


def seeded_beta(index: int) -> float:
    """Return the beta of every filter of convolution `index` (0 to 93)."""
    return STEM_BETA if index < STEM else BETA


class LayerWeights(NamedTuple):
    """The weights of a convolution and its batch normalisation.

    The layer computes beta + (conv(x, kernel) - mean) / sqrt(variance + epsilon). If a file has a
    batch-norm gamma, kernel and mean are multiplied by it, which gives the same function.

    Attributes:
        kernel: (filters, input channels, height, width).
        beta: (filters,).
        mean: (filters,).
        variance: (filters,), at least 0.
    """

    kernel: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Weights(NamedTuple):
    """The weights of all 94 convolutions, and what else differs between published networks.

    Attributes:
        name: name of the weights.
        layers: in the order of `inception.layers()`.
        count_include_pad: whether average pooling counts padding as zeros. Keras: no,
            torchvision: yes. The wrong choice gives features with a cosine of 0.98.
        sha256: of the weight file, in hex; empty without one.
    """

    name: str
    layers: Sequence[LayerWeights]
    count_include_pad: bool = False
    sha256: str = ""


def seeded_kernel(layer: Layer, index: int, seed: int = 0) -> np.ndarray:
    """Draw a random kernel: uniform, zero mean, variance 2 / fan_in (He et al. 2015, eq. 10).

    Args:
        layer: the convolution.
        index: its number, 0 to 93.
        seed: of the whole network.

    Returns:
        The kernel, float32, of shape `layer.shape`.
    """
    generator = np.random.RandomState([seed, index])
    limit = np.sqrt(6 / np.prod(layer.shape[1:]))
    return ((2 * generator.random_sample(layer.shape) - 1) * limit).astype(np.float32)


def seeded_weights(seed: int = 0) -> Weights:
    """Build random weights, calibrated so that no channel of any convolution is dead.

    Raises:
        ValueError: a seed other than 0, for which no statistics are shipped.
    """
    from safetensors.numpy import load_file

    if seed != 0:
        raise ValueError(f"statistics are shipped for seed 0, not for seed {seed}")
    statistics = load_file(STATISTICS)
    layer_weights = [
        LayerWeights(
            kernel=seeded_kernel(layer, index, seed),
            beta=np.full(layer.shape[0], seeded_beta(index), np.float32),
            mean=statistics[f"{layer.name}/mean"],
            variance=statistics[f"{layer.name}/variance"],
        )
        for index, layer in enumerate(layers())
    ]
    return Weights(f"seeded-{seed}", layer_weights)
