"""The options of a run, which its checkpoint stores for `--resume`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from minicap.data.dataset import DataFiles
from minicap.model import checkpoint
from minicap.model.config import DecoderConfig
from minicap.model.pretrained import model_path
from minicap.training.config import TrainingConfig
from minicap.training.recipes import RECIPES, Recipe, RecipeName
from minicap.utils.command_line import cpu_count
from minicap.utils.errors import UserError
from minicap.utils.renamed import option

DATA_PATHS = ("captions", "features", "train_split", "dev_split", "test_split")
# Options that may change when a run resumes.
CHANGEABLE = {"epochs", "patience", "photos", "device", "init_from", *DATA_PATHS}


@dataclass(frozen=True)
class RunOptions:
    """Train a captioner.

    Without options it trains on the shipped scenes in about a minute. To train on your own data,
    give --captions and --features. A recipe sets the defaults of all other settings.
    """

    data: DataFiles = DataFiles()
    recipe: RecipeName = "scenes"
    """defaults for the settings below (flickr8k if you give --captions)"""
    decoder: DecoderConfig = RECIPES["scenes"].decoder
    training: TrainingConfig = RECIPES["scenes"].training
    out: Path | None = None
    """folder for the model and its metrics [default: runs/RECIPE, with a number if that exists]"""
    init_from: Path | None = None
    """start from this trained model (pretrained: the shipped one): its architecture, scaling,
    tokeniser and words are kept, and new words are added"""
    resume: Path | None = None
    """resume the run in this folder with its settings"""
    photos: tuple[Path, ...] = ()
    """your photos (folders, zip files or lists): some are shown with captions at the end"""
    device: Literal["cpu", "cuda"] = "cpu"
    """compute with NumPy on the CPU or with CuPy on an NVIDIA GPU"""
    workers: int = min(4, cpu_count())
    """processes that divide each batch among them (their number changes the result's last bits)"""
    seed: int = 0
    """seed of every random number stream: the same seed gives the same result"""

    def check(self) -> None:
        """Check that every value is in range.

        Raises:
            UserError: a value is out of range. The message names the option.
        """
        self.as_recipe().check()
        if not 1 <= self.workers <= 256:
            raise UserError("--workers must be from 1 to 256")
        if self.seed < 0:
            raise UserError("--seed must be 0 or more")
        if self.photos and not self.data.captions:
            raise UserError("--photos needs --captions: the shipped scenes have no photos")

    def as_recipe(self) -> Recipe:
        """Return the decoder's and the training's settings as a recipe."""
        return Recipe(self.decoder, self.training)

    def plain(self) -> "RunOptions":
        """Return the options of a run alone, without those that a subclass adds."""
        return RunOptions(**{field.name: getattr(self, field.name) for field in fields(RunOptions)})

    def to_json(self) -> dict:
        """Return the options as a dictionary for JSON, with absolute paths as strings."""

        def as_json(value):
            if isinstance(value, dict):
                return {name: as_json(inner) for name, inner in value.items()}
            if isinstance(value, list | tuple):
                return [as_json(inner) for inner in value]
            return str(value.absolute()) if isinstance(value, Path) else value

        init_from = model_path(self.init_from) if self.init_from else None
        return as_json(asdict(replace(self, init_from=init_from)))

    @classmethod
    def from_json(cls, values: Mapping, path: Path) -> "RunOptions":
        """Rebuild the options from what `to_json` returned.

        Args:
            values: what `to_json` returned.
            path: the file they were read from, for messages.

        Raises:
            UserError: the file was saved by another version, with other options.
        """
        paths = {
            name: Path(values[name]) for name in ("out", "resume", "init_from") if values.get(name)
        }
        photos = values.get("photos") or []
        nested = {
            "data": checkpoint.build(DataFiles, DataFiles.fields_from_json(values["data"]), path),
            "decoder": checkpoint.build(DecoderConfig, values["decoder"], path),
            "training": checkpoint.build(TrainingConfig, values["training"], path),
        }
        nested["photos"] = tuple(map(Path, [photos] if isinstance(photos, str) else photos))
        return checkpoint.build(cls, dict(values) | paths | nested, path)

    def resumed_as(self, changed: "RunOptions") -> "RunOptions":
        """Return the options for resuming this run.

        Epochs added to a self-critical run are self-critical: its supervised epochs stay the same.

        Args:
            changed: these options with the changes from the command line.

        Raises:
            UserError: an option has changed that is not in `CHANGEABLE`.
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
        """Return all options in one dictionary, by field name."""
        values = self.to_json()
        return values.pop("data") | values.pop("decoder") | values.pop("training") | values

    def changes(self) -> str:
        """Describe the settings that differ from the defaults, for printing."""
        defaults, recipe = asdict(Recipe()), asdict(self.as_recipe())
        return ", ".join(
            f"{name} {value}"
            for group, settings in recipe.items()
            for name, value in settings.items()
            if value != defaults[group][name]
        )
