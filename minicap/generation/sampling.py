"""Choose the next token from the decoder's output: the likeliest, a sample, or a forced token."""

import math
from collections.abc import Callable

from minicap.backend import Array, array_module

BELOW_1 = 1 - 2**-23  # the largest uniform sample: even in float32, a sum times this is smaller

# From logits (R, V), -inf for banned words, chooses ids and returns them with their logits, both
# (R, k). It leaves the logits as they were.
Choice = Callable[[Array], tuple[Array, Array]]


def extensions(y: Array, Wb: Array, bans: Array, choose: Choice) -> tuple[Array, Array]:
    """Choose the words that may extend each of R hypotheses.

    Args:
        y: (R, I), the inputs of the last layer.
        Wb: (I + 1, V), the last layer, bias last.
        bans: (R, any) ids that may not be chosen. They still count in the softmax, so the other
            words have the probabilities of training.
        choose: picks words by their logits.

    Returns:
        Ids (R, k) and their log-probabilities (R, k), -inf where no word is left.
    """
    xp = array_module(y)
    y1 = xp.ones((y.shape[0], Wb.shape[0]), dtype=y.dtype)  # 1s multiply the bias
    y1[:, :-1] = y
    e = y1 @ Wb  # 1: the logits, a large array, so everything below is done in place
    every = xp.arange(y.shape[0])[:, None]
    banned = e[every, bans]
    e[every, bans] = -math.inf
    ids, values = choose(e)  # 2
    e[every, bans] = banned
    top = e.max(axis=1)[:, None]
    e -= top
    xp.exp(e, out=e)  # 3
    s = e @ xp.ones(e.shape[1], dtype=e.dtype)  # 4: a sum as a GEMM takes half the time
    return ids, values - top - xp.log(s)[:, None]


def likeliest(k: int, logits: Array) -> tuple[Array, Array]:
    """Choose the k words of each row with the highest logits, highest first.

    Each is set to -inf while the next is found. For a few words, that is much faster than a
    partition.

    Args:
        k: number of words.
        logits: (R, V); unchanged on return.

    Returns:
        Ids (R, k) and their logits (R, k).
    """
    xp = array_module(logits)
    every = xp.arange(len(logits))
    ids = xp.empty((len(logits), k), dtype=int)
    values = xp.empty((len(logits), k), dtype=logits.dtype)
    for place in range(k):
        ids[:, place] = best = logits.argmax(axis=1)
        values[:, place] = logits[every, best]
        logits[every, best] = -math.inf
    for place in reversed(range(k)):  # where no word is left, one is found twice, at -inf later
        logits[every, ids[:, place]] = values[:, place]
    return ids, values


def forced_token(word: int, logits: Array) -> tuple[Array, Array]:
    """Choose the same word in each row, banned or not.

    Args:
        word: its id.
        logits: (R, V).

    Returns:
        Ids (R, 1) and their logits (R, 1).
    """
    ids = array_module(logits).full((len(logits), 1), word)
    return ids, logits[:, word : word + 1].copy()


def sample(
    uniform: Array, temperature: float, top_k: int, top_p: float, logits: Array
) -> tuple[Array, Array]:
    """Sample one word for each row from softmax(logits / temperature).

    Args:
        uniform: (R,) uniform samples in [0, 1).
        temperature: greater than 0.
        top_k, top_p: see `nucleus`.
        logits: (R, V).

    Returns:
        Ids (R, 1) and their logits (R, 1), -inf where no word is left.
    """
    xp = array_module(logits)
    R, V = logits.shape
    top = xp.maximum(logits.max(axis=1), -1e30)[:, None]  # finite, even if every word is banned
    p = xp.exp((logits - top) / max(temperature, 1e-30))  # float32 would round 1e-60 to 0
    if top_k or top_p < 1:
        p = p * nucleus(p, top_k, top_p)
    # Inverse transform sampling: find the word where the cumulative sum of p exceeds uniform * sum.
    # First find the block of about sqrt(V) words, then the word in it: one cumulative sum over V
    # would take ten times as long.
    side = math.isqrt(V - 1) + 1
    blocks = xp.zeros((R, side * side), dtype=p.dtype)
    blocks[:, :V] = p
    blocks = blocks.reshape(R, side, side)
    every = xp.arange(R)
    block, rest = _inverse_cdf(blocks.sum(axis=2), xp.minimum(uniform, BELOW_1))
    within, _ = _inverse_cdf(blocks[every, block], rest)
    ids = xp.minimum(block * side + within, V - 1)
    return ids[:, None], logits[every, ids][:, None]


def _inverse_cdf(p: Array, uniform: Array) -> tuple[Array, Array]:
    """Find where each row's cumulative sum exceeds uniform * sum, (R,), and how far into that
    place's p, from 0 to 1, (R,), which is a uniform sample again."""
    xp = array_module(p)
    cumulative = p.cumsum(axis=1)
    target = uniform * cumulative[:, -1]
    place = (cumulative <= target[:, None]).sum(axis=1)
    place = xp.minimum(place, p.shape[1] - 1)  # in case all p are 0
    rows = xp.arange(p.shape[0])
    rest = 1 - (cumulative[rows, place] - target) / xp.maximum(p[rows, place], 1e-37)
    return place, xp.minimum(xp.maximum(rest, 0), BELOW_1)


def nucleus(p: Array, top_k: int, top_p: float) -> Array:
    """Find the words that top-k and nucleus sampling keep, ties with the last one included.

    Args:
        p: (R, V) probabilities; rows need not be normalised.
        top_k: keep the k likeliest words; 0 for all (Fan et al. 2018).
        top_p: of these, keep the smallest set of likeliest words that has at least this fraction
            of their probability (nucleus sampling, Holtzman et al. 2020).

    Returns:
        (R, V) booleans.
    """
    xp = array_module(p)
    descending = xp.sort(p, axis=1)[:, ::-1]
    if top_k:
        descending = descending[:, :top_k]
    if top_p == 1:
        return p >= descending[:, -1:]
    cumulative = descending.cumsum(axis=1)
    more = (cumulative < top_p * cumulative[:, -1:]).sum(axis=1)  # words before the last one
    return p >= descending[xp.arange(p.shape[0]), more][:, None]
