"""Figures of boxes and arrows. Numbers come from the code where it has them."""

import ast
from pathlib import Path

from picture import Picture

import minicap
from minicap.encoder.inception import IMAGE_SIZE, network


def inception() -> Picture:
    """InceptionV3, block by block: sides and channels as the walk through the table finds them."""
    sides: list[tuple[str, int, int]] = []
    found: dict[str, tuple[int, int]] = {}

    def side(length: int, size: int, stride: int, padding: str) -> int:
        return -(-length // stride) if padding == "same" else (length - size) // stride + 1

    def conv(name, c, x):
        new = (c.filters, side(x[1], max(c.height, c.width), c.stride, c.padding))
        found[name.partition("/")[0]] = new
        return new

    def pool(name, p, x):
        new = (x[0], side(x[1], 3, p.stride, p.padding))
        found[name.partition("/")[0]] = new
        return new

    def concat(name, ways):
        new = (sum(channels for channels, _ in ways), ways[0][1])
        found[name.partition("/")[0]] = new
        return new

    network((3, IMAGE_SIZE), conv, pool, concat)
    sides = [("image", 3, IMAGE_SIZE), *((n, c, s) for n, (c, s) in found.items())]
    p = Picture(760, 372, "InceptionV3: pixels become fewer and channels more, block by block")
    middle, x = 130, 20.0
    colours = {35: "blue", 17: "violet", 8: "red"}
    for name, channels, length in sides:
        height, width = 0.75 * length, 18 + channels / 64
        colour = colours.get(length, "ink")
        p.box(x, middle - height / 2, width, height, "", colour, "shade", round=1)
        p.text(x + width / 2, 256, str(channels), 11, "soft")
        p.turned(x + width / 2 + 2, 276, name, -55, 12, colour, "end")
        x += width + 17
    p.text(20, 350, "Heights are to scale:", 13, "soft", "start")
    for left, length, colour in (155, 299, "ink"), (190, 35, "blue"), (218, 17, "violet"):
        p.text(left, 350, f"{length},", 13, colour, "start", "bold")
    p.text(244, 350, "8", 13, "red", "start", "bold")
    p.text(258, 350, "pixels per side. Numbers: channels.", 13, "soft", "start")
    p.line([(x - 12, middle), (x + 30, middle)], arrow=True)
    p.text(x + 8, middle - 14, "mean", 12, "soft")
    p.box(x + 34, middle - 70, 24, 140, "", "green", "shade", round=3)
    p.turned(x + 46, middle, "2,048 features", -90, 13, "green", "middle", "bold")
    return p


def words() -> Picture:
    """A caption, its token ids, and their rows of the embedding table."""
    p = Picture(760, 290, "A caption becomes words, words become ids, ids pick rows of a table")
    shown = ["#START#", "two", "red", "boats", "#END#"]
    table = ["#END#", "#PAD#", "#START#", "#UNK#", "a", "boats", "red", "sea", "two"]
    ids = [table.index(word) for word in shown]
    p.text(30, 28, "“Two red boats!”", 16, anchor="start", style="italic")
    p.line([(175, 28), (215, 28)], arrow=True)
    p.text(225, 28, "words between two marks", 13, "soft", "start")
    for k, (word, number) in enumerate(zip(shown, ids)):
        x = 30 + k * 92
        p.box(x, 54, 82, 30, word, "blue", size=13, style="mono")
        p.line([(x + 41, 88), (x + 41, 112)], "soft", arrow=True)
        p.box(x + 20, 116, 42, 30, str(number), "ink", size=14)
    p.text(
        30,
        172,
        "Each id picks one row of the table E: D trainable numbers.",
        13,
        "soft",
        "start",
    )
    left, top, row = 560, 34, 25
    for k, word in enumerate(table):
        used = word in shown
        y = top + k * row
        p.text(left - 10, y + 11, f"{k}  {word}", 12, "ink" if used else "soft", "end", "mono")
        for d in range(5):
            value = ((k * 7 + d * 13 + k * d) % 11) / 11
            p.box(
                left + d * 30,
                y,
                28,
                21,
                "",
                fill="blue",
                border=0,
                round=2,
                opacity=0.15 + 0.75 * value if used else 0.08,
            )
    p.text(left + 74, top + 9 * row + 14, "E, of shape (V, D)", 13)
    for k in range(5):
        x = 30 + k * 92
        for d in range(5):
            value = ((ids[k] * 7 + d * 13 + ids[k] * d) % 11) / 11
            p.box(
                x + 8 + d * 14,
                200,
                12,
                40,
                "",
                fill="blue",
                border=0,
                round=2,
                opacity=0.15 + 0.75 * value,
            )
        p.text(x + 41, 256, f"E[{ids[k]}]", 12, style="mono")
    return p


def dense() -> Picture:
    """The forward and backward pass of a dense layer."""
    p = Picture(720, 250, "A dense layer: values go to the right, gradients come back to the left")
    y = 80
    p.text(40, y, "x", 18, style="italic")
    p.line([(56, y), (146, y)], arrow=True)
    p.ring(162, y, "×")
    p.text(162, 28, "W", 18, "blue", style="italic")
    p.line([(162, 40), (162, 64)], "blue", arrow=True)
    p.line([(176, y), (286, y)], arrow=True)
    p.ring(302, y, "+")
    p.text(302, 28, "b", 18, "blue", style="italic")
    p.line([(302, 40), (302, 64)], "blue", arrow=True)
    p.line([(316, y), (426, y)], arrow=True)
    p.text(370, y - 14, "z", 18, style="italic")
    p.box(430, y - 22, 90, 44, "ELU", "ink", size=15)
    p.line([(522, y), (640, y)], arrow=True)
    p.text(660, y, "y", 18, style="italic")
    for x, words in [(40, "(N, I)"), (370, "(N, O)"), (660, "(N, O)")]:
        p.text(x, y + 26, words, 12, "soft")
    p.text(206, 28, "(I, O)", 12, "soft")
    p.text(340, 28, "(O,)", 12, "soft")
    y = 170
    p.text(660, y, "dy", 18, "red", style="italic")
    p.line([(640, y), (524, y)], "red", arrow=True)
    p.box(430, y - 22, 90, 44, "× slope", "red", size=15)
    p.line([(428, y), (64, y)], "red", arrow=True)
    p.text(370, y - 14, "dz", 18, "red", style="italic")
    p.text(40, y, "dx", 18, "red", style="italic")
    p.text(230, y - 14, "dx = dz Wᵀ", 14, "red")
    p.line([(302, y), (302, y + 34)], "red", arrow=True)
    p.text(302, y + 50, "db = column sums of dz", 14, "red")
    p.line([(120, y), (120, y + 34)], "red", arrow=True)
    p.text(120, y + 50, "dW = xᵀ dz", 14, "red")
    return p


def lstm_cell() -> Picture:
    """One step of the LSTM, with the names the code uses."""
    p = Picture(
        760, 430, "One step of an LSTM: the cell state runs along the top, the gates are below it"
    )
    top, gates, low = 70, 250, 350
    p.box(110, 30, 560, 340, "", "pale", "paper", round=14)
    p.text(60, top, "c", 18, "green", style="italic")
    p.line([(74, top), (176, top)], "green", 3)
    p.ring(192, top, "×", colour="green")
    p.line([(206, top), (346, top)], "green", 3)
    p.ring(362, top, "+", colour="green")
    p.line([(376, top), (690, top)], "green", 3, arrow=True)
    p.text(710, top, "c′", 18, "green", style="italic")
    p.text(268, top - 18, "f c", 14, "green", style="italic")
    p.text(520, top - 18, "c′ = f c + i j", 14, "green", style="italic")
    for x, name, kind in [(192, "f", "σ"), (302, "i", "σ"), (422, "j", "tanh"), (532, "o", "σ")]:
        p.box(x - 30, gates - 20, 60, 40, kind, "blue", size=16)
        p.text(x + 40, gates - 34, name, 17, "blue", "start" if name == "x" else "middle", "italic")
        p.line([(x, low), (x, gates + 24)], arrow=True)
        p.text(x + 10, low - 32, "z", 14, "soft", "start", "italic")
        p.text(x + 18, low - 27, name, 10, "soft", "start", "italic")
        if name == "f":
            p.text(x + 26, low - 32, "+ 1", 14, "red", "start", "bold")
    p.line([(192, gates - 22), (192, top + 17)], "blue", arrow=True)
    p.line([(302, gates - 22), (302, 160), (345, 160)], "blue", arrow=True)
    p.line([(422, gates - 22), (422, 160), (379, 160)], "blue", arrow=True)
    p.ring(362, 160, "×", colour="blue")
    p.line([(362, 145), (362, top + 17)], "blue", arrow=True)
    p.text(384, 118, "i j", 14, "blue", style="italic")
    p.line([(600, top), (600, 116)], "green", 2, arrow=True)
    p.box(570, 118, 60, 36, "tanh", "green", size=15)
    p.line([(600, 156), (600, 184)], "green", arrow=True)
    p.text(612, 171, "tanh c′", 14, "green", "start", style="italic")
    p.ring(600, 200, "×", colour="violet")
    p.line([(532, gates - 22), (532, 200), (583, 200)], "blue", arrow=True)
    p.line([(614, 200), (690, 200)], "violet", 3, arrow=True)
    p.text(710, 200, "h′", 18, "violet", style="italic")
    p.line([(192, low), (532, low)], "ink")
    p.line([(74, low), (192, low)], "violet", 3)
    p.text(60, low, "h", 18, "violet", style="italic")
    p.line([(250, 398), (250, low + 2)], "ink", arrow=True)
    p.text(250, 412, "x, the word", 14)
    p.text(496, low + 40, "z = x W + h U + b, in four parts; + 1 is the forget bias", 14, "soft")
    return p


def lstm_unrolled() -> Picture:
    """Four steps, with the states and gradients that flow between them."""
    p = Picture(
        760, 330, "An LSTM along a caption: cell and hidden states go right, gradients go back"
    )
    shown = ["#START#", "two", "red", "boats"]
    after = ["two", "red", "boats", "#END#"]
    lanes = {"c": (112, "green"), "h": (168, "violet")}
    p.box(14, 96, 78, 100, "image", "gold", size=14)
    for k, (word, target) in enumerate(zip(shown, after)):
        x = 148 + k * 152
        p.box(x, 84, 88, 124, "LSTM", "ink", size=15)
        for name, (y, colour) in lanes.items():
            start = 94 if k == 0 else x - 62
            p.line([(start, y), (x - 3, y)], colour, 2.5, arrow=True)
            p.line([(x - 3, y + 12), (start, y + 12)], "red", 1.5, arrow=True, dash="4 3")
            p.text((start + x) / 2, y - 12, f"{name}{'₀₁₂₃'[k]}", 14, colour, style="italic")
        p.line([(x + 44, 254), (x + 44, 212)], arrow=True)
        p.text(x + 44, 268, word, 14, style="mono")
        p.line([(x + 32, 82), (x + 32, 48)], "violet", 2, arrow=True)
        p.line([(x + 56, 48), (x + 56, 82)], "red", 1.5, arrow=True, dash="4 3")
        p.text(x + 44, 32, target, 14, style="mono")
    p.text(53, 32, "target", 14, "soft")
    p.text(53, 268, "input", 14, "soft")
    for left, colour, words in (
        (20, "green", "cell state c"),
        (210, "violet", "hidden state h"),
        (416, "red", "their gradients, dc and dh"),
    ):
        dash = "4 3" if colour == "red" else ""
        ends = [(left, 308), (left + 44, 308)]
        p.line(ends[::-1] if dash else ends, colour, 2.5, arrow=True, dash=dash)
        p.text(left + 54, 308, words, 14, "ink", "start")
    return p


def packing() -> Picture:
    """The same four captions, padded and packed."""
    p = Picture(760, 308, "Four captions padded to the longest, and packed step by step")
    captions = [
        ["a", "tree", "left", "of", "two", "boats"],
        ["two", "red", "boats"],
        ["a", "small", "boat"],
        ["boats"],
    ]
    steps = max(map(len, captions))
    for row, caption in enumerate(captions):
        for t in range(steps):
            real = t < len(caption)
            p.box(
                24 + t * 55,
                50 + row * 34,
                51,
                28,
                caption[t] if real else "",
                "blue" if real else "pale",
                "shade" if real else "paper",
                size=12,
                round=3,
            )
    p.text(
        24,
        26,
        f"padded: {steps} × {len(captions)} = {steps * len(captions)} places",
        14,
        anchor="start",
    )
    batch_sizes = [sum(len(c) > t for c in captions) for t in range(steps)]
    rows = sum(batch_sizes)
    p.text(400, 26, f"packed: batch_sizes = {batch_sizes}, {rows} rows", 14, anchor="start")
    colours = ["blue", "green", "gold", "violet", "red", "ink"]
    number = 0
    for t, (size, colour) in enumerate(zip(batch_sizes, colours)):
        x = 400 + t * 58
        for row in range(size):
            p.box(x, 50 + row * 34, 52, 28, captions[row][t], colour, size=12, round=3)
            strip = 24 + number * 55
            p.box(strip, 252, 51, 28, captions[row][t], colour, size=12, round=3)
            p.text(strip + 25, 292, str(number), 12, "soft")
            number += 1
        p.text(x + 26, 196, f"t = {t}", 13, "soft")
        p.text(24 + t * 55 + 25, 196, f"t = {t}", 13, "soft")
    p.text(24, 234, "In memory, packed captions are one array, step by step:", 14, anchor="start")
    return p


FOLDERS = [
    "server", "training", "evaluation", "generation", "model", "nn", "data", "encoder", "utils"
]  # fmt: skip
ROOMS = {  # a box of the figure: its modules, without "minicap." (a package: all its modules)
    "commands": "__main__ train encode caption evaluate serve export download scenes gradcheck",
    **{f"{name}/": name for name in FOLDERS},
    "captioner": "captioner",
    "backend": "backend",
}


def imports(path: Path) -> set[str]:
    """The modules of minicap that a file imports, without "minicap."."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minicap"):
            base = node.module.removeprefix("minicap").removeprefix(".")
            found |= {base} if base else {alias.name for alias in node.names}
        if isinstance(node, ast.Import) and any(alias.name == "minicap" for alias in node.names):
            found.add("captioner")  # minicap.load
    return found


def dependencies() -> dict[str, set[str]]:
    """Room -> the rooms that it imports, except those that it also reaches through another one."""
    package = Path(minicap.__file__).parent
    room_of = {m: room for room, modules in ROOMS.items() for m in modules.split()}

    def room(module: str) -> str | None:
        return room_of.get(module.partition(".")[0])

    direct: dict[str, set[str]] = {name: set() for name in ROOMS}
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        if (own := room(module)) is not None:
            direct[own] |= {r for m in imports(path) if (r := room(m)) and r != own}

    def reached(start: str) -> set[str]:
        return direct[start].union(*map(reached, direct[start]))

    return {
        name: {r for r in rooms if not any(r in reached(other) for other in rooms - {r})}
        for name, rooms in direct.items()
    }


def architecture() -> Picture:
    """The data flow, and the imports between the parts of the code."""
    p = Picture(860, 590, "Left: the data flow. Right: which part of the code imports which")
    p.text(200, 22, "data flow", 15, style="bold")
    flow = [
        (20, 52, "photos", "gold"),
        (20, 152, "features, (P, 2048)", "gold"),
        (214, 52, "captions", "blue"),
        (214, 152, "token ids, lengths", "blue"),
        (118, 252, "packed batches", "violet"),
        (118, 352, "model.safetensors", "green"),
        (118, 452, "captions", "green"),
    ]
    for x, y, words, colour in flow:
        p.box(x, y, 160, 36, words, colour, size=14)
    for start, end, words in (
        ((100, 88), (100, 152), "encoder/"),
        ((294, 88), (294, 152), "data/"),
        ((100, 188), (170, 252), ""),
        ((294, 188), (226, 252), "data/batches"),
        ((198, 288), (198, 352), "training/ (model/, nn/)"),
        ((198, 388), (198, 452), "generation/"),
    ):
        p.line([start, (end[0], end[1] - 2)], "soft", arrow=True)
        if words:
            x = (start[0] + end[0]) / 2 + (14 if start[0] != end[0] else 8)
            p.text(x, (start[1] + end[1]) / 2, words, 12, "soft", "start")
    p.line([(30, 188), (30, 470), (116, 470)], "soft", dash="4 3", arrow=True)
    p.text(36, 330, "of a new photo", 12, "soft", "start")
    p.text(640, 22, "imports", 15, style="bold")
    places = {
        "commands": (450, 50, 380),
        "server/": (582, 110, 116),
        "training/": (450, 170, 116),
        "captioner": (582, 170, 116),
        "evaluation/": (714, 170, 116),
        "generation/": (582, 230, 116),
        "model/": (582, 290, 116),
        "nn/": (516, 350, 116),
        "data/": (648, 350, 116),
        "encoder/": (648, 410, 116),
        "backend": (582, 470, 116),
        "utils/": (582, 530, 116),
    }
    for name, (x, y, width) in places.items():
        p.box(x, y, width, 34, name, "ink", size=14, style="mono")
    for name, rooms in sorted(dependencies().items()):
        x, y, width = places[name]
        for other in sorted(rooms):
            to_x, to_y, to_width = places[other]
            target = to_x + to_width / 2
            start = min(max(target, x + 12), x + width - 12)
            end = min(max(start, to_x + 12), to_x + to_width - 12)
            p.line([(start, y + 36), (end, to_y - 2)], "blue", 1.3, arrow=True)
    return p


FIGURES = {
    f.__name__: f
    for f in (
        architecture,
        inception,
        words,
        dense,
        lstm_cell,
        lstm_unrolled,
        packing,
    )
}
