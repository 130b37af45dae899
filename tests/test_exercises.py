"""The exercises' grader: right answers pass, and each known mistake is called by its name."""

import importlib
import inspect
import textwrap
import types

import numpy
import pytest

from exercises.__main__ import learner, main, report
from exercises.grading import EXERCISES, grade
from exercises.hints import HINTS
from minicap.nn.adam import Adam, clip_scale
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import dropout
from minicap.nn.embedding import embedding
from minicap.nn.lstm import lstm, lstm_step
from minicap.utils.errors import UserError
from tests.mutants import BACKWARD, OTHER

SOLUTIONS = {
    "elu": elu,
    "dense": dense,
    "dropout": dropout,
    "embedding": embedding,
    "lstm_step": lstm_step,
    "lstm": lstm,
    "project_cross_entropy": project_cross_entropy,
    "adam": Adam,
    "clip_scale": clip_scale,
}
OWN = {  # whose mistakes are an exercise's
    **{name: {name} for name in EXERCISES},
    "adam": {"Adam.step", "Adam.update"},
    "embedding": {"embedding", "add_rows"},
}
INVISIBLE = {  # mistakes that need more than an exercise asks for
    "embedding: the last batch's gradient not cleared",  # out=
    "add_rows: overwrites what is there",  # equals "counted once" where the target is zero
    "loss: a hit for every word",  # correct=
}
MISTAKES = [
    (name, mutant)
    for name, functions in OWN.items()
    for mutant in BACKWARD + OTHER
    if mutant.function.partition(":")[2] in functions and mutant.name not in INVISIBLE
]


def broken(solution, mutant):
    """A copy of the solution that makes the mutant's mistake; the original stays as it is."""
    module_name, _, function_name = mutant.function.partition(":")
    module = importlib.import_module(f"minicap.{module_name}")
    function = module
    for part in function_name.split("."):
        function = getattr(function, part)
    source = textwrap.dedent(inspect.getsource(function)).replace(mutant.old, mutant.new)
    namespace = dict(vars(module))
    exec(compile(source, f"<{mutant.name}>", "exec"), namespace)
    made = namespace[function.__name__]
    if inspect.isclass(solution):
        return type("Adam", (solution,), {function.__name__: made})
    if function is solution:
        return made
    world = {**solution.__globals__, function.__name__: made}  # a helper's mistake
    return types.FunctionType(solution.__code__, world, argdefs=solution.__defaults__)


def test_every_exercise_has_a_solution_and_a_stub():
    assert set(SOLUTIONS) == set(EXERCISES)
    for name in EXERCISES:
        judged, lines = report(name, learner(name), grade)
        assert (judged, lines) == ("not begun", []), name


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_projects_own_code_is_right(name):
    assert grade(name, SOLUTIONS[name]) == []


@pytest.mark.gradcheck
@pytest.mark.parametrize(("name", "mutant"), MISTAKES, ids=lambda x: getattr(x, "name", x))
def test_each_known_mistake_is_called_by_its_name(name, mutant):
    judged, lines = report(name, broken(SOLUTIONS[name], mutant), grade)
    assert judged == "wrong"
    said = HINTS.get(mutant.name, mutant.name.partition(": ")[2])
    crashed = mutant.name == "dense: W in the place of its transpose"  # where W is not square
    assert crashed or any(said in line for line in lines), lines


def test_hints_are_of_mutants_that_there_are():
    assert HINTS.keys() <= {mutant.name for mutant in BACKWARD + OTHER}


def changed(solution, change):
    """The solution with its gradients changed: a mistake that no mutant makes."""

    def function(*arguments):
        *outputs, backward = solution(*arguments)

        def wrong(*dys):
            found = backward(*dys)
            return change(*found) if isinstance(found, tuple) else change(found)

        return *outputs, wrong

    return function


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("elu", lambda dz: -dz, "wrong sign"),
        ("elu", lambda dz: 3 * dz, "3 times the right one"),
        ("dropout", lambda dx: 0 * dx, "zero everywhere"),
        ("dropout", lambda dx: dx * numpy.nan, "NaN"),
        ("dropout", lambda dx: dx + 0.1, "furthest off at"),
        ("dense", lambda dx, dWb: (dx, dWb + (numpy.arange(5) == 4)[:, None]), "the bias"),
        ("dense", lambda dx, dWb: (dx[:, :2], dWb), "ValueError"),
        (
            "lstm_step",
            lambda dz, dc: (dz + (numpy.arange(12) // 3 == 2), dc),
            "gradient of z is wrong: it is wrong in the columns of the forget gate f only",
        ),
        ("lstm_step", lambda dz, dc: (dz, 0 * dc), "gradient of c is wrong: it is zero"),
    ],
)
def test_other_mistakes_are_described(name, change, said):
    judged, lines = report(name, changed(SOLUTIONS[name], change), grade)
    assert judged == "wrong" and any(said in line for line in lines), lines


def test_a_way_forward_alone_is_half_of_it():
    def half(z):
        def backward(dy):
            raise NotImplementedError

        return elu(z)[0], backward

    judged, lines = report("elu", half, grade)
    assert judged == "half done" and "way back is still to do" in lines[0]


def test_a_forgotten_return_is_named():
    def silent(z):
        def backward(dy):
            dy * 2

        return elu(z)[0], backward

    judged, lines = report("elu", silent, grade)
    assert judged == "wrong" and "backward returns nothing" in lines[1]


def test_any_right_answer_will_do():
    """Not only minicap's: another way to write a sigmoid, even one that complex steps refuse."""

    def step(z, c):
        zi, zj, zf, zo = numpy.split(z, 4, axis=1)
        i, f, o = (1 / (1 + numpy.exp(-abs(x) * numpy.sign(x))) for x in (zi, zf + 1, zo))
        j = numpy.tanh(zj)
        new = f * c + i * j
        t = numpy.tanh(new)

        def backward(dh, dc):
            dc = dc + dh * o * (1 - t**2)
            parts = (
                dc * j * i * (1 - i),
                dc * i * (1 - j**2),
                dc * c * f * (1 - f),
                dh * t * o * (1 - o),
            )
            return numpy.hstack(parts), dc * f

        return o * t, new, backward

    assert grade("lstm_step", step) == []


def test_the_command(capsys, monkeypatch):
    assert main([]) == 0
    assert capsys.readouterr().out.count("not begun") == len(EXERCISES)
    assert main(["elu"]) == 1
    assert "fill in exercises/elu.py" in capsys.readouterr().out
    monkeypatch.setattr("exercises.elu.elu", elu)
    assert main(["elu"]) == 0
    assert capsys.readouterr().out.split() == ["elu", "right"]
    with pytest.raises(UserError, match="no exercise is called nonsense"):
        main(["nonsense"])


def test_a_crash_is_told_in_lines(capsys, monkeypatch):
    def crash(x, mask):
        raise IndexError("out of range")

    monkeypatch.setattr("exercises.dropout.dropout", crash)
    assert main(["dropout"]) == 1
    assert "IndexError" in capsys.readouterr().out
