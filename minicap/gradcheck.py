"""Check every backward pass: `minicap gradcheck`."""

from dataclasses import dataclass

import numpy

from minicap.model.gradient_cases import all_cases
from minicap.nn.gradient_check import (
    CENTRAL_DIFFERENCE_TOLERANCE,
    COMPLEX_STEP_TOLERANCE,
    check_coordinates,
    check_loss,
)
from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Check every backward pass by the complex step and by central differences. The exit status is
    1 if a gradient is wrong."""

    seed: int = 0
    """seed of the random inputs and directions"""
    rounds: int = 3
    """number of checks, each with different inputs; the largest error is printed"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 if a gradient is wrong."""
    options = command_line.parse(Options, "gradcheck", arguments)
    if options.rounds < 1 or options.seed < 0:
        raise UserError("--rounds must be at least 1 and --seed at least 0")
    worst: dict[tuple[str, str], numpy.ndarray] = {}
    for number in range(options.rounds):
        rng = numpy.random.default_rng([options.seed, number])
        for case, loss, parameters in all_cases(rng):
            steps = check_loss(loss, parameters, rng)
            differences = check_coordinates(loss, parameters)
            for name in parameters:
                errors = numpy.array([steps[name], differences[name]])
                # numpy.maximum propagates NaN; max may drop it.
                worst[case, name] = numpy.maximum(worst.get((case, name), 0.0), errors)
    tolerances = numpy.array([COMPLEX_STEP_TOLERANCE, CENTRAL_DIFFERENCE_TOLERANCE])
    wrong = 0
    print(f"{'largest relative error':52}complex step  central differences")
    for (case, name), errors in worst.items():
        correct = bool((errors <= tolerances).all())
        wrong += not correct
        mark = "" if correct else "  WRONG"
        print(f"{case:24}{name:28}{errors[0]:12.1e}{errors[1]:21.1e}{mark}")
    print(f"{'tolerance':52}{tolerances[0]:12.1e}{tolerances[1]:21.1e}")
    count = len(worst)
    print(
        f"{wrong} of {count} gradients are wrong" if wrong else f"all {count} gradients are correct"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    command_line.run(main)
