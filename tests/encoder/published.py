"""Made-up weights in the layouts of published files: random, with different channels."""

from pathlib import Path

import numpy as np

from minicap.data.scenes.calibrate import drawings
from minicap.encoder.inception import layers
from minicap.encoder.weight_files import torch_name
from minicap.encoder.weights import LayerWeights, Weights, seeded_weights


def varied_weights() -> Weights:
    """The seeded weights with a different beta and variance for each channel."""
    rng = np.random.default_rng(0)

    def vary(w: LayerWeights) -> LayerWeights:
        return w._replace(
            beta=(w.beta * rng.uniform(0.8, 1.2, w.beta.shape)).astype(np.float32),
            variance=(w.variance * rng.uniform(0.8, 1.2, w.beta.shape)).astype(np.float32),
        )

    return Weights("varied", [vary(w) for w in seeded_weights().layers])


def light_weights() -> Weights:
    """Random weights that make small files: large kernels are all 1."""
    rng = np.random.default_rng(4)

    def kernel(*shape: int) -> np.ndarray:
        if np.prod(shape) > 100_000:
            return np.broadcast_to(np.float32(1), shape)
        return rng.random(shape, np.float32)

    found = [
        LayerWeights(kernel(*layer.shape), *rng.random((3, layer.shape[0]), np.float32))
        for layer in layers()
    ]
    return Weights("light", found)


def gammas() -> list[np.ndarray]:
    """A batch-norm gamma for each channel of each layer."""
    rng = np.random.default_rng(1)
    return [rng.uniform(0.8, 1.2, layer.shape[0]).astype(np.float32) for layer in layers()]


def with_gammas(weights: Weights) -> Weights:
    """The expected result of reading a file with `weights` and `gammas()`, with torch's pooling."""
    found = [
        w._replace(kernel=w.kernel * g[:, None, None, None], mean=w.mean * g)
        for w, g in zip(weights.layers, [g.astype(np.float64) for g in gammas()], strict=True)
    ]
    return weights._replace(layers=found, count_include_pad=True)


def state_dict(weights: Weights) -> dict[str, np.ndarray]:
    """torchvision's state dict, with `gammas()` and with entries that a reader must ignore."""
    state: dict[str, np.ndarray] = {"AuxLogits.conv0.conv.weight": np.full((2, 2), np.nan)}
    for layer, w, gamma in zip(layers(), weights.layers, gammas(), strict=True):
        name = torch_name(layer)
        state[f"{name}.conv.weight"] = w.kernel
        state[f"{name}.bn.weight"], state[f"{name}.bn.bias"] = gamma, w.beta
        state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"] = w.mean, w.variance
        state[f"{name}.bn.num_batches_tracked"] = np.array(7)
    state["fc.weight"] = np.zeros((10, 2048), np.float32)
    return state


def write_keras(
    path: Path, weights: Weights, first: int = 1, root: str = "", twice: bool = True
) -> None:
    """Write Keras' HDF5 by hand: layers in another order, numbered from `first` on, under `root`.

    `twice`: each path contains the layer's name twice, as in the official files. A number 0 is
    omitted, as in a process that builds nothing else.
    """
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        if root:  # a whole model also contains its optimizer's state
            file["optimizer_weights/conv2d_7/kernel:0"] = np.zeros(3, np.float32)
        names = []

        def write(layer: str, number: int, arrays: dict[str, np.ndarray]) -> None:
            layer += f"_{number}" if number else ""
            names.append(layer)
            inner = f"{layer}/{layer}" if twice else layer
            for kind, array in arrays.items():
                name = f"{inner}/{kind}:0"
                if any(array.strides):
                    group[name] = array
                else:  # takes no space on disk
                    group.create_dataset(name, array.shape, array.dtype, fillvalue=array.flat[0])
            group[layer].attrs["weight_names"] = [f"{layer}/{kind}:0".encode() for kind in arrays]

        for index in np.random.default_rng(2).permutation(len(weights.layers)):
            w = weights.layers[index]
            write("conv2d", first + index, {"kernel": w.kernel.transpose(2, 3, 1, 0)})
            norm = {"beta": w.beta, "moving_mean": w.mean, "moving_variance": w.variance}
            write("batch_normalization", first + index, norm)
        group["predictions/predictions/kernel:0"] = np.zeros((2048, 10), np.float32)
        group.create_group("input_1")
        group.attrs["layer_names"] = [name.encode() for name in [*names, "input_1", "predictions"]]


def samples() -> np.ndarray:
    """Images on which to compare networks: two scenes and noise, uint8 (3, 299, 299, 3)."""
    noise = np.random.default_rng(3).integers(0, 256, (1, 299, 299, 3), np.uint8)
    return np.concatenate([drawings(2, seed=5), noise])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """The largest relative L2 difference of two rows."""
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())
