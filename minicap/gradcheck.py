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
    """Check every backward pass in two ways. The exit status is 1 if one of them is wrong."""

    seed: int = 0
    """names the random inputs and directions"""
    rounds: int = 3
    """number of times everything is checked, each with other inputs; the worst error is printed"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    options = command_line.parse(Options, "gradcheck", arguments)
    if options.rounds < 1 or options.seed < 0:
        raise UserError("--rounds must be 1 or more, --seed 0 or more")
    worst: dict[tuple[str, str], numpy.ndarray] = {}
    for number in range(options.rounds):
        rng = numpy.random.default_rng([options.seed, number])
        for case, loss, parameters in all_cases(rng):
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
    command_line.run(main)
