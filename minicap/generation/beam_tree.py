"""Record a beam search as a tree of words, to draw it."""

from dataclasses import dataclass

import numpy

from minicap.generation.beam_search import Hypotheses


@dataclass
class Node:
    """A hypothesis that the search has seen: the words on the path from the root to this node.

    Attributes:
        parent: the number of the node before it, or None for a first word.
        token: id of its last word.
        log_probability: of that word, in nats.
        score: of the whole hypothesis, log-probability / length**length_penalty.
        first: the step at which it appeared, from 0.
        last: the last step that kept it or a hypothesis that continues it; first - 1 if it was
            dropped at once.
    """

    parent: int | None
    token: int
    log_probability: float
    score: float
    first: int
    last: int


class BeamTree:
    """Observes the beam search of one image (see `beam_search`).

    Each step adds the hypotheses that it keeps, and as many of the best that it drops.

    Attributes:
        nodes: in the order in which they appeared; a parent comes before its children.
    """

    def __init__(self, length_penalty: float) -> None:
        """Start with an empty tree.

        Args:
            length_penalty: that of the search.
        """
        self.nodes: list[Node] = []
        self._length_penalty = length_penalty
        self._number: dict[tuple[int, ...], int] = {}  # of the node with these words
        self._step = 0

    def __call__(self, candidates: Hypotheses, kept: numpy.ndarray) -> None:
        """Add one step.

        Args:
            candidates: all hypotheses of the step.
            kept: rows of those that stay in the beam, best first.
        """
        scores = candidates.scores(self._length_penalty)
        dropped = numpy.setdiff1d(numpy.argsort(-scores, kind="stable")[: 2 * len(kept)], kept)
        for row in (*kept, *dropped):
            words = tuple(candidates.words[row, : candidates.length[row]].tolist())
            if words not in self._number:
                self._number[words] = len(self.nodes)
                log_probability = float(candidates.log_probabilities[row, len(words) - 1])
                parent = self._number.get(words[:-1])
                self.nodes.append(
                    Node(
                        parent, words[-1], log_probability, float(scores[row]),
                        first=self._step, last=self._step - 1,
                    )
                )  # fmt: skip
        for row in kept:
            words = tuple(candidates.words[row, : candidates.length[row]].tolist())
            number: int | None = self._number[words]
            while number is not None and self.nodes[number].last < self._step:
                self.nodes[number].last = self._step
                number = self.nodes[number].parent
        self._step += 1
