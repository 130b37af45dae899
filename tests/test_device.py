"""The device path: the same numbers on another array library, and no array on the wrong side.

Everything runs on a strict stand-in for CuPy and, where there is one, on a real GPU.
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
from minicap.model import decoder
from minicap.model.gradient_cases import decoder_case
from minicap.nn.adam import Adam, add_gradients, clip_scale
from minicap.nn.gradient_cases import layer_cases
from minicap.nn.parameters import Parameters
from minicap.training import trainer
from tests import strict_cupy, tiny


@pytest.fixture(params=["stand-in", "GPU"])
def xp(request, monkeypatch):
    """cupy: the stand-in, or the real one."""
    if request.param == "stand-in":
        for name, module in strict_cupy.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
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


def copy_of(parameters, xp, dtype="float64"):
    copy = Parameters(parameters.shapes, dtype, xp)
    copy.flat[...] = to_device(to_host(parameters.flat).astype(dtype), xp)
    return copy


def assert_same(device_array, host_array):
    """On the device, the same dtype, and the same numbers to 1e-12 (a GPU sums in another order
    and has another exp)."""
    assert array_module(device_array) is not numpy
    assert device_array.dtype == host_array.dtype
    numpy.testing.assert_allclose(to_host(device_array), host_array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", list(layer_cases(numpy.random.default_rng(0))))
def test_every_layer(xp, case):
    results = []
    for library in numpy, xp:
        layer, inputs = layer_cases(numpy.random.default_rng(0), library)[case]
        *outputs, backward = layer(*inputs.values())
        rng = numpy.random.default_rng(1)
        gradients = backward(*[to_device(rng.standard_normal(y.shape), library) for y in outputs])
        results.append([*outputs, *(gradients if isinstance(gradients, tuple) else (gradients,))])
    for host_array, device_array in zip(*results, strict=True):
        assert_same(device_array, host_array)


@pytest.mark.parametrize("widths", [{}, {"photo": "always"}], ids=["usual", "all options"])
def test_loss_gradients_clipping_and_adam(xp, widths):
    """Three steps of training with dropout, the parameters after each, and the correct."""
    p, batch, masks = decoder_case(numpy.random.default_rng(0), **widths)
    q = copy_of(p, xp)
    results = []
    for library, parameters in (numpy, p), (xp, q):
        b = on_device(batch, library)
        m = {name: to_device(mask, library) for name, mask in masks.items()}
        correct = to_device(numpy.zeros(len(batch.targets), dtype=bool), library)
        gradients, adam, seen = parameters.like(), Adam(parameters.flat, 0.02), []
        for _ in range(3):
            loss, backward = decoder.caption_loss(parameters, b, masks=m, correct=correct)
            backward(gradients)
            scale = clip_scale(add_gradients([gradients.flat]), 0.1)
            adam.step(gradients.flat, scale)
            assert scale < 1  # or clipping would not be tested
            seen += [float(loss), scale, to_host(parameters.flat).copy(), to_host(correct).copy()]
        results.append(seen)
    assert array_module(q.flat) is xp
    for expected, found in zip(*results, strict=True):
        numpy.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("widths", [{}, {"photo": "always"}], ids=["usual", "all options"])
def test_writing(xp, widths):
    """The first state and two steps of writing."""
    p, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5, **widths)
    results = []
    for library, parameters in (numpy, p), (xp, copy_of(p, xp)):
        state = decoder.initial_state(parameters, to_device(batch.features, library))
        for word in 1, 4:
            words = to_device(numpy.full(5, word), library)
            y, *state = decoder.next_word(parameters, words, *state)
        results.append([y, *state])
    for host_array, device_array in zip(*results, strict=True):
        assert_same(device_array, host_array)


WAYS = [
    {"beams": 1},
    {"beams": 3, "no_repeat_ngram_size": 1, "min_length": 2},
    {"temperature": 1.3, "top_k": 5, "top_p": 0.9},
]


def write(xp, p, features, **how):
    """Captions of an ensemble of two decoders."""
    other = copy_of(p, xp, p.flat.dtype)
    other.flat *= 1.1
    features = [to_device(features, xp)] * 2
    rules = Constraints(1, 2, (0, 3), max_words=7)
    rng = numpy.random.default_rng(0)
    return beam_search([p, other], features, rules, GenerationConfig(**how), count=2, rng=rng)


@pytest.mark.parametrize("how", WAYS)
def test_captions(xp, how):
    """The same words on the device, the same scores to 1e-12; drawn ones too."""
    p, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5)
    expected = write(numpy, p, batch.features, **how)
    found = write(xp, copy_of(p, xp), batch.features, **how)
    assert [[c.ids for c in some] for some in found] == [[c.ids for c in some] for some in expected]
    assert len({len(c.ids) for some in found for c in some}) > 1
    for ours, theirs in zip(sum(found, []), sum(expected, []), strict=True):
        numpy.testing.assert_allclose(ours.log_probabilities, theirs.log_probabilities, rtol=1e-12)


@pytest.mark.parametrize("how", WAYS)
def test_writing_reads_two_arrays_from_the_device_in_each_step(monkeypatch, how):
    """However many pictures there are; and all floats are float32."""
    for name, module in strict_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    xp, reads = device_module("cuda"), []
    get = strict_cupy.ndarray.get
    monkeypatch.setattr(strict_cupy.ndarray, "get", lambda self: reads.append(1) or get(self))
    p, batch, _ = decoder_case(numpy.random.default_rng(0), steps=5)
    q = copy_of(p, xp, "float32")
    for many in 1, 40:
        features = numpy.repeat(batch.features, many, axis=0).astype("float32")
        reads.clear()
        strict_cupy.dtypes_made.clear()
        found = write(xp, q, features, **how)
        steps = max(len(c.log_probabilities) for some in found for c in some)
        assert len(found) == len(features) and len(reads) == 2 * steps + 1  # to copy the decoder
        assert {d.name for d in strict_cupy.dtypes_made if d.kind == "f"} == {"float32"}


@pytest.mark.parametrize("widths", [{}, {"photo": "always"}], ids=["usual", "photo always"])
def test_float32_stays_float32_in_every_intermediate_array(monkeypatch, widths):
    """The stand-in sees each array that is made: loss, gradients, clipping and Adam never touch
    float64, which would cost a GPU most of its speed."""
    for name, module in strict_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    xp = device_module("cuda")
    p, batch, masks = decoder_case(numpy.random.default_rng(0), **widths)
    q = copy_of(p, xp, "float32")
    features = batch.features.astype("float32")
    batch = on_device(dataclasses.replace(batch, features=features), xp)
    masks = {name: to_device(mask, xp) for name, mask in masks.items()}
    gradients = q.like()
    strict_cupy.dtypes_made.clear()
    _, backward = decoder.caption_loss(q, batch, masks=masks)
    backward(gradients)
    Adam(q.flat).step(gradients.flat, clip_scale(add_gradients([gradients.flat]), 0.1))
    features = xp.zeros((len(batch.words), 5), dtype="float32")
    decoder.next_word(q, batch.words, *decoder.initial_state(q, features))
    floats = {dtype.name for dtype in strict_cupy.dtypes_made if dtype.kind == "f"}
    assert floats == {"float32"}


def test_a_fused_function_fills_in_and_returns(xp):
    """In place, broadcast, with a number among the arrays; as on the host, where it runs as it
    stands, also with the same array twice."""

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


def test_a_device_has_one_block(xp):
    """Where a CPU has as many as it takes."""
    x = numpy.zeros((7, 2))
    assert blocks(x, 3) == [slice(0, 3), slice(3, 6), slice(6, 9)]
    assert blocks(to_device(x, xp), 3) == [slice(0, 7)]


def test_a_training_step_waits_once(monkeypatch, tmp_path):
    """All gradients have been ordered when the first number is read from the device; and it is the
    loss, and then the gradient's norm, that is read. On the stand-in, where reading can be seen."""
    for name, module in strict_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    xp, events = device_module("cuda"), []
    for way in "__float__", "__int__", "__bool__", "item", "get":
        read = getattr(strict_cupy.ndarray, way)
        monkeypatch.setattr(
            strict_cupy.ndarray, way, lambda x, read=read: events.append("read") or read(x)
        )
    for name in "add_gradients", "batch_on":
        function = getattr(trainer, name)
        monkeypatch.setattr(
            trainer,
            name,
            lambda *args, name=name, function=function: events.append(name) or function(*args),
        )
    data = tiny.dataset(tmp_path)
    device = trainer.Trainer(tiny.recipe(clip_norm=0.1), tiny.sizes(data), 0, xp=xp)
    host = trainer.Trainer(tiny.recipe(clip_norm=0.1), tiny.sizes(data), 0)
    for batch in device.batches(data.splits["train"]):
        events.clear()
        loss = device.train_step(batch)
        assert events == ["batch_on", "add_gradients", "read", "read"]
        assert loss == pytest.approx(host.train_step(batch), rel=1e-4)


def test_what_is_saved_of_a_run_lies_on_the_host(monkeypatch, tmp_path):
    for name, module in strict_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    data, of = tiny.dataset(tmp_path), tiny.recipe()
    run = trainer.Trainer(of, tiny.sizes(data), 0, xp=device_module("cuda"))
    for batch in run.batches(data.splits["train"]):
        run.train_step(batch)
    arrays, place = run.state()
    assert all(isinstance(array, numpy.ndarray) for array in arrays.values())
    again = trainer.Trainer(of, tiny.sizes(data), 0, xp=device_module("cuda"))
    again.restore(arrays, place)
    for name, array in again.state()[0].items():
        assert numpy.array_equal(array, arrays[name])


def test_to_device_and_back(xp):
    x = numpy.arange(6.0).reshape(2, 3)
    y = to_device(x, xp)
    assert array_module(y) is xp and array_module(x) is numpy
    assert (to_host(y) == x).all()
    y += 1
    assert x[0, 0] == 0  # a copy


def test_scatter_add_wraps_ids_in_silence(xp):
    """Why ids are validated on the host: -1 and V would train other words' rows."""
    target = to_device(numpy.zeros((3, 1)), xp)
    add_rows(target, to_device(numpy.array([3, -1, 1]), xp), to_device(numpy.ones((3, 1)), xp))
    assert to_host(target)[:, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "mistake",
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
def test_host_and_device_do_not_mix(xp, mistake):
    """That the stand-in raises where CuPy does: without this, the tests above prove nothing.
    (CuPy has a ValueError where a host array is assigned to a row.)"""
    host = numpy.ones((3, 3))
    with pytest.raises((TypeError, ValueError)):
        mistake(to_device(host, xp), host, xp)


def test_stand_in_is_stricter_than_cupy(monkeypatch):
    x = strict_cupy.on_device(numpy.ones((3, 3)))
    for mistake in (
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
            mistake()
