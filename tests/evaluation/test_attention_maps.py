"""Attention weights drawn over photos."""

import numpy
import pytest
from PIL import Image

from minicap.evaluation.attention_maps import COLOURS, attention_sheet, colour, overlay, overlays
from minicap.utils.errors import UserError

GREY = Image.new("RGB", (60, 40), (128, 128, 128))


def yellow(image):
    """How far each pixel is from blue towards yellow."""
    pixels = numpy.asarray(image).astype(float)
    return pixels[..., 0] + pixels[..., 1] - pixels[..., 2]


def at(position, size=16):
    weights = numpy.zeros(size)
    weights[position] = 1
    return weights


@pytest.mark.parametrize("position", range(16))
def test_a_weight_is_drawn_where_its_position_is(position):
    """Positions are numbered row by row; the map covers the whole photo."""
    drawn = yellow(overlay(GREY, at(position), 1, "squeeze-bilinear-8"))
    y, x = numpy.unravel_index(drawn.argmax(), drawn.shape)
    row, column = divmod(position, 4)
    assert row == y * 4 // 40 and column == x * 4 // 60


def test_with_cropped_photos_the_map_covers_the_central_square():
    drawn = yellow(overlay(GREY, at(0, 4), 1, "crop-bilinear-8"))
    y, x = numpy.unravel_index(drawn.argmax(), drawn.shape)
    assert 10 <= x < 10 + 20 and y < 20, "the first of 2 x 2 positions in the square from 10 to 50"
    assert numpy.ptp(drawn[:, :10]) == numpy.ptp(drawn[:, 50:]) == 0


def test_the_colours_get_lighter_and_never_mix_red_with_green():
    """So the order shows in any kind of colour blindness, and in print without colour."""
    drawn = colour(numpy.linspace(0, 1, 50))
    lightness = drawn @ [0.2126, 0.7152, 0.0722]
    assert (numpy.diff(lightness) > 0).all()
    assert abs(drawn[:, 0] - drawn[:, 1]).max() < 30, "red and green stay together"
    numpy.testing.assert_allclose(drawn[[0, -1]], COLOURS[[0, -1]])


def test_equal_weights_are_one_colour_and_all_words_have_one_scale():
    weights = numpy.array([[0.25] * 4, [0.1, 0.1, 0.1, 0.7]])
    photo, first, second = overlays(GREY, weights, "")
    assert max(photo.size) == max(first.size) == 224
    assert numpy.ptp(yellow(first)) == 0
    assert yellow(second).max() > yellow(first).max() > yellow(second).min()


def test_the_sheet_has_a_picture_for_each_word():
    sheet = attention_sheet(GREY, list("abcdef"), numpy.full((6, 4), 0.25), "")
    assert sheet.width == 5 * (224 + 14) + 14
    pixels = numpy.asarray(sheet)
    assert (pixels[14:100, 14:230] == 128).all(), "the photo is first, as it is"
    assert (pixels[-100:, 14 + 2 * 238 :] == 255).all(), "seven pictures in rows of five"


def test_positions_that_are_no_square_cannot_be_drawn():
    with pytest.raises(UserError, match="6 positions are not a square map"):
        overlay(GREY, at(0, 6), 1, "")
