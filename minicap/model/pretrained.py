"""The models that minicap ships."""

from pathlib import Path

from minicap.utils.errors import UserError

PRETRAINED, SCENES = "pretrained", "scenes"  # name them on command lines
FILES = {PRETRAINED: "model.safetensors", SCENES: "scenes.safetensors"}
SHIPPED = [
    Path(__file__).parents[1] / "shipped" / "pretrained",  # in an installed wheel
    Path(__file__).parents[2] / "data" / "pretrained",  # in the repository
]


def model_path(path: Path) -> Path:
    """Return the path of a shipped model if `path` is its name; else `path`.

    Raises:
        UserError: this installation has no shipped models.
    """
    if str(path) not in FILES or path.is_file():
        return path
    for folder in SHIPPED:
        if (found := folder / FILES[str(path)]).exists():
            return found
    raise UserError(f"the {path} model is not part of this installation: name a model file")
