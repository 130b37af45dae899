"""Caption photos: `minicap caption PHOTO... --model MODEL`."""

import sys
from dataclasses import replace
from pathlib import Path

import minicap
from minicap.encoder.photos import find_all
from minicap.generation.options import CaptionOptions
from minicap.utils import command_line
from minicap.utils.errors import UserError, plain
from minicap.utils.files import save_png

FEW = 8  # photos; with more, each core encodes photos of its own, which is faster


def parse(arguments: list[str] | None = None) -> CaptionOptions:
    """Parse the command line, also in the order of version 0.1: MODEL PHOTO..."""
    options = command_line.parse(CaptionOptions, "caption", arguments)
    if (
        options.model == CaptionOptions.model
        and options.photos
        and options.photos[0].endswith(".safetensors")
    ):
        model, *photos = options.photos
        form = f"minicap caption PHOTO... --model {plain(model)}"
        print(f"note: the new form is: {form}", file=sys.stderr)
        options = replace(options, model=Path(model), photos=tuple(photos))
    return options


def main(arguments: list[str] | None = None) -> int | None:
    """Run the command; return 1 if a photo is unusable (with --out: if all are), 130 for Ctrl-C."""
    options = parse(arguments)
    options.check()
    photos = find_all(options.photos, paths=True)
    alone = len(photos.names) <= FEW or options.device == "cuda"
    models = [options.model, *options.ensemble]
    captioner = minicap.load(models, options.encoder, options.device, None if alone else 1)
    if captioner.warning:
        print(f"note: {captioner.warning}", file=sys.stderr)
    workers = 1 if alone else command_line.cpu_count()
    how = options.generation, options.count, options.seed
    if options.out:
        try:
            scores = options.scores
            done = captioner.write(photos, options.out, *how, scores=scores, workers=workers)
        except KeyboardInterrupt:
            print("stopped; what is done is kept: run the same command to resume")
            return 130
        return report(*done, options.out)
    if options.attention:
        if len(photos.names) != 1:
            raise UserError(f"--attention draws one photo; these are {len(photos.names):,}")
        photo = photos.open(photos.names[0])
        save_png(captioner.attention_picture(photo, *how), options.attention)
    failed = False
    for rows, unusable in captioner.generate_many(photos, *how, workers=workers):
        failed |= bool(unusable)
        for name, reason in unusable.items():
            print(f"error: {plain(name)}: {reason}", file=sys.stderr)
        for row in rows:
            if row["doubt"]:
                print(f"doubt: {plain(row['photo'])}: {row['doubt']}", file=sys.stderr)
            score = [f"{row['score']:.4f}"] if options.scores else []
            print(plain(row["photo"]), *score, row["caption"], sep="\t", flush=True)
    return 1 if failed else None


def report(captioned: int, skipped: int, out: Path) -> int | None:
    """Print what was written, and return the exit status."""
    print(f"done      {captioned:,} photos captioned in {out}, {skipped:,} skipped", end="")
    print(f": see {out}.skipped.jsonl" if skipped else "")
    return None if captioned else 1


if __name__ == "__main__":
    command_line.run(main)
