"""What is wrong with a layer? Its outputs and gradients beside the right ones, and beside those of
known mistakes."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy

from exercises.hints import HINTS
from minicap import gradcheck
from minicap.nn import adam
from minicap.nn.dense import elu
from tests.mutants import BACKWARD, OTHER, planted

HUGE = ", logits by the thousand"
GATES = "input gate i", "new values j", "forget gate f", "output gate o"
Values = dict[str, numpy.ndarray]  # what is compared, by the name that a message gives it


@dataclass(frozen=True)
class Exercise:
    """One exercise: how its function is put to the test."""

    name: str
    outputs: tuple[str, ...] = ("y",)
    cases: tuple[str, ...] = ()  # of gradcheck.layer_cases, where the layer stands
    helpers: tuple[str, ...] = ()  # other functions whose mutants are mistakes of this one
    gates: tuple[str, ...] = field(default=())  # inputs whose columns are the four gates'


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
def in_place_of(name: str, function: Callable) -> Iterator[None]:
    """gradcheck's cases call `function` where they call the layer `name`."""
    real = getattr(gradcheck, name)
    setattr(gradcheck, name, function)
    try:
        yield
    finally:
        setattr(gradcheck, name, real)


def layer_case(exercise: Exercise, case: str, function: Callable | None, rng):
    """The layer and its inputs; with `function` in the place of minicap's own, if given."""
    if exercise.name == "elu":
        return function or elu, {"z": rng.standard_normal((5, 4))}
    function = function or getattr(gradcheck, exercise.name)
    base, huge, _ = case.partition(HUGE)
    with in_place_of(exercise.name, function):
        layer, inputs = gradcheck.layer_cases(rng)[base]
    if huge:
        inputs["x"] *= 1000

    def called(*arguments):
        with in_place_of(exercise.name, function):
            return layer(*arguments)

    return called, inputs


def forward(exercise: Exercise, case: str, function: Callable | None) -> Values:
    """The layer's outputs, by name."""
    layer, inputs = layer_case(exercise, case, function, numpy.random.default_rng(0))
    found = layer(*inputs.values())
    if not isinstance(found, tuple) or len(found) != len(exercise.outputs) + 1:
        raise ValueError(f"it must return {', '.join(exercise.outputs)} and backward")
    return {name: numpy.asarray(y) for name, y in zip(exercise.outputs, found)}


def backward(exercise: Exercise, case: str, function: Callable | None) -> Values:
    """The gradients of the layer's inputs, by name, for a random gradient from above."""
    rng = numpy.random.default_rng(0)  # so that everybody has the same gradient from above
    layer, inputs = layer_case(exercise, case, function, rng)

    def answering(*arguments):
        *outputs, walk_back = layer(*arguments)

        def answer(*gradients):
            found = walk_back(*gradients)
            if found is None:
                raise ValueError("its backward returns nothing: is a `return` missing?")
            return found

        return *outputs, answer

    return gradcheck.gradients_of(gradcheck.as_loss(answering, inputs, rng), inputs)


def complex_steps(exercise: Exercise, case: str, gradients: Values) -> dict[str, float]:
    """How far these gradients are from the complex step through minicap's own way forward."""
    rng = numpy.random.default_rng(0)
    layer, inputs = layer_case(exercise, case, None, rng)
    loss = gradcheck.as_loss(layer, inputs, rng)
    errors = {}
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)

        def along(x, name=name):
            return loss({**inputs, name: x})[0]

        derivative = float(gradcheck.complex_step(along, inputs[name], direction))
        errors[name] = gradcheck.disagreement(derivative, gradient, direction)
    return errors


def equal(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    """Equal but for rounding."""
    scale = max(float(numpy.abs(b).max(initial=0)), 1e-300)
    return a.shape == b.shape and bool(numpy.abs(a - b).max(initial=0) <= 1e-9 * scale)


def mistakes(names: tuple[str, ...], run: Callable[[], Values], right: Values) -> dict[str, Values]:
    """What each mutant of these functions makes of the same inputs, where it makes a difference."""
    found = {}
    for mutant in BACKWARD + OTHER:
        if mutant.function.partition(":")[2] in names:
            # Some mutants give widths that do not fit here: nobody's gradient can equal theirs.
            with planted(mutant), contextlib.suppress(ValueError), numpy.errstate(all="ignore"):
                values = run()
                if not all(equal(values[name], right[name]) for name in right):
                    found[mutant.name] = values
    return found


def hints(name: str, given: numpy.ndarray, right: Values, wrong: dict[str, Values]) -> list[str]:
    """The known mistakes that make of `name` exactly what was given."""
    return [
        HINTS.get(mistake, mistake.partition(": ")[2])
        for mistake, values in wrong.items()
        if equal(given, values[name]) and not equal(values[name], right[name])
    ]


def describe(given: numpy.ndarray, right: numpy.ndarray, gates: bool) -> str:
    """What can be said of a wrong array that is no known mistake's."""
    if not numpy.isfinite(given).all():
        return "it has entries that are NaN or infinite: some were never written, or overflowed"
    if not given.any():
        return "it is zero everywhere: nothing flows back to it"
    ratios = given[right != 0] / right[right != 0]
    if ratios.size and equal(ratios, numpy.full_like(ratios, ratios[0])):
        if math.isclose(ratios[0], -1):
            return "it has the wrong sign"
        if equal(given, ratios[0] * right):
            return f"it is {ratios[0]:.4g} times the right one, everywhere"
    if right.ndim == 2 and equal(given, right.T):
        return "it is the transpose of the right one"
    if gates:
        pieces = zip(GATES, numpy.split(given, 4, axis=1), numpy.split(right, 4, axis=1))
        off = [gate for gate, a, b in pieces if not equal(a, b)]
        if len(off) < 4:
            return f"it is wrong in the columns of the {' and the '.join(off)} only"
    if right.ndim == 2:
        rows = [row for row in range(len(right)) if not equal(given[row], right[row])]
        if len(rows) < len(right):
            last = " (the last row is the bias)" if rows == [len(right) - 1] else ""
            return f"it is wrong in row {', '.join(map(str, rows))} only{last}"
    place = numpy.unravel_index(numpy.abs(given - right).argmax(), right.shape)
    at = ", ".join(map(str, place))
    return f"furthest off at [{at}]: {given[place]:.6g} where {right[place]:.6g} is right"


def verdict(
    what: str, name: str, given: Values, right: Values, wrong: dict[str, Values], gates=()
) -> str:
    """One line on a wrong array."""
    a, b = numpy.asarray(given[name]), right[name]
    if a.shape != b.shape:
        return f"{what} has the shape {a.shape}, and must have {b.shape}"
    named = hints(name, a, right, wrong)
    return f"{what} is wrong: {'; or '.join(named) or describe(a, b, name in gates)}"


def grade_layer(exercise: Exercise, function: Callable) -> list[str]:
    """What is wrong, in lines; none if all is right."""
    own = (exercise.name, *exercise.helpers)
    for case in exercise.cases or ("",):
        right = forward(exercise, case, None)
        given = forward(exercise, case, function)
        bad = [name for name in right if not equal(given[name], right[name])]
        if bad:
            wrong = mistakes(own, lambda case=case: forward(exercise, case, None), right)
            return [verdict(f"forwards: {name}", name, given, right, wrong) for name in bad]
        right = backward(exercise, case, None)
        try:
            given = backward(exercise, case, function)
        except NotImplementedError:
            raise NotImplementedError("forwards it is right; the way back is still to do") from None
        errors = complex_steps(exercise, case, given)
        bad = [n for n, error in errors.items() if not error <= gradcheck.COMPLEX_STEP_TOLERANCE]
        if bad:
            wrong = mistakes(own, lambda case=case: backward(exercise, case, None), right)
            return [
                verdict(f"backwards: the gradient of {n}", n, given, right, wrong, exercise.gates)
                for n in bad
            ]
    return []


def adam_path(cls: type) -> Values:
    """Parameters after each of four steps."""
    rng = numpy.random.default_rng(0)
    parameters = rng.standard_normal(12)
    optimiser, path = cls(parameters, learning_rate=0.1, beta1=0.8, beta2=0.95, epsilon=0.01), {}
    for step in range(1, 5):
        optimiser.step(rng.standard_normal(12))
        path[f"step {step}"] = parameters.copy()
    return path


def clipped(function: Callable) -> Values:
    """The scales of a long and of a short gradient, each in three parts."""
    long, short = [9.0, 16.0, 144.0], [0.09, 0.16, 1.44]
    return {
        "the scale of a long gradient": numpy.array(function(long, 2.0), dtype=float),
        "the scale of a short gradient": numpy.array(function(short, 2.0), dtype=float),
    }


def grade_values(names: tuple[str, ...], run: Callable, real: Callable, function: Callable) -> list:
    """The same for what is no layer; only the first difference, as later ones follow from it."""
    right, given = run(real), run(function)
    for name in right:
        if not equal(given[name], right[name]):
            return [verdict(name, name, given, right, mistakes(names, lambda: run(real), right))]
    return []


@numpy.errstate(all="ignore")  # what overflows is found in the results
def grade(name: str, function: Callable) -> list[str]:
    """What is wrong with `function` as an answer to the exercise `name`: lines, none if right."""
    if name == "adam":
        return grade_values(("Adam.step", "Adam.update"), adam_path, adam.Adam, function)
    if name == "clip_scale":
        return grade_values((name,), clipped, adam.clip_scale, function)
    return grade_layer(EXERCISES[name], function)
