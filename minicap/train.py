"""`minicap train`: train a captioner on your data or on the shipped scenes."""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

from minicap.data.names import find_names
from minicap.encoder.photos import PhotoSource, find_all
from minicap.evaluation.plots import write_report
from minicap.evaluation.samples import names_to_show, sample_captions
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training import fine_tuning
from minicap.training.opening import open_run
from minicap.training.options import RunOptions
from minicap.training.public_data import PublicData
from minicap.training.recipes import RECIPES
from minicap.training.run import MODEL, RUN, Interrupted, Run
from minicap.utils import command_line
from minicap.utils.errors import UserError

CHAPTER = Path(__file__).parents[1] / "docs/walkthrough/01-one-minute.md"


@dataclass(frozen=True)
class Options(RunOptions):
    __doc__ = RunOptions.__doc__
    public: PublicData = PublicData()


def parse(arguments: list[str] | None = None) -> Options:
    """Parse the options. Their defaults come from the recipe or from the resumed run."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--recipe", "--resume", "--captions", "--init-from", "--data"):
        first.add_argument(name, nargs="*" if name == "--captions" else "?")
    chosen, _ = first.parse_known_args(arguments)
    if chosen.resume:
        path = Path(chosen.resume) / RUN
        _, about = checkpoint.load(path, "run")
        saved = replace(RunOptions.from_json(about["options"], path), resume=path.parent)
        changed = command_line.parse(Options, "train", arguments, Options(**vars(saved)))
        if changed.public != PublicData():
            raise UserError("--data and --resume do not go together: give one of them")
        return Options(**vars(saved.resumed_as(changed.plain())))
    default_recipe = "best" if chosen.data else "flickr8k" if chosen.captions else "scenes"
    name = chosen.recipe or default_recipe
    known = name if name in RECIPES else "scenes"  # the parser refuses other names
    recipe = RECIPES[known]
    if chosen.init_from:
        recipe = fine_tuning.adapted(recipe, Model.load(Path(chosen.init_from)))
    default = Options(recipe=known, decoder=recipe.decoder, training=recipe.training)
    return command_line.parse(Options, "train", arguments, default)


def main(arguments: list[str] | None = None) -> int | None:
    """Run the command and return its exit status."""
    given = parse(arguments)
    given.check()
    options = given.public.options(given.plain()) if given.public.data else given.plain()
    photos = find_all(options.photos) if options.photos else None
    with open_run(options) as run:
        if photos:  # report ambiguous names before the training and not after it
            find_names(names_to_show(run.dataset), photos.names)
        print(*run.description(options), sep="\n", flush=True)
        try:
            run.fit()
        except Interrupted:
            print(f"stopped and saved; resume with: minicap train --resume {run.folder}")
            return 130
        run.trainer.ranks.first(lambda: report(run, options, photos))
    return None


def report(run: Run, options: RunOptions, photos: PhotoSource | None) -> None:
    """Print and draw sample captions of the best model, and print the paths of all files."""
    path = run.folder / MODEL
    model = Model.load(path, run.trainer.xp)
    scenes = not options.data.captions
    lines, entries = sample_captions(model, run.dataset, scenes, photos, options.seed)
    for line in [*lines, *run.warnings()]:
        print(line)
    for image in write_report(run.folder, run.progress.history, entries):
        print(f"image     {image}")
    print(f"model     {path} from epoch {run.progress.best_epoch}; caption your photos with")
    print(f"          minicap caption PHOTO... --model {path}")
    if CHAPTER.exists():
        print(f"docs      {os.path.relpath(CHAPTER)} explains how it works, line by line")


if __name__ == "__main__":
    command_line.run(main)
