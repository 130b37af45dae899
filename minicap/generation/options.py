"""The options of `minicap caption`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from minicap.data.caption_file import check_output
from minicap.generation.config import BEAM, GenerationConfig
from minicap.model.pretrained import PRETRAINED
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class CaptionOptions:
    """Caption photos. Prints a line per caption: the photo, a tab, the caption.

    With --out, the captions go to a file. If that is interrupted, the same command resumes.
    """

    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")]
    """photos to caption (JPEG, PNG or another format that Pillow reads), folders of photos, zip
    files, lists of paths, or patterns like 'new/*.jpg'"""
    model: Path = Path(PRETRAINED)
    """model.safetensors, from `minicap train` [default: the pretrained model, which needs the extra
    `pretrained`]"""
    ensemble: tuple[Path, ...] = ()
    """more models, with the same vocabulary and encoder, for an ensemble with the first"""
    encoder: Path | None = None
    """ONNX file of the encoder the model was trained on [default: inception_v3.onnx, or minicap's
    seeded encoder if the model was trained on it]"""
    out: Path | None = None
    """write the captions to this file, which ends in .csv, .json or .jsonl"""
    attention: Path | None = None
    """for one photo: draw in this PNG file where the model looked for each word of the (best)
    caption"""
    count: int = 1
    """captions per photo: the best ones of the beam, which is at least this wide, or samples"""
    scores: bool = False
    """also print each caption's score: log-probability / length**length_penalty"""
    generation: GenerationConfig = BEAM
    seed: int = 0
    """seed for sampling"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        if not 1 <= self.count <= 100:
            raise UserError("--count must be from 1 to 100")
        if self.seed < 0:
            raise UserError("--seed must be 0 or more")
        if not self.photos:
            raise UserError("name at least one photo")
        self.generation.check()
        if self.attention and self.out:
            raise UserError("--attention cannot be used with --out: it draws one photo")
        if self.attention and self.attention.suffix.lower() != ".png":
            raise UserError(f"--attention {self.attention}: the file's name must end in .png")
        if self.out:
            check_output(self.out)
