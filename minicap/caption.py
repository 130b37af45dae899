"""Caption photos: `minicap caption PHOTO... --model MODEL`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy
import tyro

import minicap
from minicap.encoder.photos import expand
from minicap.generation.config import BEAM, GenerationConfig
from minicap.utils import command_line
from minicap.utils.errors import UnusableImage, UserError, plain

BATCH = 32  # photos that are encoded and captioned together


@dataclass(frozen=True)
class Options:
    """Caption photos. Prints one line per caption: the file, a tab, the caption."""

    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")]
    """photos to caption (JPEG, PNG or another format that Pillow reads), folders of photos, or
    patterns like 'new/*.jpg'"""
    model: Path | None = None
    """model.safetensors, from `minicap train` (required)"""
    ensemble: tuple[Path, ...] = ()
    """more models, with the same vocabulary and encoder, for an ensemble with the first"""
    encoder: Path | None = None
    """ONNX file of the encoder the model was trained on [default: inception_v3.onnx, or minicap's
    seeded encoder if the model was trained on it]"""
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
        if not self.model:
            raise UserError("name a model, for example --model runs/scenes/model.safetensors")
        if not self.photos:
            raise UserError("name at least one photo")
        self.generation.check()


def parse(arguments: list[str] | None = None) -> Options:
    """Parse the command line, also in the order of version 0.1: MODEL PHOTO..."""
    options = command_line.parse(Options, "caption", arguments)
    if not options.model and options.photos and options.photos[0].endswith(".safetensors"):
        model, *photos = options.photos
        form = f"minicap caption PHOTO... --model {plain(model)}"
        print(f"note: the new form is: {form}", file=sys.stderr)
        options = replace(options, model=Path(model), photos=tuple(photos))
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit status: 1 if a photo could not be read."""
    options = parse(arguments)
    options.check()
    assert options.model
    photos = expand(options.photos)
    captioner = minicap.load([options.model, *options.ensemble], options.encoder, options.device)
    if captioner.warning:
        print(f"note: {captioner.warning}", file=sys.stderr)
    rng = numpy.random.default_rng(options.seed)
    failed = 0
    for start in range(0, len(photos), BATCH):
        images = []
        for photo in photos[start : start + BATCH]:
            try:  # read one by one, so that a broken photo costs no other its caption
                images.append((photo, captioner.encoder.pixels(photo)))
            except UnusableImage as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
        pixels = [image for _, image in images]
        found = captioner.generate(pixels, options.generation, options.count, rng)
        for (photo, _), captions in zip(images, found, strict=True):
            for caption in captions[: options.count]:
                score = [f"{caption.score:.4f}"] if options.scores else []
                print(plain(photo), *score, captioner.text(caption), sep="\t", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    command_line.run(main)
