"""From what a decoder makes of a caption so far to the words that it may go on with."""

import math
from collections.abc import Callable

from minicap.backend import Array, array_module

BELOW_1 = 1 - 2**-23  # the greatest chance: times any sum it is less than the sum, in float32 too

# From logits (R, V), -inf where a word may not be, to chosen words and their logits, both (R, k);
# leaves the logits as they were.
Choice = Callable[[Array], tuple[Array, Array]]


def candidates(y: Array, Wb: Array, bans: Array, choose: Choice) -> tuple[Array, Array]:
    """The words that each of R hypotheses may go on with, (R, k), as `choose` has them, and their
    log-probabilities, (R, k); -inf where there is no word left.

    y: (R, I); Wb: (I + 1, V), the last layer; bans: (R, any) ids that are not chosen. They keep
    their share of the probability: the other words' is what training knows.
    """
    xp = array_module(y)
    y1 = xp.ones((y.shape[0], Wb.shape[0]), dtype=y.dtype)  # the bias rides as a column of ones
    y1[:, :-1] = y
    e = y1 @ Wb  # 1: the logits. All that follows is done in their place: they are long
    every = xp.arange(y.shape[0])[:, None]
    barred = e[every, bans]
    e[every, bans] = -math.inf
    ids, values = choose(e)  # 2
    e[every, bans] = barred
    top = e.max(axis=1)[:, None]
    e -= top
    xp.exp(e, out=e)  # 3
    s = e @ xp.ones(e.shape[1], dtype=e.dtype)  # 4: as a product the sum takes half the time
    return ids, values - top - xp.log(s)[:, None]


def likeliest(k: int, logits: Array) -> tuple[Array, Array]:
    """The k words of each row with the greatest logits, greatest first. They are taken
    out while the next are looked for: for a few words that is much quicker than a partition."""
    xp = array_module(logits)
    every = xp.arange(len(logits))
    ids = xp.empty((len(logits), k), dtype=int)
    values = xp.empty((len(logits), k), dtype=logits.dtype)
    for place in range(k):
        ids[:, place] = best = logits.argmax(axis=1)
        values[:, place] = logits[every, best]
        logits[every, best] = -math.inf
    for place in reversed(range(k)):  # first found, last put back: where there is no word left,
        logits[every, ids[:, place]] = values[:, place]  # some word is found again, at -inf
    return ids, values


def given(word: int, logits: Array) -> tuple[Array, Array]:
    """This word, in each row."""
    ids = array_module(logits).full((len(logits), 1), word)
    return ids, logits[:, word : word + 1].copy()


def draw(
    chance: Array, temperature: float, top_k: int, top_p: float, logits: Array
) -> tuple[Array, Array]:
    """One word for each row, drawn from softmax(logits / temperature).

    chance: (R,) random numbers in [0, 1); temperature: greater than 0; top_k, top_p: see `likely`.
    """
    xp = array_module(logits)
    R, V = logits.shape
    top = xp.maximum(logits.max(axis=1), -1e30)[:, None]  # finite, even where all is banned
    p = xp.exp((logits - top) / max(temperature, 1e-30))  # float32 knows no 1e-60
    if top_k or top_p < 1:
        p = p * likely(p, top_k, top_p)
    # Where the running sum of p passes chance * sum: looked for among the sums of stretches of
    # about sqrt(V) words, then within that stretch. One running sum over V takes ten times as long.
    side = math.isqrt(V - 1) + 1
    stretches = xp.zeros((R, side * side), dtype=p.dtype)
    stretches[:, :V] = p
    stretches = stretches.reshape(R, side, side)
    every = xp.arange(R)
    stretch, left = _place(stretches.sum(axis=2), xp.minimum(chance, BELOW_1))
    within, _ = _place(stretches[every, stretch], left)
    ids = xp.minimum(stretch * side + within, V - 1)
    return ids[:, None], logits[every, ids][:, None]


def _place(p: Array, chance: Array) -> tuple[Array, Array]:
    """Where each row's running sum passes chance * sum, (R,), and which share of that place's own
    p then lies before the passing, (R,): a chance again, as good as new."""
    xp = array_module(p)
    so_far = p.cumsum(axis=1)
    aim = chance * so_far[:, -1]
    place = (so_far <= aim[:, None]).sum(axis=1)
    place = xp.minimum(place, p.shape[1] - 1)  # only where p is 0 throughout
    rows = xp.arange(p.shape[0])
    share = 1 - (so_far[rows, place] - aim) / xp.maximum(p[rows, place], 1e-37)
    return place, xp.minimum(xp.maximum(share, 0), BELOW_1)


def likely(p: Array, top_k: int, top_p: float) -> Array:
    """Which words may be drawn, (R, V) booleans.

    p: (R, V), each row a distribution or one times any number.
    top_k: the k likeliest, 0 for all (Fan et al. 2018); top_p: of these the fewest, the likeliest
    first, that hold at least this share of their probability (Holtzman et al. 2020: the nucleus).
    Words that are as likely as the last of them may be drawn too.
    """
    xp = array_module(p)
    falling = xp.sort(p, axis=1)[:, ::-1]
    if top_k:
        falling = falling[:, :top_k]
    if top_p == 1:
        return p >= falling[:, -1:]
    so_far = falling.cumsum(axis=1)
    more = (so_far < top_p * so_far[:, -1:]).sum(axis=1)  # words before the last one
    return p >= falling[xp.arange(p.shape[0]), more][:, None]
