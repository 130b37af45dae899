"""Train a captioner: `python -m minicap.train` (by default on the shipped scenes)."""

import argparse
import contextlib
import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minicap import checkpoint, commands
from minicap.backend import device_module
from minicap.data.captions import find_names
from minicap.data.dataset import DataFiles, load_dataset
from minicap.encoder.photos import Photos, find_photos
from minicap.errors import UserError
from minicap.files import exclusive
from minicap.model import Model
from minicap.outcome import names_to_show, photos_outcome, scenes_outcome
from minicap.recipes import RECIPES, Recipe
from minicap.report import write_report
from minicap.run import LOCK, MODEL, RUN, Interrupted, Run, check_folder, new_folder
from minicap.self_critical import Critic
from minicap.trainer import Trainer

PROGRAM = "python -m minicap.train"
CHAPTER = Path(__file__).parents[1] / "docs/walkthrough/01-one-minute.md"
RecipeName = Literal["scenes", "flickr8k", "course", "best"]
FILES = {"captions", "features", "train_split", "dev_split", "test_split"}  # same data, new place
CHANGEABLE = {"epochs", "patience", "photos", "device"} | FILES  # when a run goes on


@dataclass(frozen=True)
class Options:
    """Train a captioner.

    Without options: on the shipped scenes, in about a minute. With your own data, give its
    captions and features. All settings of a recipe can be changed one by one.
    """

    data: Annotated[DataFiles, tyro.conf.arg(name="")] = DataFiles()
    recipe: RecipeName = "scenes"
    """where the settings below start from; flickr8k when you give your own data"""
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default=RECIPES["scenes"])
    out: Path | None = None
    """a folder for the model and the metrics [default: runs/RECIPE, numbered if that is taken]"""
    resume: Path | None = None
    """go on with the run in this folder, with its settings"""
    photos: Path | None = None
    """your photos (a folder, a zip file or a list), to draw some with their captions at the end"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute: NumPy on the CPU, or CuPy on an NVIDIA GPU"""
    threads: int = min(4, commands.cpu_count())
    """workers that share each batch; changes the last bits of a result"""
    seed: int = 0
    """names every random stream: same seed, same result"""


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line, with the defaults of the chosen recipe or resumed run."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--recipe", "--resume", "--captions"):
        first.add_argument(name, nargs="?")
    chosen, _ = first.parse_known_args(arguments)
    if chosen.resume:
        folder = Path(chosen.resume)
        _, about = checkpoint.load(folder / RUN, "run")
        default = dataclasses.replace(from_json(about["options"], folder / RUN), resume=folder)
    else:
        name = chosen.recipe or ("flickr8k" if chosen.captions else "scenes")
        known: Any = name if name in RECIPES else "scenes"  # tyro refuses the other names
        default = Options(recipe=known, settings=RECIPES[known])
    options = tyro.cli(Options, prog=PROGRAM, args=arguments, default=default)
    if chosen.resume:
        before, after = flat(default), flat(options)
        changed = {name for name in after if after[name] != before[name]} - CHANGEABLE
        if changed:
            names = ", ".join("--" + name.replace("_", "-") for name in sorted(changed))
            raise UserError(f"a resumed run keeps its settings: {names} cannot be changed")
        options = dataclasses.replace(options, settings=longer(options.settings, default.settings))
    return options


def longer(recipe: Recipe, saved: Recipe) -> Recipe:
    """The recipe of a resumed run, which may have more epochs than were `saved`. Where the last
    ones are self-critical, so are those that are added: these begin where they did before."""
    if not saved.self_critical:
        return recipe
    before = saved.epochs - saved.self_critical
    if recipe.epochs <= before:
        raise UserError(
            f"--epochs must be more than {before}: so many come before the self-critical ones"
        )
    return dataclasses.replace(recipe, self_critical=recipe.epochs - before)


def to_json(options: Options) -> dict:
    """Options as JSON can hold them, with absolute paths."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return str(value.absolute()) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(options))


def from_json(values: dict, path: Path) -> Options:
    """The inverse of `to_json`. UserError: options at `path` that are of another version."""

    def paths(some: dict, *names: str) -> dict:
        return {name: Path(some[name]) for name in names if some.get(name)}

    data = values["data"] | paths(values["data"], *FILES)
    nested = {
        "data": checkpoint.options(DataFiles, data, path),
        "settings": checkpoint.options(Recipe, values["settings"], path),
    }
    return checkpoint.options(
        Options, values | paths(values, "out", "resume", "photos") | nested, path
    )


def flat(options: Options) -> dict:
    """All options by the name that the command line gives them."""
    values = to_json(options)
    return values.pop("data") | values.pop("settings") | values


def main(arguments: list[str] | None = None) -> int | None:
    """The command. Returns the exit status."""
    options = parse(arguments)
    recipe = options.settings
    recipe.check()
    if not 1 <= options.threads <= 256:
        raise UserError("--threads must be from 1 to 256")
    if options.seed < 0:
        raise UserError("--seed must be 0 or more")
    if options.photos and not options.data.captions:
        raise UserError("--photos goes with --captions: the shipped scenes are drawn")
    if options.out and not options.resume:
        check_folder(options.out)  # now, and not after the long reading
    photos = find_photos(options.photos) if options.photos else None
    xp = device_module(options.device)
    dataset = load_dataset(
        options.data.complete(),
        recipe.min_count,
        recipe.max_len,
        recipe.standardise,
        recipe.components,
    )
    if photos:  # names in doubt are told now, and not after the training
        find_names(names_to_show(dataset), photos.names)
    train = dataset.splits["train"]
    if recipe.choose == "cider" and len(dataset.splits["dev"].names) < 2:
        raise UserError(
            "--choose cider needs two dev photos or more: with one, CIDEr is always 0 "
            "and chooses nothing. Add photos to dev, or use --choose loss"
        )
    sizes = recipe.sizes(len(dataset.vocabulary), train.features.shape[1])
    critic = None
    if recipe.self_critical:
        words, longest = dataset.vocabulary, recipe.max_len
        critic = Critic(train, words, longest, recipe.samples, recipe.reward_bleu)
    frequencies = train.word_counts(sizes.vocabulary) if recipe.log_frequencies else None
    trainer = Trainer(recipe, sizes, options.seed, options.threads, xp, critic, frequencies)
    folder = options.resume or new_folder(options.out, options.recipe)
    run = Run(folder, trainer, dataset, to_json(options))
    try:
        with exclusive(folder / LOCK, f"{folder}: another process is training in this folder"):
            return carry_out(run, options, photos)
    except UserError:
        with contextlib.suppress(OSError):  # not empty: there is something to resume
            folder.rmdir()
        raise


def carry_out(run: Run, options: Options, photos: Photos | None) -> int | None:
    """Train, and report. Returns the exit status."""
    folder, trainer, dataset, recipe = run.folder, run.trainer, run.dataset, options.settings
    if options.resume:
        run.restore(*checkpoint.load(folder / RUN, "run"))
    counts = ", ".join(
        f"{split} {len(part.names):,} pictures with {len(part.lengths):,} captions"
        for split, part in dataset.splits.items()
    )
    print(f"data      {counts}")
    features = trainer.sizes.feature
    print(f"          {len(dataset.vocabulary):,} words, {features:,} features a picture")
    for note in dataset.notes:
        print(f"note      {note}")
    print(
        f"decoder   {trainer.parameters.flat.size:,} parameters, {options.device}, "
        f"{trainer.threads} threads, seed {options.seed}"
    )
    usual = dataclasses.asdict(Recipe())
    changed = {n: v for n, v in dataclasses.asdict(recipe).items() if v != usual[n]}
    print(f"recipe    {options.recipe}: {', '.join(f'{n} {v}' for n, v in changed.items())}")
    print(f"folder    {folder}", flush=True)
    if run.finished():
        print(f"note      this run was done after {trainer.epoch} epochs: nothing is left to train")
    try:
        run.fit()
    except Interrupted:
        print(f"stopped and saved; go on with: python -m minicap.train --resume {folder}")
        return 130
    finish(run, options, photos)
    return None


def finish(run: Run, options: Options, photos: Photos | None) -> None:
    """Judge the model that was kept, draw pictures, and say where everything is."""
    model = Model.load(run.folder / MODEL, run.trainer.xp)
    if options.data.captions is None:
        lines, entries = scenes_outcome(model, run.dataset, options.seed)
    elif photos:
        lines, entries = photos_outcome(model, run.dataset, photos)
    else:
        lines, entries = [], []
    print(*lines, sep="\n", end="\n" if lines else "")
    best = min(line["dev_loss"] for line in run.progress.history)
    untrained = math.log(len(run.dataset.vocabulary))
    if best > untrained:
        print(
            f"warning   the best dev loss, {best:,.2f}, is worse than an untrained model's, "
            f"{untrained:.2f}: lower --learning-rate"
        )
    for path in write_report(run.folder, run.progress.history, entries):
        print(f"picture   {path}")
    kept = run.folder / MODEL
    print(f"model     {kept}, of epoch {run.progress.best_epoch}; caption pictures with")
    print(f"          python -m minicap.caption {kept} PICTURE...")
    if CHAPTER.exists():
        print(f"read on   {os.path.relpath(CHAPTER)}: how it works, line by line")


if __name__ == "__main__":
    commands.run(main)
