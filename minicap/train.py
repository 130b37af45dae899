"""Train a captioner: `minicap train` (by default on the shipped scenes)."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from minicap.data.captions import find_names
from minicap.encoder.photos import PhotoSource, find_photos
from minicap.evaluation.plots import write_report
from minicap.evaluation.samples import names_to_show, sample_captions
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training.options import RunOptions
from minicap.training.recipes import RECIPES
from minicap.training.run import MODEL, RUN, Interrupted, Run, open_run
from minicap.utils import command_line

CHAPTER = Path(__file__).parents[1] / "docs/walkthrough/01-one-minute.md"


def parse(arguments: list[str] | None = None) -> RunOptions:
    """Options from the command line; their defaults are those of the recipe or resumed run."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--recipe", "--resume", "--captions"):
        first.add_argument(name, nargs="?")
    chosen, _ = first.parse_known_args(arguments)
    if chosen.resume:
        path = Path(chosen.resume) / RUN
        _, about = checkpoint.load(path, "run")
        saved = replace(RunOptions.from_json(about["options"], path), resume=path.parent)
        return saved.resumed_as(command_line.parse(RunOptions, "train", arguments, saved))
    name = chosen.recipe or ("flickr8k" if chosen.captions else "scenes")
    known = name if name in RECIPES else "scenes"  # other names are refused below
    recipe = RECIPES[known]
    default = RunOptions(recipe=known, decoder=recipe.decoder, training=recipe.training)
    return command_line.parse(RunOptions, "train", arguments, default)


def main(arguments: list[str] | None = None) -> int | None:
    """Run the command. Returns the exit status."""
    options = parse(arguments)
    options.check()
    photos = find_photos(options.photos) if options.photos else None
    with open_run(options) as run:
        if photos:  # ambiguous names are reported now, and not after the training
            find_names(names_to_show(run.dataset), photos.names)
        print(*run.description(options), sep="\n", flush=True)
        try:
            run.fit()
        except Interrupted:
            print(f"stopped and saved; resume with: minicap train --resume {run.folder}")
            return 130
        report(run, options, photos)
    return None


def report(run: Run, options: RunOptions, photos: PhotoSource | None) -> None:
    """Print and draw what the best model does, and say where everything is."""
    path = run.folder / MODEL
    model = Model.load(path, run.trainer.xp)
    drawn = options.data.captions is None
    lines, entries = sample_captions(model, run.dataset, drawn, photos, options.seed)
    for line in [*lines, *run.warnings()]:
        print(line)
    for picture in write_report(run.folder, run.progress.history, entries):
        print(f"picture   {picture}")
    print(f"model     {path}, of epoch {run.progress.best_epoch}; caption photos with")
    print(f"          minicap caption PHOTO... --model {path}")
    if CHAPTER.exists():
        print(f"read on   {os.path.relpath(CHAPTER)}: how it works, line by line")


if __name__ == "__main__":
    command_line.run(main)
