"""Grade exercises: `python -m exercises [NAME...]`."""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Grade your exercises. The exit status is 1 if one is wrong."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """the exercises to grade, by default all"""


def implementation(name: str):
    """Import the function or class to grade."""
    module = importlib.import_module(f"exercises.{name}")
    return getattr(module, "Adam" if name == "adam" else name)


def report(name: str, function, grade: Callable) -> tuple[str, list[str]]:
    """Grade an exercise.

    Args:
        name: name of the exercise.
        function: the implementation to grade.
        grade: `exercises.grading.grade`.

    Returns:
        "correct", "wrong", "in progress" or "not started", and lines that explain it. For a crash
        these are the exception and the line of the exercise that raised it.
    """
    try:
        errors = grade(name, function)
    except NotImplementedError as error:
        return ("in progress", [str(error)]) if str(error) else ("not started", [])
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).stem == name]
        where = f" in line {own[-1].lineno}: {own[-1].line}" if own else ""
        return "wrong", [f"{type(error).__name__}{where}", *str(error).splitlines()]
    return ("wrong", errors) if errors else ("correct", [])


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 if an exercise is wrong."""
    options = tyro.cli(Options, prog="python -m exercises", args=arguments)
    try:
        from exercises.grading import EXERCISES, grade
    except ImportError as error:
        raise UserError(
            f'the grader needs the test dependencies ({error}): run pip install -e ".[test]"'
        ) from error
    unknown = set(options.names) - EXERCISES.keys()
    if unknown:
        raise UserError(
            f"unknown exercise {', '.join(sorted(unknown))}: choose from {', '.join(EXERCISES)}"
        )
    status = 0
    for name in options.names or EXERCISES:
        result, lines = report(name, implementation(name), grade)
        status |= result == "wrong" or (result != "correct" and bool(options.names))
        print(f"{name:24}{result}")
        for line in lines:
            print(f"    {line}")
        if result == "not started" and options.names:
            print(f"    implement exercises/{name}.py as its docstring describes")
    return status


if __name__ == "__main__":
    command_line.run(main)
