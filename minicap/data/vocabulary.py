"""Words and their numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy

PAD, UNK, START, END = SPECIAL = ("#PAD#", "#UNK#", "#START#", "#END#")


def tokenise(caption: str) -> list[str]:
    """The words of a caption, in lower case; all that is no letter, digit or _ parts them."""
    return [token for token in re.split(r"\W+", caption.lower()) if token]


class Vocabulary:
    """The words that a model knows; a word's id is its place in sorted order, as in the course.

    words: the list, sorted; the four special words sort in front, because "#" does.
    """

    def __init__(self, words: Iterable[str]):
        self.words = sorted({*words, *SPECIAL})
        self.ids = {word: number for number, word in enumerate(self.words)}
        self.pad, self.unk, self.start, self.end = (self.ids[word] for word in SPECIAL)

    @classmethod
    def of(cls, captions: Iterable[str], min_count: int) -> "Vocabulary":
        """All words that occur `min_count` times or more in `captions`, those of train alone."""
        counts = Counter(token for caption in captions for token in tokenise(caption))
        return cls(word for word, count in counts.items() if count >= min_count)

    def __len__(self) -> int:
        return len(self.words)

    def difference(self, other: "Vocabulary") -> str | None:
        """In which words two vocabularies differ, in one line; None if they are the same."""
        ours, theirs = set(self.words), set(other.words)
        if ours == theirs:
            return None

        parts = [f"{len(ours)} against {len(theirs)} words"]
        for place, words in ("first", ours - theirs), ("second", theirs - ours):
            if words:
                shown = ", ".join(sorted(words)[:5]) + (", ..." if len(words) > 5 else "")
                parts.append(f"only in the {place}: {len(words)} ({shown})")
        return "; ".join(parts)

    def encode(
        self, captions: Sequence[str], max_length: int
    ) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Captions as ids: #START#, the words, #END#, cut at `max_length` ids, #END# included.

        Unknown words become #UNK#. Returns ids (N, max_length) int32, filled up with #PAD#, and
        lengths (N,), each 2 or more.
        """
        ids = numpy.full((len(captions), max_length), self.pad, dtype=numpy.int32)
        lengths = numpy.empty(len(captions), dtype=numpy.int64)
        for row, caption in enumerate(captions):
            tokens = [self.ids.get(token, self.unk) for token in tokenise(caption)]
            tokens = [self.start, *tokens, self.end][:max_length]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return ids, lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as a sentence, up to #END# and without special words."""
        words: list[str] = []
        for number in ids:
            if number == self.end:
                break
            if self.words[number] not in SPECIAL:
                words.append(self.words[number])
        return " ".join(words)
