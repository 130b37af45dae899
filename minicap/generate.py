"""Writing captions, word by word, for many pictures at once."""

from collections.abc import Callable, Mapping, Sequence

import numpy

from minicap.backend import Array, array_module, to_device, to_host
from minicap.decoder import first_state, next_word

Choice = Callable[[Array], Array]


def greedy(logits: Array) -> Array:
    """The likeliest word of each row. logits: (N, V) -> (N,) ids."""
    return logits.argmax(axis=1)


def sampler(rng: numpy.random.Generator, temperature: float) -> Choice:
    """Draws words with probabilities p^(1/temperature), normalised, p = softmax(logits).

    temperature > 0: 1 draws from the model's own distribution, less is more careful.
    By the Gumbel trick (Gumbel 1954), argmax(logits / temperature + noise) is such a draw; all of
    it is taken times the temperature, so that a tiny one overflows nothing.
    """

    def choose(logits: Array) -> Array:
        xp = array_module(logits)
        noise = to_device(rng.gumbel(size=logits.shape), xp)
        return (logits + temperature * noise).argmax(axis=1)

    return choose


def generate(
    p: Mapping[str, Array],
    features: Array,
    start: int,
    end: int,
    banned: Sequence[int],
    max_words: int,
    choose: Choice = greedy,
) -> list[list[int]]:
    """One caption for each of N pictures, as ids without #START# and #END#.

    p: the decoder's parameters; features: (N, F), on the same device; start, end: the ids that
    a caption starts from and ends with; banned: ids that are never written; choose: `greedy` or
    a `sampler`. Captions that have ended leave the batch; none has more than `max_words` words.
    """
    xp = array_module(features)
    h, _ = first_state(p, features)
    c = h
    going = numpy.arange(features.shape[0])
    words = xp.full(len(going), start)
    captions: list[list[int]] = [[] for _ in going]
    for _ in range(max_words):
        logits, h, c = next_word(p, words, h, c)
        logits[:, to_device(numpy.array(banned, dtype=int), xp)] = -numpy.inf
        words = choose(logits)
        chosen = to_host(words)
        for picture, word in zip(going, chosen, strict=True):
            if word != end:
                captions[picture].append(int(word))
        stays = numpy.flatnonzero(chosen != end)
        if not len(stays):
            break
        if len(stays) < len(going):
            going = going[stays]
            stays = to_device(stays, xp)
            words, h, c = words[stays], h[stays], c[stays]
    return captions
