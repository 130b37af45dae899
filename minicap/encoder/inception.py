"""InceptionV3 as a table (a stem and eleven blocks, 94 convolutions) and a function that walks it.

Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for
Computer Vision" (2015), as implemented in Keras: convolutions without bias, each followed by batch
normalisation (epsilon 0.001, no gamma) and ReLU. The paper replaces a large kernel with several
small ones (5x5 with two 3x3, 7x7 with 1x7 and 7x1), which have the same receptive field, cost less,
and have a ReLU in between.

The table has four kinds of entry:

    Conv    a convolution with its batch normalisation and ReLU
    Pool    a 3x3 pooling
    [...]   steps that follow each other
    {...}   branches on the same input; their outputs are concatenated in this order

Convolutions are in the order in which Keras creates them, which is also the order of torchvision's
state dict. Heights and widths are in pixels. Padding is "same" (zeros on all sides, so that the
size stays the same) or "valid" (none).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

IMAGE_SIZE = 299  # pixels, height and width
FEATURE_SIZE = 2048  # channels of the last block
BATCH_NORM_EPSILON = 1e-3


class Conv(NamedTuple):
    """A convolution without bias, then batch normalisation, then ReLU."""

    filters: int
    height: int
    width: int
    stride: int = 1
    padding: str = "same"


class Pool(NamedTuple):
    """A 3x3 pooling, "max" or "average". At the border, an average leaves out the padding."""

    kind: str
    stride: int
    padding: str


Part = Conv | Pool | list["Part"] | dict[str, "Part"]

AVERAGE = Pool("average", stride=1, padding="same")
MAXIMUM = Pool("max", stride=2, padding="valid")


def _figure5(pool_filters: int) -> Part:
    """35x35 pixels. Paper, figure 5."""
    return {
        "1x1": Conv(64, 1, 1),
        "5x5": [Conv(48, 1, 1), Conv(64, 5, 5)],
        "3x3dbl": [Conv(64, 1, 1), Conv(96, 3, 3), Conv(96, 3, 3)],
        "pool": [AVERAGE, Conv(pool_filters, 1, 1)],
    }


def _figure6(n: int) -> Part:
    """17x17 pixels; 7x7 kernels are factorised into 1x7 and 7x1, n channels. Paper, figure 6."""
    return {
        "1x1": Conv(192, 1, 1),
        "7x7": [Conv(n, 1, 1), Conv(n, 1, 7), Conv(192, 7, 1)],
        "7x7dbl": [Conv(n, 1, 1), Conv(n, 7, 1), Conv(n, 1, 7), Conv(n, 7, 1), Conv(192, 1, 7)],
        "pool": [AVERAGE, Conv(192, 1, 1)],
    }


def _figure7() -> Part:
    """8x8 pixels; the last 3x3 kernel of a branch splits into 1x3 and 3x1. Paper, figure 7."""
    fork: Part = {"1x3": Conv(384, 1, 3), "3x1": Conv(384, 3, 1)}
    return {
        "1x1": Conv(320, 1, 1),
        "3x3": [Conv(384, 1, 1), fork],
        "3x3dbl": [Conv(448, 1, 1), Conv(384, 3, 3), fork],
        "pool": [AVERAGE, Conv(192, 1, 1)],
    }


INCEPTION_V3: dict[str, Part] = {
    "stem": [
        Conv(32, 3, 3, stride=2, padding="valid"),
        Conv(32, 3, 3, padding="valid"),
        Conv(64, 3, 3),
        MAXIMUM,
        Conv(80, 1, 1, padding="valid"),
        Conv(192, 3, 3, padding="valid"),
        MAXIMUM,
    ],
    "mixed0": _figure5(pool_filters=32),
    "mixed1": _figure5(pool_filters=64),
    "mixed2": _figure5(pool_filters=64),
    "mixed3": {  # 35x35 to 17x17. Paper, figure 10
        "3x3": Conv(384, 3, 3, stride=2, padding="valid"),
        "3x3dbl": [Conv(64, 1, 1), Conv(96, 3, 3), Conv(96, 3, 3, stride=2, padding="valid")],
        "pool": MAXIMUM,
    },
    "mixed4": _figure6(128),
    "mixed5": _figure6(160),
    "mixed6": _figure6(160),
    "mixed7": _figure6(192),
    "mixed8": {  # 17x17 to 8x8
        "3x3": [Conv(192, 1, 1), Conv(320, 3, 3, stride=2, padding="valid")],
        "7x7x3": [
            Conv(192, 1, 1),
            Conv(192, 1, 7),
            Conv(192, 7, 1),
            Conv(192, 3, 3, stride=2, padding="valid"),
        ],
        "pool": MAXIMUM,
    },
    "mixed9": _figure7(),
    "mixed10": _figure7(),
}


def walk(
    part: Part,
    x: Any,
    conv: Callable[[str, Conv, Any], Any],
    pool: Callable[[str, Pool, Any], Any],
    concat: Callable[[str, list[Any]], Any],
    name: str,
) -> Any:
    """Apply a part of the table to x.

    The three functions decide what x is: an array, the name of a tensor, or just a shape. Each gets
    the name of its entry, like "mixed4/7x7/2".

    Args:
        part: an entry of the table.
        x: the input.
        conv: called with (name, Conv, input); returns the output.
        pool: called with (name, Pool, input); returns the output.
        concat: called with (name, list of the branches' outputs); returns them as one.
        name: the entry's name.

    Returns:
        The output of the part.
    """
    match part:
        case Conv():
            return conv(name, part, x)
        case Pool():
            return pool(name, part, x)
        case list():
            for number, step in enumerate(part, 1):
                x = walk(step, x, conv, pool, concat, f"{name}/{number}")
            return x
        case dict():
            outputs = [walk(p, x, conv, pool, concat, f"{name}/{key}") for key, p in part.items()]
            return concat(name, outputs)


def network(
    x: Any,
    conv: Callable[[str, Conv, Any], Any],
    pool: Callable[[str, Pool, Any], Any],
    concat: Callable[[str, list[Any]], Any],
) -> Any:
    """Apply all of InceptionV3, without the classifier, to x; `walk` explains the arguments."""
    for name, block in INCEPTION_V3.items():
        x = walk(block, x, conv, pool, concat, name)
    return x


class Layer(NamedTuple):
    """A convolution of the network.

    Attributes:
        name: its entry in the table, like "mixed4/7x7/2".
        shape: of its kernel, (filters, input channels, height, width).
        stride: in pixels.
        padding: "same" or "valid".
    """

    name: str
    shape: tuple[int, int, int, int]
    stride: int
    padding: str


def layers() -> Iterator[Layer]:
    """List the 94 convolutions in the order in which Keras creates them."""
    found: list[Layer] = []

    def conv(name: str, c: Conv, channels: int) -> int:
        shape = (c.filters, channels, c.height, c.width)
        found.append(Layer(name, shape, c.stride, c.padding))
        return c.filters

    network(3, conv, pool=lambda name, p, channels: channels, concat=lambda name, n: sum(n))
    return iter(found)
