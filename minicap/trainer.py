"""The training loop: batches, workers, Adam, dev loss, and a state that can be saved.

Everything random is drawn from a stream that is named by (seed, epoch, step), so that a resumed
run needs no state of a random generator: the place in the data says it all.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy

from minicap.backend import Array, blas, one_blas_thread, to_device, to_host
from minicap.data.batches import Batch, Photos
from minicap.data.dataset import Split
from minicap.decoder import (
    MASK_AXES,
    Sizes,
    caption_loss,
    draw_masks,
    initialise,
)
from minicap.errors import UserError
from minicap.nn.adam import Adam, add_gradients, clip_scale
from minicap.nn.dropout import draw_mask
from minicap.nn.parameters import Parameters
from minicap.nn.scratch import Scratch
from minicap.recipes import Recipe
from minicap.self_critical import Critic
from minicap.workers import Workers, shared_zeros

INITIAL, ORDER, SAMPLE, MASKS, VALIDATION = range(5)  # what a random stream is for
QUIET = numpy.errstate(all="ignore")  # a loss that is no number is looked for, and told once


class Diverged(UserError):
    """The loss became NaN or infinite."""


def batch_on(batch: Batch, xp: ModuleType) -> Batch:
    """The batch with its arrays on the device of `xp`."""
    if xp is numpy:
        return batch
    arrays = {name: a for name, a in vars(batch).items() if isinstance(a, numpy.ndarray)}
    return replace(batch, **{name: to_device(array, xp) for name, array in arrays.items()})


class Trainer:
    """A decoder, its optimiser and the way through the data.

    threads: workers (minicap.workers), each with its own share of every batch, its own gradients
    and one BLAS thread. Their number changes the order of sums and so the last bits of the result;
    for a given number the result is always the same (on a CPU: see docs/gpu.md). critic: what
    self-critical epochs need; frequencies: see minicap.decoder.initialise.
    """

    def __init__(
        self,
        recipe: Recipe,
        sizes: Sizes,
        seed: int,
        threads: int = 1,
        xp: ModuleType = numpy,
        critic: Critic | None = None,
        frequencies: numpy.ndarray | None = None,
    ):
        self.recipe, self.sizes, self.seed, self.xp = recipe, sizes, seed, xp
        self.critic = critic
        self.threads = 1 if xp is not numpy else threads
        self.epoch = self.step = 0  # epochs done, and batches done in the one after them
        self.steps = 1  # batches in an epoch
        rng, gain = self.stream(INITIAL), recipe.photo_gain
        start = initialise(sizes, rng, recipe.word_range, gain, frequencies)
        zeros = shared_zeros if self.threads > 1 else xp.zeros
        self.parameters = Parameters(sizes.shapes(), "float32", xp, zeros)
        self.parameters.flat[...] = to_device(start.flat, xp)
        self.gradients = [self.parameters.like(zeros) for _ in range(self.threads)]
        self.adam = Adam(
            self.parameters.flat,
            recipe.learning_rate,
            recipe.beta1,
            recipe.beta2,
            recipe.epsilon,
            zeros,
        )
        self.workers = Workers(self.threads, self._call)
        self.scratch = [Scratch() for _ in range(self.threads)]

    def stream(self, purpose: int, *place: int) -> numpy.random.Generator:
        """The random stream for one purpose at one place of the run."""
        return numpy.random.default_rng([self.seed, purpose, *place])

    @property
    def supervised(self) -> int:
        """How many epochs there are before the self-critical ones."""
        return self.recipe.epochs - self.recipe.self_critical

    @property
    def self_critical(self) -> bool:
        """Is this one of the epochs in which the model learns from captions of its own?"""
        return self.is_self_critical(self.epoch)

    def is_self_critical(self, epoch: int) -> bool:
        """Is `epoch`, counted from 0, one of these?"""
        return self.recipe.self_critical > 0 and epoch >= self.supervised

    def steps_in(self, split: Split, epoch: int) -> int:
        """Batches in an epoch, counted from 0."""
        if self.is_self_critical(epoch):
            return math.ceil(len(split.names) / (self.recipe.batch_size // self.recipe.samples))
        if self.recipe.sampling == "photos":
            return self.recipe.steps_per_epoch
        return math.ceil(len(split.lengths) / self.recipe.batch_size)

    def batches(self, split: Split) -> Iterator[Batch | Photos]:
        """The batches of the current epoch, from the current step on."""
        size, self.steps = self.recipe.batch_size, self.steps_in(split, self.epoch)
        if self.self_critical:
            order = self.stream(ORDER, self.epoch).permutation(len(split.names))
            for rows in numpy.array_split(order, self.steps)[self.step :]:
                yield Photos(split.features[rows], rows)
            return
        order = self.stream(ORDER, self.epoch).permutation(len(split.lengths))
        for step in range(self.step, self.steps):
            if self.recipe.sampling == "photos":
                rows = one_caption_each(split, size, self.stream(SAMPLE, self.epoch, step))
            else:
                rows = order[step * size : (step + 1) * size]
            yield split.batch(rows)

    def train_step(self, batch: Batch | Photos) -> float:
        """One update from one batch. Returns its loss, the mean over its words; of photos, which
        the model writes captions of itself, the mean reward with a minus.

        Diverged, and no update, when the loss is NaN or infinite.
        """
        run, place = self._run, (self.epoch, self.step)
        critical = isinstance(batch, Photos)
        if critical and place == (self.supervised, 0):
            self._sharpen()
        counts = batch.counts
        shares = list(batch.split(self.threads))
        jobs = [(k, share, index, counts, place) for k, (share, index) in enumerate(shares)]
        losses = run("_reinforce" if critical else "_differentiate", jobs)
        everybody, squares = range(self.threads), []
        if self.recipe.clip_norm or len(jobs) > 1:
            squares = run("_add", [(k, len(jobs)) for k in everybody])
        loss = sum(map(float, losses))  # a GPU has only been told what to do: here it is waited for
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} at step {self.adam.t + 1}")
        limit = self.recipe.clip_norm
        scale = clip_scale(sum(squares, []), limit) if limit else 1.0
        self.adam.t += 1
        rate = self.learning_rate()
        run("_update", [(k, self.adam.t, rate, scale) for k in everybody])
        self.step += 1
        return loss

    def learning_rate(self) -> float:
        """Adam's step size for the current step: the recipe's, as it warms up and decays."""
        recipe, rate = self.recipe, self.recipe.learning_rate
        before, epochs = 0, self.supervised
        if self.self_critical:  # both begin anew
            before, epochs = epochs, recipe.self_critical
            rate = recipe.self_critical_rate
        done, now = (self.epoch - before + (self.step + after) / self.steps for after in (0, 1))
        risen = min(1.0, now / recipe.warm_up) if recipe.warm_up else 1.0
        fallen = max(0.0, 1 - done / epochs) if recipe.decay else 1.0
        return rate * risen * fallen

    def _sharpen(self) -> None:
        """What stands at the start of self-critical training. Captions that are drawn from a model
        with dropout are poor, and little can be learned from them: all logits grow, so that the
        likelier words become much likelier. And Adam forgets the gradients of another loss."""
        self.parameters["token_logits"][...] /= self.recipe.temperature
        self.adam.m[...] = 0
        self.adam.v[...] = 0
        self.adam.t = 0

    def _run(self, method: str, jobs: list[tuple]) -> list:
        """The jobs' results, each with one BLAS thread, which helpers that are forked inherit."""
        with one_blas_thread:
            return self.workers.run(method, jobs)

    @QUIET
    def _call(self, method: str, *job):
        """What a worker does: one of the next four."""
        return getattr(self, method)(*job)

    def _differentiate(
        self, k: int, share: Batch, index: dict, counts: dict, place: tuple
    ) -> Array:
        """Worker k's part of the loss (0-d) and of the gradients.

        index, counts: which captions, words and rows of the batch are its own, and how many the
        batch has; masks are drawn for the whole batch, so that they are the same for any number
        of workers. place: of the batch in the run.
        """
        masks = None
        rates = self.recipe.dropout, self.recipe.dropout_words
        if any(rates):
            drawn = draw_masks(self.stream(MASKS, *place), *rates, self.sizes, counts)
            masks = {
                name: to_device(mask[index[MASK_AXES.get(name, "rows")]], self.xp)
                for name, mask in drawn.items()
            }
        self.scratch[k].reset()
        empty = self.scratch[k].empty if self.xp is numpy else None
        share = batch_on(share, self.xp)
        loss, backward = caption_loss(self.parameters, share, counts["rows"], masks, empty=empty)
        backward(self.gradients[k])
        return loss

    def _reinforce(self, k: int, share: Photos, index: dict, counts: dict, place: tuple) -> float:
        """Worker k's part of the mean reward, with a minus, and of the gradients. (See
        `_differentiate`.) Each photo's captions are drawn and learned with the same features
        dropped, and nothing else: so the words' probabilities are those that they were drawn by."""
        critic, captions = self.critic, index["captions"]
        if critic is None:
            raise ValueError("self-critical epochs need a Critic")
        features = share.features
        if self.recipe.dropout:
            shape = counts["captions"], features.shape[1]
            mask = draw_mask(self.stream(MASKS, *place), shape, self.recipe.dropout)
            features = features * mask[captions]
        rng = self.stream(SAMPLE, *place)
        rng.random((captions[0] * critic.samples, critic.rules.max_words))  # other workers' share
        features = to_device(features, self.xp)
        batch, rewards = critic.batch(self.parameters, features, share.photos, rng)
        divisor = counts["captions"] * critic.samples
        self.scratch[k].reset()
        empty = self.scratch[k].empty if self.xp is numpy else None
        loss, backward = caption_loss(
            self.parameters, batch_on(batch, self.xp), divisor, empty=empty
        )
        backward(self.gradients[k])
        return -float(rewards.sum()) / divisor if math.isfinite(loss) else float(loss)

    def _add(self, k: int, count: int) -> list[Array]:
        """The sum of `count` workers' gradients: worker k's share of the blocks. Returns the sum of
        each block's squares."""
        flat = [gradients.flat for gradients in self.gradients[:count]]
        return add_gradients(flat, k, self.threads)

    def _update(self, k: int, t: int, rate: float, scale: float) -> None:
        """Adam's step number t: worker k's share of the blocks."""
        self.adam.update(self.gradients[0].flat, t, rate, scale, k, self.threads)

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Loss and next-word accuracy without dropout, as the recipe's `validation` says."""
        p = self.parameters
        if self.recipe.validation == "batches":
            size = min(self.recipe.batch_size, len(split.names))
            rng = self.stream(VALIDATION, self.epoch)
            sets = [one_caption_each(split, size, rng) for _ in range(100)]
            found = [self._loss_and_hits(p, split.batch(rows)) for rows in sets]
            return (
                sum(loss / words for loss, _, words in found) / len(found),
                sum(hits / words for _, hits, words in found) / len(found),
            )
        by_length = numpy.argsort(split.lengths, kind="stable")
        sets = numpy.array_split(by_length, math.ceil(len(by_length) / 256))
        found = [self._loss_and_hits(p, split.batch(rows)) for rows in sets]
        losses, hits, words = map(sum, zip(*found, strict=True))
        return losses / words, hits / words

    @QUIET
    def _loss_and_hits(self, p: Parameters, batch: Batch) -> tuple[float, int, int]:
        batch = batch_on(batch, self.xp)
        hits = self.xp.empty(batch.targets.shape, dtype=bool)
        with blas().limit(limits=self.threads):
            loss, _ = caption_loss(p, batch, 1, hits=hits)
        return float(loss), int(hits.sum()), len(hits)

    def state(self) -> tuple[dict[str, numpy.ndarray], dict]:
        """All that the rest of the run depends on: arrays, and what JSON can hold."""
        arrays = {"parameters": self.parameters.flat, "m": self.adam.m, "v": self.adam.v}
        place = {"epoch": self.epoch, "step": self.step, "t": self.adam.t}
        return {name: to_host(array) for name, array in arrays.items()}, place

    def restore(self, arrays: dict[str, numpy.ndarray], place: dict) -> None:
        """Go on from what `state` returned."""
        for array, name in (
            (self.parameters.flat, "parameters"),
            (self.adam.m, "m"),
            (self.adam.v, "v"),
        ):
            array[...] = to_device(arrays[name], self.xp)
        self.epoch, self.step, self.adam.t = place["epoch"], place["step"], place["t"]


def one_caption_each(split: Split, size: int, rng: numpy.random.Generator) -> numpy.ndarray:
    """`size` different photos, one random caption of each: (size,) rows of the split's captions."""
    starts, counts = split.photo_captions()
    photos = rng.choice(len(counts), min(size, len(counts)), replace=False)
    return starts[photos] + rng.integers(counts[photos])
