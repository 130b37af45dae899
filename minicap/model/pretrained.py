"""The model that minicap ships."""

from pathlib import Path

from minicap.utils.errors import UserError

PRETRAINED = "pretrained"  # names it on command lines
SHIPPED = [
    Path(__file__).parents[1] / "shipped" / "pretrained",  # in an installed wheel
    Path(__file__).parents[2] / "data" / "pretrained",  # in the repository
]


def model_path(path: Path) -> Path:
    """Return the path of the pretrained model if `path` is its name; else `path`.

    Raises:
        UserError: this installation has no pretrained model.
    """
    if str(path) != PRETRAINED or path.exists():
        return path
    for folder in SHIPPED:
        if (folder / "model.safetensors").exists():
            return folder / "model.safetensors"
    raise UserError("the pretrained model is not part of this installation: name a model file")
