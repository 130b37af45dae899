"""The exported network against Keras' own, with a weight file saved by Keras."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicap import export
from minicap.encoder import check, graph
from minicap.encoder.inception import layers
from minicap.encoder.session import Encoder
from minicap.encoder.weight_files import read_weights
from tests.encoder.published import relative, samples, varied_weights

pytestmark = pytest.mark.slow
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def fill(network) -> None:
    """Set varied weights in Keras' layers, in the order in which Keras created them."""

    def number(layer):
        return int(re.search(r"(?<=_)\d+$|$", layer.name)[0] or 0)

    def created(kind):
        return sorted((x for x in network.layers if isinstance(x, kind)), key=number)

    convs, norms = created(keras.layers.Conv2D), created(keras.layers.BatchNormalization)
    assert convs != [x for x in network.layers if x in convs]  # Keras' own list is in another order
    for conv, norm, w in zip(convs, norms, varied_weights().layers, strict=True):
        conv.set_weights([w.kernel.transpose(2, 3, 1, 0)])
        norm.set_weights([w.beta, w.mean, w.variance])


@pytest.fixture(scope="module")
def network():
    keras.layers.Conv2D(1, 1)  # so that numbers do not start at 0
    network = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg")
    fill(network)
    return network


def exported(path: Path) -> np.ndarray:
    graph.save(graph.build(read_weights(path)), path.with_suffix(".onnx"))
    return Encoder(path.with_suffix(".onnx")).encode(samples())


def test_weights_in_the_layout_of_the_official_file(network, tmp_path):
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(tmp_path / "a.h5", "w") as file:
        save_weights_to_hdf5_group(file, network)
    expected = np.asarray(network.predict(samples() / np.float32(127.5) - 1, verbose=0))
    found = relative(exported(tmp_path / "a.h5"), expected)
    print(f"Keras {keras.__version__}, {keras.backend.backend()}: relative L2 {found:.1e}")
    assert found <= 2e-5


def test_a_whole_model_saved_by_keras(network, tmp_path):
    network.save(tmp_path / "model.h5")
    for layer, a, b in zip(
        layers(), read_weights(tmp_path / "model.h5").layers, varied_weights().layers, strict=True
    ):
        for kind in a._fields:
            np.testing.assert_array_equal(getattr(a, kind), getattr(b, kind), f"{layer} {kind}")


def test_keras_own_new_layout_is_refused(network, tmp_path):
    network.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(Exception, match="Keras 3's own layout"):
        read_weights(tmp_path / "a.weights.h5")


@pytest.mark.parametrize("top", [False, True], ids=["notop", "with classifier"])
def test_export_checks_itself_against_keras(top, tmp_path, monkeypatch, capsys):
    """The command, with files saved by Keras in the layout of the official ones."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    network = keras.applications.InceptionV3(weights=None, include_top=top)
    fill(network)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        save_weights_to_hdf5_group(file, network)
    Image.fromarray(samples()[0]).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.h5"), f"--check={tmp_path / 'a.png'}", f"--out={tmp_path / 'o'}"]
    assert export.main(words) == 0
    assert "relative error against Keras: 1 photos within 0.001, 0 above" in capsys.readouterr().out

    monkeypatch.setattr(check, "TOLERANCE", 1e-12)
    assert export.main(words) == 1
