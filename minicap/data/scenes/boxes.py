"""Where the things of a scene are in its image, to check where a decoder looks."""

import numpy as np
from PIL import Image, ImageChops

from minicap.data.scenes import drawing
from minicap.data.scenes.scene import Scene

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the side


def boxes(scene: Scene) -> dict[str, Box]:
    """Find the bounding boxes of the subject ("kind") and of the companion, if there is one.

    A thing's pixels are those that change when it is painted. What the subject hides of the
    companion is part of both boxes.
    """
    rng = np.random.RandomState(scene.seed)
    image = drawing.stage(scene.ground, scene.sky).copy()
    brush = drawing.Brush(image)
    found, before = {}, image.copy()
    middle = drawing.paint_companion(brush, scene, rng)
    if scene.companion != "none":
        found["companion"] = _difference(before, image)
    before = image.copy()
    drawing.paint_subject(brush, scene, middle, rng)
    return found | {"kind": _difference(before, image)}


def _difference(before: Image.Image, after: Image.Image) -> Box:
    box = ImageChops.difference(before, after).getbbox()
    assert box, "everything that is painted changes pixels"
    left, top, right, bottom = (pixels / after.width for pixels in box)
    return left, top, right, bottom


def share_inside(weights: np.ndarray, box: Box) -> float:
    """Sum the attention weights inside a box.

    Args:
        weights: (L,) of the positions of a square map, row by row. Each is a square of the image,
            and its weight is spread evenly over it.
        box: a part of the image.

    Returns:
        From 0 to the sum of the weights. For equal weights it is the box's share of the image.
    """
    side = round(len(weights) ** 0.5)
    edges = np.arange(side + 1) / side

    def overlap(low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * side

    left, top, right, bottom = box
    rows, columns = overlap(top, bottom), overlap(left, right)
    return float(rows @ weights.reshape(side, side) @ columns)
