"""Is a backward pass right? Two independent ways to find out.

The complex step (Squire and Trapp 1998): for a function f that is analytic *in code*,
f(x + i h d) = f(x) + i h f'(x) d - O(h^2), so the imaginary part divided by h is the derivative
along d, without a difference of nearly equal numbers. h can be 1e-30, and the result is right to
the last digits of float64. Central differences, (f(x + h) - f(x - h)) / 2h, need no complex
numbers and are right to about ten digits at the best h: the slower witness, and another one.
"""

from collections.abc import Callable, Mapping

import numpy

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
