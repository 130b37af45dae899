"""Check backward passes by two independent methods.

The complex step (Squire and Trapp 1998, "Using complex variables to estimate derivatives of real
functions"): if the code of f computes an analytic function,

    f(x + i h d) = f(x) + i h f'(x) d - O(h^2),

so the imaginary part divided by h is the derivative along d. No nearly equal numbers are
subtracted, so h can be 1e-30 and the result is accurate to the last digits of float64.

Central differences, (f(x + h) - f(x - h)) / 2h, need no complex numbers. They are slower and
accurate to about ten digits at the best h.
"""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy

H = 1e-30  # the complex step
COMPLEX_STEP_TOLERANCE = 1e-12  # a few thousand roundings of 2e-16
# With h = 1e-5, rounding adds about 1e-16 |f| / h to every coordinate, and the truncation error,
# f''' h^2 / 6, about as much. A new decoder has a loss of 2 and gradients of 0.02, so the relative
# error is about 1e-9 / 0.02.
CENTRAL_DIFFERENCE_TOLERANCE = 1e-7

# layer(*inputs) -> (*outputs, backward), where backward(*upstream gradients) returns the gradients
# of the inputs: a tuple, or an array if there is one input.
Layer = Callable[..., tuple[Any, ...]]
# loss(parameters) -> (scalar, backward), where backward(gradients) fills in arrays by name.
Loss = Callable[
    [Mapping[str, Any]], tuple[Any, Callable[[MutableMapping[str, numpy.ndarray]], None]]
]


def complex_step(
    f: Callable[[numpy.ndarray], Any], x: numpy.ndarray, direction: numpy.ndarray
) -> numpy.ndarray:
    """Compute the derivative of f at x along a direction, by the complex step.

    Args:
        f: analytic in code: no abs, no clip, no comparison of imaginary parts. Its output may have
            any shape.
        x: any shape, float64.
        direction: same shape as x.

    Returns:
        The derivative, with the shape of f's output.
    """
    derivative: numpy.ndarray = numpy.imag(f(x + 1j * H * direction)) / H
    return derivative


def central_difference(
    f: Callable[[numpy.ndarray], Any], x: numpy.ndarray, h: float = 1e-5
) -> numpy.ndarray:
    """Compute the gradient of a scalar function by central differences in every coordinate.

    Args:
        f: returns a scalar.
        x: any shape, float64.
        h: step size.

    Returns:
        The gradient, same shape as x.
    """
    gradient = numpy.empty_like(x)
    for index in numpy.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        gradient[index] = (f(above) - f(below)) / (2 * h)
    return gradient


def relative_error(derivative: float, gradient: numpy.ndarray, direction: numpy.ndarray) -> float:
    """Compare a directional derivative with sum(gradient * direction).

    Args:
        derivative: the derivative along ``direction``.
        gradient: the gradient to check, any shape.
        direction: same shape as the gradient.

    Returns:
        The difference divided by sum(|gradient * direction|). The sum without absolute values may
        cancel, and then a correct gradient would have a large error.
    """
    products = gradient * direction
    size = max(float(numpy.abs(products).sum()), 1e-300)
    return float(abs(derivative - products.sum())) / size


def check_loss(
    loss: Loss, parameters: Mapping[str, numpy.ndarray], rng: numpy.random.Generator
) -> dict[str, float]:
    """Check a model's backward pass by the complex step, along one random direction per parameter.

    Args:
        loss: ``loss(parameters)`` returns a scalar and ``backward(gradients)``, which fills in a
            dict of arrays by name.
        parameters: float64 arrays by name.
        rng: draws the directions.

    Returns:
        The `relative_error` for each parameter. A correct backward pass has at most
        COMPLEX_STEP_TOLERANCE.
    """
    errors = {}
    for name, gradient in gradients_of(loss, parameters).items():
        direction = rng.standard_normal(gradient.shape)

        def along(x: numpy.ndarray, name: str = name) -> Any:
            return loss({**parameters, name: x})[0]

        derivative = float(complex_step(along, parameters[name], direction))
        errors[name] = relative_error(derivative, gradient, direction)
    return errors


def check_coordinates(loss: Loss, parameters: Mapping[str, numpy.ndarray]) -> dict[str, float]:
    """Check a model's backward pass by central differences in every coordinate.

    Args:
        loss: as for `check_loss`.
        parameters: float64 arrays by name.

    Returns:
        For each parameter the norm of the error divided by the norm of the gradient. A correct
        backward pass has at most CENTRAL_DIFFERENCE_TOLERANCE.
    """
    errors = {}
    for name, gradient in gradients_of(loss, parameters).items():

        def varied(x: numpy.ndarray, name: str = name) -> Any:
            return loss({**parameters, name: x})[0]

        difference = central_difference(varied, parameters[name])
        error = float(numpy.linalg.norm(difference - gradient))
        errors[name] = error / max(float(numpy.linalg.norm(gradient)), 1e-300)
    return errors


def gradients_of(loss: Loss, parameters: Mapping[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    """Run a model's backward pass and collect its gradients.

    Args:
        loss: as for `check_loss`.
        parameters: float64 arrays by name.

    Returns:
        The gradient of each parameter. Numbers that the backward pass does not set are NaN, which
        fails every check.

    Raises:
        ValueError: a gradient does not have the shape of its parameter.
    """
    gradients = {name: numpy.full_like(x, numpy.nan) for name, x in parameters.items()}
    loss(parameters)[1](gradients)
    for name, x in parameters.items():
        if gradients[name].shape != x.shape:
            raise ValueError(
                f"{name} has shape {x.shape}, but its gradient has shape {gradients[name].shape}"
            )
    return gradients


def as_loss(layer: Layer, inputs: Mapping[str, numpy.ndarray], rng: numpy.random.Generator) -> Loss:
    """Make a scalar loss from a layer, so that the checks of a model apply to it.

    The loss is the sum of all outputs, each multiplied by a random number. So these numbers are the
    upstream gradient.

    Args:
        layer: ``layer(*inputs)`` returns its outputs and ``backward``, which takes the gradients of
            the outputs and returns those of the inputs: a tuple, or an array if there is one input.
        inputs: float64 arrays by name, in the order of the layer's arguments.
        rng: draws the upstream gradient.

    Returns:
        The loss as a function of the inputs.
    """
    *outputs, _ = layer(*inputs.values())
    upstream = [rng.standard_normal(y.shape) for y in outputs]

    def loss(values: Mapping[str, Any]) -> tuple[Any, Callable[..., None]]:
        *outputs, layer_backward = layer(*values.values())

        def backward(gradients: MutableMapping[str, numpy.ndarray]) -> None:
            dinputs = layer_backward(*[numpy.copy(dy) for dy in upstream])
            dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
            gradients.update(zip(values, dinputs, strict=True))

        return sum((y * dy).sum() for y, dy in zip(outputs, upstream, strict=True)), backward

    return loss


def check_layer(
    layer: Layer, inputs: Mapping[str, numpy.ndarray], rng: numpy.random.Generator
) -> dict[str, float]:
    """Check a layer's backward pass by the complex step.

    Args:
        layer: as for `as_loss`.
        inputs: float64 arrays by name, in the order of the layer's arguments.
        rng: draws the upstream gradient and the directions.

    Returns:
        The `relative_error` for each input.

    Example:
        >>> rng = numpy.random.default_rng(0)
        >>> inputs = {"x": rng.standard_normal((6, 4)), "Wb": rng.standard_normal((5, 3))}
        >>> all(error < 1e-12 for error in check_layer(dense, inputs, rng).values())
        True
    """
    return check_loss(as_loss(layer, inputs, rng), inputs, rng)
