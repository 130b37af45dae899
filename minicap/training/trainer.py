"""One step, one epoch's batches, the dev loss, and the state a checkpoint holds."""

import math
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy

from minicap.backend import blas, one_blas_thread, to_device, to_host
from minicap.data.batches import Batch, ImageBatch
from minicap.data.dataset import Dataset, Split
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.nn.adam import Adam, clip_scale
from minicap.nn.parameters import Parameters
from minicap.training.random_streams import Purpose, stream
from minicap.training.recipes import Recipe
from minicap.training.replica import Replica, batch_on, ignore_overflow
from minicap.training.schedule import Schedule
from minicap.training.self_critical import Critic
from minicap.training.workers import Workers, shared_zeros
from minicap.utils.errors import UserError

DEV_BATCH = 256  # captions whose dev loss is computed together


class Diverged(UserError):
    """The loss became NaN or infinite."""


class Trainer:
    """A decoder in training: its parameters, its optimiser, and its place in the data.

    Attributes:
        epoch, step: epochs done, and steps done in the current one.
        decoder: with the parameters as they are now.
        schedule: steps and learning rates.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        seed: int,
        workers: int = 1,
        xp: ModuleType = numpy,
    ):
        """Initialise a decoder for the dataset.

        Args:
            recipe: what to train, and how.
            dataset: with the splits "train" and "dev".
            seed: names every random stream.
            workers: processes that share each batch; each has its part of the captions, its own
                gradients and one BLAS thread. Their number changes the order of sums and so the
                last bits of the result; for a given number, on a CPU, the result is always the
                same. A GPU has one.
            xp: numpy or cupy.
        """
        self.config, self.dataset, self.seed, self.xp = recipe.training, dataset, seed, xp
        train, config = dataset.splits["train"], recipe.training
        self.schedule = Schedule(config, len(train.lengths), len(train.names))
        self.epoch = self.step = 0
        workers = workers if xp is numpy else 1
        zeros = shared_zeros if workers > 1 else xp.zeros

        shapes = recipe.decoder.shapes(dataset.feature_size, len(dataset.vocabulary))
        initial = initial_parameters(
            recipe.decoder,
            shapes,
            stream(seed, Purpose.INITIAL),
            config.embedding_range,
            config.image_gain,
            train.word_counts(len(dataset.vocabulary)) if config.frequency_bias else None,
        )
        self.parameters = Parameters(shapes, "float32", xp, zeros)
        self.parameters.flat[...] = to_device(initial.flat, xp)
        self.decoder = Decoder(recipe.decoder, self.parameters)
        self.adam = Adam(
            self.parameters.flat, beta1=config.beta1, beta2=config.beta2, epsilon=config.epsilon,
            zeros=zeros,
        )  # fmt: skip
        critic = Critic(dataset, config) if config.self_critical_epochs else None
        gradients = [self.parameters.like(zeros) for _ in range(workers)]
        self.workers = Workers(
            [
                Replica(k, config, seed, self.decoder, self.adam, gradients, critic, xp)
                for k in range(workers)
            ]
        )

    def batches(self) -> Iterator[Batch | ImageBatch]:
        """The rest of the current epoch's batches."""
        split, config = self.dataset.splits["train"], self.config
        steps = self.schedule.steps(self.epoch)
        order = stream(self.seed, Purpose.ORDER, self.epoch)
        if self.schedule.is_self_critical(self.epoch):
            images = order.permutation(len(split.names))
            for rows in numpy.array_split(images, steps)[self.step :]:
                yield ImageBatch(split.features[rows], rows)
            return
        captions = order.permutation(len(split.lengths))
        for step in range(self.step, steps):
            if config.sample_by == "images":
                rng = stream(self.seed, Purpose.SAMPLE, self.epoch, step)
                rows = one_caption_per_image(split, config.batch_size, rng)
            else:
                rows = captions[step * config.batch_size :][: config.batch_size]
            yield split.batch(rows)

    def train_step(self, batch: Batch | ImageBatch) -> float:
        """Update the parameters once: forward, backward, clipping, Adam.

        Returns:
            The mean loss over the batch's words; in a self-critical epoch the mean reward, negated.

        Raises:
            Diverged: the loss is NaN or infinite. The parameters are as they were.
        """
        task: Callable = Replica.supervised
        if isinstance(batch, ImageBatch):
            task = Replica.self_critical
            if (self.epoch, self.step) == (self.schedule.supervised_epochs, 0):
                self.begin_self_critical()
        place, everyone = (self.epoch, self.step), range(self.workers.count)
        parts = list(batch.split(self.workers.count))
        squares: list = []
        with one_blas_thread:
            losses = self.workers.run(
                task, [(part, index, batch.counts, place) for part, index in parts]
            )
            if self.config.clip_norm or len(parts) > 1:
                sums = self.workers.run(Replica.sum_gradients, [(len(parts),) for _ in everyone])
                squares = sum(sums, [])
            loss = sum(map(float, losses))  # on a GPU, this waits for all of the above
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} at step {self.adam.t + 1}")
            limit = self.config.clip_norm
            scale = clip_scale(squares, limit) if limit else 1.0
            self.adam.t += 1
            rate = self.schedule.learning_rate(*place)
            self.workers.run(Replica.update, [(self.adam.t, rate, scale) for _ in everyone])
        self.step += 1
        return loss

    def begin_self_critical(self) -> None:
        """Sharpen the model before the first self-critical step, and reset Adam.

        Captions sampled from a model that was trained with dropout are poor, and there is little to
        learn from them. Dividing all logits by a temperature below 1 makes the likelier words much
        likelier. Adam's state is that of another loss.
        """
        self.parameters["token_logits"][...] /= self.config.self_critical_temperature
        self.adam.m[...] = 0
        self.adam.v[...] = 0
        self.adam.t = 0

    def end_epoch(self) -> None:
        """Move on to the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0

    def evaluate(self) -> tuple[float, float]:
        """Compute dev loss and next-word accuracy, without dropout, as `validation` says."""
        split, config = self.dataset.splits["dev"], self.config
        if config.validation == "batches":
            size = min(config.batch_size, len(split.names))
            rng = stream(self.seed, Purpose.VALIDATION, self.epoch)
            sets = [one_caption_per_image(split, size, rng) for _ in range(100)]
            found = [self.loss_and_correct(split.batch(rows)) for rows in sets]
            return (
                sum(loss / words for loss, _, words in found) / len(found),
                sum(correct / words for _, correct, words in found) / len(found),
            )
        by_length = numpy.argsort(split.lengths, kind="stable")
        sets = numpy.array_split(by_length, math.ceil(len(by_length) / DEV_BATCH))
        found = [self.loss_and_correct(split.batch(rows)) for rows in sets]
        losses, correct, words = map(sum, zip(*found, strict=True))
        return losses / words, correct / words

    @ignore_overflow
    def loss_and_correct(self, batch: Batch) -> tuple[float, int, int]:
        """A batch's summed loss, and how many of how many words are predicted correctly."""
        batch = batch_on(batch, self.xp)
        correct = self.xp.empty(batch.targets.shape, dtype=bool)
        with blas().limit(limits=self.workers.count):
            loss, _ = self.decoder.loss(batch, 1, correct=correct)
        return float(loss), int(correct.sum()), len(correct)

    def state(self) -> tuple[dict[str, numpy.ndarray], dict]:
        """Everything the rest of the run depends on: arrays, and numbers for JSON."""
        arrays = {"parameters": self.parameters.flat, "m": self.adam.m, "v": self.adam.v}
        place = {"epoch": self.epoch, "step": self.step, "t": self.adam.t}
        return {name: to_host(array) for name, array in arrays.items()}, place

    def restore(self, arrays: dict[str, numpy.ndarray], place: dict) -> None:
        """Resume from what `state` returned."""
        for array, name in (
            (self.parameters.flat, "parameters"),
            (self.adam.m, "m"),
            (self.adam.v, "v"),
        ):
            array[...] = to_device(arrays[name], self.xp)
        self.epoch, self.step, self.adam.t = place["epoch"], place["step"], place["t"]


def one_caption_per_image(split: Split, size: int, rng: numpy.random.Generator) -> numpy.ndarray:
    """Choose `size` different images and one random caption of each.

    Returns:
        (size,) rows of the split's captions.
    """
    starts, counts = split.image_captions()
    images = rng.choice(len(counts), min(size, len(counts)), replace=False)
    return starts[images] + rng.integers(counts[images])
