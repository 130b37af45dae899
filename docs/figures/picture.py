"""Draw SVG figures: a few shapes, and axes for curves.

There is no library and no random id, so the same figure is always the same file. Colours have
names. Each element has the light theme's colour as an attribute, which every viewer understands,
and a class, to which a style sheet gives the dark theme's colour where viewers support that.
"""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"
LIGHT = {
    "ink": "#24292f",
    "soft": "#6a737d",
    "pale": "#d0d7de",
    "paper": "#ffffff",
    "shade": "#f0f3f6",
    "blue": "#2468a8",
    "red": "#c0442c",
    "green": "#2c7a4b",
    "gold": "#9a6b00",
    "violet": "#7a4fb5",
}
DARK = {
    "ink": "#dfe3e8",
    "soft": "#9aa4af",
    "pale": "#454c55",
    "paper": "#181a1d",
    "shade": "#262a2f",
    "blue": "#6cb0f0",
    "red": "#f08a70",
    "green": "#6cc490",
    "gold": "#d9aa4a",
    "violet": "#b99af0",
}
Point = tuple[float, float]


def paint(fill: str = "", stroke: str = "") -> str:
    """The attributes of an element's colours, by name; "none" for no fill."""
    used = {kind: name for kind, name in (("fill", fill), ("stroke", stroke)) if name}
    classes = " ".join(f"{kind}-{name}" for kind, name in used.items() if name != "none")
    values = " ".join(f'{kind}="{LIGHT.get(name, name)}"' for kind, name in used.items())
    return f'class="{classes}" {values}'


def number(x: float) -> str:
    """Format a coordinate, to a tenth of a pixel."""
    return f"{x:.1f}".removesuffix(".0") if abs(x) >= 0.05 else "0"


class Picture:
    """One drawing. x goes right and y down, in pixels. `about` is the title for screen readers."""

    def __init__(self, width: float, height: float, about: str):
        self.width, self.height, self.about = width, height, about
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 14,
        colour: str = "ink",
        anchor: str = "middle",
        style: str = "",
    ) -> None:
        """Write text at a point: anchor is start, middle or end, and style any of the words bold,
        italic and mono."""
        extra = ' font-weight="600"' if "bold" in style else ""
        extra += ' font-style="italic"' if "italic" in style else ""
        extra += ' font-family="ui-monospace,Menlo,Consolas,monospace"' if "mono" in style else ""
        inner = words if words.startswith("<tspan") else escape(words)
        self.parts.append(
            f'<text x="{number(x)}" y="{number(y + 0.35 * size)}" font-size="{number(size)}" '
            f'text-anchor="{anchor}" {paint(colour)}{extra}>{inner}</text>'
        )

    def turned(self, x: float, y: float, words: str, degrees: float, *how) -> None:
        """Write text rotated around its point."""
        self.parts.append(f'<g transform="translate({x:.1f} {y:.1f}) rotate({degrees:g})">')
        self.text(0, 0, words, *how)
        self.parts.append("</g>")

    def line(
        self,
        points: Sequence[Point],
        colour: str = "ink",
        width: float = 1.5,
        arrow: bool = False,
        dash: str = "",
        curve: bool = False,
    ) -> None:
        """Draw a line through points; curve: a Bezier curve whose handles are the middle ones."""
        start, *rest = (f"{number(x)} {number(y)}" for x, y in points)
        path = f"M{start}" + ("C" if curve else "L") + " ".join(rest)
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        extra += f' marker-end="url(#{colour}-tip)"' if arrow else ""
        self.parts.append(
            f'<path d="{path}" {paint("none", colour)} '
            f'stroke-width="{number(width)}" stroke-linejoin="round"{extra}/>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str = "",
        colour: str = "ink",
        fill: str = "shade",
        size: float = 14,
        round: float = 5,
        opacity: float = 1,
        border: float = 1.5,
        style: str = "",
    ) -> None:
        """Draw a box with its upper left corner at (x, y), and lines of text in its middle."""
        extra = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        stroke = f' stroke-width="{number(border)}"' if border else ""
        self.parts.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" rx="{number(round)}" '
            f"{paint(fill, colour if border else '')}{extra}{stroke}/>"
        )
        lines = words.split("\n") if words else []
        for k, line in enumerate(lines):
            middle = y + height / 2 + (k - (len(lines) - 1) / 2) * size * 1.25
            self.text(x + width / 2, middle, line, size, style=style)

    def dot(self, x: float, y: float, radius: float = 3, colour: str = "ink") -> None:
        """Draw a filled circle."""
        self.parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" {paint(colour)}/>'
        )

    def ring(self, x: float, y: float, words: str, radius: float = 13, colour: str = "ink") -> None:
        """Draw a circle with a sign in it: an operation."""
        self.parts.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" '
            f'{paint("shade", colour)} stroke-width="1.5"/>'
        )
        self.text(x, y, words, radius * 1.1, colour)

    def photo(self, x: float, y: float, side: float, image, pixels: int = 160) -> None:
        """Embed a Pillow image, reduced in size."""
        data = io.BytesIO()
        image.resize((pixels, pixels)).quantize(48).save(data, format="PNG", optimize=True)
        encoded = base64.b64encode(data.getvalue()).decode()
        self.parts.append(
            f'<image x="{number(x)}" y="{number(y)}" width="{number(side)}" '
            f'height="{number(side)}" href="data:image/png;base64,{encoded}"/>'
        )

    def svg(self) -> str:
        """Return the text of the file."""
        tips = "".join(
            f'<marker id="{name}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" {paint(name)}/></marker>'
            for name in LIGHT
            if f"url(#{name}-tip)" in "".join(self.parts)
        )
        body = [
            f"<defs>{tips}</defs>",
            f'<rect width="{self.width}" height="{self.height}" rx="8" {paint("paper")}/>',
            *self.parts,
        ]
        rules = "".join(
            f".{kind}-{name}{{{kind}:{value}}}"
            for kind in ("fill", "stroke")
            for name, value in DARK.items()
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" '
                'font-family="system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif">',
                f"<title>{escape(self.about)}</title>",
                f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>",
                *body,
                "</svg>\n",
            ]
        )


class Axes:
    """A frame for curves within a picture: x and y are numbers of the curves' own, or powers of
    ten where they are called logarithmic."""

    def __init__(
        self,
        picture: Picture,
        frame: tuple[float, float, float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        log: str = "",
    ):
        self.picture, self.frame, self.log = picture, frame, log
        self.x, self.y = x, y

    def at(self, x: float, y: float) -> Point:
        """Where a point of the curve lies in the picture."""
        left, top, width, height = self.frame

        def share(value: float, limits: tuple[float, float], name: str) -> float:
            low, high = limits
            if name in self.log:
                value, low, high = math.log10(value), math.log10(low), math.log10(high)
            return (value - low) / (high - low)

        return left + share(x, self.x, "x") * width, top + (1 - share(y, self.y, "y")) * height

    def ticks(self, x: Sequence[float] = (), y: Sequence[float] = (), form=str) -> None:
        """Thin lines at these values, with their labels. form: from a value to its label."""
        for value in x:
            top, bottom = self.at(value, self.y[1]), self.at(value, self.y[0])
            self.picture.line([top, bottom], "pale", 1)
            self.picture.text(bottom[0], bottom[1] + 15, form(value), 12, "soft")
        for value in y:
            left, right = self.at(self.x[0], value), self.at(self.x[1], value)
            self.picture.line([left, right], "pale", 1)
            self.picture.text(left[0] - 8, left[1], form(value), 12, "soft", "end")

    def curve(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, width: float = 2.2, dash=""
    ) -> None:
        """A line through these points."""
        self.picture.line([self.at(x, y) for x, y in zip(xs, ys)], colour, width, dash=dash)

    def dots(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, radius: float = 2.5
    ) -> None:
        """A dot at each of these points."""
        for x, y in zip(xs, ys):
            self.picture.dot(*self.at(x, y), radius, colour)


def power(value: float) -> str:
    """10^-3 as people write it."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(round(math.log10(value))).translate(raised)
