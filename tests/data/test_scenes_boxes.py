"""The boxes of things in scenes, and how much of a map is inside them."""

import numpy
import pytest

from minicap.data.scenes.boxes import boxes, share_inside
from minicap.data.scenes.drawing import SIDE, paint
from minicap.data.scenes.scene import Scene

LEFT = Scene("dog", "red", "small", 1, "windmill", "left", "field", "sunny", 5)


def test_the_subject_is_on_its_side_of_the_companion():
    found = boxes(LEFT)
    assert found["kind"][2] < found["companion"][0], "it ends before the windmill starts"
    assert found["kind"][1] > found["companion"][1], "a windmill is higher than a dog"
    for left, top, right, bottom in found.values():
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_the_colour_of_the_subject_is_in_its_box_and_nowhere_else():
    pixels = numpy.asarray(paint(LEFT)).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 70)
    rows, columns = red.nonzero()
    left, top, right, bottom = (SIDE * edge for edge in boxes(LEFT)["kind"])
    assert red.sum() > 100
    assert left <= columns.min() and columns.max() <= right
    assert top <= rows.min() and rows.max() <= bottom


def test_without_a_companion_there_is_one_box():
    alone = Scene("whale", "blue", "big", 2, "none", "none", "sea", "night", 3)
    assert boxes(alone).keys() == {"kind"}


def test_of_equal_weights_the_share_of_the_box_is_inside():
    rng = numpy.random.default_rng(0)
    for _ in range(20):
        left, right = sorted(rng.random(2))
        top, bottom = sorted(rng.random(2))
        share = share_inside(numpy.full(49, 1 / 49), (left, top, right, bottom))
        assert share == pytest.approx((right - left) * (bottom - top))


def test_a_weight_counts_where_its_position_is():
    weights = numpy.zeros(16)
    weights[1 * 4 + 2] = 1  # second row, third column
    assert share_inside(weights, (0.5, 0.25, 0.75, 0.5)) == pytest.approx(1)
    assert share_inside(weights, (0.5, 0.25, 0.625, 0.375)) == pytest.approx(0.25)
    assert share_inside(weights, (0, 0.5, 1, 1)) == share_inside(weights, (0, 0, 0.5, 1)) == 0
