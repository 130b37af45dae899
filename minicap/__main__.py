"""`minicap` and `python -m minicap`: list the commands, or run one."""

import importlib
import sys

from minicap import __version__
from minicap.utils import command_line
from minicap.utils.errors import UserError

COMMANDS = {
    "train": "train a captioner (by default on the shipped scenes)",
    "caption": "caption photos with a trained model",
    "evaluate": "score a model's captions next to baselines",
    "encode": "compute the features of your photos",
    "serve": "see a captioner think, in the browser",
    "export": "write an encoder or a trained decoder as ONNX",
    "download": "download Flickr8k or COCO",
    "scenes": "draw the shipped data set, or probe its features",
    "gradcheck": "check every backward pass",
}


def main() -> None:
    """Run the command that the first argument names, or list all commands."""
    command_line.run(lambda: dispatch(*sys.argv[1:] or ["--help"]))


def dispatch(name: str, *arguments: str) -> int | None:
    """Run one command. Returns the exit status."""
    if name in COMMANDS:
        return importlib.import_module(f"minicap.{name}").main([*arguments])
    if name == "--version":
        print(f"minicap {__version__}")
    elif name in ("-h", "--help"):
        print("usage: minicap COMMAND ... (minicap COMMAND --help lists its options)\n")
        print(*(f"  {each:10} {about}" for each, about in COMMANDS.items()), sep="\n")
    else:
        raise UserError(f"unknown command {name!r}: choose from {', '.join(COMMANDS)}")
    return None


if __name__ == "__main__":
    main()
