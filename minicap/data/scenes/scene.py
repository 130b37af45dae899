"""Drawn scenes: their attributes, random sampling, and the combinations held out from training.

A scene has one group of identical objects (the subject: "two big red cars"), perhaps one companion
("left of a windmill"), a ground and a sky. `drawing` paints it; `language` generates captions and
checks whether a caption is true. Only the subject's colour varies: each companion has its own.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minicap.utils.errors import UserError
from minicap.utils.files import read_lines

# The kinds of subject, by their home.
HOMES = {
    "land": ("dog", "sheep", "car", "flower", "mushroom"),
    "water": ("boat", "duck", "whale"),
    "air": ("balloon", "kite", "butterfly"),
}
HOME_OF = {kind: home for home, kinds in HOMES.items() for kind in kinds}

# Every attribute with its values; a value's index in its row is its number in the split rule.
ATTRIBUTES: dict[str, tuple] = {
    "kind": tuple(HOME_OF),
    "colour": ("red", "yellow", "green", "blue", "purple", "white", "black"),
    "size": ("small", "big"),
    "count": (1, 2, 3),
    "companion": ("none", "tree", "house", "windmill", "lighthouse", "snowman", "castle"),
    "relation": ("none", "left", "right", "front", "above"),
    "ground": ("meadow", "snow", "beach", "street", "field", "sea"),
    "sky": ("sunny", "cloudy", "rainy", "sunset", "night", "rainbow"),
}
GROUNDS = {
    "land": ("meadow", "snow", "beach", "street", "field"),
    "water": ("sea",),
    "air": ATTRIBUTES["ground"],
}
RELATIONS = {
    "land": ("left", "right", "front"),
    "water": ("left", "right", "front"),
    "air": ("left", "right", "above"),
}

# The split rule. For each of these pairs of attributes, add the two values' indices in ATTRIBUTES
# modulo 7. If the result is 0, the combination occurs only in dev; if it is 3, only in test.
HELD_OUT_PAIRS = (("kind", "colour"), ("kind", "ground"), ("kind", "companion"))
HELD_OUT_REMAINDERS = {0: "dev", 3: "test"}
SPLIT_SIZES = {"train": 12_000, "dev": 600, "test": 600}


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        kind, colour, size, count: of the subject.
        companion: another object, or "none".
        relation: the subject's position relative to the companion: "left" means that the subject
            is left of it, "front" that it hides part of it. "none" without a companion.
        ground, sky: the background.
        seed: of everything else, such as exact positions, 0..2**31 - 1.

    Each field except ``seed`` has one of the values in ``ATTRIBUTES``.
    """

    kind: str
    colour: str
    size: str
    count: int
    companion: str
    relation: str
    ground: str
    sky: str
    seed: int

    @property
    def home(self) -> str:
        """The subject's home: "land", "water" or "air"."""
        return HOME_OF[self.kind]

    @classmethod
    def of(cls, fields: object) -> "Scene":
        """Build a scene from a dict of all fields.

        Raises:
            ValueError: a field is missing, or a field or value is unknown.
        """
        if not isinstance(fields, dict) or set(fields) != set(cls.__dataclass_fields__):
            raise ValueError(f"a scene has the fields {', '.join(cls.__dataclass_fields__)}")
        for name, values in ATTRIBUTES.items():
            if fields[name] not in values:
                raise ValueError(f"{name} {fields[name]!r} is not one of {values}")
        return cls(**fields)


def random_scene(rng: np.random.RandomState) -> Scene:
    """Sample a scene: every kind with the same probability, 1/4 without a companion."""

    def pick(values):
        return values[rng.randint(len(values))]

    kind = pick(ATTRIBUTES["kind"])
    home = HOME_OF[kind]
    accompanied = rng.randint(4) > 0
    return Scene(
        kind=kind,
        colour=pick(ATTRIBUTES["colour"]),
        size=pick(ATTRIBUTES["size"]),
        count=pick(ATTRIBUTES["count"]),
        companion=pick(ATTRIBUTES["companion"][1:]) if accompanied else "none",
        relation=pick(RELATIONS[home]) if accompanied else "none",
        ground=pick(GROUNDS[home]),
        sky=pick(ATTRIBUTES["sky"]),
        seed=int(rng.randint(2**31 - 1)),
    )


def held_out(scene: Scene) -> set[str]:
    """Find the splits that own a combination of this scene: a subset of {"dev", "test"}."""
    owners = set()
    for pair in HELD_OUT_PAIRS:
        values = [getattr(scene, name) for name in pair]
        if "none" not in values and not _only_choice(scene, pair):
            number = sum(ATTRIBUTES[name].index(value) for name, value in zip(pair, values))
            owners.add(HELD_OUT_REMAINDERS.get(number % 7, "train"))
    return owners - {"train"}


def _only_choice(scene: Scene, pair: tuple[str, str]) -> bool:
    """Whether the pair cannot be held out: boats, for example, are always at sea."""
    return pair[1] == "ground" and len(GROUNDS[scene.home]) == 1


def sample_splits(seed: int, sizes: dict[str, int]) -> dict[str, dict[str, Scene]]:
    """Sample the scenes of a data set. No two have the same attributes.

    Each dev scene has at least one combination that occurs only in dev, each test scene one that
    occurs only in test; training scenes have neither.

    Args:
        seed: of the random number generator.
        sizes: split -> number of scenes.

    Returns:
        Split -> image name -> scene.
    """
    rng = np.random.RandomState(seed)
    splits: dict[str, dict[str, Scene]] = {split: {} for split in sizes}
    seen: set[tuple] = set()
    number = 0
    while number < sum(sizes.values()):
        scene = random_scene(rng)
        owners = held_out(scene) or {"train"}
        description = tuple(getattr(scene, name) for name in ATTRIBUTES)
        if len(owners) > 1 or description in seen:
            continue
        (split,) = owners
        if len(splits[split]) < sizes[split]:
            number += 1
            seen.add(description)
            splits[split][f"scene_{number:05d}.png"] = scene
    return splits


def to_lines(scenes: dict[str, Scene]) -> str:
    """Format scenes as JSON Lines: a line for each scene, with its name and fields."""
    lines = ({"name": name, **asdict(scene)} for name, scene in scenes.items())
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def load_scenes(path: Path) -> dict[str, Scene]:
    """Read a file of `to_lines`, gzipped or not.

    Returns:
        Image name -> scene.

    Raises:
        UserError: a line is not a scene; the message gives file and line.
    """
    scenes = {}
    for number, line in enumerate(read_lines(path, "scenes"), 1):
        if not line:
            continue
        try:
            fields = json.loads(line)
            name = str(fields.pop("name"))
            scenes[name] = Scene.of(fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: not a scene ({error})") from None
    return scenes
