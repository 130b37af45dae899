"""Many photos are encoded in order, as if alone, and in bounded memory."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from minicap.encoder import pipeline
from minicap.encoder.pipeline import encode_batches
from minicap.utils.errors import UnusableImage


class Mean:
    """An encoder that returns the mean colour. `batches`: the sizes of its batches."""

    size, feature_size = 4, 3

    def __init__(self):
        self.batches = []

    def pixels(self, image):
        return np.full((4, 4, 3), image, np.uint8)

    def encode(self, pixels):
        self.batches.append(len(pixels))
        return pixels.mean((1, 2), dtype=np.float32)


def open_number(name):
    if name.startswith("bad"):
        raise UnusableImage(f"some/where: {name}", "is cut: off")
    return int(name)


def batches(names, size=3):
    return [names[start : start + size] for start in range(0, len(names), size)]


@pytest.mark.parametrize("readers", [1, 4])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_in_order(readers, workers, count):
    encoder, names = Mean(), [str(number) for number in range(count)]
    results = list(encode_batches(encoder, batches(names), open_number, readers, workers))
    assert sorted(encoder.batches) == sorted(len(some) for some in batches(names))
    found = [row[0] for features, reasons in results for row in features]
    assert found == list(range(count)) and not any(reasons for _, reasons in results)


def test_an_unusable_photo_is_reported_and_not_encoded():
    encoder = Mean()
    names = [["5", "bad", "7"], ["bad 2", "bad 3"], ["8"]]
    first, second, third = encode_batches(encoder, names, open_number, 2)
    assert encoder.batches == [2, 1]
    assert first[0][:, 0].tolist() == [5, 0, 7] and first[1] == {"bad": "is cut: off"}
    assert second[0].shape == (2, 3) and set(second[1]) == {"bad 2", "bad 3"}
    assert third[0][:, 0].tolist() == [8] and not third[1]


def test_only_a_few_batches_are_read_in_advance():
    opened, names = [], [str(number % 256) for number in range(300)]

    def open_(name):
        opened.append(name)
        return int(name)

    results = encode_batches(Mean(), batches(names), open_, 4)
    for done, _ in enumerate(results, 1):
        time.sleep(0.001)
        assert len(opened) <= 3 * (done + pipeline.PREFETCH + 1)
    assert len(opened) == 300


def test_photos_are_read_while_the_network_runs():
    """The next photo is opened before the first batch has been encoded."""
    second = threading.Event()

    class Slow(Mean):
        def encode(self, pixels):
            assert second.wait(10)
            return super().encode(pixels)

    def open_(name):
        if name == "1":
            second.set()
        return int(name)

    assert len(list(encode_batches(Slow(), [["0"], ["1"]], open_, 1))) == 2


def test_other_errors_propagate():
    def open_(name):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(encode_batches(Mean(), [["1"]], open_, 1))


def test_stopping_early_leaves_no_threads():
    before = threading.active_count()
    results = encode_batches(Mean(), batches([str(n) for n in range(90)]), open_number, 4)
    next(results)
    results.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_features_equal_those_of_single_photos(tmp_path):
    pytest.importorskip("onnxruntime")
    from minicap.encoder.session import Encoder
    from tests.encoder.test_session import tiny

    encoder, rng = Encoder(tiny(tmp_path / "e.onnx")), np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(path)
    names = [path.name for path in paths]
    results = encode_batches(encoder, batches(names), tmp_path.joinpath, 3)
    found = np.concatenate([features for features, _ in results])
    np.testing.assert_array_equal(found, np.concatenate([encoder([path]) for path in paths]))
