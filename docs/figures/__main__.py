"""Draw the figures anew: `python docs/figures [NAME...]`.

A figure is a function without arguments that returns a picture; its name is the file's. Those in
trained.py look into a model that `python -m minicap.train` made, `--model` (or train it first,
in build/docs).
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
    """The figures of a module, by their files' names."""
    return {name.replace("_", "-"): maker for name, maker in module.FIGURES.items()}


def main() -> None:
    """Draw what is named, or everything."""
    free, need_model = makers(drawn) | makers(computed), makers(trained)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--model", type=Path, help="model.safetensors, as minicap.train wrote it")
    options = parser.parse_args()
    unknown = set(options.names) - free.keys() - need_model.keys()
    if unknown:
        parser.error(f"no figure is called {', '.join(sorted(unknown))}")
    for name in options.names or [*free, *need_model]:
        if name in need_model:
            picture = need_model[name](*trained.load(options.model))
        else:
            picture = free[name]()
        (IMAGES / f"{name}.svg").write_text(picture.svg())
        print(f"docs/images/{name}.svg")


if __name__ == "__main__":
    main()
