"""Int8: integers from end to end, the same on every processor, evaluated on held-out photos."""

from pathlib import Path

import numpy as np
import pytest

from minicap.encoder.session import Encoder
from tests.encoder.published import relative

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from minicap.encoder import quantise  # noqa: E402
from minicap.encoder.graph import encoder_id, save  # noqa: E402


@pytest.fixture(scope="module")
def int8(seeded_file, images):
    return quantise.quantise(onnx.load(seeded_file), iter(images[:3]))


@pytest.fixture(scope="module")
def int8_file(int8, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    save(int8, path)
    return path


@pytest.mark.slow
def test_metadata_name_the_float32_encoder(int8, seeded, int8_file):
    about = {entry.key: entry.value for entry in int8.metadata_props}
    assert about.pop("float32_encoder_id") == seeded.id
    assert about.pop("precision").startswith("int8")
    assert about.pop("encoder_id") == encoder_id(int8, "squeeze-bilinear-299") != seeded.id
    before = {entry.key: entry.value for entry in onnx.load_model(int8_file).metadata_props}
    assert about == {key: before[key] for key in about}
    assert about["weights"] == "seeded-0" and about["preprocessing"] == "squeeze-bilinear-299"
    encoder = Encoder(int8_file)
    assert (encoder.float32_id, encoder.name) == (seeded.id, "seeded-0")
    assert encoder.id == encoder_id(int8, encoder.preprocessing)


@pytest.mark.slow
def test_calibration_matters_and_is_reproducible(int8, seeded_file, images):
    def again(some):
        return encoder_id(quantise.quantise(onnx.load(seeded_file), iter(some)), "p")

    assert again(images[:3]) == encoder_id(int8, "p") != again(images[3:5])


@pytest.mark.slow
def test_a_quarter_of_the_size(int8_file, seeded_file):
    assert int8_file.stat().st_size < 0.27 * seeded_file.stat().st_size


@pytest.mark.slow
def test_weights_are_of_seven_bits_with_a_scale_for_each_filter(int8):
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in int8.graph.initializer}
    kernels = {name: array for name, array in arrays.items() if array.ndim == 4}
    assert len(kernels) == 94
    for name, kernel in kernels.items():
        assert kernel.dtype == np.int8 and np.abs(kernel.astype(int)).max() <= 64, name
        assert len(kernel) == arrays[name.removesuffix("_quantized") + "_scale"].size


@pytest.mark.slow
def test_all_but_the_global_average_runs_on_integers(int8_file, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8_file, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert kinds.count("QLinearConv") == 94 and kinds.count("QLinearAveragePool") == 9
    assert not {"Conv", "Relu", "AveragePool", "Concat"} & {*kinds}
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1


@pytest.mark.slow
def test_no_sum_overflows_on_a_processor_without_vnni(int8_file, images):
    """Integers against the same weights in float32. With 8 bits they differ by 0.02."""
    features = []
    for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            int8_file, options, providers=["CPUExecutionProvider"]
        )
        features.append(session.run(None, {"image": images[8:10]})[0])
    integers, floats = features
    assert relative(integers, floats) <= 5e-3


@pytest.mark.slow
def test_batch_size_changes_no_bit(int8_file, images):
    encoder = Encoder(int8_file)
    one_by_one = np.concatenate([encoder.encode(image[None]) for image in images[8:10]])
    np.testing.assert_array_equal(encoder.encode(images[8:10]), one_by_one)


@pytest.mark.slow
def test_features_of_held_out_images_are_close_to_float32(int8_file, seeded, images):
    found = quantise.compare(seeded, Encoder(int8_file), images[8:11])
    assert 0.995 < found.minimum <= found.median < 1
    assert found.between_photos < found.minimum  # a constant would fail here
    assert 0.1 < found.speed < 10


class Known:
    """An encoder whose features are known."""

    def __init__(self, features):
        self.features = np.float32(features)

    def encode(self, pixels):
        return self.features[pixels[:, 0, 0, 0]]


def test_comparison_of_known_features():
    images = [np.full((1, 1, 3), number, np.uint8) for number in range(3)]
    a = Known([[1, 0], [0, 1], [1, 1]])
    assert quantise.compare(a, a, images)[:3] == pytest.approx((1, 1, 0.5**0.5))
    b = Known([[1, 0], [0, 1], [1, 0]])
    assert quantise.compare(a, b, images)[:2] == pytest.approx((0.5**0.5, 1))
    for broken in ([0, 0], [np.nan, 1], [np.inf, 1]):
        found = quantise.compare(a, Known([[1, 0], [0, 1], broken]), images)
        assert found.minimum == 0


@pytest.mark.parametrize("count", [8, 30, 1000])
def test_calibration_and_held_out_photos_are_disjoint(count):
    names = [str(number) for number in range(count)]
    calibration, held_out = quantise.split(names)
    assert not {*calibration} & {*held_out}
    assert len({*calibration}) == len(calibration) == min(count - count // 4, 128)
    assert len({*held_out}) == len(held_out) == min(count // 4, 32)
    assert int(calibration[-1]) >= 0.95 * count - 2 <= int(held_out[-1]) + 3  # up to the end
