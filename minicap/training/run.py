"""One training run in one folder: epochs, the best model, metrics, early stopping, resuming.

model.safetensors   the best model so far, by dev loss or by the CIDEr-D of dev captions
run.safetensors     everything needed to resume
metrics.jsonl       one line of JSON per epoch
"""

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from minicap.backend import device_module
from minicap.data.dataset import Dataset, load_dataset
from minicap.data.vocabulary import Vocabulary
from minicap.generation.generate import generate, generate_text
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training.options import RunOptions
from minicap.training.self_critical import CiderD, as_ids
from minicap.training.trainer import Diverged, Trainer
from minicap.utils.errors import UserError, plain
from minicap.utils.files import exclusive, write_text

MODEL, RUN, METRICS, LOCK = "model.safetensors", "run.safetensors", "metrics.jsonl", ".lock"


class Interrupted(Exception):
    """The user asked to stop; everything is saved."""


@dataclass
class Progress:
    """How far a run is, apart from the trainer's state. JSON."""

    loss_sum: float = 0.0  # of the current epoch so far, over `words` words
    words: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # one entry per epoch, see METRICS

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest dev CIDEr-D or, if that is not measured, the lowest dev loss,
        counted from 1; 0 before the first."""
        losses = [-line.get("dev_cider", -line["dev_loss"]) for line in self.history]
        return losses.index(min(losses)) + 1 if losses else 0


@dataclass
class Run:
    """A trainer with its data and its folder.

    Attributes:
        folder: where everything is written.
        trainer: the decoder in training.
        options: what to store for `--resume`, as JSON.
        progress: epochs so far.
    """

    folder: Path
    trainer: Trainer
    options: dict
    progress: Progress = field(default_factory=Progress)

    @property
    def dataset(self) -> Dataset:
        """The data."""
        return self.trainer.dataset

    def model(self) -> Model:
        """The current parameters as a model."""
        return Model(
            self.trainer.decoder,
            self.dataset.vocabulary,
            self.dataset.scaling,
            self.trainer.config.max_length,
            self.dataset.encoder,
        )

    def save(self) -> None:
        """Write everything needed to resume."""
        arrays, place = self.trainer.state()
        about = {
            "place": place,
            "progress": vars(self.progress),
            "options": self.options,
            "vocabulary": self.dataset.vocabulary.words,
            "fingerprint": self.dataset.fingerprint(),
        }
        checkpoint.save(self.folder / RUN, "run", arrays, about)
        write_text(
            self.folder / METRICS,
            "".join(json.dumps(line) + "\n" for line in self.progress.history),
        )

    def restore(self, arrays: dict, about: dict) -> None:
        """Resume from a checkpoint. Raises UserError if the data has changed."""
        differs = Vocabulary(about["vocabulary"]).difference(self.dataset.vocabulary)
        if differs:
            raise UserError(f"{self.folder}: the run's vocabulary is not the data's: {differs}")
        if about["fingerprint"] != self.dataset.fingerprint():
            raise UserError(
                f"{self.folder}: captions, splits or features have changed since this run was "
                "saved: bring them back, or start a new run"
            )
        self.progress = Progress(**about["progress"])
        if self.progress.history and not (self.folder / MODEL).exists():
            kept = self.folder / MODEL
            raise UserError(f"{kept}, the best model so far, is gone: start a new run")
        self.trainer.restore(arrays, about["place"])

    def fit(self, log: Callable[[str], None] = tqdm.write) -> None:
        """Train until the last epoch, or until `patience` runs out.

        Args:
            log: prints a line.

        Raises:
            Interrupted: Ctrl-C was pressed; the run is saved.
            Diverged: the loss is not finite. The message names the step and the model kept.
        """
        trainer = self.trainer
        steps = [trainer.schedule.steps(epoch) for epoch in range(trainer.config.epochs)]
        bar = tqdm(
            total=sum(steps),
            initial=sum(steps[: trainer.epoch]) + trainer.step,
            disable=not sys.stderr.isatty(),
            unit="batch",
            dynamic_ncols=True,
        )
        try:
            with bar, interruptible() as interrupted:
                while not self.finished():
                    self.epoch(bar, interrupted, log)
        finally:
            trainer.workers.stop()

    def stalled(self) -> bool:
        """Whether there was no better epoch for `patience` epochs."""
        patience, done = self.trainer.config.patience, len(self.progress.history)
        return bool(patience) and done - self.progress.best_epoch >= patience

    def finished(self) -> bool:
        """Whether all epochs are done, or training has stopped early."""
        return self.trainer.epoch >= self.trainer.config.epochs or self.stalled()

    def epoch(self, bar: tqdm, interrupted: list, log: Callable[[str], None]) -> None:
        """Run the rest of the current epoch, evaluate, and save."""
        trainer, progress = self.trainer, self.progress
        start = time.perf_counter()
        bar.set_description(f"epoch {trainer.epoch + 1}")
        metric, sign, unit = "loss", 1, "words"
        if trainer.schedule.is_self_critical(trainer.epoch):
            metric, sign, unit = "reward", -1, "photos"
        try:
            for batch in trainer.batches():
                counts = batch.counts
                words = counts.get("rows", counts["captions"])  # self-critical: images
                progress.loss_sum += trainer.train_step(batch) * words
                progress.words += words
                bar.update()
                seconds = progress.seconds + time.perf_counter() - start
                bar.set_postfix_str(
                    f"{metric} {sign * progress.loss_sum / progress.words:.3f}, "
                    f"{progress.words / seconds:,.0f} {unit}/s",
                    refresh=False,
                )
                if interrupted:
                    progress.seconds = seconds
                    self.save()
                    raise Interrupted
            dev_loss, accuracy = trainer.evaluate()
            if not math.isfinite(dev_loss):
                raise Diverged(f"dev loss became {dev_loss} after step {trainer.adam.t}")
        except Diverged as error:
            kept = (
                f"{self.folder / MODEL} (epoch {progress.best_epoch}) is kept"
                if progress.history
                else "no model was saved"
            )
            advice = "start a new run with a smaller --learning-rate, or with --clip-norm 5"
            raise Diverged(f"{error}: training stopped, {kept}; {advice}") from None
        seconds = progress.seconds + time.perf_counter() - start
        line = {
            "epoch": trainer.epoch + 1,
            f"train_{metric}": sign * progress.loss_sum / progress.words,
            "dev_loss": dev_loss,
            "dev_accuracy": accuracy,
            f"{unit}_per_second": round(progress.words / seconds),
            "seconds": round(seconds, 2),
        }
        if trainer.config.monitor == "cider":
            line["dev_cider"] = self.dev_cider()
        progress.history.append(line)
        best = progress.best_epoch == line["epoch"]
        log(
            f"epoch {line['epoch']:3}  train {metric} {line[f'train_{metric}']:.4f}"
            f"  dev loss {dev_loss:.4f}  next-word accuracy {accuracy:.1%}"
            + (f"  dev CIDEr-D {line['dev_cider']:.4f}" if "dev_cider" in line else "")
            + f"  {line[f'{unit}_per_second']:,} {unit}/s{'  (best so far)' if best else ''}"
        )
        trainer.end_epoch()
        progress.loss_sum, progress.words, progress.seconds = 0.0, 0, 0.0
        if best:
            self.model().save(self.folder / MODEL, epoch=line["epoch"], options=self.options)
        self.save()
        self.show_captions(log)

    def dev_cider(self) -> float:
        """CIDEr-D of greedily decoded captions of the dev images, from 0 to 10."""
        dev = self.dataset.splits["dev"]
        found = generate([self.model().for_scaled_features()], dev.features)
        return sum(self.cider(n, some[0].ids) for n, some in enumerate(found)) / len(found)

    @cached_property
    def cider(self) -> CiderD:
        """CIDEr-D with the dev images' references."""
        return CiderD(as_ids(self.dataset.splits["dev"], self.dataset.vocabulary, end=False))

    def show_captions(self, log: Callable[[str], None], count: int = 3) -> None:
        """Print a few dev images' captions next to a reference."""
        dev = self.dataset.splits["dev"]
        rows = range(0, len(dev.names), max(1, len(dev.names) // count))[:count]
        model = self.model().for_scaled_features()
        captions = generate_text([model], dev.features[list(rows)])
        for row, caption in zip(rows, captions, strict=True):
            reference = plain(dev.captions[row][0])
            log(f"    {plain(dev.names[row])}: {caption}  |  reference: {reference}")

    def description(self, options: RunOptions) -> list[str]:
        """Lines about the data, the decoder and the recipe."""
        dataset, trainer = self.dataset, self.trainer
        counts = ", ".join(
            f"{split} {len(part.names):,} images with {len(part.lengths):,} captions"
            for split, part in dataset.splits.items()
        )
        lines = [
            f"data      {counts}",
            f"          {len(dataset.vocabulary):,} words, {dataset.feature_size:,} features an image",
            *(f"note      {note}" for note in dataset.notes),
            f"decoder   {trainer.parameters.flat.size:,} parameters, {options.device}, "
            f"{trainer.workers.count} workers, seed {options.seed}",
            f"recipe    {options.recipe}: {options.changes()}",
            f"folder    {self.folder}",
        ]
        if self.finished():
            lines.append(f"note      all {trainer.epoch} epochs are done: nothing is left to train")
        return lines

    def warnings(self) -> list[str]:
        """A line if the model is worse than an untrained one."""
        best = min(line["dev_loss"] for line in self.progress.history)
        untrained = math.log(len(self.dataset.vocabulary))
        if best <= untrained:
            return []
        return [
            f"warning   the best dev loss, {best:,.2f}, is worse than an untrained model's, "
            f"{untrained:.2f}: lower --learning-rate"
        ]


@contextmanager
def open_run(options: RunOptions) -> Iterator[Run]:
    """Read the data, and start or resume a run, which has its folder to itself.

    Raises:
        UserError: data that is missing or broken; a folder that holds another run, or that another
            process trains in; a checkpoint that does not fit.
    """
    if options.out and not options.resume:
        check_folder(options.out)  # before the data is read, which may take long
    xp, config = device_module(options.device), options.training
    dataset = load_dataset(
        options.data.complete(),
        config.min_count,
        config.max_length,
        config.standardise,
        config.components,
    )
    if config.monitor == "cider" and len(dataset.splits["dev"].names) < 2:
        raise UserError(
            "--monitor cider needs two dev images or more: with one, CIDEr is always 0. Add images "
            "to dev, or use --monitor loss"
        )
    trainer = Trainer(options.as_recipe(), dataset, options.seed, options.workers, xp)
    folder = options.resume or new_folder(options.out, options.recipe)
    try:
        with exclusive(folder / LOCK, f"{folder}: another process is training in this folder"):
            run = Run(folder, trainer, options.to_json())
            if options.resume:
                run.restore(*checkpoint.load(folder / RUN, "run"))
            yield run
    except UserError:
        with contextlib.suppress(OSError):  # not empty: there is something to resume
            folder.rmdir()
        raise


@contextmanager
def interruptible() -> Iterator[list]:
    """Yield a list that fills when Ctrl-C is pressed (or SIGTERM arrives), so that the current step
    can finish. A second Ctrl-C stops at once. Outside the main thread the list stays empty.

    A signal that is ignored stays ignored: a shell starts `train &` that way, and Ctrl-C is not
    meant for it."""
    asked: list[int] = []

    def ask(number, _frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {
            number: signal.signal(number, ask)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
    except ValueError:  # signals belong to the main thread
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_folder(wanted: Path) -> None:
    """Raise UserError if a new run cannot be here: it is a file, or holds a run."""
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"--out {wanted}: this is a file; name a folder")
    if (wanted / RUN).exists() or (wanted / MODEL).exists():
        raise UserError(f"{wanted} holds a run: choose another --out, or --resume {wanted}")


def new_folder(wanted: Path | None, default: str) -> Path:
    """Make the folder for a new run: `wanted` (see `check_folder`) or else runs/`default`, with -2,
    -3, ... behind it if that is taken."""
    if wanted:
        check_folder(wanted)
    number = 1
    while True:
        folder = wanted or Path("runs") / (f"{default}-{number}" if number > 1 else default)
        try:
            folder.mkdir(parents=True, exist_ok=bool(wanted))
            return folder
        except OSError as error:
            if wanted or not isinstance(error, FileExistsError):
                raise UserError(f"cannot make the folder {folder} ({error.strerror})") from error
            number += 1
