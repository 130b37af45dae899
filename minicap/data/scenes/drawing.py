"""Paint a scene with Pillow: 299 x 299 RGB, always the same for the same scene.

Objects are tables of shapes in a small notation, one shape per line:

    tool  fill  numbers            ellipse  centre-x centre-y radius-x radius-y
                                   pie      centre-x centre-y radius-x radius-y from to (degrees)
                                   poly     x y x y x y ...
                                   line     width x y x y ...

in units of the object's size: x to the right from its centre, y up from the ground. A fill is a
name from INKS, or body or dark: the subject's colour and a darker shade. Everything is painted
three times as large and then reduced, which smooths the edges.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from minicap.data.scenes.scene import SPLIT_SIZES, Scene, sample_splits
from minicap.utils.files import save_png

SIDE = 299
SCALE = 3  # images are painted this many times as large
Colour = tuple[int, int, int]

# The subject's colours: body and dark.
COLOURS = {
    "red": ("#e0202c", "#8f0f1c"),
    "yellow": ("#ffd800", "#b88a00"),
    "green": ("#1fc046", "#0f7a2a"),
    "blue": ("#1c4fe0", "#0d2a8c"),
    "purple": ("#9a2fd0", "#5b1485"),
    "white": ("#ffffff", "#8c93a3"),
    "black": ("#1d1d24", "#000000"),
}
INKS = {
    "ink": "#23232b",
    "snow": "#ffffff",
    "ice": "#dfe9f5",
    "cream": "#f7ead0",
    "peach": "#ffc79e",
    "caramel": "#c2701c",
    "cyan": "#58e6f2",
    "mint": "#6ff0b0",
    "magenta": "#ff4fc3",
    "lime": "#b8f03c",
    "wood": "#8a5a34",
    "bark": "#6a4326",
    "leaf": "#3f7d3a",
    "crown": "#4f9a45",
    "glass": "#cfe8f7",
    "stone": "#a3a3a8",
    "shadow": "#7e7e86",
    "roof": "#a8533a",
    "wall": "#f1e2c4",
    "orange": "#f28c28",
    "lamp": "#ffe27a",
    "teal": "#2f9c95",
    "sand": "#e8cf94",
}

SUBJECTS = {
    "dog": """
        line body .08 -.36 .45 -.48 .68
        line dark .12 -.25 .05 -.25 .30
        line dark .12 .10 .05 .10 .30
        line body .12 -.16 .04 -.16 .30
        line body .12 .19 .04 .19 .30
        ellipse body -.04 .38 .34 .17
        pie caramel -.08 .40 .25 .16 180 360
        ellipse body .28 .60 .20 .18
        ellipse caramel .42 .54 .12 .10
        ellipse ink .51 .58 .04 .035
        ellipse caramel .13 .56 .10 .21
        ellipse snow .31 .66 .045 .045
        ellipse ink .32 .66 .025 .028
    """,
    "sheep": """
        line ink .08 -.22 .04 -.22 .25
        line ink .08 -.08 .04 -.08 .25
        line ink .08 .10 .04 .10 .25
        line ink .08 .22 .04 .22 .25
        ellipse body -.32 .42 .14 .14
        ellipse body -.24 .56 .15 .14
        ellipse body -.22 .30 .14 .13
        ellipse body -.06 .62 .15 .14
        ellipse body .00 .26 .15 .13
        ellipse body .14 .58 .15 .14
        ellipse body .20 .30 .14 .13
        ellipse body .26 .44 .14 .14
        ellipse body -.16 .44 .12 .11
        ellipse body .06 .42 .13 .11
        ellipse body -.05 .50 .09 .08
        ellipse peach .37 .48 .18 .21
        ellipse peach .20 .60 .13 .06
        ellipse body .36 .68 .15 .08
        ellipse ink .42 .52 .03 .035
    """,
    "car": """
        poly body -.32 .32 -.22 .66 .16 .66 .32 .32
        poly cyan -.24 .36 -.18 .58 -.06 .58 -.06 .36
        poly cyan .02 .36 .02 .58 .12 .58 .22 .36
        poly body -.50 .12 -.50 .30 -.44 .36 .40 .34 .50 .28 .50 .12
        ellipse ink -.28 .13 .16 .16
        ellipse ink .28 .13 .16 .16
        ellipse cyan -.28 .13 .07 .07
        ellipse cyan .28 .13 .07 .07
    """,
    "flower": """
        line leaf .06 0 0 0 .55
        ellipse leaf -.16 .18 .17 .08
        ellipse leaf .16 .26 .17 .08
        ellipse body .00 .93 .13 .17
        ellipse body .00 .45 .13 .17
        ellipse body .24 .69 .17 .13
        ellipse body -.24 .69 .17 .13
        ellipse body .17 .86 .15 .15
        ellipse body -.17 .86 .15 .15
        ellipse body .17 .52 .15 .15
        ellipse body -.17 .52 .15 .15
        ellipse orange 0 .69 .18 .18
        ellipse bark 0 .69 .08 .08
    """,
    "mushroom": """
        poly cream -.16 0 -.12 .45 .12 .45 .16 0
        ellipse cream 0 .03 .17 .06
        pie body 0 .38 .48 .46 180 360
        ellipse cream 0 .38 .48 .06
        ellipse cream 0 .68 .11 .10
        ellipse cream -.27 .53 .09 .08
        ellipse cream .27 .53 .09 .08
        ellipse cream -.11 .50 .055 .045
        ellipse cream .13 .50 .055 .045
    """,
    "boat": """
        line bark .05 0 .20 0 1.0
        poly body .04 .24 .04 .98 .50 .24
        poly body -.04 .24 -.04 .90 -.42 .24
        poly caramel -.46 .22 .46 .22 .34 -.01 -.34 -.01
        line bark .03 -.37 .11 .37 .11
    """,
    "duck": """
        poly body -.30 .20 -.50 .42 -.16 .36
        ellipse body -.04 .20 .36 .21
        ellipse body .22 .52 .19 .18
        poly body .06 .30 .10 .50 .34 .50 .30 .24
        poly orange .36 .60 .60 .50 .36 .40
        ellipse orange -.12 .24 .20 .11
        ellipse ink .26 .57 .03 .037
    """,
    "whale": """
        line snow .06 -.16 .56 -.16 .78
        line snow .06 -.16 .76 -.28 .86 -.34 .76
        line snow .06 -.16 .76 -.04 .86 .02 .76
        poly body .30 .24 .42 .62 .24 .66 .46 .62 .60 .72 .52 .52 .44 .10
        ellipse body -.08 .22 .42 .32
        pie peach -.08 .22 .42 .31 10 170
        line bark .014 -.40 .11 .22 .11
        line bark .014 -.34 .03 .16 .03
        ellipse snow -.32 .34 .055 .055
        ellipse ink -.32 .34 .03 .032
    """,
    "balloon": """
        line bark .02 -.22 .40 -.10 .16
        line bark .02 .22 .40 .10 .16
        ellipse body 0 .66 .38 .40
        ellipse mint 0 .66 .25 .40
        ellipse body 0 .66 .11 .40
        poly caramel -.14 .17 .14 .17 .11 -.02 -.11 -.02
        line bark .02 -.12 .08 .12 .08
    """,
    "kite": """
        line ink .025 0 .30 .08 .20 -.06 .10 .06 0
        poly body 0 1.05 .40 .66 0 .22 -.40 .66
        poly cream .02 .62 .15 .62 .02 .40
        poly cream -.02 .72 -.15 .72 -.02 .90
        line ink .03 0 1.05 0 .22
        line ink .03 -.40 .66 .40 .66
        poly cream .00 .18 .16 .25 .16 .09
        poly body -.02 .06 -.18 .13 -.16 -.03
    """,
    "butterfly": """
        ellipse body -.28 .68 .26 .26
        ellipse body .28 .68 .26 .26
        ellipse body -.22 .26 .20 .22
        ellipse body .22 .26 .20 .22
        ellipse lime -.28 .69 .15 .15
        ellipse lime .28 .69 .15 .15
        ellipse lime -.22 .26 .11 .12
        ellipse lime .22 .26 .11 .12
        ellipse ink 0 .48 .06 .32
        line ink .025 0 .76 -.13 .98
        line ink .025 0 .76 .13 .98
    """,
}

COMPANIONS = {
    "tree": """
        poly bark -.07 0 -.05 .50 .05 .50 .07 0
        ellipse leaf -.19 .58 .21 .17
        ellipse leaf .19 .58 .21 .17
        ellipse crown -.13 .76 .22 .18
        ellipse crown .14 .75 .22 .18
        ellipse crown 0 .88 .20 .14
    """,
    "house": """
        poly wall -.34 0 -.34 .46 .34 .46 .34 0
        poly roof -.44 .44 -.24 .80 .24 .80 .44 .44
        poly wood -.07 0 -.07 .28 .07 .28 .07 0
        poly glass -.27 .16 -.27 .34 -.13 .34 -.13 .16
        poly glass .13 .16 .13 .34 .27 .34 .27 .16
        poly stone .18 .70 .18 .96 .28 .96 .28 .62
    """,
    "windmill": """
        poly wood -.19 0 -.12 .58 .12 .58 .19 0
        poly bark -.15 .57 0 .72 .15 .57
        poly ink -.05 0 -.05 .16 .05 .16 .05 0
        line bark .03 -.30 .30 .30 .90
        line bark .03 -.30 .90 .30 .30
        poly cream .04 .66 .30 .92 .38 .84 .10 .60
        poly cream -.04 .66 -.30 .92 -.38 .84 -.10 .60
        poly cream .04 .54 .30 .28 .38 .36 .10 .60
        poly cream -.04 .54 -.30 .28 -.38 .36 -.10 .60
        ellipse ink 0 .60 .04 .04
    """,
    "lighthouse": """
        poly snow -.16 0 -.10 .74 .10 .74 .16 0
        poly teal -.16 0 -.15 .15 .15 .15 .16 0
        poly teal -.136 .30 -.125 .45 .125 .45 .136 .30
        poly teal -.113 .60 -.10 .74 .10 .74 .113 .60
        poly ink -.14 .73 -.14 .77 .14 .77 .14 .73
        poly lamp -.08 .77 -.08 .90 .08 .90 .08 .77
        poly ink -.11 .89 0 1.0 .11 .89
    """,
    "snowman": """
        ellipse snow 0 .22 .27 .23
        ellipse snow 0 .55 .20 .17
        ellipse snow 0 .78 .14 .12
        line bark .03 -.17 .58 -.40 .72
        line bark .03 .17 .58 .40 .72
        ellipse ink -.05 .81 .02 .02
        ellipse ink .05 .81 .02 .02
        poly orange 0 .79 .16 .75 0 .75
        ellipse ink 0 .60 .02 .02
        ellipse ink 0 .52 .02 .02
        line teal .06 -.13 .68 .13 .68
        poly ink -.18 .87 -.18 .90 .18 .90 .18 .87
        poly ink -.11 .89 -.11 1.04 .11 1.04 .11 .89
    """,
    "castle": """
        poly stone -.28 0 -.28 .48 .28 .48 .28 0
        poly stone -.44 0 -.44 .72 -.22 .72 -.22 0
        poly stone .22 0 .22 .72 .44 .72 .44 0
        poly shadow -.47 .70 -.47 .80 -.41 .80 -.41 .75 -.36 .75 -.36 .80 -.30 .80 -.30 .75 -.25 .75 -.25 .80 -.19 .80 -.19 .70
        poly shadow .47 .70 .47 .80 .41 .80 .41 .75 .36 .75 .36 .80 .30 .80 .30 .75 .25 .75 .25 .80 .19 .80 .19 .70
        poly shadow -.22 .46 -.22 .56 -.14 .56 -.14 .51 -.06 .51 -.06 .56 .06 .56 .06 .51 .14 .51 .14 .56 .22 .56 .22 .46
        pie bark 0 .16 .11 .14 180 360
        poly bark -.11 0 -.11 .18 .11 .18 .11 0
        ellipse ink -.33 .52 .035 .06
        ellipse ink .33 .52 .035 .06
        line ink .02 -.33 .80 -.33 1.02
        poly teal -.33 1.02 -.33 .92 -.18 .97
        line ink .02 .33 .80 .33 1.02
        poly teal .33 1.02 .33 .92 .48 .97
    """,
}

# Each sky: its colours from the top to the horizon, and the light on the ground (RGB factors).
SKIES = {
    "sunny": (("#3f9fe8", "#bfe6fb"), (1.0, 1.0, 1.0)),
    "cloudy": (("#9aa5b1", "#d5dade"), (0.88, 0.9, 0.92)),
    "rainy": (("#4d5b6c", "#8b99a8"), (0.66, 0.72, 0.8)),
    "sunset": (("#6b4a9c", "#f0736a", "#ffc15e"), (1.0, 0.82, 0.74)),
    "night": (("#0a1238", "#27376e"), (0.4, 0.47, 0.68)),
    "rainbow": (("#6db7ea", "#dff1fa"), (1.0, 1.0, 1.0)),
}
# Each ground: its colours from the horizon to the bottom edge.
GROUNDS = {
    "meadow": ("#8fcf62", "#4f9f3a"),
    "snow": ("#f4f8fd", "#cfdfee"),
    "beach": ("#f6e3ae", "#e3bf7c"),
    "street": ("#8d8f96", "#5d5f68"),
    "field": ("#e9b949", "#b98227"),
    "sea": ("#4fb3c9", "#14607f"),
}
RAINBOW = ("#e8423f", "#f59332", "#f7dc3f", "#4fb45a", "#3f78d8", "#8a4fc0")

HORIZON = 0.56  # heights are fractions of the image, from the top
SUBJECT_SIZE = {"small": 0.28, "big": 0.40}
EDGE = 0.009  # width of an outline
RIM = 0.012  # width of the white rim around a subject
PLACES = {  # of the subject's objects, relative to the centre of the group
    1: ((0, 0),),
    2: ((-0.2, 0), (0.2, 0)),
    3: ((0, -0.17), (-0.2, 0), (0.2, 0)),
}
COMPANION_SIZE = 0.42


def paint_images(folder: Path, split: str, count: int, seed: int) -> None:
    """Save images of a data set as PNG.

    Args:
        folder: where to save them.
        split: "train", "dev" or "test".
        count: save the first `count` images of the split.
        seed: of the data set.
    """
    scenes = sample_splits(seed, SPLIT_SIZES)[split]
    for name in list(scenes)[:count]:
        save_png(paint(scenes[name]), folder / name)


def paint(scene: Scene) -> Image.Image:
    """Paint a scene as a 299 x 299 RGB image."""
    rng = np.random.RandomState(scene.seed)
    image = stage(scene.ground, scene.sky).copy()
    brush = Brush(image)
    middle = paint_companion(brush, scene, rng)
    paint_subject(brush, scene, middle, rng)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


@cache
def stage(ground: str, sky: str) -> Image.Image:
    """Ground and sky, painted once and the same in every image.

    A moved cloud would change the features of a random network as much as a small object does.
    """
    rng = np.random.RandomState(0)
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE))
    brush = Brush(image)
    colours, light = SKIES[sky]
    brush.gradient(0, HORIZON, colours)
    _PAINT_SKY[sky](brush, rng)
    brush.light = light
    brush.gradient(HORIZON, 1, GROUNDS[ground])
    _PAINT_GROUND[ground](brush, rng)
    if sky == "rainy":
        _rain(brush, rng)
    return image


class Brush:
    """Paints on an image in fractions of its side: x from the left, y from the top, both 0..1.

    Attributes:
        canvas: Pillow's drawing interface of the image.
        side: of the image, in pixels.
        light: RGB factors applied to all colours.
    """

    def __init__(self, image: Image.Image) -> None:
        self.canvas = ImageDraw.Draw(image)
        self.side = image.width
        self.light: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def colour(self, code: str) -> Colour:
        """Convert "#rrggbb" to RGB under the current light."""
        red, green, blue = (
            round(int(code[i : i + 2], 16) * light) for i, light in zip((1, 3, 5), self.light)
        )
        return red, green, blue

    def ellipse(self, code: str, x: float, y: float, rx: float, ry: float, outline="") -> None:
        """Paint an ellipse with centre (x, y) and radii rx and ry."""
        self.canvas.ellipse(self._box(x, y, rx, ry), self.colour(code), *self._edge(outline))

    def pie(self, code: str, x, y, *shape: float, outline="") -> None:
        """Paint the part of an ellipse between two angles in degrees, cut off by a chord: radii rx
        and ry, start, end."""
        rx, ry, start, end = shape
        self.canvas.chord(
            self._box(x, y, rx, ry), start, end, self.colour(code), *self._edge(outline)
        )

    def poly(self, code: str, *numbers: float, outline="") -> None:
        """Paint a polygon with the corners x, y, x, y, ..."""
        self.canvas.polygon(self._points(numbers), self.colour(code), *self._edge(outline))

    def line(self, code: str, width: float, *numbers: float) -> None:
        """Paint a line with round ends through the points x, y, x, y, ..."""
        thick = max(1, round(width * self.side))
        points = self._points(numbers)
        self.canvas.line(points, self.colour(code), thick, joint="curve")
        for x, y in points:  # round ends
            r = thick / 2
            self.canvas.ellipse((x - r, y - r, x + r, y + r), self.colour(code))

    def gradient(self, top: float, bottom: float, codes: tuple[str, ...]) -> None:
        """Blend from each colour to the next between y = top and y = bottom."""
        colours = np.array([self.colour(code) for code in codes])
        rows = np.arange(round(top * self.side), round(bottom * self.side))
        at = np.linspace(0, len(codes) - 1, len(rows))
        blend = [np.interp(at, np.arange(len(codes)), channel) for channel in colours.T]
        for y, colour in zip(rows, np.rint(blend).astype(int).T):
            self.canvas.line((0, int(y), self.side, int(y)), tuple(colour.tolist()))

    def object(self, table: str, x: float, y: float, size: float, flip=False, body=()) -> None:
        """Paint an object.

        Args:
            table: its shapes, in the notation above.
            x, y: the point it stands on.
            size: the unit of the table's numbers.
            flip: mirror it.
            body: the colours body and dark of a subject. A subject looks like a sticker: outlined
                in ink, with a white rim. Both are the same for every colour, so that its shape and
                colour are independent.
        """
        inks = INKS | dict(zip(("body", "dark"), body))
        shapes = [_placed(row, x, y, size, flip) for row in table.strip().splitlines()]
        if body:
            for tool, _, numbers in shapes:
                self.rim(tool, *numbers)
        for tool, fill, numbers in shapes:
            outline = {} if tool == "line" else {"outline": INKS["ink" if body else "bark"]}
            getattr(self, tool)(inks[fill], *numbers, **outline)

    def rim(self, tool: str, *numbers: float) -> None:
        """Paint a shape in white, larger by RIM on all sides."""
        white = INKS["snow"]
        if tool == "line":
            self.line(white, numbers[0] + 2 * RIM, *numbers[1:])
        elif tool == "poly":
            self.line(white, 2 * RIM, *numbers, *numbers[:2])
        else:
            x, y, rx, ry, *angles = numbers
            getattr(self, tool)(white, x, y, rx + RIM, ry + RIM, *angles)

    def _box(self, x, y, rx, ry):
        return [n * self.side for n in (x - rx, y - ry, x + rx, y + ry)]

    def _points(self, numbers):
        return [(x * self.side, y * self.side) for x, y in zip(numbers[::2], numbers[1::2])]

    def _edge(self, code):
        return (self.colour(code), max(1, round(EDGE * self.side))) if code else ()


def _placed(row: str, x, y, size, flip) -> tuple[str, str, list[float]]:
    """A row of a table in image coordinates: the tool, its fill and its numbers."""
    tool, fill, *rest = row.split()
    numbers = [float(n) for n in rest]
    side = -size if flip else size

    def points(numbers):  # from the object's coordinates: x to the right, y up
        return [x + n * side if i % 2 == 0 else y - n * size for i, n in enumerate(numbers)]

    if tool == "line":
        return tool, fill, [numbers[0] * size, *points(numbers[1:])]
    if tool == "poly":
        return tool, fill, points(numbers)
    centre, radii, angles = numbers[:2], numbers[2:4], numbers[4:]
    return tool, fill, [*points(centre), *(n * size for n in radii), *angles]


# ---- sky ---------------------------------------------------------------------------------------


def _spread(rng, number: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Random positions from low to high, one in each of `number` equal intervals."""
    return low + (np.arange(number) + rng.uniform(0.2, 0.8, number)) * (high - low) / number


def _clouds(brush: Brush, rng, code: str, number: int, size: float) -> None:
    for x in _spread(rng, number):
        y = rng.uniform(0.08, 0.22)
        for dx, dy, r in ((-0.8, 0.1, 0.5), (-0.3, -0.2, 0.6), (0.3, -0.1, 0.65), (0.9, 0.1, 0.45)):
            brush.ellipse(code, x + dx * size, y + dy * size, r * size * 1.2, r * size * 0.75)


def _sunny(brush: Brush, rng) -> None:
    _clouds(brush, rng, "#ffffff", 2, 0.05)
    x, y = rng.uniform(0.14, 0.86), 0.15
    for angle in np.arange(12) * np.pi / 6:
        dx, dy = np.cos(angle), np.sin(angle)
        brush.line("#ffe98a", 0.012, x + 0.09 * dx, y + 0.09 * dy, x + 0.13 * dx, y + 0.13 * dy)
    brush.ellipse("#ffdf4f", x, y, 0.075, 0.075)


def _cloudy(brush: Brush, rng) -> None:
    _clouds(brush, rng, "#b9c1c9", 4, 0.13)
    _clouds(brush, rng, "#eef1f3", 4, 0.09)


def _rainy(brush: Brush, rng) -> None:
    _clouds(brush, rng, "#3c4856", 4, 0.13)
    _clouds(brush, rng, "#5d6b7b", 3, 0.10)


def _sunset(brush: Brush, rng) -> None:
    for y, half in zip((0.08, 0.15, 0.22, 0.3, 0.38), (0.16, 0.1, 0.2, 0.12, 0.16)):
        x = rng.uniform(half, 1 - half)
        brush.line("#f7a072", 0.012, x - half, y, x + half, y)
    x = rng.uniform(0.2, 0.8)
    brush.ellipse("#ff9d5c", x, HORIZON - 0.03, 0.17, 0.17)
    brush.ellipse("#fff0a8", x, HORIZON - 0.03, 0.12, 0.12)


def _night(brush: Brush, rng) -> None:
    for n, x in enumerate(_spread(rng, 48)):
        r = 0.004 + 0.001 * (n % 5)
        brush.ellipse("#fff6c9", x, rng.uniform(0.02, 0.5), r, r)
    x, y = rng.uniform(0.14, 0.86), 0.14
    brush.ellipse("#fff3b8", x, y, 0.075, 0.075)
    brush.ellipse("#121c48", x + 0.035, y - 0.015, 0.066, 0.066)


def _rainbow(brush: Brush, rng) -> None:
    _clouds(brush, rng, "#ffffff", 2, 0.05)
    x = rng.uniform(0.42, 0.58)
    for n, code in enumerate(RAINBOW):
        brush.ellipse(code, x, HORIZON, 0.56 - 0.022 * n, 0.5 - 0.022 * n)
    brush.ellipse("#bfe2f7", x, HORIZON, 0.428, 0.368)


def _rain(brush: Brush, rng) -> None:
    for x, shift in zip(_spread(rng, 96, 0, 1.1), np.arange(96) * 7 % 12):
        y = (shift + rng.uniform(0, 0.6)) / 12
        brush.line("#c4d6e8", 0.005, x, y, x - 0.022, y + 0.075)


# ---- ground ------------------------------------------------------------------------------------


def _scatter(rng, columns: int, rows: int, top: float) -> list[tuple[float, float]]:
    """Random positions (x, y), one in each cell of a grid that covers the ground below y = top."""
    return [
        ((c + rng.uniform(0, 1)) / columns, top + (r + rng.uniform(0, 1)) * (1 - top) / rows)
        for r in range(rows)
        for c in range(columns)
    ]


def _hills(brush: Brush, rng, code: str, height: float) -> None:
    """Two soft hills on the horizon."""
    for x, width in zip(_spread(rng, 2), (0.32, 0.4)):
        brush.pie(code, x, HORIZON + 0.01, width, height, 180, 360)


def _meadow(brush: Brush, rng) -> None:
    _hills(brush, rng, "#7cc257", 0.09)
    for x, y in _scatter(rng, 12, 6, HORIZON + 0.04):
        for lean in (-0.01, 0.0, 0.01):
            brush.line("#3c8a30", 0.004, x, y, x + lean, y - 0.028)
    for n, (x, y) in enumerate(_scatter(rng, 6, 3, HORIZON + 0.05)):
        brush.ellipse(("#fff2f7", "#ffd9e6", "#fff7c0")[n % 3], x, y, 0.008, 0.008)


def _snow(brush: Brush, rng) -> None:
    _hills(brush, rng, "#e6eef8", 0.10)
    for x, y in _scatter(rng, 2, 3, HORIZON + 0.06):
        brush.pie("#ffffff", x, y, 0.16, 0.03, 180, 360)
    for n, x in enumerate(_spread(rng, 8)):
        y, size = HORIZON + 0.02, 0.05 + 0.01 * (n % 4)
        brush.poly("#5f8f86", x - size * 0.4, y, x, y - size * 1.4, x + size * 0.4, y)


def _beach(brush: Brush, rng) -> None:
    brush.gradient(HORIZON, HORIZON + 0.09, ("#3aa6cf", "#8fdcea"))
    for n in range(12):
        brush.ellipse("#f6e3ae", n / 11, HORIZON + 0.098, 0.06, 0.016)
    for x, y in _scatter(rng, 16, 10, HORIZON + 0.12):
        brush.ellipse("#cfa65f", x, y, 0.003, 0.003)
    for x, y in _scatter(rng, 3, 2, HORIZON + 0.16):
        brush.pie("#f7a99a", x, y, 0.018, 0.02, 180, 360)


def _street(brush: Brush, rng) -> None:
    for n, height in enumerate(
        rng.permutation((0.10, 0.12, 0.13, 0.15, 0.16, 0.18, 0.19, 0.21, 0.14))
    ):
        x, top = n / 9, HORIZON - height
        brush.poly("#b7a9a4", *_rectangle(x, top, x + 0.1, HORIZON))
        for wx in (x + 0.016, x + 0.044, x + 0.072):
            for wy in np.arange(top + 0.02, HORIZON - 0.03, 0.04):
                brush.poly("#6d6470", *_rectangle(wx, wy, wx + 0.014, wy + 0.02))
    brush.poly("#c6c3bf", *_rectangle(0, HORIZON, 1, HORIZON + 0.05))
    for n in range(6):
        x = n / 5 - 0.06
        brush.poly("#f2f0e6", *_rectangle(x, 0.9, x + 0.12, 0.925))


def _field(brush: Brush, rng) -> None:
    for n in range(-9, 10):
        brush.line("#a06f1d", 0.006, 0.5 + n * 0.05, HORIZON, 0.5 + n * 0.2, 1.05)
    for x, y in _scatter(rng, 17, 10, HORIZON + 0.05):
        brush.line("#f6d675", 0.005, x, y, x, y - 0.04)
        brush.ellipse("#ffe493", x, y - 0.045, 0.006, 0.013)


def _sea(brush: Brush, rng) -> None:
    for row in range(7):
        y = HORIZON + 0.035 + row * 0.062
        width = 0.05 + 0.012 * row
        for x in np.arange(-3 * width, 1, 2.6 * width) + rng.uniform(0, 2.6 * width):
            brush.line("#bfe9ee", 0.006, x, y, x + width / 2, y - 0.012, x + width, y)


def _rectangle(left, top, right, bottom):
    return left, top, right, top, right, bottom, left, bottom


_PAINT_SKY = {
    "sunny": _sunny,
    "cloudy": _cloudy,
    "rainy": _rainy,
    "sunset": _sunset,
    "night": _night,
    "rainbow": _rainbow,
}
_PAINT_GROUND = {
    "meadow": _meadow,
    "snow": _snow,
    "beach": _beach,
    "street": _street,
    "field": _field,
    "sea": _sea,
}

# ---- objects -----------------------------------------------------------------------------------


def paint_companion(brush: Brush, scene: Scene, rng) -> float:
    """Paint the companion, if any, and return the x of the subject's centre."""
    if scene.companion == "none":
        return rng.uniform(0.45, 0.55)
    shift = rng.uniform(-0.02, 0.02)
    x, middle = {
        "left": (0.83, 0.36),
        "right": (0.17, 0.64),
        "front": (0.5, 0.5),
        "above": (0.5, 0.5),
    }[scene.relation]
    y = HORIZON + (0.22 if scene.relation == "above" else 0.14)
    if scene.ground == "sea":
        brush.ellipse(INKS["sand"], x + shift, y + 0.01, 0.26, 0.045)
    brush.object(COMPANIONS[scene.companion], x + shift, y, COMPANION_SIZE, rng.randint(2) == 1)
    return middle + shift


def paint_subject(brush: Brush, scene: Scene, middle: float, rng) -> None:
    """Paint the subject, centred at x = `middle`."""
    size = SUBJECT_SIZE[scene.size]
    if scene.home == "air":
        y = {"small": 0.34, "big": 0.46}[scene.size]
    else:
        y = {"small": 0.86, "big": 0.95}[scene.size]
    flip = rng.randint(2) == 1
    for dx, dy in PLACES[scene.count]:
        x = middle + dx + rng.uniform(-0.01, 0.01)
        y_here = y - 0.7 * dy if scene.home == "air" else y + dy
        brush.object(SUBJECTS[scene.kind], x, y_here, size, flip, COLOURS[scene.colour])
