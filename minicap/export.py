"""Export an encoder to ONNX: `minicap export [WEIGHTS]`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from minicap.data.features import read_features
from minicap.encoder.export import ExportOptions, description, export
from minicap.encoder.session import EXPORTED
from minicap.utils import command_line


@dataclass(frozen=True)
class Options(ExportOptions):
    __doc__ = ExportOptions.__doc__
    weights: tyro.conf.Positional[Path | None] = None
    """Keras .h5, torchvision .pth or timm .safetensors file of InceptionV3, or the .onnx file of
    another network [default: $MINICAP_INCEPTION_H5, else Keras' weights without the classifier,
    downloaded once, 88 MB]"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 1 if a check failed."""
    options = command_line.parse(Options, "export", arguments)
    options.validate()
    expected = None
    if options.expected:
        features = read_features(options.expected)
        expected = dict(zip(features.names, features.array, strict=True))
    path = export(options, expected)
    if path is None:
        print("the check failed; no file was written")
        return 1
    print(*description(path), sep="\n")
    encoder = "" if path == EXPORTED else f" --encoder {path}"
    print(f"next           minicap encode PHOTOS --out features{encoder}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
