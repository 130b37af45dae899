"""Caption pictures: `python -m minicap.caption MODEL PICTURE...`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import minicap
from minicap import commands
from minicap.errors import UnusableImage, UserError

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
    count: int = 1
    """captions for each picture"""
    temperature: float | None = None
    """0: always the likeliest word; more: draw words at random, 1 as the model believes
    [default: 0 for one caption, 1 for several]"""
    seed: int = 0
    """of the drawing"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status: 1 if a picture could not be read."""
    options = tyro.cli(Options, prog="python -m minicap.caption", args=arguments)
    if options.count < 1:
        raise UserError("--count must be 1 or more")
    if options.seed < 0:
        raise UserError("--seed must be 0 or more")
    if not options.pictures:
        raise UserError("name at least one picture")
    temperature = options.temperature
    if temperature is None:
        temperature = 0.0 if options.count == 1 else 1.0
    captioner = minicap.load(options.model, options.encoder, options.device)
    if captioner.note:
        print(f"note: {captioner.note}", file=sys.stderr)
    failed = 0
    for start in range(0, len(options.pictures), TOGETHER):
        images = []
        for picture in options.pictures[start : start + TOGETHER]:
            try:
                images.append((picture, captioner.encoder.pixels(picture)))
            except UnusableImage as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
        features = captioner.features([image for _, image in images])
        seeds = range(options.seed, options.seed + options.count)
        written = [captioner.write(features, temperature, seed) for seed in seeds]
        for (picture, _), *captions in zip(images, *written, strict=True):
            for caption in captions:
                print(picture, caption, sep="\t", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    commands.run(main)
