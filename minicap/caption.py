"""Caption photos: `minicap caption PHOTO... --model MODEL`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

import minicap
from minicap.data.caption_file import check_output
from minicap.encoder.photos import find_all
from minicap.generation.config import BEAM, GenerationConfig
from minicap.model.pretrained import PRETRAINED
from minicap.utils import command_line
from minicap.utils.errors import UserError, plain

FEW = 8  # photos; with more, each core encodes photos of its own, which is faster


@dataclass(frozen=True)
class Options:
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
        if self.out:
            check_output(self.out)


def parse(arguments: list[str] | None = None) -> Options:
    """Parse the command line, also in the order of version 0.1: MODEL PHOTO..."""
    options = command_line.parse(Options, "caption", arguments)
    if (
        options.model == Options.model
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
