"""minicap: photo captioning from the ground up.

captioner = minicap.load("runs/scenes/model.safetensors")
captioner.caption(["photo.jpg"])
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicap.captioner import Captioner, load
    from minicap.utils.errors import UserError

if sys.argv[:1] == ["-m"]:  # `python -m minicap.train` is importing, which takes a moment
    from minicap.utils.errors import interrupted_quietly

    sys.excepthook = interrupted_quietly

__version__ = "0.1.0"
__all__ = ["Captioner", "UserError", "load"]


def __getattr__(name: str):
    """Import the public names on first use, so that `import minicap` stays fast."""
    if name in ("Captioner", "load"):
        from minicap import captioner

        return getattr(captioner, name)
    if name == "UserError":
        from minicap.utils.errors import UserError

        return UserError
    raise AttributeError(f"module 'minicap' has no attribute {name!r}")
