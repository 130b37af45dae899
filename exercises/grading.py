"""Grade a layer: compare its outputs and gradients with the correct ones and with known bugs."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy

from exercises.hints import HINTS
from minicap.nn import adam, gradient_cases
from minicap.nn.dense import elu
from minicap.nn.gradient_check import (
    COMPLEX_STEP_TOLERANCE,
    as_loss,
    complex_step,
    gradients_of,
    relative_error,
)
from tests.mutants import BACKWARD, OTHER, planted

HUGE = ", huge logits"
GATES = "input gate i", "candidate values j", "forget gate f", "output gate o"
Values = dict[str, numpy.ndarray]  # arrays to compare, by their names in messages


@dataclass(frozen=True)
class Exercise:
    """How to test the function of an exercise.

    Attributes:
        name: its name.
        outputs: names of its outputs, for messages.
        cases: names of cases of `minicap.nn.gradient_cases.layer_cases`.
        helpers: other functions whose mutants are bugs of this exercise.
        gates: inputs whose columns belong to the four gates.
    """

    name: str
    outputs: tuple[str, ...] = ("y",)
    cases: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()


LAYERS = [
    Exercise("elu"),
    Exercise("dense", cases=("dense", "dense, elu")),
    Exercise("dropout", cases=("dropout",)),
    Exercise("embedding", cases=("embedding",), helpers=("add_rows",)),
    Exercise("lstm_step", ("h'", "c'"), cases=("lstm_step",), gates=("z",)),
    Exercise("lstm", ("h",), cases=("lstm",), gates=("zx", "U")),
    Exercise(
        "project_cross_entropy",
        ("the loss",),
        cases=("project_cross_entropy", "project_cross_entropy" + HUGE),
    ),
]
EXERCISES = {e.name: e for e in LAYERS} | {
    "adam": Exercise("adam"),
    "clip_scale": Exercise("clip_scale"),
}


@contextlib.contextmanager
def replaced(name: str, function: Callable) -> Iterator[None]:
    """Let the cases of `layer_cases` call `function` in place of the layer `name`."""
    original = getattr(gradient_cases, name)
    setattr(gradient_cases, name, function)
    try:
        yield
    finally:
        setattr(gradient_cases, name, original)


def layer_case(exercise: Exercise, case: str, function: Callable | None, rng):
    """Return the layer of a case and its inputs, with `function` in place of minicap's layer."""
    if exercise.name == "elu":
        return function or elu, {"z": rng.standard_normal((5, 4))}
    function = function or getattr(gradient_cases, exercise.name)
    base, huge, _ = case.partition(HUGE)
    with replaced(exercise.name, function):
        layer, inputs = gradient_cases.layer_cases(rng)[base]
    if huge:
        inputs["x"] *= 1000

    def call(*arguments):
        with replaced(exercise.name, function):
            return layer(*arguments)

    return call, inputs


def forward(exercise: Exercise, case: str, function: Callable | None) -> Values:
    """Run the forward pass and return the outputs by name."""
    layer, inputs = layer_case(exercise, case, function, numpy.random.default_rng(0))
    results = layer(*inputs.values())
    if not isinstance(results, tuple) or len(results) != len(exercise.outputs) + 1:
        raise ValueError(f"it must return {', '.join(exercise.outputs)} and backward")
    return {name: numpy.asarray(y) for name, y in zip(exercise.outputs, results)}


def backward(exercise: Exercise, case: str, function: Callable | None) -> Values:
    """Run the backward pass for a random upstream gradient and return the gradients by name."""
    rng = numpy.random.default_rng(0)  # the same upstream gradient for every function
    layer, inputs = layer_case(exercise, case, function, rng)

    def checked(*arguments):
        *outputs, layer_backward = layer(*arguments)

        def checked_backward(*upstream):
            gradients = layer_backward(*upstream)
            if gradients is None:
                raise ValueError("its backward returns nothing: is a `return` missing?")
            return gradients

        return *outputs, checked_backward

    return gradients_of(as_loss(checked, inputs, rng), inputs)


def complex_steps(exercise: Exercise, case: str, gradients: Values) -> dict[str, float]:
    """Compute the errors of gradients, by the complex step through minicap's forward pass."""
    rng = numpy.random.default_rng(0)
    layer, inputs = layer_case(exercise, case, None, rng)
    loss = as_loss(layer, inputs, rng)
    errors = {}
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)

        def along(x, name=name):
            return loss({**inputs, name: x})[0]

        derivative = float(complex_step(along, inputs[name], direction))
        errors[name] = relative_error(derivative, gradient, direction)
    return errors


def equal(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    """Compare two arrays up to rounding."""
    scale = max(float(numpy.abs(b).max(initial=0)), 1e-300)
    return a.shape == b.shape and bool(numpy.abs(a - b).max(initial=0) <= 1e-9 * scale)


def bug_values(
    names: tuple[str, ...], run: Callable[[], Values], correct: Values
) -> dict[str, Values]:
    """Compute the values of each mutant of these functions that differ from the correct ones."""
    found = {}
    for mutant in BACKWARD + OTHER:
        if mutant.function.partition(":")[2] in names:
            # Some mutants give arrays whose shapes do not fit; no gradient equals theirs.
            with planted(mutant), contextlib.suppress(ValueError), numpy.errstate(all="ignore"):
                values = run()
                if not all(equal(values[name], correct[name]) for name in correct):
                    found[mutant.name] = values
    return found


def hints(name: str, actual: numpy.ndarray, correct: Values, bugs: dict[str, Values]) -> list[str]:
    """Find the known bugs whose value of `name` equals the actual one."""
    return [
        HINTS.get(bug, bug.partition(": ")[2])
        for bug, values in bugs.items()
        if equal(actual, values[name]) and not equal(values[name], correct[name])
    ]


def describe(actual: numpy.ndarray, correct: numpy.ndarray, gates: bool) -> str:
    """Describe how a wrong array differs from the correct one."""
    if not numpy.isfinite(actual).all():
        return "it has NaN or infinite entries: some were never set, or they overflowed"
    if not actual.any():
        return "it is zero everywhere"
    ratios = actual[correct != 0] / correct[correct != 0]
    if ratios.size and equal(ratios, numpy.full_like(ratios, ratios[0])):
        if math.isclose(ratios[0], -1):
            return "it has the wrong sign"
        if equal(actual, ratios[0] * correct):
            return f"it is {ratios[0]:.4g} times the correct one"
    if correct.ndim == 2 and equal(actual, correct.T):
        return "it is the transpose of the correct one"
    if gates:
        pieces = zip(GATES, numpy.split(actual, 4, axis=1), numpy.split(correct, 4, axis=1))
        wrong = [gate for gate, a, b in pieces if not equal(a, b)]
        if len(wrong) < 4:
            return f"only the columns of the {' and the '.join(wrong)} are wrong"
    if correct.ndim == 2:
        rows = [row for row in range(len(correct)) if not equal(actual[row], correct[row])]
        if len(rows) < len(correct):
            last = " (the last row is the bias)" if rows == [len(correct) - 1] else ""
            return f"wrong rows: {', '.join(map(str, rows))}{last}"
    index = numpy.unravel_index(numpy.abs(actual - correct).argmax(), correct.shape)
    where = ", ".join(map(str, index))
    return f"largest error at [{where}]: {actual[index]:.6g}, correct is {correct[index]:.6g}"


def explain(
    what: str, name: str, actual: Values, correct: Values, bugs: dict[str, Values], gates=()
) -> str:
    """Explain in one line what is wrong with an array."""
    a, b = numpy.asarray(actual[name]), correct[name]
    if a.shape != b.shape:
        return f"{what} has shape {a.shape}, but must have shape {b.shape}"
    named = hints(name, a, correct, bugs)
    return f"{what} is wrong: {'; or '.join(named) or describe(a, b, name in gates)}"


def grade_layer(exercise: Exercise, function: Callable) -> list[str]:
    """Grade a layer. Returns lines that explain what is wrong, none if it is correct."""
    names = (exercise.name, *exercise.helpers)
    for case in exercise.cases or ("",):
        correct = forward(exercise, case, None)
        actual = forward(exercise, case, function)
        wrong = [name for name in correct if not equal(actual[name], correct[name])]
        if wrong:
            bugs = bug_values(names, lambda case=case: forward(exercise, case, None), correct)
            return [explain(f"forward pass: {n}", n, actual, correct, bugs) for n in wrong]
        correct = backward(exercise, case, None)
        try:
            actual = backward(exercise, case, function)
        except NotImplementedError:
            raise NotImplementedError(
                "the forward pass is correct; the backward pass is missing"
            ) from None
        errors = complex_steps(exercise, case, actual)
        wrong = [n for n, error in errors.items() if not error <= COMPLEX_STEP_TOLERANCE]
        if wrong:
            bugs = bug_values(names, lambda case=case: backward(exercise, case, None), correct)
            what = "backward pass: the gradient of"
            return [explain(f"{what} {n}", n, actual, correct, bugs, exercise.gates) for n in wrong]
    return []


def adam_path(cls: type) -> Values:
    """Run four steps and return the parameters after each."""
    rng = numpy.random.default_rng(0)
    parameters = rng.standard_normal(12)
    optimiser, path = cls(parameters, learning_rate=0.1, beta1=0.8, beta2=0.95, epsilon=0.01), {}
    for step in range(1, 5):
        optimiser.step(rng.standard_normal(12))
        path[f"step {step}"] = parameters.copy()
    return path


def scales(function: Callable) -> Values:
    """Compute the scales of a large and of a small gradient, each in three blocks."""
    large, small = [9.0, 16.0, 144.0], [0.09, 0.16, 1.44]
    return {
        "the scale of a large gradient": numpy.array(function(large, 2.0), dtype=float),
        "the scale of a small gradient": numpy.array(function(small, 2.0), dtype=float),
    }


def grade_values(
    names: tuple[str, ...], run: Callable, original: Callable, function: Callable
) -> list[str]:
    """Grade what is not a layer. Returns only the first difference: later ones follow from it."""
    correct, actual = run(original), run(function)
    for name in correct:
        if not equal(actual[name], correct[name]):
            bugs = bug_values(names, lambda: run(original), correct)
            return [explain(name, name, actual, correct, bugs)]
    return []


@numpy.errstate(all="ignore")  # overflow shows in the results
def grade(name: str, function: Callable) -> list[str]:
    """Grade a function or class.

    Args:
        name: name of the exercise.
        function: the implementation to grade.

    Returns:
        Lines that explain what is wrong, none if it is correct.

    Raises:
        NotImplementedError: without a message if nothing is implemented, with a message if the
            backward pass is missing.
    """
    if name == "adam":
        return grade_values(("Adam.step", "Adam.update"), adam_path, adam.Adam, function)
    if name == "clip_scale":
        return grade_values((name,), scales, adam.clip_scale, function)
    return grade_layer(EXERCISES[name], function)
