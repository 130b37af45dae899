"""Caption pictures: `python -m minicap.caption MODEL PICTURE...`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy
import tyro

import minicap
from minicap import commands
from minicap.errors import UnusableImage, UserError, plain
from minicap.generate import BEAM, Writing

TOGETHER = 32  # pictures that are encoded and captioned at once


@dataclass(frozen=True)
class Options:
    """Write captions for pictures, a line each: the file, a tab, the caption."""

    model: tyro.conf.Positional[Path]
    """model.safetensors, as `python -m minicap.train` wrote it"""
    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """JPEG, PNG or other pictures"""
    encoder: Path | None = None
    """ONNX file of the encoder that the model was trained on, if it is not minicap's seeded one"""
    ensemble: tuple[Path, ...] = ()
    """further models, of the same vocabulary and encoder, that write together with the first"""
    count: int = 1
    """captions for each picture: the best ones of the beam, which is at least as wide, or so many
    that are drawn"""
    scores: bool = False
    """print each caption's score too, before it: log-probability / length**alpha"""
    writing: Annotated[Writing, tyro.conf.arg(name="")] = BEAM
    seed: int = 0
    """of the drawing"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 1 if a picture could not be read."""
    options = tyro.cli(Options, prog="python -m minicap.caption", args=arguments)
    if not 1 <= options.count <= 100:
        raise UserError("--count must be from 1 to 100")
    if options.seed < 0:
        raise UserError("--seed must be 0 or more")
    if not options.pictures:
        raise UserError("name at least one picture")
    options.writing.check()
    captioner = minicap.load([options.model, *options.ensemble], options.encoder, options.device)
    if captioner.note:
        print(f"note: {captioner.note}", file=sys.stderr)
    rng = numpy.random.default_rng(options.seed)
    failed = 0
    for start in range(0, len(options.pictures), TOGETHER):
        images = []
        for picture in options.pictures[start : start + TOGETHER]:
            try:
                images.append((picture, captioner.encoder.pixels(picture)))
            except UnusableImage as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
        encoded = [image for _, image in images]
        found = captioner.candidates(encoded, options.writing, options.count, rng)
        for (picture, _), captions in zip(images, found, strict=True):
            for caption in captions[: options.count]:
                score = [f"{caption.score:.4f}"] if options.scores else []
                print(plain(picture), *score, captioner.words(caption), sep="\t", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    commands.run(main)
