"""The grader of the exercises accepts correct layers and names each known bug."""

import importlib
import inspect
import textwrap
import types

import numpy
import pytest

from exercises.__main__ import implementation, main, report
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
OWN = {  # the functions whose mutants are bugs of an exercise
    **{name: {name} for name in EXERCISES},
    "adam": {"Adam.step", "Adam.update"},
    "embedding": {"embedding", "add_rows"},
}
INVISIBLE = {  # bugs in what an exercise does not ask for
    "embedding: the last batch's gradient not cleared",  # out=
    "add_rows: overwrites what is there",  # equals "counted once" if the table is zero
    "loss: every word counted as correct",  # correct=
}
BUGS = [
    (name, mutant)
    for name, functions in OWN.items()
    for mutant in BACKWARD + OTHER
    if mutant.function.partition(":")[2] in functions and mutant.name not in INVISIBLE
]


def broken(solution, mutant):
    """Copy a solution and give the copy the mutant's bug."""
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
    scope = {**solution.__globals__, function.__name__: made}  # the bug is in a helper
    return types.FunctionType(solution.__code__, scope, argdefs=solution.__defaults__)


def test_every_exercise_has_a_solution_and_a_stub():
    assert set(SOLUTIONS) == set(EXERCISES)
    for name in EXERCISES:
        result, lines = report(name, implementation(name), grade)
        assert (result, lines) == ("not started", []), name


@pytest.mark.parametrize("name", SOLUTIONS)
def test_minicaps_own_layers_are_correct(name):
    assert grade(name, SOLUTIONS[name]) == []


@pytest.mark.gradcheck
@pytest.mark.parametrize(("name", "mutant"), BUGS, ids=lambda x: getattr(x, "name", x))
def test_each_known_bug_is_named(name, mutant):
    result, lines = report(name, broken(SOLUTIONS[name], mutant), grade)
    assert result == "wrong"
    explanation = HINTS.get(mutant.name, mutant.name.partition(": ")[2])
    crashed = mutant.name == "dense: W in place of its transpose"  # if W is not square
    assert crashed or any(explanation in line for line in lines), lines


def test_every_hint_belongs_to_a_mutant():
    assert HINTS.keys() <= {mutant.name for mutant in BACKWARD + OTHER}


def changed(solution, change):
    """Change the gradients of a solution: a bug that is not a mutant."""

    def function(*arguments):
        *outputs, backward = solution(*arguments)

        def wrong(*dys):
            gradients = backward(*dys)
            return change(*gradients) if isinstance(gradients, tuple) else change(gradients)

        return *outputs, wrong

    return function


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("elu", lambda dz: -dz, "wrong sign"),
        ("elu", lambda dz: 3 * dz, "3 times the correct one"),
        ("dropout", lambda dx: 0 * dx, "zero everywhere"),
        ("dropout", lambda dx: dx * numpy.nan, "NaN"),
        ("dropout", lambda dx: dx + 0.1, "largest error at"),
        ("dense", lambda dx, dWb: (dx, dWb + (numpy.arange(5) == 4)[:, None]), "the bias"),
        ("dense", lambda dx, dWb: (dx[:, :2], dWb), "ValueError"),
        (
            "lstm_step",
            lambda dz, dc: (dz + (numpy.arange(12) // 3 == 2), dc),
            "gradient of z is wrong: only the columns of the forget gate f are wrong",
        ),
        ("lstm_step", lambda dz, dc: (dz, 0 * dc), "gradient of c is wrong: it is zero"),
    ],
)
def test_other_bugs_are_described(name, change, message):
    result, lines = report(name, changed(SOLUTIONS[name], change), grade)
    assert result == "wrong" and any(message in line for line in lines), lines


def test_a_forward_pass_alone_is_in_progress():
    def half(z):
        def backward(dy):
            raise NotImplementedError

        return elu(z)[0], backward

    result, lines = report("elu", half, grade)
    assert result == "in progress" and "backward pass is missing" in lines[0]


def test_a_missing_return_is_reported():
    def silent(z):
        def backward(dy):
            dy * 2

        return elu(z)[0], backward

    result, lines = report("elu", silent, grade)
    assert result == "wrong" and "backward returns nothing" in lines[1]


def test_other_correct_code_is_accepted():
    """This sigmoid is correct but not analytic in code, so a complex step through it would fail."""

    def step(z, c):
        zi, zj, zf, zo = numpy.split(z, 4, axis=1)
        i, f, o = (1 / (1 + numpy.exp(-abs(x) * numpy.sign(x))) for x in (zi, zf + 1, zo))
        j = numpy.tanh(zj)
        new = f * c + i * j
        t = numpy.tanh(new)

        def backward(dh, dc):
            dc = dc + dh * o * (1 - t**2)
            dz = (
                dc * j * i * (1 - i),
                dc * i * (1 - j**2),
                dc * c * f * (1 - f),
                dh * t * o * (1 - o),
            )
            return numpy.hstack(dz), dc * f

        return o * t, new, backward

    assert grade("lstm_step", step) == []


def test_the_command(capsys, monkeypatch):
    assert main([]) == 0
    assert capsys.readouterr().out.count("not started") == len(EXERCISES)
    assert main(["elu"]) == 1
    assert "implement exercises/elu.py" in capsys.readouterr().out
    monkeypatch.setattr("exercises.elu.elu", elu)
    assert main(["elu"]) == 0
    assert capsys.readouterr().out.split() == ["elu", "correct"]
    with pytest.raises(UserError, match="unknown exercise nonsense"):
        main(["nonsense"])


def test_a_crash_is_reported(capsys, monkeypatch):
    def crash(x, mask):
        raise IndexError("out of range")

    monkeypatch.setattr("exercises.dropout.dropout", crash)
    assert main(["dropout"]) == 1
    assert "IndexError" in capsys.readouterr().out
