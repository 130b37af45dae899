"""The table describes Keras' InceptionV3."""

import numpy
import pytest

from minicap.encoder.inception import (
    FEATURE_SIZE,
    IMAGE_SIZE,
    INCEPTION_V3,
    Conv,
    Pool,
    layers,
    network,
    walk,
)


def shapes() -> dict[str, tuple[int, int, int]]:
    """The output shape (height, width, channels) of every entry of the table, by name."""
    seen = {}

    def side(length: int, kernel: int, stride: int, padding: str) -> int:
        return length if padding == "same" else (length - kernel) // stride + 1

    def conv(name, c: Conv, x):
        assert c.padding == "valid" or c.stride == 1
        h, w = side(x[0], c.height, c.stride, c.padding), side(x[1], c.width, c.stride, c.padding)
        seen[name] = (h, w, c.filters)
        return seen[name]

    def pool(name, p: Pool, x):
        seen[name] = (*(side(n, 3, p.stride, p.padding) for n in x[:2]), x[2])
        return seen[name]

    def concat(name, branches):
        assert len({branch[:2] for branch in branches}) == 1, f"{name}: branches of different sizes"
        seen[name] = (*branches[0][:2], sum(branch[2] for branch in branches))
        return seen[name]

    seen["out"] = network((IMAGE_SIZE, IMAGE_SIZE, 3), conv, pool, concat)
    return seen


def test_every_block_has_the_shape_of_keras():
    seen = shapes()
    stem = [seen[f"stem/{n}"] for n in range(1, 8)]
    assert stem == [
        (149, 149, 32),
        (147, 147, 32),
        (147, 147, 64),
        (73, 73, 64),
        (73, 73, 80),
        (71, 71, 192),
        (35, 35, 192),
    ]
    assert [seen[f"mixed{n}"] for n in range(11)] == [
        (35, 35, 256),
        (35, 35, 288),
        (35, 35, 288),
        *[(17, 17, 768)] * 5,
        (8, 8, 1280),
        (8, 8, 2048),
        (8, 8, 2048),
    ]
    assert seen["out"][2] == FEATURE_SIZE == 2048


def test_94_convolutions_in_keras_order():
    """Spot checks of the shapes in the official file (HWIO), by Keras' running number from 1."""
    kernels = [layer.shape for layer in layers()]
    assert len(kernels) == 94
    keras = {  # number: (height, width, channels in, filters)
        1: (3, 3, 3, 32),
        5: (3, 3, 80, 192),
        6: (1, 1, 192, 64),  # mixed0: 1x1 first, then 5x5, 3x3dbl, pool
        8: (5, 5, 48, 64),
        12: (1, 1, 192, 32),
        27: (3, 3, 288, 384),  # mixed3
        30: (3, 3, 96, 96),
        33: (1, 7, 128, 128),  # mixed4: 7x7 is 1x7, 7x1; 7x7dbl starts with 7x1
        34: (7, 1, 128, 192),
        36: (7, 1, 128, 128),
        39: (1, 7, 128, 192),
        72: (3, 3, 192, 320),  # mixed8
        76: (3, 3, 192, 192),
        77: (1, 1, 1280, 320),
        79: (1, 3, 384, 384),  # mixed9: 1x3 before 3x1
        80: (3, 1, 384, 384),
        82: (3, 3, 448, 384),
        94: (1, 1, 2048, 192),
    }
    for number, (height, width, channels, filters) in keras.items():
        assert kernels[number - 1] == (filters, channels, height, width), number


def test_number_of_parameters_is_that_of_keras_notop():
    total = 0
    for layer in layers():
        filters, channels, height, width = layer.shape
        total += filters * channels * height * width + 3 * filters  # beta, mean, variance
    assert total == 21_802_784


def test_names_are_unique_and_give_the_position():
    names = [layer.name for layer in layers()]
    assert len(set(names)) == 94
    assert names[0] == "stem/1"
    assert {"mixed0/5x5/2", "mixed4/7x7dbl/5", "mixed9/3x3/2/1x3", "mixed10/pool/2"} <= set(names)


def test_nine_average_pools_and_four_maximum_pools():
    pools = []

    def pool(name, p, x):
        pools.append(p.kind)
        return x

    for name, block in INCEPTION_V3.items():
        walk(block, 0, lambda name, c, x: x, pool, lambda name, branches: branches[0], name)
    assert (pools.count("average"), pools.count("max")) == (9, 4)


def test_branches_are_concatenated_in_the_published_order():
    """Literals from the paper's figures 5 to 7 and 10 (Szegedy et al. 2016) and from Keras'
    concatenations, independent of the table."""
    pytest.importorskip("onnx")
    from minicap.encoder.graph import build
    from minicap.encoder.weights import seeded_weights

    a = ["1x1", "5x5/2", "3x3dbl/3", "pool/2"]
    b = ["1x1", "7x7/3", "7x7dbl/5", "pool/2"]
    c = ["1x1", "3x3/2", "3x3dbl/3", "pool/2"]
    published = {"mixed0": a, "mixed1": a, "mixed2": a, "mixed3": ["3x3", "3x3dbl/3", "pool"]}
    published |= {"mixed4": b, "mixed5": b, "mixed6": b, "mixed7": b}
    published |= {"mixed8": ["3x3/2", "7x7x3/4", "pool"], "mixed9": c, "mixed10": c}
    for block in "mixed9", "mixed10":
        for branch in "3x3/2", "3x3dbl/3":  # each splits again
            published[f"{block}/{branch}"] = ["1x3", "3x1"]
    concatenated = {
        node.output[0]: [name.removeprefix(f"{node.output[0]}/") for name in node.input]
        for node in build(seeded_weights()).graph.node
        if node.op_type == "Concat"
    }
    assert concatenated == published


def test_batch_norm_adds_a_thousandth_to_the_variance():
    """Keras' default epsilon, visible in the folded kernel when the variance is 0."""
    from minicap.encoder.graph import fold
    from minicap.encoder.weights import LayerWeights

    kernel = numpy.ones((1, 1, 1, 1), numpy.float32)
    zero = numpy.zeros(1, numpy.float32)
    folded, bias = fold(LayerWeights(kernel, zero, zero + 2, zero))
    assert numpy.allclose(folded, 0.001**-0.5, rtol=1e-6)
    assert numpy.allclose(bias, -2 * 0.001**-0.5, rtol=1e-6)
