"""InceptionV3 as a table: a stem, eleven blocks, 94 convolutions, and a walker that follows it.

Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for
Computer Vision" (2015), in the form that Keras gave it: convolutions without bias, each followed
by batch normalisation (epsilon 0.001, no gamma) and ReLU. The paper's idea: a large kernel is
replaced by several small ones (5x5 by two 3x3, 7x7 by 1x7 and 7x1), which see as far, cost less,
and have a ReLU in between.

Four kinds of entry make up the table:

    Conv    a convolution with its batch normalisation and ReLU
    Pool    a 3x3 pooling
    [...]   steps, one after another
    {...}   branches, side by side on the same input; their outputs are concatenated in this order

The order of convolutions is that in which Keras creates them, which is also that of torchvision's
state dict. Heights and widths are in pixels, padding is "same" (zeros around, so that the size
stays) or "valid" (none).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

IMAGE_SIZE = 299  # pixels, both sides
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
    """A 3x3 pooling. An average at the border is over the real pixels only, as in Keras."""

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
    """17x17 pixels; 7x7 kernels made of 1x7 and 7x1, n channels wide. Paper, figure 6."""
    return {
        "1x1": Conv(192, 1, 1),
        "7x7": [Conv(n, 1, 1), Conv(n, 1, 7), Conv(192, 7, 1)],
        "7x7dbl": [Conv(n, 1, 1), Conv(n, 7, 1), Conv(n, 1, 7), Conv(n, 7, 1), Conv(192, 1, 7)],
        "pool": [AVERAGE, Conv(192, 1, 1)],
    }


def _figure7() -> Part:
    """8x8 pixels; the last 3x3 kernel of a branch forks into 1x3 and 3x1. Paper, figure 7."""
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
    """Send x through a part of the table and return what comes out.

    What x is, the three functions decide: an array, the name of a tensor, or just a shape. Each
    gets the name of its place in the table, like "mixed4/7x7/2", and its input (concat: a list).
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
            ways = [walk(p, x, conv, pool, concat, f"{name}/{key}") for key, p in part.items()]
            return concat(name, ways)


def network(
    x: Any,
    conv: Callable[[str, Conv, Any], Any],
    pool: Callable[[str, Pool, Any], Any],
    concat: Callable[[str, list[Any]], Any],
) -> Any:
    """Send x through the whole of InceptionV3, without its top; for the functions see `walk`."""
    for name, block in INCEPTION_V3.items():
        x = walk(block, x, conv, pool, concat, name)
    return x


class Layer(NamedTuple):
    """One convolution of the network, with what its place in it decides."""

    name: str
    shape: tuple[int, int, int, int]  # of the kernel: (filters, input channels, height, width)
    stride: int
    padding: str


def layers() -> Iterator[Layer]:
    """The 94 convolutions, in Keras' order of creation: what a reader of weights has to supply."""
    found: list[Layer] = []

    def conv(name: str, c: Conv, channels: int) -> int:
        shape = (c.filters, channels, c.height, c.width)
        found.append(Layer(name, shape, c.stride, c.padding))
        return c.filters

    network(3, conv, pool=lambda name, p, channels: channels, concat=lambda name, ways: sum(ways))
    return iter(found)
