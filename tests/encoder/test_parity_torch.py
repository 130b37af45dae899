"""The exported network against torchvision's and timm's own, with the same weight file.

These tests need torchvision or timm; test_graph.py compares with PyTorch alone.
"""

from pathlib import Path

import numpy as np
import pytest

from minicap.encoder import graph
from minicap.encoder.session import Encoder
from minicap.encoder.weight_files import read_weights
from tests.encoder.published import relative, samples, state_dict, varied_weights

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def state() -> dict:
    arrays = state_dict(varied_weights())
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def ours(state, tmp_path_factory) -> np.ndarray:
    """Features from the whole pipeline: file, reader, export, ONNX Runtime."""
    folder: Path = tmp_path_factory.mktemp("parity")
    torch.save(state, folder / "a.pth")
    graph.save(graph.build(read_weights(folder / "a.pth")), folder / "a.onnx")
    return Encoder(folder / "a.onnx").encode(samples())


def load(network, state):
    """Load the state without the classifier and the auxiliary heads, which are not compared."""
    kept = {n: t for n, t in state.items() if not n.startswith(("AuxLogits", "fc"))}
    missing = network.load_state_dict(kept, strict=False)
    assert not missing.unexpected_keys and {n[:3] for n in missing.missing_keys} <= {"fc."}
    network.fc = torch.nn.Identity()
    return network.eval().double()


def features(network, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def test_torchvision(state, ours):
    models = pytest.importorskip("torchvision").models
    network = load(models.inception_v3(weights=None, init_weights=False, aux_logits=False), state)
    found = relative(ours, features(network, samples() / 127.5 - 1))
    print(f"torchvision: relative L2 of the features {found:.1e}")
    assert found <= 2e-5


def test_torchvision_as_documented(state, ours):
    """Input with ImageNet's mean and standard deviation, which `transform_input` undoes."""
    models = pytest.importorskip("torchvision").models
    network = models.inception_v3(
        weights=None, init_weights=False, aux_logits=False, transform_input=True
    )
    pixels = (samples() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert relative(ours, features(load(network, state), pixels)) <= 2e-5


def test_timm(state, ours):
    timm = pytest.importorskip("timm")
    network = load(timm.create_model("inception_v3", pretrained=False), state)
    found = relative(ours, features(network, samples() / 127.5 - 1))
    print(f"timm: relative L2 of the features {found:.1e}")
    assert found <= 2e-5
