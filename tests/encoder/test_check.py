"""The check against reference features, and against Keras' features of the golden photos."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minicap.data.features import read_features
from minicap.data.scenes.calibrate import forward
from minicap.encoder import check
from minicap.encoder.graph import build, save
from minicap.encoder.session import Encoder, cache_folder
from minicap.encoder.weight_files import KERAS_NOTOP, OFFICIAL, read_weights
from minicap.encoder.weights import seeded_weights
from minicap.utils.errors import UserError


@pytest.fixture(scope="module")
def photos(images, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / "a.png", folder / "b.png"]
    for path, pixels in zip(paths, images[:2], strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture(scope="module")
def expected(images) -> dict[str, np.ndarray]:
    """Features from the independent network in plain NumPy."""
    weights = seeded_weights().layers
    kernels = (w.kernel for w in weights)
    rows = forward(images[:2], kernels, lambda index, y: weights[index][1:])
    return dict(zip(("a.png", "b.png"), rows, strict=True))


def test_the_same_network_agrees(seeded, photos, expected):
    found = list(check.differences(seeded, photos, expected))
    assert [path for path, _ in found] == photos
    assert all(0 < difference <= 2e-5 for _, difference in found)


def test_difference_is_relative_and_per_photo(seeded, photos, expected):
    row = expected["b.png"]
    off = np.random.default_rng(0).normal(size=row.shape)
    off *= 2e-3 * np.linalg.norm(row) / np.linalg.norm(off)
    (_, same), (_, other) = check.differences(seeded, photos, expected | {"b.png": row + off})
    assert same < check.TOLERANCE < other == pytest.approx(2e-3, rel=0.02)
    (_, swapped), _ = check.differences(seeded, photos, expected | {"a.png": row})
    assert swapped > check.TOLERANCE


@pytest.mark.parametrize("wrong", [np.zeros(2048), np.full(2048, np.nan)])
def test_invalid_features_do_not_agree(seeded, photos, expected, wrong):
    _, difference = next(check.differences(seeded, photos, {"a.png": wrong}))
    assert difference == np.inf


def test_photos_without_expected_features(seeded, photos):
    with pytest.raises(UserError, match="a.png: not among the 1 photos"):
        next(check.differences(seeded, photos, {"c.png": np.zeros(2048)}))
    with pytest.raises(UserError, match="10 features are expected, the encoder has 2048"):
        next(check.differences(seeded, photos, {"a.png": np.zeros(10)}))


def test_golden_photos(real_data, tmp_path):
    """The official weights give what Keras gives, on 39 photos prepared by Keras' load_img."""
    pytest.importorskip("h5py")
    pytest.importorskip("onnx")
    path = Path(os.environ.get("MINICAP_INCEPTION_H5", cache_folder() / KERAS_NOTOP))
    folder = real_data / "inception_v3_golden"
    if not path.is_file():
        pytest.skip(f"no official weights: MINICAP_INCEPTION_H5 names no file, nor is {path} there")
    if not folder.is_dir():
        pytest.skip(f"no golden photos: {folder} is not there")
    weights = read_weights(path)
    assert weights.name in OFFICIAL.values(), f"{path} is not one of the official files"
    save(build(weights, "squeeze-nearest"), tmp_path / "official.onnx")
    features = read_features(folder / "features.npz")
    expected = dict(zip(features.names, features.array, strict=True))
    photos = sorted((folder / "images").glob("*.jpg"))
    assert len(photos) == len(expected) == 39
    found = check.differences(Encoder(tmp_path / "official.onnx"), photos, expected)
    beyond = {path.name: difference for path, difference in found if difference > 1e-3}
    assert not beyond
