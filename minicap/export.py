"""Export to ONNX: an encoder, `minicap export [WEIGHTS]`, or a decoder, `--decoder MODEL`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro

from minicap.data.features import read_features
from minicap.encoder.export import ExportOptions, description, export
from minicap.encoder.session import EXPORTED
from minicap.generation.config import BEAM
from minicap.model import onnx_decoder
from minicap.model.trained_model import Model
from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options(ExportOptions):
    __doc__ = f"{ExportOptions.__doc__}\n\nOr export a trained decoder, with --decoder."
    weights: tyro.conf.Positional[Path | None] = None
    """Keras .h5, torchvision .pth or timm .safetensors file of InceptionV3, the .onnx file of
    another network, or `pretrained`: the pretrained model's EfficientNet-Lite2 [default:
    $MINICAP_INCEPTION_H5, else Keras' weights without the classifier, downloaded once, 88 MB]"""
    decoder: Path | None = None
    """export this model.safetensors instead, to NAME-start.onnx and NAME-step.onnx, where --out is
    NAME.onnx [default: decoder.onnx]"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 1 if a check failed."""
    options = command_line.parse(Options, "export", arguments)
    options.validate()
    if options.decoder and replace(options, decoder=None, out=None) != Options():
        raise UserError("--decoder MODEL takes --out and no other option")
    if options.decoder:
        out = options.out or Path("decoder.onnx")
        found = onnx_decoder.export_decoder(Model.load(options.decoder), out, asdict(BEAM))
        for file in onnx_decoder.paths(out):
            print(f"file           {file}, {file.stat().st_size / 1e6:.1f} MB")
        print(f"check          equal to minicap, the largest difference is {found:.0e}")
        return 0
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
