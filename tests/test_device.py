"""The GPU code: it computes the same numbers as on a CPU and never mixes host and device arrays.

Every test runs with a fake CuPy (tests/strict_cupy.py) and, if there is a GPU, with CuPy.
"""

import dataclasses
import sys

import numpy
import pytest

from minicap.backend import (
    add_rows,
    array_module,
    blocks,
    device_module,
    fused,
    to_device,
    to_host,
)
from minicap.generation.beam_search import beam_search
from minicap.generation.config import Constraints, GenerationConfig
from minicap.model.attending_decoder import make_decoder
from minicap.model.gradient_cases import decoder_case
from minicap.model.onnx_decoder import arrays
from minicap.nn.adam import Adam, add_gradients, clip_scale
from minicap.nn.gradient_cases import layer_cases
from minicap.nn.parameters import Parameters
from minicap.training import replica
from minicap.training.trainer import Trainer
from tests import strict_cupy, tiny

EVERY_STEP = {"image_input": "every_step"}
ATTENTION = {"image_input": "attention", "positions": 5, "attention_size": 4}
ARCHITECTURES = pytest.mark.parametrize(
    "sizes", [{}, EVERY_STEP, ATTENTION], ids=["default", "every_step", "attention"]
)


@pytest.fixture
def fake_cupy(monkeypatch):
    """Install the fake CuPy and return it."""
    for name, module in strict_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return device_module("cuda")


@pytest.fixture(params=["fake", "GPU"])
def xp(request):
    """cupy: the fake and the real one."""
    if request.param == "fake":
        request.getfixturevalue("fake_cupy")
    else:
        pytest.importorskip("cupy", reason="a GPU test: CuPy is not installed")
        try:
            device_module("cuda")
        except Exception as error:
            pytest.skip(f"a GPU test: {error}")
    return device_module("cuda")


def on_device(batch, xp):
    arrays = {
        name: to_device(value, xp)
        for name, value in vars(batch).items()
        if isinstance(value, numpy.ndarray)
    }
    return dataclasses.replace(batch, **arrays)


def copy_of(decoder, xp, dtype="float64"):
    """Copy a decoder to the device of `xp`."""
    parameters = Parameters(decoder.parameters.shapes, dtype, xp)
    parameters.flat[...] = to_device(to_host(decoder.parameters.flat).astype(dtype), xp)
    return make_decoder(decoder.config, parameters)


def assert_same(device_array, host_array):
    """Assert that the array is on the device and has the same dtype and values, to 1e-12.

    A GPU adds in another order and has another exp.
    """
    assert array_module(device_array) is not numpy
    assert device_array.dtype == host_array.dtype
    numpy.testing.assert_allclose(to_host(device_array), host_array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", list(layer_cases(numpy.random.default_rng(0))))
def test_layers(xp, case):
    results = []
    for library in numpy, xp:
        layer, inputs = layer_cases(numpy.random.default_rng(0), library)[case]
        *outputs, backward = layer(*inputs.values())
        rng = numpy.random.default_rng(1)
        gradients = backward(*[to_device(rng.standard_normal(y.shape), library) for y in outputs])
        results.append([*outputs, *(gradients if isinstance(gradients, tuple) else (gradients,))])
    for host_array, device_array in zip(*results, strict=True):
        assert_same(device_array, host_array)


@ARCHITECTURES
def test_loss_gradients_clipping_and_adam(xp, sizes):
    """Three training steps with dropout: loss, clipping, parameters and correct words of each."""
    decoder, batch, masks = decoder_case(numpy.random.default_rng(0), **sizes)
    on_gpu = copy_of(decoder, xp)
    results = []
    for library, each in (numpy, decoder), (xp, on_gpu):
        b = on_device(batch, library)
        m = {name: to_device(mask, library) for name, mask in masks.items()}
        correct = to_device(numpy.zeros(len(batch.targets), dtype=bool), library)
        flat = each.parameters.flat
        gradients, adam, values = each.parameters.like(), Adam(flat, 0.02), []
        for _ in range(3):
            loss, backward = each.loss(b, masks=m, correct=correct)
            backward(gradients)
            scale = clip_scale(add_gradients([gradients.flat]), 0.1)
            adam.step(gradients.flat, scale)
            assert scale < 1  # otherwise clipping would not be tested
            values += [float(loss), scale, to_host(flat).copy(), to_host(correct).copy()]
        results.append(values)
    assert array_module(on_gpu.parameters.flat) is xp
    for expected, actual in zip(*results, strict=True):
        numpy.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@ARCHITECTURES
def test_decoder_steps(xp, sizes):
    """The initial state and two steps of generation."""
    decoder, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5, **sizes)
    results = []
    for library, each in (numpy, decoder), (xp, copy_of(decoder, xp)):
        state = each.initial_state(to_device(batch.features, library))
        for word in 1, 4:
            y, state = each.step(to_device(numpy.full(5, word), library), state)
        results.append([y, *arrays(state)])
    for host_array, device_array in zip(*results, strict=True):
        assert_same(device_array, host_array)


GENERATION = pytest.mark.parametrize(
    "config",
    [
        GenerationConfig(beam_size=1),
        GenerationConfig(beam_size=3, no_repeat_ngram_size=1, min_length=2),
        GenerationConfig(temperature=1.3, top_k=5, top_p=0.9),
    ],
    ids=["greedy", "beam", "sample"],
)


def generate(xp, decoder, features, config):
    """Generate captions with an ensemble of two decoders."""
    other = copy_of(decoder, xp, decoder.parameters.flat.dtype)
    other.parameters.flat *= 1.1
    features = [to_device(features, xp)] * 2
    constraints = Constraints(1, 2, (0, 3), max_words=7)
    rng = numpy.random.default_rng(0)
    return beam_search([decoder, other], features, constraints, config, count=2, rng=rng)


@GENERATION
def test_captions(xp, config):
    """The same words, and the same log-probabilities to 1e-12, sampled captions included."""
    decoder, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5)
    expected = generate(numpy, decoder, batch.features, config)
    actual = generate(xp, copy_of(decoder, xp), batch.features, config)
    assert [[c.ids for c in each] for each in actual] == [[c.ids for c in e] for e in expected]
    assert len({len(c.ids) for each in actual for c in each}) > 1
    for ours, theirs in zip(sum(actual, []), sum(expected, []), strict=True):
        numpy.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=1e-12)


@GENERATION
def test_generation_copies_two_arrays_to_the_host_per_step(fake_cupy, monkeypatch, config):
    """For any number of images; and every float array is float32."""
    xp, reads = fake_cupy, []
    get = strict_cupy.ndarray.get
    monkeypatch.setattr(strict_cupy.ndarray, "get", lambda self: reads.append(1) or get(self))
    decoder, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5)
    decoder = copy_of(decoder, xp, "float32")
    for repeats in 1, 40:
        features = numpy.repeat(batch.features, repeats, axis=0).astype("float32")
        reads.clear()
        strict_cupy.created_dtypes.clear()
        captions = generate(xp, decoder, features, config)
        steps = max(len(c.log_probabilities) for each in captions for c in each)
        # One more read copies the decoder.
        assert len(captions) == len(features) and len(reads) == 2 * steps + 1
        assert {d.name for d in strict_cupy.created_dtypes if d.kind == "f"} == {"float32"}


@ARCHITECTURES
def test_float32_stays_float32_in_every_intermediate_array(fake_cupy, sizes):
    """The fake records every array: loss, gradients, clipping, Adam and generation never use
    float64, which is slow on a GPU."""
    xp = fake_cupy
    decoder, batch, masks = decoder_case(numpy.random.default_rng(0), **sizes)
    decoder = copy_of(decoder, xp, "float32")
    features = batch.features.astype("float32")
    batch = on_device(dataclasses.replace(batch, features=features), xp)
    masks = {name: to_device(mask, xp) for name, mask in masks.items()}
    gradients = decoder.parameters.like()
    strict_cupy.created_dtypes.clear()
    _, backward = decoder.loss(batch, masks=masks)
    backward(gradients)
    scale = clip_scale(add_gradients([gradients.flat]), 0.1)
    Adam(decoder.parameters.flat).step(gradients.flat, scale)
    features = xp.zeros((len(batch.words), 5), dtype="float32")
    decoder.step(batch.words, decoder.initial_state(features))
    floats = {dtype.name for dtype in strict_cupy.created_dtypes if dtype.kind == "f"}
    assert floats == {"float32"}


def test_a_fused_function_fills_in_and_returns(xp):
    """In place, with broadcasting, with a number as an argument, and with the same array twice: the
    same results as on the host."""

    @fused
    def function(xp, x, y, scale, rate):
        xp.add(x, scale, out=y)
        y *= rate
        return xp.tanh(y), (1 - x) * scale

    results = []
    for library in numpy, xp:
        rng = numpy.random.default_rng(0)
        x, y, z = (to_device(rng.standard_normal((2, 3)), library) for _ in range(3))
        scale = to_device(rng.standard_normal(3), library)
        results.append([*function(x, y, scale, 0.5), x, y, *function(z, z, scale, 2.0)[:1], z])
    for host_array, device_array in zip(*results, strict=True):
        assert_same(device_array, host_array)


def test_a_gpu_has_one_block(xp):
    x = numpy.zeros((7, 2))
    assert blocks(x, 3) == [slice(0, 3), slice(3, 6), slice(6, 9)]
    assert blocks(to_device(x, xp), 3) == [slice(0, 7)]


def test_a_training_step_waits_once(fake_cupy, monkeypatch, tmp_path):
    """All kernels of the gradients are launched before the first number is read from the device.
    Only the loss and the gradient's norm are read."""
    events = []
    for name in "__float__", "__int__", "__bool__", "item", "get":
        read = getattr(strict_cupy.ndarray, name)
        monkeypatch.setattr(
            strict_cupy.ndarray, name, lambda x, read=read: events.append("read") or read(x)
        )
    for name in "add_gradients", "batch_on":
        function = getattr(replica, name)
        monkeypatch.setattr(
            replica,
            name,
            lambda *args, name=name, function=function: events.append(name) or function(*args),
        )
    data = tiny.dataset(tmp_path)
    device = Trainer(tiny.recipe(clip_norm=0.1), data, 0, xp=fake_cupy)
    host = Trainer(tiny.recipe(clip_norm=0.1), data, 0)
    for batch in device.batches():
        events.clear()
        loss = device.train_step(batch)
        assert events == ["batch_on", "add_gradients", "read", "read"]
        assert loss == pytest.approx(host.train_step(batch), rel=1e-4)


def test_the_state_of_a_run_is_on_the_host(fake_cupy, tmp_path):
    data, recipe = tiny.dataset(tmp_path), tiny.recipe()
    trainer = Trainer(recipe, data, 0, xp=fake_cupy)
    for batch in trainer.batches():
        trainer.train_step(batch)
    arrays, place = trainer.state()
    assert all(isinstance(array, numpy.ndarray) for array in arrays.values())
    restored = Trainer(recipe, data, 0, xp=fake_cupy)
    restored.restore(arrays, place)
    for name, array in restored.state()[0].items():
        assert numpy.array_equal(array, arrays[name])


def test_to_device_and_back(xp):
    x = numpy.arange(6.0).reshape(2, 3)
    y = to_device(x, xp)
    assert array_module(y) is xp and array_module(x) is numpy
    assert (to_host(y) == x).all()
    y += 1
    assert x[0, 0] == 0  # a copy


def test_scatter_add_wraps_ids_around(xp):
    """The ids -1 and V would train other words' rows without an error."""
    target = to_device(numpy.zeros((3, 1)), xp)
    add_rows(target, to_device(numpy.array([3, -1, 1]), xp), to_device(numpy.ones((3, 1)), xp))
    assert to_host(target)[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, host, xp: numpy.asarray(x),
        lambda x, host, xp: x + host,
        lambda x, host, xp: host * x,
        lambda x, host, xp: x @ host,
        lambda x, host, xp: xp.exp(host),
        lambda x, host, xp: xp.matmul(x, x, out=host),
        lambda x, host, xp: x.sum(axis=0, out=host[0]),
        lambda x, host, xp: x.__setitem__(0, host[0]),
        lambda x, host, xp: host.__setitem__(0, x[0]),
        lambda x, host, xp: x.__iadd__(host),
        lambda x, host, xp: xp.where(host > 0, x, x),
    ],
)
def test_host_and_device_do_not_mix(xp, operation):
    """The fake raises where CuPy raises. (CuPy raises ValueError if a host array is assigned to a
    row.)"""
    host = numpy.ones((3, 3))
    with pytest.raises((TypeError, ValueError)):
        operation(to_device(host, xp), host, xp)


def test_the_fake_rejects_what_is_slow_or_cannot_be_fused():
    x = strict_cupy.on_device(numpy.ones((3, 3)))
    for operation in (
        lambda: x[numpy.array([0, 1])],
        lambda: list(x),
        lambda: numpy.exp(x),
        lambda: numpy.sum(x),
        lambda: strict_cupy.fuse("f")(lambda x: x[0])(x),
        lambda: strict_cupy.fuse("f")(lambda x: x.sum())(x),
        lambda: strict_cupy.fuse("f")(lambda x: x if x > 0 else x)(x),
        lambda: strict_cupy.fuse("f")(strict_cupy.modules()["cupy"].sort)(x),
        lambda: strict_cupy.fuse("f")(lambda x: x)(x._host),
        lambda: strict_cupy.fuse("f")(lambda x, y: y.__iadd__(1))(x, x[0]),
    ):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            operation()
