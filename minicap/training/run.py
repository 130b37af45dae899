"""A training run in its folder: epochs, the best model, metrics, early stopping, resuming.

model.safetensors   the best model so far, by dev loss or dev CIDEr-D
run.safetensors     the checkpoint to resume from
metrics.jsonl       one line of JSON per epoch
"""

import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy
from tqdm import tqdm

from minicap.data.dataset import Dataset
from minicap.data.vocabulary import Vocabulary
from minicap.generation.generate import generate, generate_text
from minicap.model import checkpoint
from minicap.model.trained_model import Model
from minicap.training.options import RunOptions
from minicap.training.rewards import CiderD, as_ids
from minicap.training.trainer import Diverged, Trainer
from minicap.utils.errors import UserError, plain
from minicap.utils.files import write_text
from minicap.utils.interrupts import interruptible

MODEL, RUN, METRICS, LOCK = "model.safetensors", "run.safetensors", "metrics.jsonl", ".lock"


class Interrupted(Exception):
    """The user asked to stop, and the run is saved."""


@dataclass
class Progress:
    """The progress of a run, without the trainer's state. The checkpoint stores it as JSON.

    Attributes:
        loss_sum: sum of the losses of the current epoch so far.
        words: number of words they belong to; in a self-critical epoch, of images.
        seconds: time spent on the current epoch so far.
        history: one entry per epoch, as in metrics.jsonl.
    """

    loss_sum: float = 0.0
    words: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The number of the best epoch, from 1; 0 before the first.

        The best epoch has the highest dev CIDEr-D or, where that is not measured, the lowest dev
        loss.
        """
        losses = [-line.get("dev_cider", -line["dev_loss"]) for line in self.history]
        return losses.index(min(losses)) + 1 if losses else 0


@dataclass
class Run:
    """A trainer, and the folder for its model, checkpoint and metrics.

    Attributes:
        folder: the run's folder, which exists.
        trainer: the decoder in training.
        options: RunOptions as JSON, which the checkpoint stores for `--resume`.
        progress: epochs and losses so far.
    """

    folder: Path
    trainer: Trainer
    options: dict
    progress: Progress = field(default_factory=Progress)

    @property
    def dataset(self) -> Dataset:
        """The data to train on."""
        return self.trainer.dataset

    def model(self) -> Model:
        """Return the current parameters as a model, for unscaled features."""
        return Model(
            self.trainer.decoder,
            self.dataset.vocabulary,
            self.dataset.scaling,
            self.trainer.config.max_length,
            self.dataset.encoder,
        )

    def save(self) -> None:
        """Write the checkpoint and the metrics (rank 0 does)."""
        if self.trainer.ranks.rank:
            return
        arrays, place = self.trainer.state()
        about = {
            "place": place,
            "progress": vars(self.progress),
            "options": self.options,
            "vocabulary": self.dataset.vocabulary.words,
            "fingerprint": self.dataset.fingerprint,
        }
        checkpoint.save(self.folder / RUN, "run", arrays, about)
        write_text(
            self.folder / METRICS,
            "".join(json.dumps(line) + "\n" for line in self.progress.history),
        )

    def restore(self, arrays: dict, about: dict) -> None:
        """Resume from a checkpoint.

        Args:
            arrays, about: what `checkpoint.load` returned.

        Raises:
            UserError: the data has changed, or the best model is missing.
        """
        differs = Vocabulary(about["vocabulary"], self.trainer.config.tokenizer).difference(
            self.dataset.vocabulary
        )
        if differs:
            raise UserError(f"{self.folder}: the run and the data differ in vocabulary: {differs}")
        if about["fingerprint"] != self.dataset.fingerprint:
            raise UserError(
                f"{self.folder}: captions, splits or features have changed since this run was "
                "saved. Restore them, or start a new run"
            )
        self.progress = Progress(**about["progress"])
        if self.progress.history and not (self.folder / MODEL).exists():
            path = self.folder / MODEL
            raise UserError(f"{path}: the best model so far is missing. Start a new run")
        self.trainer.restore(arrays, about["place"])

    def fit(self, log: Callable[[str], None] = tqdm.write) -> None:
        """Train until the last epoch, or until early stopping.

        Args:
            log: prints a line.

        Raises:
            Interrupted: Ctrl-C was pressed. The run is saved.
            Diverged: the loss is NaN or infinite. The message names the step and the model kept.
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
                    self.train_epoch(bar, interrupted, log)
        finally:
            trainer.workers.stop()

    def stalled(self) -> bool:
        """Return whether the last `patience` epochs brought no improvement."""
        patience, done = self.trainer.config.patience, len(self.progress.history)
        return bool(patience) and done - self.progress.best_epoch >= patience

    def finished(self) -> bool:
        """Return whether all epochs are done or training has stopped early."""
        return self.trainer.epoch >= self.trainer.config.epochs or self.stalled()

    def train_epoch(self, bar: tqdm, interrupted: list, log: Callable[[str], None]) -> None:
        """Train the rest of the current epoch, evaluate on dev, and save.

        Args:
            bar: counts the batches.
            interrupted: receives the signal that asks the run to stop.
            log: prints a line.

        Raises:
            Interrupted, Diverged: as for `fit`.
        """
        trainer, progress = self.trainer, self.progress
        start = time.perf_counter()
        bar.set_description(f"epoch {trainer.epoch + 1}")
        metric, sign, unit = "loss", 1, "words"
        if trainer.schedule.is_self_critical(trainer.epoch):
            metric, sign, unit = "reward", -1, "images"
        try:
            for batch in trainer.batches():
                counts = batch.counts
                words = counts.get("rows", counts["captions"])  # or images, if self-critical
                progress.loss_sum += trainer.train_step(batch) * words
                progress.words += words
                bar.update()
                seconds = progress.seconds + time.perf_counter() - start
                bar.set_postfix_str(
                    f"{metric} {sign * progress.loss_sum / progress.words:.3f}, "
                    f"{progress.words / seconds:,.0f} {unit}/s",
                    refresh=False,
                )
                if trainer.ranks.total(len(interrupted)):  # ranks may see Ctrl-C a step apart
                    progress.seconds = seconds
                    self.save()
                    trainer.ranks.wait()  # a rank that ends would end the others, too
                    raise Interrupted
            dev_loss, accuracy = trainer.evaluate()
            if not math.isfinite(dev_loss):
                raise Diverged(f"the dev loss became {dev_loss} in epoch {trainer.epoch + 1}")
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
        if not trainer.same_on_all_ranks():
            raise UserError(
                f"after epoch {line['epoch']}, the ranks' parameters differ: a machine computes "
                "wrongly, or the ranks read different files. The previous epoch is saved"
            )
        trainer.end_epoch()
        progress.loss_sum, progress.words, progress.seconds = 0.0, 0, 0.0
        if best and not trainer.ranks.rank:
            self.model().save(self.folder / MODEL, epoch=line["epoch"], options=self.options)
        self.save()
        self.show_captions(log)

    def dev_cider(self) -> float:
        """Return the mean CIDEr-D, from 0 to 10, of greedily decoded captions of the dev images."""
        dev, ranks = self.dataset.splits["dev"], self.trainer.ranks
        model = self.model().for_scaled_features()

        def ciders(rows: numpy.ndarray) -> list[float]:
            captions = generate([model], dev.features[rows])
            return [self.cider(n, best.ids) for n, (best, *_) in zip(rows, captions, strict=True)]

        shares = numpy.array_split(numpy.arange(len(dev.names)), ranks.size)
        return sum(itertools.chain(*ranks.share(shares, ciders))) / len(dev.names)

    @cached_property
    def cider(self) -> CiderD:
        """CIDEr-D with the dev images' references."""
        return CiderD(as_ids(self.dataset.splits["dev"], self.dataset.vocabulary, end=False))

    def show_captions(self, log: Callable[[str], None], count: int = 3) -> None:
        """Print the captions of a few dev images, each with a reference."""
        dev = self.dataset.splits["dev"]
        rows = range(0, len(dev.names), max(1, len(dev.names) // count))[:count]
        model = self.model().for_scaled_features()
        captions = generate_text([model], dev.features[list(rows)])
        for row, caption in zip(rows, captions, strict=True):
            reference = plain(dev.captions[row][0])
            log(f"    {plain(dev.names[row])}: {caption}  |  reference: {reference}")

    def description(self, options: RunOptions) -> list[str]:
        """Return lines that describe the data, the decoder and the recipe."""
        dataset, trainer = self.dataset, self.trainer
        counts = ", ".join(
            f"{name} {len(split.names):,} images with {len(split.lengths):,} captions"
            for name, split in dataset.splits.items()
        )
        lines = [
            f"data      {counts}",
            f"          {len(dataset.vocabulary):,} words, {dataset.feature_size:,} image features",
            *(f"note      {note}" for note in dataset.notes),
            f"decoder   {trainer.parameters.flat.size:,} parameters, {options.device}, "
            f"{trainer.workers.count} workers, seed {options.seed}",
            *(
                [f"ranks     {trainer.ranks.size}; gradients are added by {trainer.all_reduce.way}"]
                if trainer.ranks.size > 1
                else []
            ),
            f"recipe    {options.recipe}: {options.changes()}",
            f"folder    {self.folder}",
        ]
        if self.finished():
            lines.append(
                f"note      training ended after epoch {trainer.epoch}: nothing left to do"
            )
        return lines

    def warnings(self) -> list[str]:
        """Return a line if the model is worse than an untrained one, whose loss is log V."""
        best = min(line["dev_loss"] for line in self.progress.history)
        untrained = math.log(len(self.dataset.vocabulary))
        if best <= untrained:
            return []
        return [
            f"warning   the best dev loss, {best:,.2f}, is worse than an untrained model's, "
            f"{untrained:.2f}: use a smaller --learning-rate"
        ]
