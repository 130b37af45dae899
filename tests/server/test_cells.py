"""The cells on show are what their sentences say."""

import numpy

from minicap.generation.trace import Trace
from minicap.server.cells import describe, kind_of, show_cells

TOKENS = ["a", "red", "dog", "#END#"]
KEEPS = [5.0, 5.0, 5.1, 5.0, 5.0]
COUNTS = [0.0, 1.0, 2.0, 3.0, 4.0]
REACTS = [0.1, 0.1, 0.1, 0.1, 2.0]
FORGETS = [8.0, 0.0, 0.1, 0.0, 0.1]  # at the first token, as many cells do
DULL = [0.2, 0.1, 0.2, 0.1, 0.2]


def trace(*cells):
    cells = numpy.array(cells, "float32").T
    gates = numpy.full((4, 4, cells.shape[1]), 0.5, "float32")
    gates[:, 2, 0] = 0.99
    return Trace(numpy.zeros((4, 1)), numpy.zeros((4, 1)), gates, cells)


def test_the_clearest_cells_of_each_kind_come_first():
    found = show_cells(trace(KEEPS, COUNTS, REACTS, FORGETS, DULL), TOKENS)
    assert len({cell["number"] for cell in found}) == len(found) == 5
    first = {cell["kind"]: cell["number"] for cell in reversed(found)}
    assert first == {"keeps": 0, "drifts": 1, "reacts": 2}


def test_the_sentences():
    found = trace(KEEPS, COUNTS, REACTS)
    keeps, counts, reacts = (cell["sentence"] for cell in show_cells(found, TOKENS, [0, 1, 2]))
    assert "forget gate is 0.99 on average, and the state stays between 5.0 and 5.1" in keeps
    assert counts == "Cell 1 drifts: the state rises at 4 of 4 steps, from 0.0 to 4.0."
    assert reacts.startswith("Cell 2 reacts to “dog”: there the state goes from 0.1 to 2.0")
    second = trace([0, 0, -3, -3, -3])
    assert "reacts to “a”" in describe(second, TOKENS, 0, "reacts")["sentence"]


def test_numbers_are_those_of_the_trace():
    (cell,) = show_cells(trace(COUNTS), TOKENS, [0])
    assert cell["state"] == COUNTS and cell["forget"] == [0.99] * 4 and cell["input"] == [0.5] * 4


def test_a_caption_of_one_token():
    short = Trace(numpy.zeros((1, 1)), numpy.zeros((1, 1)), numpy.ones((1, 4, 3)),
                  numpy.array([[0.0, 1, 2], [1, 1, 2]]))  # fmt: skip
    assert {cell["number"] for cell in show_cells(short, ["#END#"])} == {0, 1, 2}
    assert kind_of(short, 0) in ("keeps", "drifts", "reacts")
