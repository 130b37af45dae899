"""Draw the figures: `python docs/figures [NAME...]`.

A figure is a function that returns a picture; the file has its name. Those in trained.py need a
model that `minicap train` wrote: give it with --model, or it is trained first, in build/docs.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import computed  # noqa: E402
import drawn  # noqa: E402
import trained  # noqa: E402
from picture import IMAGES  # noqa: E402


def makers(module) -> dict:
    """The figures of a module, by file name."""
    return {name.replace("_", "-"): maker for name, maker in module.FIGURES.items()}


def main() -> None:
    """Draw the named figures, or all."""
    free, need_model = makers(drawn) | makers(computed), makers(trained)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--model", type=Path, help="model.safetensors, as minicap train writes it")
    options = parser.parse_args()
    unknown = set(options.names) - free.keys() - need_model.keys()
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    for name in options.names or [*free, *need_model]:
        if name in need_model:
            picture = need_model[name](*trained.load(options.model))
        else:
            picture = free[name]()
        (IMAGES / f"{name}.svg").write_text(picture.svg())
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
