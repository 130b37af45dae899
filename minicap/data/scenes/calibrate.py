"""Batch-norm statistics for the seeded weights: `python -m minicap.data.scenes.calibrate`.

The activations of a random network of 94 layers vanish or explode unless each layer's output is
normalised. Batch normalisation does that with statistics gathered during training. Here they are
measured on drawn scenes, layer by layer, in plain NumPy. This is also a second, independent
implementation of the network, which tests compare with ONNX Runtime.
"""

from collections.abc import Callable, Iterable

import numpy as np
import tyro

from minicap.encoder.inception import BATCH_NORM_EPSILON, Conv, Pool, layers, network
from minicap.encoder.weights import STATISTICS, LayerWeights, seeded_beta, seeded_kernel


def drawings(count: int = 32, seed: int = 1) -> np.ndarray:
    """Draw random scenes, none from the shipped data set: (count, 299, 299, 3) uint8."""
    from minicap.data.scenes.drawing import paint
    from minicap.data.scenes.scene import random_scene

    rng = np.random.RandomState(seed)
    return np.stack([np.asarray(paint(random_scene(rng))) for _ in range(count)])


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, padding: str) -> np.ndarray:
    """Convolve images as a sum of matrix products, one per kernel position.

    Args:
        x: (n, h, w, channels).
        kernel: (filters, channels, kh, kw).
        stride: in both directions.
        padding: "same" or "valid".

    Returns:
        (n, h', w', filters).
    """
    kh, kw = kernel.shape[2:]
    if padding == "same":
        x = np.pad(x, [(0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)])
    height = (x.shape[1] - kh) // stride + 1
    width = (x.shape[2] - kw) // stride + 1
    y = np.zeros((len(x) * height * width, len(kernel)), x.dtype)
    for i, j in np.ndindex(kh, kw):
        window = x[:, i : i + stride * height : stride, j : j + stride * width : stride]
        y += window.reshape(len(y), -1) @ kernel[:, :, i, j].T  # one large product is faster
    return y.reshape(len(x), height, width, -1)


def pool3x3(x: np.ndarray, pool: Pool) -> np.ndarray:
    """Pool 3x3 windows of x (n, h, w, channels); averages leave out padding."""
    empty = 0 if pool.kind == "average" else -np.inf
    if pool.padding == "same":
        x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=empty)
    height, width = ((side - 3) // pool.stride + 1 for side in x.shape[1:3])
    s = pool.stride
    windows = [x[:, i : i + s * height : s, j : j + s * width : s] for i, j in np.ndindex(3, 3)]
    if pool.kind == "max":
        return np.maximum.reduce(windows)
    rows, columns = (3 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in (height, width))
    return sum(windows) / (rows[:, None, None] * columns[:, None]).astype(x.dtype)


def forward(
    images: np.ndarray,
    kernels: Iterable[np.ndarray],
    statistics: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Compute the features of images.

    Args:
        images: (n, 299, 299, 3) uint8.
        kernels: of the 94 convolutions, in the order of `layers`.
        statistics: called with the index and output y (n, h, w, filters) of each convolution;
            returns beta, mean and variance, (filters,) each, of its batch normalisation.

    Returns:
        (n, 2048) float32.
    """
    numbered = enumerate(kernels)

    def conv(name: str, c: Conv, x: np.ndarray) -> np.ndarray:
        index, kernel = next(numbered)
        y = convolve(x, kernel, c.stride, c.padding)
        beta, mean, variance = statistics(index, y)
        scale = 1 / np.sqrt(variance + BATCH_NORM_EPSILON)
        y *= scale
        y += beta - mean * scale
        return np.maximum(y, 0, out=y)

    x = images.astype(np.float32) / np.float32(127.5) - 1
    x = network(
        x,
        conv,
        pool=lambda name, p, x: pool3x3(x, p),
        concat=lambda name, branches: np.concatenate(branches, axis=3),
    )
    return x.mean((1, 2))


def calibrate(images: np.ndarray, seed: int = 0) -> list[LayerWeights]:
    """Measure the batch-norm statistics of the seeded weights.

    Args:
        images: (n, 299, 299, 3) uint8.
        seed: of the weights.

    Returns:
        Kernel, beta, mean and variance of each layer.
    """
    found: list[LayerWeights] = []

    def measure(index: int, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = y.reshape(-1, y.shape[-1])
        mean = pixels.mean(0, dtype=np.float64)
        variance = np.maximum(np.square(pixels, dtype=np.float64).mean(0) - mean**2, 0)
        beta = np.full(len(mean), seeded_beta(index))
        numbers = np.stack([beta, mean, variance]).astype(np.float32)
        w = LayerWeights(kernels[index], *numbers)
        found.append(w)
        return w.beta, w.mean, w.variance

    kernels = [seeded_kernel(layer, index, seed) for index, layer in enumerate(layers())]
    forward(images, kernels, measure)
    return found


def main() -> None:
    """Calibrate seed 0, save the shipped statistics and print the new encoder id."""
    from safetensors.numpy import save_file

    found = calibrate(drawings())
    statistics = {
        f"{layer.name}/{kind}": getattr(w, kind)
        for layer, w in zip(layers(), found, strict=True)
        for kind in ("mean", "variance")
    }
    save_file(statistics, STATISTICS)

    from minicap.encoder.graph import build
    from minicap.encoder.weights import seeded_weights

    model = build(seeded_weights())
    about = {entry.key: entry.value for entry in model.metadata_props}
    print(f"{STATISTICS}: saved; set SEEDED_ENCODER_ID to {about['encoder_id']}")


if __name__ == "__main__":
    tyro.cli(main)
