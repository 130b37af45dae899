"""From a public data set to the files to train on: download, export the encoder, encode.

Each step is skipped if it is done, and resumes if it was interrupted.
"""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy

from minicap.data.dataset import DataFiles
from minicap.data.fill_store import fill_store, open_store
from minicap.data.public import (
    PublicDataset,
    check_disk_space,
    data_files,
    data_set,
    description,
    download,
    is_complete,
    photo_archives,
)
from minicap.data.store import LOCK
from minicap.encoder.export import ExportOptions, export
from minicap.encoder.photos import find_all
from minicap.encoder.session import EXPORTED, Encoder
from minicap.model import checkpoint
from minicap.training.options import RunOptions
from minicap.training.run import RUN
from minicap.utils.command_line import cpu_count
from minicap.utils.errors import UserError
from minicap.utils.files import exclusive
from minicap.utils.ranks import world


@dataclass(frozen=True)
class PublicData:
    """A public data set to train on, from its download to the trained model."""

    data: Literal["flickr8k", "coco"] | None = None
    """download a public data set, export InceptionV3, encode the photos and train; a step that is
    done is skipped, and one that was interrupted resumes"""
    year: Literal[2014, 2017] = 2017
    """COCO's edition, for --data coco"""
    data_folder: Path | None = None
    """folder for the data set [default: its name]"""
    encoder: Path | None = None
    """ONNX file of another encoder for --data [default: inception_v3.onnx, exported if missing]"""
    yes: bool = False
    """download without asking, for --data"""

    @property
    def folder(self) -> Path:
        """The folder for the data set."""
        return self.data_folder or Path(str(self.data))

    def options(self, given: RunOptions) -> RunOptions:
        """Prepare the data set, and return the options to train on it, or to resume.

        Args:
            given: the other options of the command.

        Raises:
            UserError: as for `prepare`; or the options name data of their own.
        """
        if given.data != DataFiles():
            raise UserError("--data brings its own captions, features and splits: leave yours out")
        out = given.out or Path("runs") / str(self.data)
        files = self.prepare(given.device)
        photos = given.photos or tuple(photo_archives(self.data_set, self.folder))
        run = replace(given, data=files, photos=photos, out=out)
        path = out / RUN
        if not path.exists():
            return run
        saved = RunOptions.from_json(checkpoint.load(path, "run")[1]["options"], path)
        return replace(saved, resume=out).resumed_as(replace(run, resume=out, out=saved.out))

    @property
    def data_set(self) -> PublicDataset:
        """The data set."""
        assert self.data
        return data_set(self.data, self.year)

    def prepare(self, device: str) -> DataFiles:
        """Download, export and encode what is missing.

        Args:
            device: "cpu" or "cuda", for the encoder.

        Returns:
            The files to train on.

        Raises:
            UserError: the user did not agree to the download, or a step failed.
        """
        data, path = self.data_set, self.encoder or EXPORTED
        world().first(lambda: self.download_and_export(data, path))
        files = data_files(data, self.folder)
        self.encode(data, Encoder(path, device, 1), device)
        print(f"train     {data.training}; the progress bar shows the time left", flush=True)
        return files

    def download_and_export(self, data: PublicDataset, path: Path) -> None:
        """Download the data set and export the encoder, if they are missing."""
        self.download(data)
        if not path.exists() and not self.encoder:
            print(f"export    InceptionV3 to {path}, about a minute", flush=True)
            export(ExportOptions())

    def download(self, data: PublicDataset) -> None:
        """Show source, licence and size, ask, and download what is missing."""
        print(*description(data, data.parts, self.folder), sep="\n", flush=True)
        missing = [part for part in data.parts.values() if not is_complete(part, self.folder)]
        if not missing:
            return
        check_disk_space(missing, self.folder)
        if not self.yes:
            if not sys.stdin.isatty():
                raise UserError("add --yes to download these files and to accept their licence")
            answer = input("download these files, under this licence? [y/N] ")
            if answer.strip().lower() not in ("y", "yes"):
                raise UserError("nothing was downloaded")
        for part in missing:
            download(part, self.folder)

    def encode(self, data: PublicDataset, encoder: Encoder, device: str) -> None:
        """Encode the photos that are not encoded yet."""
        photos, folder = find_all(photo_archives(data, self.folder)), self.folder / "features"
        with exclusive(folder / LOCK, f"{folder}: another process is encoding into this store"):
            store = open_store(folder, photos, encoder)
            left = len(store.names) - store.encoded
            workers = cpu_count() if device == "cpu" else 1
            about = f"encode    {left:,} of {len(store.names):,} photos"
            print(f"{about}{duration(encoder, left, workers) if left else ', nothing to do'}")
            sys.stdout.flush()
            fill_store(store, photos, encoder, workers + 1, workers)


def duration(encoder: Encoder, photos: int, workers: int) -> str:
    """Estimate how long it takes to encode photos, from one batch of black images."""
    black = numpy.zeros((encoder.batch, encoder.size, encoder.size, 3), numpy.uint8)
    encoder.encode(black)  # the first is slower
    start = time.perf_counter()
    encoder.encode(black)
    seconds = (time.perf_counter() - start) * photos / encoder.batch / workers
    return f", about {seconds / 60:,.0f} minutes" if seconds > 90 else ", about a minute"
