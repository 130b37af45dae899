"""The trainer: one training step, the batches of an epoch, and evaluation on dev."""

import hashlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy

from minicap.backend import blas, one_blas_thread, to_device, to_host
from minicap.data.batches import Batch, ImageBatch
from minicap.data.dataset import Dataset, Split
from minicap.model.attending_decoder import make_decoder
from minicap.model.initial import initial_parameters
from minicap.model.trained_model import Model
from minicap.nn.adam import Adam, clip_scale
from minicap.nn.parameters import Parameters
from minicap.training.all_reduce import AllReduce
from minicap.training.fine_tuning import transfer
from minicap.training.random_streams import Purpose, stream
from minicap.training.recipes import Recipe
from minicap.training.replica import Replica, batch_on, ignore_overflow
from minicap.training.schedule import Schedule
from minicap.training.self_critical import Critic
from minicap.training.workers import Workers, shared_zeros
from minicap.utils.errors import UserError
from minicap.utils.ranks import world

DEV_BATCH = 256  # captions in a batch of the dev set


class Diverged(UserError):
    """The loss became NaN or infinite."""


class Trainer:
    """A decoder in training: its parameters, its optimiser and its place in the data.

    Attributes:
        epoch, step: epochs completed, and steps completed in the current epoch.
        decoder: the decoder with its current parameters.
        parameters: the decoder's parameters.
        adam: the optimiser.
        schedule: steps per epoch and learning rates.
        workers: what computes the steps, one Replica each.
        ranks: the processes of an MPI job. Each has its own workers.
        config: the recipe's training configuration.
        dataset, seed, xp: as given.

    Example:
        for batch in trainer.batches():
            loss = trainer.train_step(batch)
        dev_loss, accuracy = trainer.evaluate()
        trainer.end_epoch()
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        seed: int,
        workers: int = 1,
        xp: ModuleType = numpy,
        model: Model | None = None,
    ):
        """Initialise a decoder for the dataset.

        Args:
            recipe: the architecture and how to train it.
            dataset: the data, with the splits "train" and "dev".
            seed: the seed of every random number stream.
            workers: number of processes that divide each batch among them. Each has its own
                captions, gradient buffer and BLAS thread. The number changes the order of sums and
                so the last bits of the result; on a CPU, the same number always gives the same
                bits. With cupy it is always 1.
            xp: numpy or cupy.
            model: the trained model to start from, on the host, or None.
        """
        self.config, self.dataset, self.seed, self.xp = recipe.training, dataset, seed, xp
        train, config = dataset.splits["train"], recipe.training
        self.schedule = Schedule(config, len(train.lengths), len(train.names))
        self.epoch = self.step = 0
        self.ranks = world()
        self.all_reduce = AllReduce(self.ranks, xp)
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
        if model:
            transfer(initial, dataset.vocabulary, model)
        self.parameters = Parameters(shapes, "float32", xp, zeros)
        self.parameters.flat[...] = to_device(initial.flat, xp)
        self.decoder = make_decoder(recipe.decoder, self.parameters)
        self.adam = Adam(
            self.parameters.flat, beta1=config.beta1, beta2=config.beta2, epsilon=config.epsilon,
            zeros=zeros,
        )  # fmt: skip
        critic = Critic(dataset, config) if config.self_critical_epochs else None
        gradients = [self.parameters.like(zeros) for _ in range(workers)]
        self.gradients = gradients[0]
        self.workers = Workers(
            [
                Replica(k, config, seed, self.decoder, self.adam, gradients, critic, xp)
                for k in range(workers)
            ]
        )

    def batches(self) -> Iterator[Batch | ImageBatch]:
        """Iterate over the remaining batches of the current epoch."""
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
        """Update the parameters once: forward pass, backward pass, clipping, Adam.

        Args:
            batch: the next of `batches`.

        Returns:
            The mean loss per word in nats or, in a self-critical epoch, minus the mean reward.

        Raises:
            Diverged: the loss is NaN or infinite. Adam's update is not applied.
        """
        task: Callable = Replica.supervised
        if isinstance(batch, ImageBatch):
            task = Replica.self_critical
            if (self.epoch, self.step) == (self.schedule.supervised_epochs, 0):
                self.begin_self_critical()
        place = self.epoch, self.step
        count, ranks = self.workers.count, self.ranks
        parts = list(batch.split(count * ranks.size))[count * ranks.rank :][:count]
        with one_blas_thread:
            losses = self.workers.run(
                task, [(part, index, batch.counts, place) for part, index in parts]
            )
            squares = self.sum_gradients(len(parts))
            # On a GPU, float() waits for the kernels above.
            loss = ranks.total(sum(map(float, losses)))
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss became {loss} in epoch {self.epoch + 1}, step {self.step + 1}"
                )
            limit = self.config.clip_norm
            scale = clip_scale(squares, limit) if limit else 1.0
            self.adam.t += 1
            rate = self.schedule.learning_rate(*place)
            self.workers.run(Replica.update, [(self.adam.t, rate, scale)] * count)
        self.step += 1
        return loss

    def sum_gradients(self, count: int) -> list:
        """Add the gradients of the first `count` workers, and then those of all ranks.

        Returns:
            Sums of squares of the result, for `clip_scale`; maybe empty without clipping.
        """
        alone, clips = self.ranks.size == 1, bool(self.config.clip_norm)
        workers, flat = self.workers, self.gradients.flat

        def add(count: int) -> list:
            return sum(workers.run(Replica.sum_gradients, [(count,)] * workers.count), [])

        squares = add(count) if count > 1 or (alone and clips) else []
        if alone:
            return squares
        if not count:
            flat[...] = 0  # this rank had no captions
        self.all_reduce(flat)
        return add(1) if clips else []

    def same_on_all_ranks(self) -> bool:
        """Return whether all ranks have the same parameters, bit by bit."""
        if self.ranks.size == 1:
            return True
        parameters = to_host(self.parameters.flat)
        return self.ranks.equal(hashlib.blake2b(parameters.view("u1").data).digest())

    def begin_self_critical(self) -> None:
        """Divide all logits by `self_critical_temperature`, and reset Adam.

        A model that was trained with dropout gives too much probability to unlikely words, so
        captions sampled from it are poor and teach it little. A temperature below 1 moves
        probability to the likely words. Adam starts again because its state belongs to another
        loss.
        """
        self.parameters["token_logits"][...] /= self.config.self_critical_temperature
        self.adam.m[...] = 0
        self.adam.v[...] = 0
        self.adam.t = 0

    def end_epoch(self) -> None:
        """Go to the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0

    def evaluate(self) -> tuple[float, float]:
        """Compute the loss and the next-word accuracy on dev, without dropout.

        Returns:
            The mean loss per word in nats, and the fraction of words predicted correctly. With
            ``config.validation == "batches"``, both are means over 100 random batches.
        """
        split, config = self.dataset.splits["dev"], self.config

        def loss_and_correct(rows: numpy.ndarray) -> tuple[float, int, int]:
            return self.loss_and_correct(split.batch(rows))

        if config.validation == "batches":
            size = min(config.batch_size, len(split.names))
            rng = stream(self.seed, Purpose.VALIDATION, self.epoch)
            batches = [one_caption_per_image(split, size, rng) for _ in range(100)]
            results = self.ranks.share(batches, loss_and_correct)
            return (
                sum(loss / words for loss, _, words in results) / len(results),
                sum(correct / words for _, correct, words in results) / len(results),
            )
        by_length = numpy.argsort(split.lengths, kind="stable")
        batches = numpy.array_split(by_length, math.ceil(len(by_length) / DEV_BATCH))
        results = self.ranks.share(batches, loss_and_correct)
        losses, correct, words = map(sum, zip(*results, strict=True))
        return losses / words, correct / words

    @ignore_overflow
    def loss_and_correct(self, batch: Batch) -> tuple[float, int, int]:
        """Return a batch's summed loss, its number of correctly predicted words, and of words."""
        batch = batch_on(batch, self.xp)
        correct = self.xp.empty(batch.targets.shape, dtype=bool)
        with blas().limit(limits=self.workers.count):
            loss, _ = self.decoder.loss(batch, 1, correct=correct)
        return float(loss), int(correct.sum()), len(correct)

    def state(self) -> tuple[dict[str, numpy.ndarray], dict]:
        """Return the state to save in a checkpoint: arrays on the host, and numbers for JSON."""
        arrays = {"parameters": self.parameters.flat, "m": self.adam.m, "v": self.adam.v}
        place = {"epoch": self.epoch, "step": self.step, "t": self.adam.t}
        return {name: to_host(array) for name, array in arrays.items()}, place

    def restore(self, arrays: dict[str, numpy.ndarray], place: dict) -> None:
        """Restore what `state` returned."""
        for array, name in (
            (self.parameters.flat, "parameters"),
            (self.adam.m, "m"),
            (self.adam.v, "v"),
        ):
            array[...] = to_device(arrays[name], self.xp)
        self.epoch, self.step, self.adam.t = place["epoch"], place["step"], place["t"]


def one_caption_per_image(split: Split, size: int, rng: numpy.random.Generator) -> numpy.ndarray:
    """Choose random images and one random caption of each.

    Args:
        split: the images and captions to choose from.
        size: number of images. A split with fewer images gives all of them.
        rng: random number generator.

    Returns:
        The chosen captions' rows in the split, (size,).
    """
    starts, counts = split.image_captions
    images = rng.choice(len(counts), min(size, len(counts)), replace=False)
    return starts[images] + rng.integers(counts[images])
