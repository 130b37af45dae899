"""Compute the answers of a batch of requests with one captioner."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy

from minicap.backend import to_host
from minicap.captioner import Captioner
from minicap.generation.beam_search import Caption
from minicap.generation.beam_tree import BeamTree
from minicap.generation.generate import generate
from minicap.generation.trace import Trace, trace
from minicap.server.cells import show_cells
from minicap.server.question import Question
from minicap.utils.errors import UserError


@dataclass
class Request:
    """A photo and what to do with it.

    Attributes:
        question: what to do.
        pixels: uint8 (size, size, 3), the prepared photo, or None if its features are known.
        features: (F,), filled in by `answer` if they are None.
    """

    question: Question
    pixels: numpy.ndarray | None = None
    features: numpy.ndarray | None = None


class Answers:
    """Answers batches of requests; each answer is JSON-compatible data, or a UserError."""

    def __init__(self, captioner: Captioner) -> None:
        """Keep the captioner that computes all answers."""
        self.captioner = captioner

    def __call__(self, requests: Sequence[Request]) -> list[dict[str, Any] | Exception]:
        """Encode what is not encoded, then generate.

        Requests with the same settings are generated together. A tree or samples are generated for
        one request at a time, so that they do not depend on the others.
        """
        self._encode([request for request in requests if request.features is None])
        groups: dict[object, list[int]] = {}
        for number, request in enumerate(requests):
            q = request.question
            alone = q.sampling or q.tree
            key = number if alone else (q.generation, q.count, q.candidates)
            groups.setdefault(key, []).append(number)
        answers: dict[int, dict[str, Any] | Exception] = {}
        for numbers in groups.values():
            group = [requests[number] for number in numbers]
            try:
                found: Sequence[dict[str, Any] | Exception] = self._generate(group)
            except UserError as error:
                found = [error] * len(group)
            answers |= zip(numbers, found, strict=True)
        return [answers[number] for number in range(len(requests))]

    def _encode(self, requests: Sequence[Request]) -> None:
        encoder = self.captioner.encoder
        for start in range(0, len(requests), encoder.batch):
            batch = requests[start : start + encoder.batch]
            pixels = [request.pixels for request in batch if request.pixels is not None]
            features = to_host(encoder.encode(numpy.stack(pixels)))
            for request, row in zip(batch, features, strict=True):
                request.features = row.copy()

    def _generate(self, group: Sequence[Request]) -> list[dict[str, Any] | Exception]:
        """Answer requests that differ in their photos and cells only."""
        q, models = group[0].question, self.captioner.models
        features = numpy.stack([r.features for r in group if r.features is not None])
        tree = BeamTree(q.generation.length_penalty) if q.tree else None
        rng = numpy.random.default_rng(q.seed)
        found = generate(models, features, q.generation, q.count, rng, observe=tree)
        traces: Sequence[Trace | None] = [None] * len(group)
        if q.candidates or any(request.question.cells for request in group):
            best = [self.captioner.token_ids(captions[0]) for captions in found]
            traces = trace(models, features, best, max(q.candidates, 1))
        answers: list[dict[str, Any] | Exception] = []
        for request, captions, of_best in zip(group, found, traces, strict=True):
            try:
                answers.append(self._answer(request, captions, of_best, tree))
            except UserError as error:
                answers.append(error)
        return answers

    def _answer(
        self,
        request: Request,
        captions: Sequence[Caption],
        of_best: Trace | None,
        tree: BeamTree | None,
    ) -> dict[str, Any]:
        """Put together the answer to one request."""
        q, words = request.question, self.captioner.models[0].vocabulary.words
        assert request.features is not None
        answer: dict[str, Any] = {
            "captions": [
                {
                    "caption": self.captioner.text(caption),
                    "tokens": [words[number] for number in self.captioner.token_ids(caption)],
                    "log_probabilities": [round(x, 6) for x in caption.log_probabilities],
                    "score": round(caption.score, 6),
                    "doubt": self.captioner.doubt(request.features, caption),
                }
                for caption in captions[: q.count]
            ]
        }
        if q.candidates and of_best:
            answer["candidates"] = [
                [
                    {"token": words[number], "log_probability": round(float(x), 6)}
                    for number, x in zip(ids, log_probabilities, strict=True)
                    if numpy.isfinite(x)
                ]
                for ids, log_probabilities in zip(
                    of_best.ids, of_best.log_probabilities, strict=True
                )
            ]
        if q.candidates and of_best and of_best.weights is not None:
            answer["attention"] = of_best.weights.round(4).tolist()
        if tree:
            answer["tree"] = [asdict(node) | {"token": words[node.token]} for node in tree.nodes]
        if q.cells and of_best:
            numbers = [] if q.cells == "auto" else q.cell_numbers()
            size = of_best.cells.shape[1]
            if max(numbers, default=0) >= size:
                raise UserError(f"cells must be below {size}, the size of this model's LSTM")
            answer["cells"] = show_cells(of_best, answer["captions"][0]["tokens"], numbers)
        return answer
