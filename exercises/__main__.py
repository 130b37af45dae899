"""Grade exercises: `python -m exercises [NAME...]`."""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from minicap.utils import command_line as commands
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Grade your exercises. Ends with 1 when something is wrong."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """which ones [default: all, those not begun included]"""


def learner(name: str):
    """The learner's function, or class."""
    module = importlib.import_module(f"exercises.{name}")
    return getattr(module, "Adam" if name == "adam" else name)


def report(name: str, function, grade: Callable) -> tuple[str, list[str]]:
    """right, wrong or not begun, and what is wrong. A crash is told by its line, not by a trace."""
    try:
        wrong = grade(name, function)
    except NotImplementedError as error:
        return ("half done", [str(error)]) if str(error) else ("not begun", [])
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).stem == name]
        where = f" in line {own[-1].lineno}: {own[-1].line}" if own else ""
        return "wrong", [f"{type(error).__name__}{where}", *str(error).splitlines()]
    return ("wrong", wrong) if wrong else ("right", [])


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    options = tyro.cli(Options, prog="python -m exercises", args=arguments)
    try:
        from exercises.grading import EXERCISES, grade
    except ImportError as error:
        raise UserError(
            f'the grader needs the tests: pip install -e ".[test]" ({error})'
        ) from error
    unknown = set(options.names) - EXERCISES.keys()
    if unknown:
        raise UserError(
            f"no exercise is called {', '.join(sorted(unknown))}: there are {', '.join(EXERCISES)}"
        )
    status = 0
    for name in options.names or EXERCISES:
        judged, lines = report(name, learner(name), grade)
        status |= judged == "wrong" or (judged != "right" and bool(options.names))
        print(f"{name:24}{judged}")
        for line in lines:
            print(f"    {line}")
        if judged == "not begun" and options.names:
            print(f"    fill in exercises/{name}.py: its docstring says what is to be computed")
    return status


if __name__ == "__main__":
    commands.run(main)
