"""Beam search, greedy decoding and sampling, for many images at once, in one loop.

The loop extends hypotheses, which are unfinished captions, by one word at a time. Beam search keeps
the best few of each image. Greedy decoding is beam search with a beam of one, and so is sampling,
except that the next word is random.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy
from numpy.lib.stride_tricks import sliding_window_view

from minicap.backend import Array, array_module, blas, one_blas_thread, to_device, to_host
from minicap.generation.config import GREEDY, Constraints, GenerationConfig
from minicap.generation.sampling import extensions, forced_token, likeliest, sample
from minicap.model.decoder import Decoder

GROUP, GROUP_ON_GPU = 384, 3072  # hypotheses that are extended together


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Attributes:
        ids: its words, without #START# and #END#.
        log_probabilities: of each word and, if it was generated, of #END#, in nats. They are the
            model's own: bans and temperature do not change them.
        score: their sum divided by (their number)**length_penalty.
    """

    ids: list[int]
    log_probabilities: list[float]
    score: float


@dataclass
class Hypotheses:
    """R hypotheses, one per row of each array, on the host."""

    image: numpy.ndarray  # (R,) the image's number
    words: numpy.ndarray  # (R, T) ids, #END# included
    log_probabilities: numpy.ndarray  # (R, T)
    length: numpy.ndarray  # (R,) number of words so far
    finished: numpy.ndarray  # (R,) booleans

    def __getitem__(self, rows: numpy.ndarray) -> "Hypotheses":
        return Hypotheses(*(array[rows] for array in vars(self).values()))

    def scores(self, length_penalty: float) -> numpy.ndarray:
        """Compute log-probability / length**length_penalty, (R,)."""
        total = self.log_probabilities.sum(axis=1)
        return total / numpy.maximum(self.length, 1) ** length_penalty


# Sees each step of a search: its candidates, and the rows of those that it keeps.
Observer = Callable[[Hypotheses, numpy.ndarray], None]


def beam_search(
    decoders: Sequence[Decoder],
    features: Sequence[Array],
    constraints: Constraints,
    config: GenerationConfig = GREEDY,
    count: int = 1,
    rng: numpy.random.Generator | None = None,
    *,
    observe: Observer | None = None,
) -> list[list[Caption]]:
    """Generate captions for N images.

    Several decoders form an ensemble. Its log-probabilities are the mean of theirs, renormalised (a
    product of experts, Hinton 1999). Because softmax ignores a constant added to all logits, this
    is the softmax of the mean logits.

    Groups of images run in parallel, on as many threads as BLAS may use. The group changes an
    image's numbers in the last bits only, and not its random numbers.

    Args:
        decoders: one, or several that share a vocabulary.
        features: for each decoder, (N, F), scaled, on its device.
        constraints: limits on the captions; its `prefix` is `config.prefix` as ids.
        config: how to generate.
        count: number of samples, or minimum beam size.
        rng: random number generator for sampling.
        observe: called after each step of each group, for `BeamTree`.

    Returns:
        The captions of each image: the final beam, best first, or the samples in order.

    Raises:
        ValueError: sampling without `rng`.
    """
    xp = array_module(features[0])
    Wb = join_last_layers(decoders)
    sampling = config.temperature > 0
    beam_size, copies = (1, count) if sampling else (max(config.beam_size, count), 1)
    beam = replace(config, beam_size=beam_size)
    images = numpy.arange(len(features[0])).repeat(copies)
    uniform = None
    if sampling:
        if rng is None:
            raise ValueError("beam_search needs a random number generator, rng, for sampling")
        uniform = rng.random((len(images), constraints.max_words))

    def search(group: numpy.ndarray) -> list[list[Caption]]:
        rows = to_device(images[group], xp)
        samples = None if uniform is None else uniform[group]
        of_group = [f[rows] for f in features]
        return _search(decoders, Wb, of_group, constraints, beam, samples, observe=observe)

    groups = -(-len(images) * beam_size // (GROUP if xp is numpy else GROUP_ON_GPU))
    threads = min(groups, _blas_threads()) if xp is numpy else 1
    if threads > 1:
        groups = -(-groups // threads) * threads  # each thread gets the same number
        with one_blas_thread, ThreadPoolExecutor(threads) as pool:
            found = pool.map(search, numpy.array_split(numpy.arange(len(images)), groups))
    else:
        found = map(search, numpy.array_split(numpy.arange(len(images)), max(groups, 1)))
    captions = [of_image for group in found for of_image in group]
    return [sum(captions[n : n + copies], []) for n in range(0, len(captions), copies)]


def join_last_layers(decoders: Sequence[Decoder]) -> Array:
    """Join the last layers of an ensemble into one.

    Args:
        decoders: one, or several that share a vocabulary.

    Returns:
        (sum of I + 1, V), which projects the concatenated inputs of the last layers to the mean
        logits, bias last.
    """
    last = [decoder.parameters["token_logits"] for decoder in decoders]
    rows = [*(layer[:-1] for layer in last), sum(layer[-1:] for layer in last)]
    return array_module(last[0]).concatenate(rows) / len(decoders)


def _blas_threads() -> int:
    """The number of threads that BLAS may use."""
    return max((library.num_threads for library in blas().lib_controllers), default=1)


def _search(
    decoders: Sequence[Decoder],
    Wb: Array,
    features: Sequence[Array],
    constraints: Constraints,
    config: GenerationConfig,
    uniform: numpy.ndarray | None,
    *,
    observe: Observer | None,
) -> list[list[Caption]]:
    """Generate the captions of one group of N images.

    Each step extends every unfinished hypothesis by its `beam_size` likeliest words. Of these
    candidates and the finished hypotheses, each image keeps the best `beam_size`.

    Args:
        Wb: the decoders' last layers, joined into one.
        uniform: (N, max_words) uniform samples in [0, 1) for sampling, else None.
    """
    N, xp = len(features[0]), array_module(Wb)
    states = [decoder.initial_state(f) for decoder, f in zip(decoders, features, strict=True)]
    beam = Hypotheses(
        image=numpy.arange(N),
        words=numpy.full((N, constraints.max_words), constraints.start),
        log_probabilities=numpy.zeros((N, constraints.max_words)),
        length=numpy.zeros(N, dtype=int),
        finished=numpy.zeros(N, dtype=bool),
    )
    for step in range(constraints.max_words):
        unfinished = numpy.flatnonzero(~beam.finished)
        if not len(unfinished):
            break
        words = to_device(beam.words[unfinished, step - 1], xp)  # at step 0, the last: #START#
        stepped = [
            decoder.step(words, state) for decoder, state in zip(decoders, states, strict=True)
        ]
        y = xp.concatenate([output for output, _ in stepped], axis=1)

        bans = to_device(_banned_ids(beam.words[unfinished, :step], constraints, config), xp)
        if step < len(constraints.prefix):
            choose = functools.partial(forced_token, constraints.prefix[step])
        elif uniform is None:
            choose = functools.partial(likeliest, min(config.beam_size, Wb.shape[1]))
        else:
            u = to_device(uniform[beam.image[unfinished], step].astype(y.dtype), xp)
            choose = functools.partial(sample, u, config.temperature, config.top_k, config.top_p)
        ids, log_probabilities = map(to_host, extensions(y, Wb, bans, choose))
        possible = numpy.isfinite(log_probabilities)
        beam.finished[unfinished[~possible.any(axis=1)]] = True  # every word is banned

        finished = numpy.flatnonzero(beam.finished)
        row, place = numpy.nonzero(possible)
        ids, log_probabilities = ids[row, place], log_probabilities[row, place]
        candidates = beam[numpy.concatenate([finished, unfinished[row]])]
        new = slice(len(finished), None)
        candidates.words[new, step] = ids
        candidates.log_probabilities[new, step] = log_probabilities
        candidates.length[new] += 1
        candidates.finished[new] = ids == constraints.end

        order = numpy.lexsort((-candidates.scores(config.length_penalty), candidates.image))
        image = candidates.image[order]
        rank = numpy.arange(len(order)) - numpy.searchsorted(image, image)
        order = order[rank < config.beam_size]
        if observe:
            observe(candidates, order)
        beam = candidates[order]
        row = numpy.concatenate([numpy.zeros_like(finished), row])[order][~beam.finished]
        row = to_device(row, xp)  # which state each unfinished hypothesis continues
        states = [tuple(array[row] for array in state) for _, state in stepped]

    captions: list[list[Caption]] = [[] for _ in range(N)]
    for image, words, log_probabilities, length, score in zip(
        beam.image, beam.words, beam.log_probabilities, beam.length,
        beam.scores(config.length_penalty), strict=True,
    ):  # fmt: skip
        ended = length > 0 and words[length - 1] == constraints.end
        ids = words[: length - ended].tolist()
        captions[image].append(Caption(ids, log_probabilities[:length].tolist(), float(score)))
    return captions


def _banned_ids(
    words: numpy.ndarray, constraints: Constraints, config: GenerationConfig
) -> numpy.ndarray:
    """List the ids that may not extend each of R hypotheses, (R, any). words: (R, t), so far."""
    R, t = words.shape
    if t < len(constraints.prefix):
        return numpy.empty((R, 0), dtype=int)
    n = config.no_repeat_ngram_size
    bans = [numpy.tile([constraints.start, *constraints.banned], (R, 1))]
    if t < config.min_length:
        bans.append(numpy.full((R, 1), constraints.end))
    if 0 < n <= t:  # words that already followed the last n - 1 words
        before = sliding_window_view(words, n, axis=1)  # (R, t - n + 1, n)
        same = (before[:, :, :-1] == words[:, None, t - n + 1 :]).all(axis=2)
        bans.append(numpy.where(same, before[:, :, -1], constraints.start))
    return numpy.hstack(bans)
