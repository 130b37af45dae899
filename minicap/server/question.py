"""What a request asks for: the options in its query string."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from minicap.generation.config import BEAM, GenerationConfig
from minicap.utils.errors import UserError

MOST = 20  # hypotheses, samples or candidates
MOST_CELLS = 12
SWITCH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Question:
    """How to caption a photo, and what to explain.

    Attributes:
        generation: as for `minicap caption`.
        count: captions to return: the best ones of the beam, or samples.
        seed: for sampling.
        candidates: likeliest tokens to list for each token of the first caption.
        tree: return the beam search as a tree.
        cells: "" for none, "auto", or the numbers of LSTM cells to show: "3,17".
    """

    generation: GenerationConfig = BEAM
    count: int = 1
    seed: int = 0
    candidates: int = 10
    tree: bool = False
    cells: str = ""

    @property
    def sampling(self) -> bool:
        """Whether captions are random samples."""
        return self.generation.temperature > 0

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        self.generation.check()
        for name, value, least in (
            ("beam_size", self.generation.beam_size, 1),
            ("count", self.count, 1),
            ("candidates", self.candidates, 0),
        ):
            if not least <= value <= MOST:
                raise UserError(f"{name} must be from {least} to {MOST}")
        if not 0 <= self.seed < 2**63:
            raise UserError("seed must be 0 or more, and below 2**63")
        if self.tree and self.sampling:
            raise UserError("tree is for beam search: set temperature to 0")
        if self.cells not in ("", "auto"):
            self.cell_numbers()

    def cell_numbers(self) -> list[int]:
        """Return the cells that the request names.

        Raises:
            UserError: not a list of numbers.
        """
        words = self.cells.split(",")
        if len(words) > MOST_CELLS or not all(w.isdecimal() and len(w) < 7 for w in words):
            raise UserError(f"cells must be auto, or at most {MOST_CELLS} numbers like 3,17")
        return [*map(int, words)]


OPTIONS = {
    field.name: type(getattr(default, field.name))
    for default in (GenerationConfig(), Question())
    for field in fields(default)
    if field.name != "generation"
}


def read_question(query: Iterable[tuple[str, str]]) -> Question:
    """Read the options of a query string.

    Args:
        query: names and values.

    Raises:
        UserError: an unknown option, or a value that is wrong or out of range.
    """
    values: dict[str, Any] = {}
    for name, text in query:
        if name not in OPTIONS:
            raise UserError(f"unknown option {name[:40]!r}: choose from {', '.join(OPTIONS)}")
        values[name] = _value(name, OPTIONS[name], text)
    of_generation = {field.name for field in fields(GenerationConfig)} & values.keys()
    generation = replace(BEAM, **{name: values.pop(name) for name in of_generation})
    question = Question(generation, **values)
    question.check()
    return question


def _value(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text not in SWITCH:
            raise UserError(f"{name} must be true or false")
        return SWITCH[text]
    if len(text) > 1000:
        raise UserError(f"{name} has {len(text):,} characters: at most 1,000 are allowed")
    try:
        return kind(text)
    except ValueError:
        form = "a whole number" if kind is int else "a number"
        raise UserError(f"{name} must be {form}, not {text[:40]!r}") from None
