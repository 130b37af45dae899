"""The backend on a CPU, and without a GPU. (On a GPU: test_device.py.)"""

import contextlib
import sys
import types

import numpy
import pytest

from minicap.backend import (
    add_rows,
    array_module,
    blas,
    device_module,
    one_blas_thread,
    to_device,
    to_host,
)
from minicap.utils.errors import UserError


def test_the_cpu_uses_numpy():
    x = numpy.ones(2)
    assert device_module("cpu") is numpy is array_module(x)
    assert to_device(x, numpy) is x and to_host(x) is x


def test_add_rows_adds_repeated_ids():
    """The result agrees with numpy.add.at, for unsorted ids and a table that is not zero."""
    rng = numpy.random.default_rng(0)
    target, ids = rng.standard_normal((5, 3)), rng.integers(0, 5, 40)
    rows = rng.standard_normal((40, 3))
    expected = target.copy()
    numpy.add.at(expected, ids, rows)
    add_rows(target, ids, rows)
    numpy.testing.assert_allclose(target, expected, rtol=0, atol=1e-14)


def test_add_rows_accepts_no_rows():
    target = numpy.ones((2, 2))
    add_rows(target, numpy.array([], dtype=int), numpy.empty((0, 2)))
    assert (target == 1).all()


def fake_cupy(get_device_count):
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=get_device_count)
    )
    return cupy


def too_old():
    raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (None, "cannot be imported"),  # None in sys.modules makes `import cupy` fail
        (fake_cupy(lambda: 0), "finds no GPU"),
        (fake_cupy(too_old), "driver version is insufficient"),
    ],
    ids=["no CuPy", "no GPU", "no driver"],
)
def test_missing_cuda_is_one_line_with_a_remedy(monkeypatch, cupy, message):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(UserError, match=message) as error:
        device_module("cuda")
    text = str(error.value)
    assert "\n" not in text and "--device cuda" in text and "--device cpu" in text


def test_an_unknown_device_raises():
    with pytest.raises(UserError, match="'tpu'.*cpu, cuda"):
        device_module("tpu")


def test_overlapping_limits_of_blas_threads():
    """The old number of threads is restored when the last block ends."""
    if not blas().lib_controllers:
        pytest.skip("threadpoolctl does not support NumPy's BLAS")

    def threads():
        return {library.num_threads for library in blas().lib_controllers}

    with blas().limit(limits=2):
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        first.enter_context(one_blas_thread)
        second.enter_context(one_blas_thread)
        assert threads() == {1}
        first.close()
        assert threads() == {1}
        second.close()
        assert threads() == {2}
