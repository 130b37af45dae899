"""Score captions: `minicap evaluate --model MODEL`, or `--results FILE`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from minicap.evaluation.evaluate import evaluate
from minicap.evaluation.evaluation import summary
from minicap.evaluation.options import EvaluationOptions
from minicap.utils import command_line


@dataclass(frozen=True)
class Options(EvaluationOptions):
    __doc__ = EvaluationOptions.__doc__
    old: tyro.conf.Positional[tuple[Path, ...]] = ()
    """the model's place until version 0.2; use --model"""


def parse(arguments: list[str] | None = None) -> EvaluationOptions:
    """Options from the command line. A model without --model is still taken."""
    options = command_line.parse(Options, "evaluate", arguments)
    if options.old and not options.model:
        print(f"note: the new order is: minicap evaluate --model {options.old[0]}", file=sys.stderr)
        options = replace(options, model=options.old[0])
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = parse(arguments)
    options.check()
    evaluation, paths = evaluate(options)
    print(*summary(evaluation), sep="\n")
    print(*(f"written   {path}" for path in paths), sep="\n")


if __name__ == "__main__":
    command_line.run(main)
