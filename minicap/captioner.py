"""From pictures to sentences with one object: encoder and model together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from minicap.backend import array_module, device_module, to_device
from minicap.errors import UserError
from minicap.generate import greedy, sampler
from minicap.model import Model

if TYPE_CHECKING:
    from minicap.encoder.session import Encoder


class Captioner:
    """A model with the encoder that it was trained on.

    model: a trained Model; encoder: an Encoder. UserError when the encoder is not the one whose
    features the model has learned from.
    """

    def __init__(self, model: Model, encoder: "Encoder"):
        known = (model.encoder or {}).get("id", encoder.id)
        if known != encoder.id:
            raise UserError(
                f"this model has learned from the features of the encoder "
                f"{(model.encoder or {}).get('name')} ({known[:12]}), "
                f"not from those of {encoder.name} ({encoder.id[:12]}): use the first"
            )
        needed = len(model.scaling.mean)
        if encoder.feature_size != needed:
            raise UserError(
                f"the encoder {encoder.name} makes {encoder.feature_size} features of a picture, "
                f"this model needs {needed}: use the encoder it was trained on"
            )
        self.model, self.encoder = model, encoder

    def features(self, images: Sequence) -> numpy.ndarray:
        """Pictures (paths, Pillow images or uint8 (H, W, 3) arrays) -> (N, F), scaled."""
        if isinstance(images, str | Path):
            raise UserError(f"{images}: give a list of pictures, [{str(images)!r}]")
        return self.model.scaling(self.encoder(images))

    def write(self, features: numpy.ndarray, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """A caption for each row of what `features` returned.

        temperature: 0 for the likeliest word each time, more to draw words at random, 1 as the
        model believes; seed: of that drawing. UserError: a temperature below 0 or above 1000.
        """
        if not 0 <= temperature <= 1000:
            raise UserError(f"temperature must be from 0 to 1000, not {temperature}")
        choose = sampler(numpy.random.default_rng(seed), temperature) if temperature else greedy
        xp = array_module(self.model.parameters["lstm"])
        return self.model.write(to_device(features, xp), choose) if len(features) else []

    def caption(self, images: Sequence, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """A caption for each picture: `features`, then `write`.

        UserError as in these two; UnusableImage, which is one, for a picture that cannot be read.
        """
        return self.write(self.features(images), temperature, seed)


def load(path: str | Path, encoder: str | Path | None = None, device: str = "cpu") -> Captioner:
    """A captioner from a model file that `python -m minicap.train` wrote.

    encoder: the ONNX file that made the model's features; not needed for minicap's own seeded
    encoder, which is built on first use and kept. device: "cpu" or "cuda", for both parts.
    UserError: a file that is missing, damaged or does not fit; no onnxruntime; no GPU.
    """
    from minicap.encoder.session import SEEDED_ENCODER_ID, Encoder, seeded_encoder

    model = Model.load(Path(path), device_module(device))
    if encoder:
        return Captioner(model, Encoder(encoder, device))
    known = model.encoder or {}
    if known.get("id") == SEEDED_ENCODER_ID:
        return Captioner(model, seeded_encoder(device))
    name = known.get("name", "an encoder that its features file does not name")
    raise UserError(
        f"{path}: trained on the {len(model.scaling.mean)} features of {name}: "
        "give that encoder's ONNX file with --encoder (from Python: encoder=...)"
    )
