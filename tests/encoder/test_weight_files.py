"""Weight files of all types give the same weights; damaged and foreign ones a one-line error."""

import hashlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minicap.encoder import weight_files
from minicap.encoder.inception import layers
from minicap.encoder.weight_files import read_weights, torch_name
from minicap.encoder.weights import Weights
from minicap.utils.errors import UserError
from tests.encoder.published import (
    light_weights,
    state_dict,
    with_gammas,
    write_keras,
)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return light_weights()


@pytest.fixture(scope="module")
def keras_file(weights, tmp_path_factory) -> Path:
    pytest.importorskip("h5py")
    path = tmp_path_factory.mktemp("keras") / "a.h5"
    write_keras(path, weights)
    return path


@pytest.fixture(scope="module")
def torch_file(weights, tmp_path_factory) -> Path:
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("torch") / "a.pth"
    torch.save(tensors(weights), path)
    return path


def tensors(weights: Weights) -> dict:
    """The state dict in torch; constant arrays take no space in a file."""
    import torch

    return {
        name: torch.from_numpy(array)
        if any(array.strides) or not array.shape
        else torch.tensor(array.flat[0]).expand(array.shape)
        for name, array in state_dict(weights).items()
    }


@pytest.fixture(scope="module")
def safetensors_file(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("safetensors") / "a.safetensors"
    save_file({n: np.ascontiguousarray(a) for n, a in state_dict(weights).items()}, path)
    return path


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.count_include_pad == expected.count_include_pad
    assert len(found.layers) == 94
    for layer, a, b in zip(layers(), found.layers, expected.layers, strict=True):
        for kind in a._fields:
            np.testing.assert_array_equal(getattr(a, kind), getattr(b, kind), f"{layer} {kind}")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        read_weights(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500
    for word in words:
        assert word in text


# ---- Keras ----------------------------------------------------------------------------------


def test_keras(weights, keras_file):
    found = read_weights(keras_file)
    assert_same(found, weights)
    assert found.name == "a"
    assert found.sha256 == hashlib.sha256(keras_file.read_bytes()).hexdigest()
    assert found.layers[0].kernel.dtype == np.float32


@pytest.mark.parametrize(
    "layout",
    [{"first": 0}, {"first": 189}, {"root": "model_weights"}, {"twice": False}],
    ids=["from 0", "from 189", "a whole model", "names once"],
)
def test_keras_in_its_other_layouts(tmp_path, layout):
    pytest.importorskip("h5py")
    path = tmp_path / "file.without.suffix"
    write_keras(path, light_weights(), **layout)
    assert_same(read_weights(path), light_weights())


def test_official_files_are_known_by_their_checksum(keras_file, monkeypatch):
    md5 = hashlib.md5(keras_file.read_bytes()).hexdigest()
    monkeypatch.setitem(weight_files.OFFICIAL, f"md5:{md5}", "the official one")
    assert read_weights(keras_file).name == "the official one"


@pytest.fixture
def change(tmp_path):
    """A Keras file in which something is changed."""
    h5py = pytest.importorskip("h5py")

    def changed(**arrays):
        path = tmp_path / "changed.h5"
        write_keras(path, light_weights())
        with h5py.File(path, "r+") as file:
            for name, array in arrays.items():
                layer, kind = name.rsplit("_", 1)
                name = f"{layer}/{layer}/{kind}:0".replace("moving-", "moving_")
                if name in file:
                    del file[name]
                if array is not None:
                    file[name] = array
        return path

    return changed


def test_keras_with_something_wrong(change):
    kernel = np.ones((3, 3, 64, 96), np.float32)  # the shape of conv2d_10
    refused(change(conv2d_10_kernel=kernel[:1]), "conv2d_10/conv2d_10/kernel:0: has the shape")
    refused(change(conv2d_10_kernel=kernel.astype(np.int8)), "has the type int8, not floating")
    refused(change(conv2d_10_kernel=kernel * np.nan), "conv2d_10/kernel:0: has values that are not")
    refused(change(conv2d_10_kernel=None), "93 layers conv2d_..., InceptionV3 has 94; conv2d_10 is")
    refused(change(conv2d_95_kernel=kernel), "has 95 layers conv2d_..., InceptionV3 has 94")
    refused(change(conv2d_999999999_kernel=kernel), "has 95 layers", "conv2d_95 is missing")
    refused(change(conv2d_10_bias=np.zeros(64)), "conv2d_10/bias:0: a convolution of InceptionV3")
    name = "batch_normalization_10"
    refused(change(**{f"{name}_moving-variance": np.full(96, -1e-9, "f4")}), "negative variance")
    refused(change(**{f"{name}_beta": None}), f"no beta next to {name}/{name}/moving_mean:0")


def test_a_gamma_in_a_keras_file_is_folded(change):
    gamma = np.linspace(0.5, 2, 96, dtype=np.float32)
    found = read_weights(change(batch_normalization_10_gamma=gamma)).layers[9]
    before, gamma = light_weights().layers[9], gamma.astype(np.float64)
    np.testing.assert_array_equal(found.kernel, before.kernel * gamma[:, None, None, None])
    np.testing.assert_array_equal(found.mean, before.mean * gamma)
    np.testing.assert_array_equal(found.beta, before.beta)


def test_other_hdf5_files(tmp_path, keras_file):
    import h5py

    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        file["block1_conv1/block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64), np.float32)
    refused(path, "not Keras' InceptionV3; the file contains block1_conv1/block1_conv1/kernel:0")
    with h5py.File(path, "w") as file:
        for number in range(94):
            file[f"conv2d_{number}/kernel:0"] = np.zeros(3, np.float32)
    refused(path, "not Keras' InceptionV3")
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    refused(path, "Keras 3's own layout", weight_files.KERAS_NOTOP)
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(keras_file, "/")
    refused(path, "not Keras' InceptionV3; the file contains nothing")


def test_oversized_chunks_are_refused(change):
    """A few bytes may unpack to gigabytes even if the shape is right."""
    import h5py

    path = change(batch_normalization_10_beta=None)
    with h5py.File(path, "r+") as file:
        file["batch_normalization_10/batch_normalization_10"].create_dataset(
            "beta:0", (96,), "f4", chunks=(1 << 24,), maxshape=(None,), compression="gzip"
        )
    refused(path, "beta:0: is stored in chunks of (16777216,)")


def test_without_h5py(keras_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(keras_file, "needs h5py", "pip install h5py")


# ---- torchvision and timm -------------------------------------------------------------------


def test_names_of_torchvision():
    names = [torch_name(layer) for layer in layers()]
    assert len(set(names)) == 94
    assert names[:6] == [
        "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
        "Mixed_5b.branch1x1",
    ]  # fmt: skip
    assert names[-9:] == [
        "Mixed_7c." + name
        for name in (
            "branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_1",
            "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool",
        )
    ]  # fmt: skip
    assert {"Mixed_6a.branch3x3", "Mixed_6e.branch7x7dbl_5", "Mixed_7a.branch7x7x3_4"} < {*names}


def test_state_dict_and_safetensors(weights, torch_file, safetensors_file):
    expected = with_gammas(weights)
    for path in (torch_file, safetensors_file):
        assert_same(read_weights(path), expected)


def test_torchs_older_format_and_smaller_floats(weights, tmp_path):
    torch = pytest.importorskip("torch")
    state = tensors(weights)
    state["Mixed_5b.branch_pool.bn.bias"] = state["Mixed_5b.branch_pool.bn.bias"].bfloat16()
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    beta = read_weights(path).layers[11].beta
    np.testing.assert_allclose(beta, weights.layers[11].beta, rtol=1e-2)


def test_a_state_dict_with_something_wrong(tmp_path, weights):
    torch = pytest.importorskip("torch")
    path, name = tmp_path / "changed.pth", "Mixed_6b.branch7x7dbl_3.bn.running_var"

    def changed(tensor):
        state = tensors(weights)
        state.pop(name)
        torch.save(state | ({} if tensor is None else {name: tensor}), path)
        return path

    refused(changed(None), f"has no {name}")
    refused(changed(torch.zeros(3)), f"{name}: has the shape (3,), InceptionV3 needs (128,)")
    refused(changed(torch.zeros(128, dtype=torch.int32)), f"{name}: has the type torch.int32")
    refused(changed(torch.full((128,), torch.inf)), f"{name}: has values that are not finite")
    refused(changed(torch.full((128,), -1.0)), f"{name}: has a negative variance")
    refused(changed("text"), f"{name}: is a str")
    torch.save([1, 2], path)
    refused(path, "contains a list, not a state dict")
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    refused(path, "has no Conv2d_1a_3x3.conv.weight: not the complete weights of an InceptionV3")


def test_pickles_cannot_run_code(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    refused(tmp_path / "trap.pth", "damaged, or not a weight file")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(weight_files, "MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(100_000))
    refused(tmp_path / "bomb.pth", "unpacks to 100,000 bytes")


def test_without_torch(torch_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(torch_file, "needs PyTorch", "pip install torch")


def test_safetensors_with_something_wrong(tmp_path):
    path, name = tmp_path / "a.safetensors", "Conv2d_1a_3x3.conv.weight"
    save_file({name: np.zeros((32, 3, 3), np.float32)}, path)
    refused(path, f"{name}: has the shape (32, 3, 3)")
    save_file({name: np.zeros((32, 3, 3, 3), np.int16)}, path)
    refused(path, f"{name}: has the type I16")
    save_file({"a": np.zeros(3)}, path)
    refused(path, f"has no {name}")


# ---- other files ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["keras_file", "torch_file", "safetensors_file"])
def test_damaged_files(kind, request, tmp_path):
    whole = request.getfixturevalue(kind).read_bytes()
    path = tmp_path / "damaged"
    for kept in (len(whole) - 1000, len(whole) // 2, 20):
        path.write_bytes(whole[:kept])
        refused(path)
    path.write_bytes(whole[:8] + bytes(range(256)) * 100)
    refused(path)


def test_files_that_are_not_weights(tmp_path, monkeypatch):
    path = tmp_path / "file"
    for content in (b"", b"<html>not found</html>", b"\0" * 100):
        path.write_bytes(content)
        refused(path, "not a weight file; name a Keras .h5")
    refused(tmp_path / "missing", "cannot read the weights (No such file")
    refused(tmp_path, "cannot read the weights (Is a directory")
    monkeypatch.setattr(weight_files, "MAX_BYTES", 99)
    refused(path, "has 100 bytes, too many")
