"""Download photos and captions: `minicap download flickr8k` or `coco`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from minicap.data.public import check_room, data_set, description, get, next_commands
from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Download a data set of photos and captions from where it is published.

    An interrupted download resumes. Photos stay in their zip files: encode and train read them
    from there.
    """

    name: tyro.conf.Positional[Literal["flickr8k", "coco"]]
    """the data set"""
    out: Path | None = None
    """folder to write to [default: the data set's name]"""
    year: Literal[2014, 2017] = 2017
    """edition of COCO; the original course notebook used 2014's"""
    parts: tuple[Literal["captions", "photos", "train", "val"], ...] = ()
    """only these parts: captions, photos of flickr8k; captions, train, val of coco [default: all]"""
    dry_run: bool = False
    """print what would be downloaded, and stop"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = command_line.parse(Options, "download", arguments)
    data, folder = data_set(options.name, options.year), options.out or Path(options.name)
    for part in options.parts:
        if part not in data.parts:
            raise UserError(f"{options.name} has no part {part}: it has {', '.join(data.parts)}")
    parts: Sequence[str] = options.parts or [*data.parts]
    archives = [data.parts[part] for part in parts]
    print(*description(data, parts, folder), sep="\n", flush=True)
    check_room(archives, folder)
    if options.dry_run:
        return
    for archive in archives:
        get(archive, folder)
    if commands := next_commands(data, parts, folder):
        print("next      " + "\n          ".join(commands))


if __name__ == "__main__":
    command_line.run(main)
