"""Score captions: `minicap evaluate --model MODEL`, or `--results FILE`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from minicap.evaluation.evaluate import evaluate
from minicap.evaluation.options import EvaluationOptions
from minicap.evaluation.summary import summary
from minicap.utils import command_line
from minicap.utils.errors import UserError, plain


@dataclass(frozen=True)
class Options(EvaluationOptions):
    __doc__ = EvaluationOptions.__doc__
    old_model: tyro.conf.Positional[Path | None] = None
    """the model, as earlier versions took it; use --model instead"""


def parse(arguments: list[str] | None = None) -> EvaluationOptions:
    """Parse the command line. A model without --model, the old form, is still accepted."""
    options = command_line.parse(Options, "evaluate", arguments)
    if not options.old_model:
        return options
    if options.model:
        raise UserError(f"two models, {options.model} and {options.old_model}: use --ensemble")
    model = plain(options.old_model)
    print(f"note: the new form is: minicap evaluate --model {model}", file=sys.stderr)
    return replace(options, model=options.old_model)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = parse(arguments)
    options.check()
    evaluation, paths = evaluate(options)
    print(*summary(evaluation), sep="\n")
    print(*(f"wrote     {path}" for path in paths), sep="\n")


if __name__ == "__main__":
    command_line.run(main)
