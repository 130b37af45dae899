"""Everything a run was started with: what its checkpoint stores for `--resume`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from minicap.data.dataset import DataFiles
from minicap.model import checkpoint
from minicap.model.config import DecoderConfig
from minicap.training.config import TrainingConfig
from minicap.training.recipes import RECIPES, Recipe, RecipeName
from minicap.utils.command_line import cpu_count
from minicap.utils.errors import UserError
from minicap.utils.renamed import option

DATA_PATHS = ("captions", "features", "train_split", "dev_split", "test_split")
PATHS = ("out", "resume", "photos")
CHANGEABLE = {"epochs", "patience", "photos", "device", *DATA_PATHS}  # when a run resumes


@dataclass(frozen=True)
class RunOptions:
    """Train a captioner.

    Without options: on the shipped scenes, in about a minute. To train on your own data, name its
    captions and features. Every setting of a recipe can be changed.
    """

    data: DataFiles = DataFiles()
    recipe: RecipeName = "scenes"
    """the defaults of the settings below; flickr8k when you name your own captions"""
    decoder: DecoderConfig = RECIPES["scenes"].decoder
    training: TrainingConfig = RECIPES["scenes"].training
    out: Path | None = None
    """folder for the model and the metrics [default: runs/RECIPE, numbered if that exists]"""
    resume: Path | None = None
    """resume the run in this folder, with its settings"""
    photos: Path | None = None
    """your photos (a folder, a zip file or a list), to show some with their captions at the end"""
    device: Literal["cpu", "cuda"] = "cpu"
    """NumPy on the CPU, or CuPy on an NVIDIA GPU"""
    workers: int = min(4, cpu_count())
    """processes that share each batch; changes the last bits of the result"""
    seed: int = 0
    """names every random stream: the same seed gives the same result"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        self.as_recipe().check()
        if not 1 <= self.workers <= 256:
            raise UserError("--workers must be from 1 to 256")
        if self.seed < 0:
            raise UserError("--seed must be 0 or more")
        if self.photos and not self.data.captions:
            raise UserError("--photos needs --captions: the shipped scenes are drawn")

    def as_recipe(self) -> Recipe:
        """The recipe with its changes."""
        return Recipe(self.decoder, self.training)

    def to_json(self) -> dict:
        """The options as JSON can hold them, with absolute paths."""

        def plain(value):
            if isinstance(value, dict):
                return {name: plain(inner) for name, inner in value.items()}
            return str(value.absolute()) if isinstance(value, Path) else value

        return plain(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping, path: Path) -> "RunOptions":
        """The inverse of `to_json`. Raises UserError if the file at `path` is of another version."""

        def paths(some: Mapping, names: tuple[str, ...]) -> dict:
            return {name: Path(some[name]) for name in names if some.get(name)}

        data = values["data"] | paths(values["data"], DATA_PATHS)
        nested = {
            "data": checkpoint.build(DataFiles, data, path),
            "decoder": checkpoint.build(DecoderConfig, values["decoder"], path),
            "training": checkpoint.build(TrainingConfig, values["training"], path),
        }
        return checkpoint.build(cls, dict(values) | paths(values, PATHS) | nested, path)

    def resumed_as(self, changed: "RunOptions") -> "RunOptions":
        """The options of a resumed run, of which `changed` are the new ones.

        If the last epochs are self-critical, so are the added ones, and they begin where they did.

        Raises:
            UserError: a setting is changed that the run cannot do without.
        """
        before, after = self.flat(), changed.flat()
        fixed = {name for name in after if after[name] != before[name]} - CHANGEABLE
        if fixed:
            names = ", ".join(map(option, sorted(fixed)))
            raise UserError(f"a resumed run keeps its settings: {names} cannot be changed")
        training = changed.training
        if training.self_critical_epochs:
            supervised = self.training.epochs - self.training.self_critical_epochs
            if training.epochs <= supervised:
                raise UserError(
                    f"--epochs must be more than {supervised}, the number of epochs before the "
                    "self-critical ones"
                )
            training = replace(training, self_critical_epochs=training.epochs - supervised)
        return replace(changed, training=training)

    def flat(self) -> dict:
        """All options by the name the command line gives them."""
        values = self.to_json()
        return values.pop("data") | values.pop("decoder") | values.pop("training") | values

    def changes(self) -> str:
        """The settings that differ from the defaults, for printing."""
        usual, ours = asdict(Recipe()), asdict(self.as_recipe())
        return ", ".join(
            f"{name} {value}"
            for part in ours
            for name, value in ours[part].items()
            if value != usual[part][name]
        )
