"""One encoder, built once, for all tests in this folder and all workers of pytest-xdist."""

import os
from pathlib import Path

import numpy as np
import pytest

from minicap.data.scenes.calibrate import drawings
from minicap.encoder.session import Encoder, seeded_encoder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "encoder-cache"


@pytest.fixture(scope="session")
def seeded(cache: Path) -> Encoder:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICAP_CACHE", str(cache))
        return seeded_encoder(threads=2)


@pytest.fixture(scope="session")
def seeded_file(seeded: Encoder, cache: Path) -> Path:
    (path,) = cache.glob("*.onnx")
    return path


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Rendered scenes that are not in the calibration set, uint8 (32, 299, 299, 3)."""
    return drawings(32, seed=2)
