"""Download photos and captions: `minicap download flickr8k` or `coco`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from minicap.data.public import (
    check_disk_space,
    data_set,
    description,
    download,
    next_commands,
)
from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Download a public data set of photos and captions.

    Run the same command again to resume an interrupted download. Photos stay in their zip files:
    `minicap encode` and `minicap train` read them directly.
    """

    name: tyro.conf.Positional[Literal["flickr8k", "coco"]]
    """the data set"""
    out: Path | None = None
    """folder to write to [default: the data set's name]"""
    year: Literal[2014, 2017] = 2017
    """edition of COCO; the original course notebook used 2014"""
    parts: tuple[Literal["captions", "photos", "train", "val"], ...] = ()
    """parts to download; flickr8k: captions photos, coco: captions train val [default: all]"""
    dry_run: bool = False
    """only print what would be downloaded"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = command_line.parse(Options, "download", arguments)
    data, folder = data_set(options.name, options.year), options.out or Path(options.name)
    for part in options.parts:
        if part not in data.parts:
            raise UserError(f"--parts {part}: {options.name} only has {', '.join(data.parts)}")
    parts: Sequence[str] = options.parts or [*data.parts]
    archives = [data.parts[part] for part in parts]
    print(*description(data, parts, folder), sep="\n", flush=True)
    check_disk_space(archives, folder)
    if options.dry_run:
        return
    for archive in archives:
        download(archive, folder)
    if commands := next_commands(data, parts, folder):
        print("next      " + "\n          ".join(commands))


if __name__ == "__main__":
    command_line.run(main)
