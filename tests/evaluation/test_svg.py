"""Charts: everything is within the frame, and heights match the numbers."""

import re

import pytest

from minicap.evaluation.svg import HEIGHT, WIDTH, histogram, loss_curves, ticks


def history(*losses):
    return [
        {"epoch": float(n), "train_loss": loss + 0.1, "dev_loss": loss}
        for n, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 30), (2.31, 2.32), (0, 0), (1e-7, 3e5)])
def test_ticks_are_round_and_within(low, high):
    found = ticks(low, high)
    assert all(low - 1e-6 <= tick <= high * (1 + 1e-9) + 1e-6 for tick in found)
    assert len(found) <= 12


@pytest.mark.parametrize(
    "losses",
    [[2.0], [2.0, 2.0], [3.0, 2.5, 2.7], [1e-5, 2e-5], [1e6, 1.0], [9 / n for n in range(1, 61)]],
    ids=["one epoch", "flat", "three", "tiny", "huge", "sixty"],
)
def test_curves_stay_within_the_frame(losses):
    text = loss_curves(history(*losses))
    train, dev = re.findall(r'<polyline points="([^"]*)"', text)
    for line in (train, dev):
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        assert len(points) == len(losses)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
        assert points == sorted(points)


def test_curves_fall_where_losses_fall():
    _, dev = re.findall(r'<polyline points="([^"]*)"', loss_curves(history(4.0, 3.0, 1.0)))
    heights = [float(point.split(",")[1]) for point in dev.split()]
    assert heights == sorted(heights)  # y counts downwards
    assert "dev, best 1.000" in loss_curves(history(4.0, 3.0, 1.0))


@pytest.mark.parametrize("cider", [[0.0], [0.05, 0.15, 0.151, 1.49, 1.5, 9.99], [10.0] * 5])
def test_every_image_is_in_one_bar(cider):
    text = histogram(cider)
    counts = [int(number.replace(",", "")) for number in re.findall(r"<title>([\d,]+)<", text)]
    assert sum(counts) == len(cider) and len(counts) == 16
    assert counts[0] == sum(score < 0.1 for score in cider)
    assert counts[15] == sum(score >= 1.5 for score in cider)
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', text)]
    assert max(heights) <= HEIGHT
    assert heights.index(max(heights)) == counts.index(max(counts))


def test_the_best_epoch_has_the_lowest_dev_loss():
    """Also where the training loss keeps falling while the dev loss rises."""
    lines = history(3.0, 2.0, 2.5)
    lines[2]["train_loss"] = 1.0
    text = loss_curves(lines)
    _, dev = re.findall(r'<polyline points="([^"]*)"', text)
    x, y = re.search(r'<circle cx="([^"]*)" cy="([^"]*)"', text).groups()
    assert "dev, best 2.000" in text and f"{x},{y}" == dev.split()[1]


@pytest.mark.parametrize("high", [0.3, 0.6, 1.2])
def test_ticks_include_both_ends_if_these_are_round(high):
    """Whatever the rounding error of the division."""
    found = ticks(0, high)
    assert found[0] == 0 and found[-1] == pytest.approx(high)
