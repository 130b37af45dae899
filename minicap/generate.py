"""Writing captions, word by word, for many pictures at once: by beam search, greedily or drawn.

There is one loop. It holds hypotheses, captions that have been begun, and lets each that is not
finished go on by one word at a time. A beam search keeps the best few of each picture; greedy is
a beam of one, and so is a drawn caption, but that chance chooses its words.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
from numpy.lib.stride_tricks import sliding_window_view

from minicap.backend import Array, array_module, blas, one_blas_thread, to_device, to_host
from minicap.choosing import candidates, draw, given, likeliest
from minicap.decoder import first_state, next_word
from minicap.errors import UserError

TOGETHER, TOGETHER_ON_GPU = 384, 3072  # hypotheses that go on together


@dataclass(frozen=True)
class Writing:
    """How captions are written. Each field is an option of the commands that write."""

    beams: int = 5
    """captions that a beam search keeps in view of each picture (1: always the likeliest word)"""
    alpha: float = 0.7
    """rank captions by log-probability / length**alpha, the end counted as a word: 0 prefers short
    ones, 1 takes the mean"""
    temperature: float = 0.0
    """0: beam search; more: draw words at random instead, 1 as the model believes, less is more
    careful"""
    top_k: int = 0
    """draw from so many of the likeliest words only (0: from all)"""
    top_p: float = 1.0
    """draw from the fewest likeliest words that have this probability together (1: from all)"""
    block_ngrams: int = 0
    """write no sequence of so many words twice in a caption (0: they may repeat)"""
    min_length: int = 0
    """words in a caption at the least"""
    beginning: str = ""
    """words that every caption begins with"""

    def check(self) -> None:
        """UserError, naming the option, for a number that makes no sense."""
        for name, good, need in (
            ("beams", 1 <= self.beams <= 100, "from 1 to 100"),
            ("alpha", 0 <= self.alpha < math.inf, "0 or more, and finite"),
            ("temperature", 0 <= self.temperature <= 1000, "from 0 to 1000"),
            ("top-k", self.top_k >= 0, "0 or more"),
            ("top-p", 0 < self.top_p <= 1, "greater than 0, and at most 1"),
            ("block-ngrams", self.block_ngrams >= 0, "0 or more"),
            ("min-length", self.min_length >= 0, "0 or more"),
        ):
            if not good:
                raise UserError(f"--{name} must be {need}")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise UserError("--top-k and --top-p are for drawing words: give a --temperature too")


BEAM, GREEDY = Writing(), Writing(beams=1)


@dataclass(frozen=True)
class Rules:
    """What a caption may be: the ids that it starts from and ends with, the ids that are never
    written (`start` is one), the words that it begins with, and after how many, #END# among them,
    it is cut."""

    start: int
    end: int
    banned: Sequence[int]
    max_words: int
    beginning: Sequence[int] = ()


@dataclass(frozen=True)
class Caption:
    """A caption that was written.

    ids: its words, without #START# and #END#; log_probabilities: in nats, of each word and, if it
    was written, of #END#, as the model has them, whatever was banned or drawn; score: their sum
    divided by (their number)**alpha.
    """

    ids: list[int]
    log_probabilities: list[float]
    score: float


@dataclass
class Hypotheses:
    """R captions that have been begun, a row of each array for each, on the host."""

    picture: numpy.ndarray  # (R,) whose they are
    words: numpy.ndarray  # (R, T) ids, #END# too
    gains: numpy.ndarray  # (R, T) their log-probabilities
    length: numpy.ndarray  # (R,) how many there are
    finished: numpy.ndarray  # (R,) booleans

    def __getitem__(self, rows: numpy.ndarray) -> "Hypotheses":
        return Hypotheses(*(array[rows] for array in vars(self).values()))

    def scores(self, alpha: float) -> numpy.ndarray:
        """Log-probability / length**alpha, (R,)."""
        return self.gains.sum(axis=1) / numpy.maximum(self.length, 1) ** alpha


def beam_search(
    decoders: Sequence[Mapping[str, Array]],
    features: Sequence[Array],
    rules: Rules,
    writing: Writing = GREEDY,
    count: int = 1,
    rng: numpy.random.Generator | None = None,
) -> list[list[Caption]]:
    """The captions of each of N pictures, best first; drawn ones in the order of drawing.

    decoders: the parameters of a decoder, or of several that share a vocabulary and write
    together; features: for each decoder (N, F), on its device; writing: how (its `beginning` is
    that of `rules`, as ids); count: the beam is at least as wide, or so many are drawn; rng: for
    drawing.

    Several decoders write as one, whose log-probabilities are the mean of theirs, normalised
    again (a product of experts, Hinton 1999). As a softmax does not see what is added to all
    logits alike, that is the softmax of their mean logits.

    Pictures are dealt out in groups, over as many threads as BLAS may use. Only the last bits of
    a picture's numbers depend on that, and on its company; what is drawn for it does not.
    """
    xp = array_module(features[0])
    last = [p["token_logits"] for p in decoders]
    Wb = xp.concatenate([*(layer[:-1] for layer in last), sum(layer[-1:] for layer in last)])
    Wb /= len(decoders)  # of all the outputs beside each other it makes the mean logits
    drawn = writing.temperature > 0
    beams, copies = (1, count) if drawn else (max(writing.beams, count), 1)
    pictures = numpy.arange(len(features[0])).repeat(copies)
    chances = None
    if drawn:
        if rng is None:
            raise ValueError("to draw words, beam_search needs a random generator, rng")
        chances = rng.random((len(pictures), rules.max_words))

    def search(group: numpy.ndarray) -> list[list[Caption]]:
        pick = to_device(pictures[group], xp)
        luck = None if chances is None else chances[group]
        return _search(decoders, Wb, [f[pick] for f in features], rules, writing, beams, luck)

    groups = -(-len(pictures) * beams // (TOGETHER if xp is numpy else TOGETHER_ON_GPU))
    threads = min(groups, _blas_threads()) if xp is numpy else 1
    if threads > 1:
        groups = -(-groups // threads) * threads  # as much work for each
        with one_blas_thread, ThreadPoolExecutor(threads) as pool:
            found = pool.map(search, numpy.array_split(numpy.arange(len(pictures)), groups))
    else:
        found = map(search, numpy.array_split(numpy.arange(len(pictures)), max(groups, 1)))
    written = [captions for group in found for captions in group]
    return [sum(written[n : n + copies], []) for n in range(0, len(written), copies)]


def _blas_threads() -> int:
    return max((library.num_threads for library in blas().lib_controllers), default=1)


def _search(
    decoders: Sequence[Mapping[str, Array]],
    Wb: Array,
    features: Sequence[Array],
    rules: Rules,
    writing: Writing,
    beams: int,
    chances: numpy.ndarray | None,
) -> list[list[Caption]]:
    """The captions of a group of N pictures. Wb: the decoders' last layers as one; chances: None,
    or random numbers (N, max_words).

    As long as there are unfinished hypotheses, each goes on with every word that could be among
    the best of its picture; of these, and of the finished ones as they are, the best stay.
    """
    N, xp = len(features[0]), array_module(Wb)
    states = [first_state(p, f) for p, f in zip(decoders, features, strict=True)]
    held = Hypotheses(
        picture=numpy.arange(N),
        words=numpy.full((N, rules.max_words), rules.start),
        gains=numpy.zeros((N, rules.max_words)),
        length=numpy.zeros(N, dtype=int),
        finished=numpy.zeros(N, dtype=bool),
    )
    for step in range(rules.max_words):
        going = numpy.flatnonzero(~held.finished)
        if not len(going):
            break
        words = to_device(held.words[going, step - 1], xp)  # at step 0, the last: still #START#
        moved = [next_word(p, words, *state) for p, state in zip(decoders, states, strict=True)]
        y = xp.concatenate([output for output, *_ in moved], axis=1)

        bans = to_device(_bans(held.words[going, :step], rules, writing), xp)
        if step < len(rules.beginning):
            choose = functools.partial(given, rules.beginning[step])
        elif chances is None:
            choose = functools.partial(likeliest, min(beams, Wb.shape[1]))
        else:
            luck = chances[held.picture[going], step].astype(y.dtype)
            how = writing.temperature, writing.top_k, writing.top_p
            choose = functools.partial(draw, to_device(luck, xp), *how)
        ids, gains = map(to_host, candidates(y, Wb, bans, choose))
        possible = numpy.isfinite(gains)
        held.finished[going[~possible.any(axis=1)]] = True  # all is banned: it ends as it is

        frozen = numpy.flatnonzero(held.finished)
        row, place = numpy.nonzero(possible)
        ids, gains = ids[row, place], gains[row, place]
        pool = held[numpy.concatenate([frozen, going[row]])]
        new = slice(len(frozen), None)
        pool.words[new, step], pool.gains[new, step] = ids, gains
        pool.length[new] += 1
        pool.finished[new] = ids == rules.end

        order = numpy.lexsort((-pool.scores(writing.alpha), pool.picture))
        picture = pool.picture[order]
        rank = numpy.arange(len(order)) - numpy.searchsorted(picture, picture)
        order = order[rank < beams]
        held = pool[order]
        row = numpy.concatenate([numpy.zeros_like(frozen), row])[order][~held.finished]
        row = to_device(row, xp)  # whose state each of those that go on has
        states = [tuple(array[row] for array in state) for _, *state in moved]

    captions: list[list[Caption]] = [[] for _ in range(N)]
    for picture, words, gains, length, score in zip(
        held.picture, held.words, held.gains, held.length, held.scores(writing.alpha), strict=True
    ):
        ids = words[: length - (length > 0 and words[length - 1] == rules.end)].tolist()
        captions[picture].append(Caption(ids, gains[:length].tolist(), float(score)))
    return captions


def _bans(words: numpy.ndarray, rules: Rules, writing: Writing) -> numpy.ndarray:
    """The ids that each of R hypotheses may not go on with, (R, any). words: (R, t), so far."""
    R, t = words.shape
    if t < len(rules.beginning):
        return numpy.empty((R, 0), dtype=int)
    n = writing.block_ngrams
    bans = [numpy.tile([rules.start, *rules.banned], (R, 1))]
    if t < writing.min_length:
        bans.append(numpy.full((R, 1), rules.end))
    if 0 < n <= t:  # what followed before on the words that come last now
        before = sliding_window_view(words, n, axis=1)  # (R, t - n + 1, n)
        same = (before[:, :, :-1] == words[:, None, t - n + 1 :]).all(axis=2)
        bans.append(numpy.where(same, before[:, :, -1], rules.start))
    return numpy.hstack(bans)
