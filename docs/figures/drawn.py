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
    sides = [("photo", 3, IMAGE_SIZE), *((n, c, s) for n, (c, s) in found.items())]
    p = Picture(700, 345, "InceptionV3: pixels become fewer and channels more, block by block")
    middle, x = 150, 24.0
    colours = {35: "blue", 17: "violet", 8: "red"}
    for name, channels, length in sides:
        height = 50 + 0.7 * length
        width = 20 + channels / 64
        colour = colours.get(length, "ink")
        p.box(x, middle - height / 2, width, height, "", colour, "shade", round=3)
        style = "bold" if name == "photo" else ""
        p.turned(x + width / 2, middle, name, -90, 11, colour, "middle", style)
        p.text(x + width / 2, middle + height / 2 + 12, str(channels), 11, "soft")
        x += width + 13
    p.line([(x - 9, middle), (x + 20, middle)], arrow=True)
    p.box(x + 26, middle - 70, 22, 140, "", "green", "shade", round=3)
    p.turned(x + 37, middle, "2,048 numbers", -90, 12, "green", "middle", "bold")
    p.text(x + 8, middle - 12, "mean", 11, "soft")
    p.text(24, 322, "A block's height stands for its pixels on a side:", 12, "soft", "start")
    for x, length, colour in (318, 35, "blue"), (343, 17, "violet"), (363, 8, "red"):
        p.text(x, 322, str(length), 12, colour, style="bold")
    p.text(385, 322, "The number below it: its channels.", 12, "soft", "start")
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
        760, 430, "One step of an LSTM: the cell's line runs along the top, gates stand below"
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
        p.text(
            x + 16,
            low - 36,
            f"z{'ᵢⱼ'['ij'.index(name)] if name in 'ij' else ''}",
            14,
            "soft",
            "start",
            "italic",
        )
        if name not in "ij":
            p.text(x + 25, low - 31, name, 10, "soft", "start", "italic")
    p.line([(192, gates - 22), (192, top + 17)], "blue", arrow=True)
    p.line([(302, gates - 22), (302, 160), (345, 160)], "blue", arrow=True)
    p.line([(422, gates - 22), (422, 160), (379, 160)], "blue", arrow=True)
    p.ring(362, 160, "×", colour="blue")
    p.line([(362, 145), (362, top + 17)], "blue", arrow=True)
    p.text(384, 118, "i j", 14, "blue", style="italic")
    p.line([(600, top), (600, 116)], "green", 2, arrow=True)
    p.box(570, 118, 60, 36, "tanh", "green", size=15)
    p.line([(600, 156), (600, 184)], "green", arrow=True)
    p.text(616, 170, "t", 15, "green", style="italic")
    p.ring(600, 200, "×", colour="red")
    p.line([(532, gates - 22), (532, 200), (583, 200)], "blue", arrow=True)
    p.line([(614, 200), (690, 200)], "red", 3, arrow=True)
    p.text(710, 200, "h′", 18, "red", style="italic")
    p.line([(192, low), (532, low)], "ink")
    p.line([(74, low), (192, low)], "red", 3)
    p.text(60, low, "h", 18, "red", style="italic")
    p.line([(250, 398), (250, low + 2)], "ink", arrow=True)
    p.text(250, 412, "x, the word", 14)
    p.text(430, low + 40, "z = x W + b + h U, cut into four", 14, "soft")
    return p


def lstm_unrolled() -> Picture:
    """Four steps, with the states and gradients that flow between them."""
    p = Picture(
        760, 300, "An LSTM along a caption; gradients flow back from the last word to the photo"
    )
    shown = ["#START#", "two", "red", "boats"]
    after = ["two", "red", "boats", "#END#"]
    p.box(16, 96, 92, 60, "photo\nh₀ = c₀", "gold", size=13)
    for k, (word, target) in enumerate(zip(shown, after)):
        x = 150 + k * 150
        p.box(x, 92, 84, 68, "LSTM", "blue", size=15)
        p.line([(x - 40, 110), (x - 3, 110)], "green", 2, arrow=True)
        p.line([(x - 3, 142), (x - 40, 142)], "red", 2, arrow=True, dash="4 3")
        p.line([(x + 42, 206), (x + 42, 164)], arrow=True)
        p.text(x + 42, 220, word, 13, style="mono")
        p.line([(x + 30, 90), (x + 30, 52)], arrow=True)
        p.line([(x + 54, 52), (x + 54, 90)], "red", 1.5, arrow=True, dash="4 3")
        p.text(x + 42, 36, target, 13, style="mono")
    p.line([(40, 262), (80, 262)], "green", 2, arrow=True)
    p.text(88, 262, "h and c, to the next step", 13, "soft", "start")
    p.line([(330, 262), (290, 262)], "red", 2, arrow=True, dash="4 3")
    p.text(338, 262, "dh and dc, to the step before", 13, "soft", "start")
    p.text(650, 36, "", 12)
    p.text(88, 36, "next word?", 13, "soft")
    p.text(88, 220, "word", 13, "soft")
    return p


def packing() -> Picture:
    """The same four captions, padded and packed."""
    p = Picture(760, 250, "Four captions padded to the longest, and packed step by step")
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
    x = 400.0
    for t, size in enumerate(batch_sizes):
        for row in range(size):
            p.box(x, 50 + row * 34, 51, 28, captions[row][t], "blue", size=12, round=3)
        p.text(x + 25, 196, f"t = {t}", 12, "soft")
        x += 57
    for t in range(steps):
        p.text(24 + t * 55 + 25, 196, f"t = {t}", 12, "soft")
    p.text(
        24,
        228,
        "A caption that has ended leaves the batch: its row is simply no longer there.",
        13,
        "soft",
        "start",
    )
    return p


FOLDERS = ["training", "evaluation", "generation", "model", "nn", "data", "encoder", "utils"]
ROOMS = {  # a box of the figure: its modules, without "minicap." (a package: all its modules)
    "commands": "__main__ train encode caption evaluate export download scenes gradcheck",
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
    p = Picture(860, 530, "Left: the data flow. Right: which part of the code imports which")
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
        "training/": (450, 110, 116),
        "captioner": (582, 110, 116),
        "evaluation/": (714, 110, 116),
        "generation/": (582, 170, 116),
        "model/": (582, 230, 116),
        "nn/": (516, 290, 116),
        "data/": (648, 290, 116),
        "encoder/": (648, 350, 116),
        "backend": (582, 410, 116),
        "utils/": (582, 470, 116),
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
