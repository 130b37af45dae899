"""The options of `minicap evaluate`: what to evaluate, on which images, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minicap.data.dataset import DataFiles
from minicap.evaluation.metrics import Tokenizer
from minicap.generation.config import BEAM, GenerationConfig
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class EvaluationOptions:
    """Score the captions of a model or of a results file, and compare them with baselines.

    Without data options, the model is evaluated on the data it was trained on. Writes scores.json,
    captions.json (COCO's results format) and report.html.
    """

    model: Path | None = None
    """model.safetensors, as `minicap train` writes it"""
    ensemble: tuple[Path, ...] = ()
    """more models, of the same vocabulary and encoder, that generate together with the first"""
    results: Path | None = None
    """score the captions of this file instead: JSON, [{"image_id": ..., "caption": ...}, ...]"""
    data: DataFiles = DataFiles()
    split: Literal["dev", "test", "all"] | None = None
    """the images to evaluate on [default: the split whose list is given, else dev for a model and
    all for a results file]"""
    tokenizer: Tokenizer | None = None
    """splits captions and references into words: course, unicode and characters as for
    `minicap train`; ptb: COCO's evaluation, needs Java [default: the model's, else course]"""
    meteor: bool = False
    """also compute METEOR (needs Java)"""
    neighbours: int = 30
    """number of training images that the nearest-neighbour baseline compares"""
    photos: tuple[Path, ...] = ()
    """your photos (folders, zip files or lists), for the report [default: those given to
    `minicap train`]"""
    shown: int = 36
    """number of images in the report: the best, the worst, and some in between"""
    out: Path | None = None
    """folder to write to [default: evaluation, next to the model or the results file]"""
    generation: GenerationConfig = BEAM
    seed: int = 0
    """seed of the shuffled baseline and of sampling"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""

    def check(self) -> None:
        """Raise UserError, naming the option, for values or combinations that are not allowed."""
        if (self.model is None) == (self.results is None):
            raise UserError("name a model with --model or a results file with --results")
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
        for name, minimum in (("neighbours", 1), ("shown", 0), ("seed", 0)):
            if getattr(self, name) < minimum:
                raise UserError(f"--{name} must be {minimum} or more")

    def which_split(self) -> str:
        """Return the split to evaluate on."""
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
        """The folder to write to."""
        return self.out or self.source.parent / "evaluation"
