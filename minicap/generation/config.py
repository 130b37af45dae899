"""Configuration of generation: the user's options, and constraints as token ids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minicap.utils.errors import UserError


@dataclass(frozen=True)
class GenerationConfig:
    """How to generate captions. Each field is an option of `minicap caption` and `evaluate`."""

    beam_size: int = 5
    """number of hypotheses that beam search keeps for each image (1: greedy decoding)"""
    length_penalty: float = 0.7
    """rank captions by log-probability / length**length_penalty, where length counts the end token
    (0: log-probability alone, which prefers short captions; 1: the mean log-probability)"""
    temperature: float = 0.0
    """0: beam search; above 0: sample each word from softmax(logits / temperature)"""
    top_k: int = 0
    """sample only from this many of the likeliest words (0: all)"""
    top_p: float = 1.0
    """sample only from the fewest likeliest words whose probabilities add up to this (1: all)"""
    no_repeat_ngram_size: int = 0
    """n-grams of this many words occur only once in a caption (0: no limit)"""
    min_length: int = 0
    """minimum number of words in a caption"""
    prefix: str = ""
    """words that each caption starts with"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        for name, good, need in (
            ("beam-size", 1 <= self.beam_size <= 100, "from 1 to 100"),
            ("length-penalty", 0 <= self.length_penalty < math.inf, "0 or more, and finite"),
            ("temperature", 0 <= self.temperature <= 1000, "from 0 to 1000"),
            ("top-k", self.top_k >= 0, "0 or more"),
            ("top-p", 0 < self.top_p <= 1, "greater than 0, and at most 1"),
            ("no-repeat-ngram-size", self.no_repeat_ngram_size >= 0, "0 or more"),
            ("min-length", self.min_length >= 0, "0 or more"),
        ):
            if not good:
                raise UserError(f"--{name} must be {need}")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise UserError("--top-k and --top-p are for sampling: add --temperature")


BEAM, GREEDY = GenerationConfig(), GenerationConfig(beam_size=1)


@dataclass(frozen=True)
class Constraints:
    """Limits on a caption, as token ids.

    Attributes:
        start: id of #START#, which is never generated.
        end: id of #END#.
        banned: other ids that are never generated.
        max_words: maximum number of words, #END# included.
        prefix: ids of the words that the caption starts with.
    """

    start: int
    end: int
    banned: Sequence[int]
    max_words: int
    prefix: Sequence[int] = ()
