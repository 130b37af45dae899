"""What to evaluate, by which images, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minicap.data.dataset import DataFiles
from minicap.evaluation.metrics import Tokenizer
from minicap.generation.config import BEAM, GenerationConfig
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class EvaluationOptions:
    """Score a model's captions, or those of a results file, next to baselines without a model.

    Without data options: on the data the model was trained on. Writes scores.json, captions.json
    (COCO's results format) and report.html.
    """

    model: Path | None = None
    """model.safetensors, as `minicap train` writes it"""
    ensemble: tuple[Path, ...] = ()
    """more models, of the same vocabulary and encoder, that generate together with the first"""
    results: Path | None = None
    """score the captions of this file instead: JSON, [{"image_id": ..., "caption": ...}, ...]"""
    data: DataFiles = DataFiles()
    split: Literal["dev", "test", "all"] | None = None
    """the images to evaluate on [default: the split that a list is given for, else dev; for a
    results file else all]"""
    tokenizer: Tokenizer = "words"
    """words: minicap's vocabulary; ptb: the tokenizer of COCO's evaluation (needs Java)"""
    meteor: bool = False
    """compute METEOR too (needs Java)"""
    neighbours: int = 30
    """training images that the nearest-neighbour baseline takes its captions from"""
    photos: Path | None = None
    """your photos (a folder, a zip file or a list), for the report [default: those that training
    was given]"""
    shown: int = 36
    """images in the report: the best, the worst, and some in between"""
    out: Path | None = None
    """folder to write to [default: evaluation, next to the model or the results file]"""
    generation: GenerationConfig = BEAM
    seed: int = 0
    """seed of the shuffled baseline and of sampling"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""

    def check(self) -> None:
        """Raise UserError, naming the option, for options that do not go together."""
        if (self.model is None) == (self.results is None):
            raise UserError("name a model with --model, or a file of captions with --results")
        for name, given in (
            ("--ensemble", self.ensemble),
            ("--device", self.device != "cpu"),
            ("an option of generation, such as --beam-size,", self.generation != BEAM),
        ):
            if given and not self.model:
                raise UserError(f"{name} needs --model")
        if self.out and self.out.is_file():
            raise UserError(f"--out {self.out}: this is a file; name a folder")
        self.generation.check()
        for name, least in (("neighbours", 1), ("shown", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be {least} or more")

    def which_split(self) -> str:
        """The split to evaluate on."""
        listed = "dev" if self.data.dev_split else "test" if self.data.test_split else None
        return self.split or listed or ("all" if self.results else "dev")

    @property
    def source(self) -> Path:
        """The model or the results file."""
        source = self.model or self.results
        assert source
        return source

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self.out or self.source.parent / "evaluation"
