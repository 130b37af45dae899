"""Start or resume a run: read its data, find its folder, and lock it."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from minicap.backend import device_module
from minicap.data.dataset import Dataset, load_dataset
from minicap.model import checkpoint
from minicap.model.config import DecoderConfig
from minicap.model.trained_model import Model
from minicap.training import fine_tuning
from minicap.training.options import RunOptions
from minicap.training.run import LOCK, MODEL, RUN, Run
from minicap.training.trainer import Trainer
from minicap.utils.errors import UserError
from minicap.utils.files import exclusive
from minicap.utils.ranks import world


@contextmanager
def open_run(options: RunOptions) -> Iterator[Run]:
    """Read the data, and start or resume a run in a locked folder.

    Args:
        options: which data, what to train, and where.

    Yields:
        The run, ready for `fit`. Its folder stays locked until the context ends.

    Raises:
        UserError: the data is missing or broken; the folder contains another run, or another
            process trains in it; the checkpoint does not fit the data.
    """
    if options.out and not options.resume:
        check_folder(options.out)  # first, because reading the data may take long
    xp, config = device_module(options.device), options.training
    model = Model.load(options.init_from) if options.init_from else None
    if model:
        fine_tuning.check(options.as_recipe(), model)
    dataset = load_dataset(
        options.data.complete(),
        config.min_count,
        config.max_length,
        config.standardise,
        components=config.components,
        tokenizer=config.tokenizer,
        trained=(model.vocabulary, model.scaling) if model else None,
    )
    if model:
        dataset.notes.extend(fine_tuning.notes(dataset, model))
    if config.monitor == "cider" and len(dataset.splits["dev"].names) < 2:
        raise UserError(
            "--monitor cider needs at least two dev images, because with one CIDEr is always 0. "
            "Add images to dev, or use --monitor loss"
        )
    recipe = options.as_recipe()
    recipe = replace(recipe, decoder=with_positions(recipe.decoder, dataset))
    trainer = Trainer(recipe, dataset, options.seed, options.workers, xp, model)
    existed = bool(options.out and options.out.exists())
    ranks = world()
    folder = options.resume or ranks.first(lambda: new_folder(options.out, options.recipe))
    busy = f"{folder}: another process is training in this folder"
    try:
        with exclusive(folder / LOCK, busy):
            run = Run(folder, trainer, options.to_json())
            if options.resume:
                run.restore(*checkpoint.load(folder / RUN, "run"))
            yield run
    except UserError:
        if not (options.resume or existed or ranks.rank):
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                folder.rmdir()
        raise


def with_positions(config: DecoderConfig, dataset: Dataset) -> DecoderConfig:
    """Take the number of positions, which attention looks at, from the features.

    Raises:
        UserError: the features are pooled.
    """
    if config.image_input != "attention":
        return replace(config, positions=1)
    positions = (dataset.encoder or {}).get("positions")
    if not positions:
        raise UserError(
            "attention needs the features of each position: encode the photos with "
            "`minicap encode --map`"
        )
    return replace(config, positions=positions)


def check_folder(wanted: Path) -> None:
    """Raise UserError if a new run cannot use this folder: it is a file, or contains a run."""
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"--out {wanted}: this is a file; give a folder")
    if (wanted / RUN).exists() or (wanted / MODEL).exists():
        raise UserError(f"{wanted} contains a run: choose another --out, or --resume {wanted}")


def new_folder(wanted: Path | None, default: str) -> Path:
    """Create the folder for a new run.

    Args:
        wanted: the folder, or None.
        default: the name of the folder in runs/ if `wanted` is None. If it exists, -2, -3, ... is
            appended.

    Raises:
        UserError: the folder cannot be created, or contains a run.
    """
    if wanted:
        check_folder(wanted)
    number = 1
    while True:
        folder = wanted or Path("runs") / (f"{default}-{number}" if number > 1 else default)
        try:
            folder.mkdir(parents=True, exist_ok=bool(wanted))
            return folder
        except OSError as error:
            if wanted or not isinstance(error, FileExistsError):
                raise UserError(f"cannot create the folder {folder} ({error.strerror})") from error
            number += 1
