"""One training run in one folder: epochs, the best model, metrics, stopping and going on.

model.safetensors   the best model so far, by dev loss or by what dev captions are worth
run.safetensors     everything that is needed to go on
metrics.jsonl       one line of JSON for each epoch
"""

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from minicap import checkpoint
from minicap.data.dataset import Dataset
from minicap.data.vocabulary import Vocabulary
from minicap.ensemble import generate, generate_text
from minicap.errors import UserError, plain
from minicap.files import write_text
from minicap.model import Model
from minicap.self_critical import CiderD, as_ids
from minicap.trainer import Diverged, Trainer

MODEL, RUN, METRICS, LOCK = "model.safetensors", "run.safetensors", "metrics.jsonl", ".lock"


class Interrupted(Exception):
    """The user asked to stop; everything is saved."""


@dataclass
class Progress:
    """How far a run is, beyond what the trainer knows. JSON."""

    loss_sum: float = 0.0  # of the current epoch so far, over `words` words
    words: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # one entry for each epoch, see METRICS

    @property
    def best_epoch(self) -> int:
        """The epoch of the greatest dev CIDEr-D or, where that is not looked for, of the least dev
        loss, counted from 1; 0 before the first."""
        losses = [-line.get("dev_cider", -line["dev_loss"]) for line in self.history]
        return losses.index(min(losses)) + 1 if losses else 0


@dataclass
class Run:
    """A trainer with its data and its folder. options: what to remember for `--resume`, JSON."""

    folder: Path
    trainer: Trainer
    dataset: Dataset
    options: dict
    progress: Progress = field(default_factory=Progress)

    def model(self) -> Model:
        """The trainer's parameters as a model."""
        return Model(
            self.trainer.sizes,
            self.trainer.parameters,
            self.dataset.vocabulary,
            self.dataset.scaling,
            self.trainer.recipe.max_len,
            self.dataset.encoder,
        )

    def save(self) -> None:
        """Write all that is needed to go on."""
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
        """Go on from a saved run. UserError if the data is no longer what it was."""
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

    def fit(self, tell=tqdm.write) -> None:
        """Train until the recipe's epochs are done or there was no better one for too long.

        tell: prints a line. Raises Interrupted when Ctrl-C was pressed and the run is saved, and
        Diverged, naming the step and the model that is kept, when the loss is no number.
        """
        trainer, recipe = self.trainer, self.trainer.recipe
        train = self.dataset.splits["train"]
        steps = [trainer.steps_in(train, epoch) for epoch in range(recipe.epochs)]
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
                    self.epoch(bar, interrupted, tell)
        finally:
            trainer.workers.stop()

    def stalled(self) -> bool:
        """Was there no better epoch for `patience` epochs?"""
        patience, done = self.trainer.recipe.patience, len(self.progress.history)
        return bool(patience) and done - self.progress.best_epoch >= patience

    def finished(self) -> bool:
        """Are all epochs done, or is there no more to hope for?"""
        return self.trainer.epoch >= self.trainer.recipe.epochs or self.stalled()

    def epoch(self, bar: tqdm, interrupted: list, tell) -> None:
        """The rest of the current epoch, then dev loss, captions, and everything saved."""
        trainer, progress = self.trainer, self.progress
        began = time.perf_counter()
        bar.set_description(f"epoch {trainer.epoch + 1}")
        told, sign, unit = "loss", 1, "words"
        if trainer.self_critical:
            told, sign, unit = "reward", -1, "photos"
        try:
            for batch in trainer.batches(self.dataset.splits["train"]):
                counts = batch.counts
                words = counts.get("rows", counts["captions"])  # of photos, the photos
                progress.loss_sum += trainer.train_step(batch) * words
                progress.words += words
                bar.update()
                seconds = progress.seconds + time.perf_counter() - began
                bar.set_postfix_str(
                    f"{told} {sign * progress.loss_sum / progress.words:.3f}, "
                    f"{progress.words / seconds:,.0f} {unit}/s",
                    refresh=False,
                )
                if interrupted:
                    progress.seconds = seconds
                    self.save()
                    raise Interrupted
            dev_loss, accuracy = trainer.evaluate(self.dataset.splits["dev"])
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
        seconds = progress.seconds + time.perf_counter() - began
        line = {
            "epoch": trainer.epoch + 1,
            f"train_{told}": sign * progress.loss_sum / progress.words,
            "dev_loss": dev_loss,
            "dev_accuracy": accuracy,
            f"{unit}_per_second": round(progress.words / seconds),
            "seconds": round(seconds, 2),
        }
        if trainer.recipe.choose == "cider":
            line["dev_cider"] = self.dev_cider()
        progress.history.append(line)
        better = progress.best_epoch == line["epoch"]
        tell(
            f"epoch {line['epoch']:3}  train {told} {line[f'train_{told}']:.4f}"
            f"  dev loss {dev_loss:.4f}  next word right {accuracy:.1%}"
            + (f"  dev CIDEr-D {line['dev_cider']:.4f}" if "dev_cider" in line else "")
            + f"  {line[f'{unit}_per_second']:,} {unit}/s{'  (best so far)' if better else ''}"
        )
        trainer.epoch, trainer.step = trainer.epoch + 1, 0
        progress.loss_sum, progress.words, progress.seconds = 0.0, 0, 0.0
        if better:
            self.model().save(self.folder / MODEL, epoch=line["epoch"], options=self.options)
        self.save()
        self.show_captions(tell)

    def dev_cider(self) -> float:
        """CIDEr-D of the captions of the dev photos, written greedily, from 0 to 10."""
        dev = self.dataset.splits["dev"]
        written = generate([self.model().for_scaled_features()], dev.features)
        return sum(self.judge(n, some[0].ids) for n, some in enumerate(written)) / len(written)

    @cached_property
    def judge(self) -> CiderD:
        """Of captions of the dev photos."""
        return CiderD(as_ids(self.dataset.splits["dev"], self.dataset.vocabulary, end=False))

    def show_captions(self, tell, count: int = 3) -> None:
        """A few dev pictures' captions beside the truth."""
        dev = self.dataset.splits["dev"]
        rows = range(0, len(dev.names), max(1, len(dev.names) // count))[:count]
        model = self.model().for_scaled_features()
        captions = generate_text([model], dev.features[list(rows)])
        for row, caption in zip(rows, captions, strict=True):
            tell(f"    {plain(dev.names[row])}: {caption}  |  truth: {plain(dev.captions[row][0])}")


@contextmanager
def interruptible() -> Iterator[list]:
    """A list that is no longer empty once Ctrl-C was pressed (or SIGTERM came): the step under
    way is finished first. A second Ctrl-C stops at once. Outside the main thread: never.

    A signal that is ignored stays ignored: a shell starts `train &` so, and Ctrl-C is not meant
    for it."""
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
    """UserError if a new run cannot be here: this is a file, or holds a run already."""
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"--out {wanted}: this is a file; name a folder")
    if (wanted / RUN).exists() or (wanted / MODEL).exists():
        raise UserError(f"{wanted} holds a run already: choose another --out, or --resume {wanted}")


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
