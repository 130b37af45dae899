"""Is a backward pass right? Two independent ways to know; `python -m minicap.gradcheck` runs them.

The complex step (Squire and Trapp 1998): for a function f that is analytic *in code*,
f(x + i h d) = f(x) + i h f'(x) d - O(h^2), so the imaginary part divided by h is the derivative
along d, with no difference of nearly equal numbers in it. h can be 1e-30, and the result is right
to the last digits of float64. Central differences, (f(x + h) - f(x - h)) / 2h, need no complex
numbers and are right to about ten digits at the best h: the slower witness, and another one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy

from minicap import decoder
from minicap.backend import Array, to_device
from minicap.commands import run
from minicap.data.batches import Batch, pack
from minicap.errors import UserError
from minicap.nn.adam import Adam
from minicap.nn.cross_entropy import BLOCK, project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import draw_mask, dropout
from minicap.nn.embedding import embedding
from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.parameters import Parameters

H = 1e-30
COMPLEX_STEP_TOLERANCE = 1e-12  # float64's 2e-16, a few thousand sums and products later
# With h = 1e-5, rounding adds some 1e-16 |f| / h to every coordinate, as much as is cut off,
# f''' h^2 / 6. A fresh decoder has a loss of 2 and gradients of 0.02: 1e-9 beside 0.02.
CENTRAL_DIFFERENCE_TOLERANCE = 1e-7
Layer = Callable[..., tuple]
Loss = Callable[[Mapping], tuple]


def complex_step(f: Callable, x: numpy.ndarray, direction: numpy.ndarray) -> numpy.ndarray:
    """The derivative of f at x along `direction`. x, direction: the same shape, float64;
    f: analytic in code (no abs, no clip, no comparison of imaginary parts), any output shape."""
    return numpy.imag(f(x + 1j * H * direction)) / H


def central_difference(f: Callable, x: numpy.ndarray, h: float = 1e-5) -> numpy.ndarray:
    """The gradient of the scalar f at x, one coordinate after the other. x: float64, any shape."""
    gradient = numpy.empty_like(x)
    for index in numpy.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        gradient[index] = (f(above) - f(below)) / (2 * h)
    return gradient


def disagreement(derivative: float, gradient: numpy.ndarray, direction: numpy.ndarray) -> float:
    """How far `derivative` is from sum(gradient * direction), relative to the sum of
    |gradient * direction|: the plain sum may cancel and would make good gradients look bad."""
    products = gradient * direction
    size = max(float(numpy.abs(products).sum()), 1e-300)
    return float(abs(derivative - products.sum())) / size


def check_loss(
    loss: Loss, parameters: Mapping[str, numpy.ndarray], rng: numpy.random.Generator
) -> dict[str, float]:
    """A model's backward pass against the complex step: the disagreement for each parameter,
    along one random direction each. A right pass is at 1e-12 or less.

    loss: loss(parameters) -> (scalar, backward), with backward(gradients) filling in a dict of
    arrays by name; parameters: float64, by name.
    """
    found = {}
    for name, gradient in gradients_of(loss, parameters).items():
        direction = rng.standard_normal(gradient.shape)

        def along(x, name=name):
            return loss({**parameters, name: x})[0]

        derivative = float(complex_step(along, parameters[name], direction))
        found[name] = disagreement(derivative, gradient, direction)
    return found


def check_coordinates(loss: Loss, parameters: Mapping[str, numpy.ndarray]) -> dict[str, float]:
    """A model's backward pass against central differences in every coordinate, for each
    parameter: the length of the error over the length of the gradient. 1e-7 or less is right."""
    found = {}
    for name, gradient in gradients_of(loss, parameters).items():
        difference = central_difference(
            lambda x, name=name: loss({**parameters, name: x})[0], parameters[name]
        )
        error = float(numpy.linalg.norm(difference - gradient))
        found[name] = error / max(float(numpy.linalg.norm(gradient)), 1e-300)
    return found


def gradients_of(loss: Loss, parameters: Mapping[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    """Every gradient, by name. What the backward pass leaves out stays NaN, which no check lets
    through. ValueError for a gradient that has not its parameter's shape."""
    gradients = {name: numpy.full_like(x, numpy.nan) for name, x in parameters.items()}
    loss(parameters)[1](gradients)
    for name, x in parameters.items():
        if gradients[name].shape != x.shape:
            raise ValueError(f"{name} is {x.shape}, but its gradient {gradients[name].shape}")
    return gradients


def as_loss(layer: Layer, inputs: Mapping[str, numpy.ndarray], rng: numpy.random.Generator) -> Loss:
    """A layer as a model for the two checks. Its loss is the sum of all outputs, each times a
    random number from `rng`: so these numbers are the gradient that comes from above.

    layer: layer(*inputs) -> (*outputs, backward), with backward(*gradients of the outputs) ->
    gradients of the inputs, a tuple unless there is only one.
    """
    *outputs, _ = layer(*inputs.values())
    from_above = [rng.standard_normal(y.shape) for y in outputs]

    def loss(values: Mapping) -> tuple:
        *outputs, layer_backward = layer(*values.values())

        def backward(gradients: dict) -> None:
            found = layer_backward(*[numpy.copy(dy) for dy in from_above])
            found = found if isinstance(found, tuple) else (found,)
            gradients.update(zip(values, found, strict=True))

        return sum((y * dy).sum() for y, dy in zip(outputs, from_above, strict=True)), backward

    return loss


def check_layer(
    layer: Layer, inputs: Mapping[str, numpy.ndarray], rng: numpy.random.Generator
) -> dict[str, float]:
    """`check_loss` for a layer (see `as_loss`): the disagreement for each input, by name."""
    return check_loss(as_loss(layer, inputs, rng), inputs, rng)


# What follows are minicap's own layers and its decoder, small, as the tests use them too.


def layer_cases(
    rng: numpy.random.Generator, xp: ModuleType = numpy
) -> dict[str, tuple[Layer, dict[str, Array]]]:
    """Each layer with float64 inputs for it, on the device of `xp`; the same for the same `rng`.

    No two widths are alike, so that a mix-up of axes shows, except where W is square: there a W
    in the place of its transpose would show by its shape alone.
    """

    def normal(*shape: int) -> Array:
        return to_device(rng.standard_normal(shape), xp)

    ids = to_device(numpy.array([3, 0, 3, 5, 3, 0]), xp)  # 1, 2 and 4 do not occur
    mask = to_device(draw_mask(rng, (7, 5), 0.4, "float64"), xp)
    sizes = [4, 3, 3, 1]  # of lengths 4, 3, 3 and 1
    rows = BLOCK + 6  # more than one block, and the last one not full
    targets = to_device(rng.integers(0, 9, rows), xp)
    weights = to_device(rng.uniform(0.5, 2, rows), xp)

    return {
        "dense": (dense, {"x": normal(6, 4), "Wb": normal(5, 3)}),
        "dense, elu": (lambda x, Wb: dense(x, Wb, elu), {"x": normal(6, 4), "Wb": normal(5, 4)}),
        "dropout": (lambda x: dropout(x, mask), {"x": normal(7, 5)}),
        "embedding": (lambda table: embedding(ids, table), {"table": normal(7, 4)}),
        "lstm_step": (lstm_step, {"z": normal(5, 12), "c": normal(5, 3)}),
        "lstm": (
            lambda zx, h0, c0, U: lstm(zx, h0, c0, U, sizes),
            {"zx": normal(11, 12), "h0": normal(4, 3), "c0": normal(4, 3), "U": normal(3, 12)},
        ),
        "project_cross_entropy": (
            lambda x, Wb: project_cross_entropy(x, Wb, targets, weights, 17.0),
            {"x": normal(rows, 4), "Wb": normal(5, 9)},
        ),
    }


def decoder_case(
    rng: numpy.random.Generator, rate: float = 0.3, steps: int = 0, **widths
) -> tuple[Parameters, Batch, dict[str, numpy.ndarray]]:
    """A tiny decoder in float64 after `steps` steps of training, a batch of five captions, and
    masks for dropout with this rate. widths: fields of Sizes, if they are to be others.

    The captions are of several lengths; one has a single word to predict, and the longest has no
    #END#, as if cut by the length limit. #START# is 1, #END# is 2, so both #START# and, among 18
    inputs of six kinds, other words occur more than once.
    """
    usual = {"image_bottleneck": 4, "hidden": 3, "embedding": 4, "logit_bottleneck": 6}
    sizes = decoder.Sizes(vocabulary=9, feature=5, **(usual | widths))
    lengths = numpy.array([4, 7, 2, 5, 5])
    ids = rng.integers(3, sizes.vocabulary, (5, 7))
    ids[:, 0] = 1
    for caption in (0, 2, 3, 4):
        ids[caption, lengths[caption] - 1] = 2
    batch = pack(rng.standard_normal((5, sizes.feature)), ids, lengths)
    masks = decoder.draw_masks(rng, rate, rate, sizes, batch.counts)
    parameters = as_float64(decoder.initialise(sizes, rng))
    gradients, adam = parameters.like(), Adam(parameters.flat, learning_rate=0.02)
    for _ in range(steps):
        decoder.caption_loss(parameters, batch)[1](gradients)
        adam.step(gradients.flat)
    return parameters, batch, masks


def as_float64(parameters: Parameters) -> Parameters:
    """A copy in float64, on the host."""
    copy = Parameters(parameters.shapes, "float64")
    copy.flat[:] = parameters.flat
    return copy


def own_cases(
    rng: numpy.random.Generator,
) -> Iterator[tuple[str, Loss, Mapping[str, numpy.ndarray]]]:
    """Everything that minicap differentiates: name, loss and parameters."""
    for name, (layer, inputs) in layer_cases(rng).items():
        yield name, as_loss(layer, inputs, rng), inputs
    # No dropout at the start: where it drops a whole row while biases are still zero, the ELU is
    # looked at exactly in 0. There its second derivative jumps, and central differences are off
    # by h / 4. (The complex step is not: tests/test_decoder.py has that case.)
    usual: dict = {}
    always = {"photo": "always", "image_bottleneck": 0, "logit_bottleneck": 0}
    for name, steps, widths in (
        ("decoder, untrained", 0, usual),
        ("decoder, trained", 20, usual),
        ("decoder, photo always", 20, always),
    ):
        parameters, batch, masks = decoder_case(rng, steps=steps, **widths)

        def loss(p, batch=batch, masks=masks if steps else None):
            return decoder.caption_loss(p, batch, masks=masks)

        yield name, loss, parameters


@dataclass(frozen=True)
class Options:
    """Check every backward pass of minicap in two ways. Ends with 1 if one of them is wrong."""

    seed: int = 0
    """Where the random inputs and directions start."""
    rounds: int = 3
    """How often everything is checked, each time with other inputs; the worst is shown."""


def main(arguments: list[str] | None = None) -> int:
    """The command: prints a table, returns the exit code. arguments: default those of the shell."""
    import tyro

    options = tyro.cli(Options, prog="python -m minicap.gradcheck", args=arguments)
    if options.rounds < 1 or options.seed < 0:
        raise UserError("--rounds must be 1 or more, --seed 0 or more")
    worst: dict[tuple[str, str], numpy.ndarray] = {}
    for round_ in range(options.rounds):
        rng = numpy.random.default_rng([options.seed, round_])
        for case, loss, parameters in own_cases(rng):
            steps = check_loss(loss, parameters, rng)
            differences = check_coordinates(loss, parameters)
            for name in parameters:
                errors = numpy.array([steps[name], differences[name]])
                # numpy.maximum, unlike max, never loses a NaN.
                worst[case, name] = numpy.maximum(worst.get((case, name), 0.0), errors)
    tolerances = numpy.array([COMPLEX_STEP_TOLERANCE, CENTRAL_DIFFERENCE_TOLERANCE])
    wrong = 0
    print(f"{'worst relative error':52}complex step  central differences")
    for (case, name), errors in worst.items():
        right = bool((errors <= tolerances).all())
        wrong += not right
        verdict = "" if right else "  WRONG"
        print(f"{case:24}{name:28}{errors[0]:12.1e}{errors[1]:21.1e}{verdict}")
    print(f"{'allowed':52}{tolerances[0]:12.1e}{tolerances[1]:21.1e}")
    print(f"{wrong} of {len(worst)} are wrong" if wrong else f"all {len(worst)} are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main)
