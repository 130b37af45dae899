"""Choose LSTM cells worth looking at, and say in a sentence what each one does."""

from collections.abc import Sequence
from typing import Any

import numpy

from minicap.generation.trace import Trace

EACH = 2  # cells of each kind


def show_cells(trace: Trace, tokens: Sequence[str], numbers: Sequence[int] = ()) -> list[dict]:
    """Describe some cells along a caption.

    Args:
        trace: of the caption.
        tokens: its T tokens, as it was generated. Step t reads the token before.
        numbers: the cells; by default, the clearest ones of each kind.

    Returns:
        For each cell its "number", its "kind", its "state" (T + 1 numbers, the first before the
        first step), the gates "input", "forget" and "output" (T numbers each), and a "sentence".
    """
    chosen = [(number, kind_of(trace, number)) for number in numbers] or choose(trace)
    return [describe(trace, tokens, number, kind) for number, kind in chosen]


def measures(trace: Trace) -> dict[str, numpy.ndarray]:
    """Measure how well each cell fits each kind, (H,) each, higher is better.

    - keeps: the state is far from 0 and hardly changes.
    - drifts: the state moves in one direction, far.
    - reacts: one token changes the state by much more than the others do. #START# does not count:
      many cells forget the photo there.
    """
    change = numpy.diff(trace.cells, axis=0)
    size = numpy.abs(change)
    travelled = size.sum(axis=0) + 1e-6
    moved = numpy.abs(change.sum(axis=0))
    largest = size.max(axis=0)
    later = size[1:] if len(size) > 1 else size
    jump = later.max(axis=0)
    return {
        "keeps": numpy.abs(trace.cells).min(axis=0) / (0.5 + travelled),
        "drifts": moved * (moved / travelled) * (1 - largest / travelled),
        "reacts": jump * jump / (later.sum(axis=0) + 1e-6),
    }


def choose(trace: Trace) -> list[tuple[int, str]]:
    """Choose the clearest cells of each kind: their numbers and kinds."""
    chosen: dict[int, str] = {}
    for kind, measure in measures(trace).items():
        best = [n for n in numpy.argsort(-measure, kind="stable").tolist() if n not in chosen]
        chosen |= dict.fromkeys(best[:EACH], kind)
    return [*chosen.items()]


def kind_of(trace: Trace, number: int) -> str:
    """Return the kind that a cell fits best, relative to the best cell of that kind."""
    fits = {kind: m[number] / max(m.max(), 1e-6) for kind, m in measures(trace).items()}
    return max(fits, key=lambda kind: fits[kind])


def describe(trace: Trace, tokens: Sequence[str], number: int, kind: str) -> dict[str, Any]:
    """Return the numbers of one cell along a caption, with a sentence."""
    state = trace.cells[:, number]
    i, _, f, o = trace.gates[:, :, number].T
    change = numpy.diff(state)
    first = int(len(change) > 1)  # see `measures`
    at = first + int(numpy.abs(change[first:]).argmax())
    token = f"“{tokens[at - 1]}”" if at else "the start"  # what this step reads
    if kind == "keeps":
        sentence = (
            f"keeps what the photo put there: its forget gate is {f.mean():.2f} on average, and "
            f"the state stays between {state.min():.1f} and {state.max():.1f}"
        )
    elif kind == "drifts":
        same = int((numpy.sign(change) == numpy.sign(change.sum())).sum())
        way = "rises" if change.sum() > 0 else "falls"
        sentence = (
            f"drifts: the state {way} at {same} of {len(change)} steps, "
            f"from {state[0]:.1f} to {state[-1]:.1f}"
        )
    else:
        sentence = (
            f"reacts to {token}: there the state goes from {state[at]:.1f} to {state[at + 1]:.1f}, "
            f"with the input gate at {i[at]:.2f} and the forget gate at {f[at]:.2f}"
        )
    rounded = {
        name: [round(float(x), 4) for x in values]
        for name, values in (("state", state), ("input", i), ("forget", f), ("output", o))
    }
    return {"number": number, "kind": kind, **rounded, "sentence": f"Cell {number} {sentence}."}
