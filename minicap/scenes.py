"""Drawn scenes: `minicap scenes` generates the data set, draws images or probes features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minicap.data.scenes.dataset import make_data_set, shipped_features, shipped_split
from minicap.data.scenes.drawing import paint_images
from minicap.data.scenes.probe import probe, probe_report
from minicap.data.scenes.scene import SPLIT_SIZES
from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Draw scenes. Name at least one of --out, --pictures and --probe."""

    out: Path | None = None
    """generate the whole data set in this folder: captions, splits, descriptions, features"""
    pictures: Path | None = None
    """draw images of the data set into this folder, as PNG"""
    split: Literal["train", "dev", "test"] = "test"
    """split that --pictures draws"""
    count: int = 20
    """number of images that --pictures draws"""
    probe: bool = False
    """print the accuracy of a linear probe for each attribute of the shipped dev scenes"""
    seed: int = 0
    """seed of the data set; the shipped one uses 0"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        if not (self.out or self.pictures or self.probe):
            raise UserError("nothing to do: give --out, --pictures or --probe (see --help)")
        limit = SPLIT_SIZES[self.split]
        if not 1 <= self.count <= limit:
            raise UserError(f"--count must be from 1 to {limit:,}, the images of {self.split}")
        if self.probe and self.seed:
            raise UserError("--probe works on the shipped data set only, which has --seed 0")
        if not 0 <= self.seed < 2**32:
            raise UserError("--seed must be from 0 to 2**32 - 1")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = command_line.parse(Options, "scenes", arguments)
    options.check()
    if options.out:
        images, captions = make_data_set(options.out, options.seed)
        print(f"{images:,} images with {captions:,} captions in {options.out}")
    if options.pictures:
        paint_images(options.pictures, options.split, options.count, options.seed)
        print(f"images in {options.pictures}")
    if options.probe:
        dev = shipped_split("dev")
        print(*probe_report(probe(shipped_features(dev), [*dev.values()])), sep="\n")


if __name__ == "__main__":
    command_line.run(main)
