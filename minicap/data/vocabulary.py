"""The vocabulary: words and their token ids."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy

from minicap.data.tokenisers import TOKENISERS, TokenizerName, course, join

PAD, UNK, START, END = SPECIAL = ("#PAD#", "#UNK#", "#START#", "#END#")


tokenise = course  # the default


class Vocabulary:
    """The sorted list of words a model knows. A word's id is its index in the list.

    The four special tokens are always included. They come first, because "#" sorts before letters
    and digits.

    Attributes:
        words: V words, sorted.
        ids: word -> id.
        tokenizer: name of the tokeniser that makes words of captions.
        pad, unk, start, end: the ids of #PAD#, #UNK#, #START# and #END#.
    """

    def __init__(self, words: Iterable[str], tokenizer: TokenizerName = "course"):
        """Sort the words and add the special tokens.

        Args:
            words: in any order, repetitions allowed.
            tokenizer: a name of `minicap.data.tokenisers.TOKENISERS`.
        """
        self.tokenizer, self.tokenise = tokenizer, TOKENISERS[tokenizer]
        self.words = sorted({*words, *SPECIAL})
        self.ids = {word: number for number, word in enumerate(self.words)}
        self.pad, self.unk, self.start, self.end = (self.ids[word] for word in SPECIAL)

    @classmethod
    def of(
        cls, captions: Iterable[str], min_count: int, tokenizer: TokenizerName = "course"
    ) -> "Vocabulary":
        """Collect the words that occur at least `min_count` times.

        Args:
            captions: those of the training set only.
            min_count: occurrences, counted over all captions.
            tokenizer: as for `Vocabulary`.
        """
        tokens = TOKENISERS[tokenizer]
        counts = Counter(token for caption in captions for token in tokens(caption))
        return cls((word for word, count in counts.items() if count >= min_count), tokenizer)

    def __len__(self) -> int:
        return len(self.words)

    def difference(self, other: "Vocabulary") -> str | None:
        """Describe in one line how another vocabulary differs; None if it is the same."""
        if self.tokenizer != other.tokenizer:
            return f"the tokeniser is {self.tokenizer} against {other.tokenizer}"
        ours, theirs = set(self.words), set(other.words)
        if ours == theirs:
            return None

        found = [f"{len(ours)} against {len(theirs)} words"]
        for place, words in ("first", ours - theirs), ("second", theirs - ours):
            if words:
                shown = ", ".join(sorted(words)[:5]) + (", ..." if len(words) > 5 else "")
                found.append(f"only in the {place}: {len(words)} ({shown})")
        return "; ".join(found)

    def encode(
        self, captions: Sequence[str], max_length: int
    ) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Convert captions to token ids: #START#, the words, #END#.

        Unknown words become #UNK#. Longer captions are truncated and then have no #END#.

        Args:
            captions: N texts.
            max_length: T, the most ids per caption, #START# and #END# included.

        Returns:
            ids: (N, T) int32, padded with #PAD#.
            lengths: (N,) int64, each between 2 and T.
        """
        ids = numpy.full((len(captions), max_length), self.pad, dtype=numpy.int32)
        lengths = numpy.empty(len(captions), dtype=numpy.int64)
        for row, caption in enumerate(captions):
            tokens = [self.ids.get(token, self.unk) for token in self.tokenise(caption)]
            tokens = [self.start, *tokens, self.end][:max_length]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return ids, lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Convert token ids to text: stop at #END#, leave out the other special tokens."""
        words: list[str] = []
        for number in ids:
            if number == self.end:
                break
            if self.words[number] not in SPECIAL:
                words.append(self.words[number])
        return join(words, self.tokenizer)
