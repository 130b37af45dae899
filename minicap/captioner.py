"""From pictures to sentences with one object: encoder and model together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from minicap.backend import Array, array_module, device_module, to_device, to_host
from minicap.data.features import Scaling
from minicap.errors import UserError
from minicap.generate import greedy, sampler
from minicap.model import Model

if TYPE_CHECKING:
    from minicap.encoder.session import Encoder


class Captioner:
    """A model with the encoder that it was trained on.

    model: a trained Model; encoder: an Encoder. UserError when the encoder is not the one whose
    features the model has learned from. Two that differ only in the precision of their weights do,
    and a model that was never told its encoder takes any: `note` then says so, else it is "".
    """

    def __init__(self, model: Model, encoder: "Encoder"):
        known = model.encoder or {}
        learned = f"{known.get('name')} ({known.get('id', '')[:12]}, {known.get('preprocessing')})"
        given = f"{encoder.name} ({encoder.id[:12]}, {encoder.preprocessing})"
        origins = {known.get("id"), known.get("float32_id")} - {None}
        self.note = ""
        if not known:
            self.note = (
                f"the model's features did not say which encoder made them: with another than "
                f"{given}, captions would be about nothing"
            )
        elif known.get("id") == encoder.id:
            pass
        elif origins & {encoder.id, encoder.float32_id}:
            self.note = (
                f"the model has learned from features of {learned}, and now sees those of {given}, "
                "the same network in another precision: near, not equal"
            )
        else:
            raise UserError(
                f"this model has learned from the features of the encoder {learned}, "
                f"not from those of {given}: use the first"
            )
        needed = len(model.scaling.mean)
        if encoder.feature_size != needed:
            raise UserError(
                f"the encoder {encoder.name} makes {encoder.feature_size} features of a picture, "
                f"this model needs {needed}: use the encoder it was trained on"
            )
        self.model, self.encoder = model, encoder
        self.xp = array_module(model.parameters["lstm"])
        parts = {name: a for name, a in vars(model.scaling).items() if a is not None}
        self.scaling = Scaling(**{name: to_device(a, self.xp) for name, a in parts.items()})

    def features(self, images: Sequence) -> Array:
        """Pictures (paths, Pillow images or uint8 (H, W, 3) arrays) -> (N, F), scaled, where the
        model lies."""
        if isinstance(images, str | Path):
            raise UserError(f"{images}: give a list of pictures, [{str(images)!r}]")
        features = self.encoder(images)
        if array_module(features) is not self.xp:
            features = to_device(to_host(features), self.xp)
        return self.scaling(features)

    def write(self, features: Array, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """A caption for each row of what `features` returned.

        temperature: 0 for the likeliest word each time, more to draw words at random, 1 as the
        model believes; seed: of that drawing. UserError: a temperature below 0 or above 1000.
        """
        if not 0 <= temperature <= 1000:
            raise UserError(f"temperature must be from 0 to 1000, not {temperature}")
        choose = sampler(numpy.random.default_rng(seed), temperature) if temperature else greedy
        return self.model.write(to_device(features, self.xp), choose) if len(features) else []

    def caption(self, images: Sequence, temperature: float = 0.0, seed: int = 0) -> list[str]:
        """A caption for each picture: `features`, then `write`.

        UserError as in these two; UnusableImage, which is one, for a picture that cannot be read.
        """
        return self.write(self.features(images), temperature, seed)


def load(path: str | Path, encoder: str | Path | None = None, device: str = "cpu") -> Captioner:
    """A captioner from a model file that `python -m minicap.train` wrote.

    encoder: the ONNX file that made the model's features; by default inception_v3.onnx, as
    `python -m minicap.export` writes it here, or minicap's own seeded encoder, which is built on
    first use and kept. device: "cpu" or "cuda", for both parts.
    UserError: a file that is missing, damaged or does not fit; no onnxruntime; no GPU.
    """
    from minicap.encoder.session import EXPORTED, SEEDED_ENCODER_ID, Encoder, seeded_encoder

    model = Model.load(Path(path), device_module(device))
    known = model.encoder or {}
    if encoder is None and known.get("id") == SEEDED_ENCODER_ID:
        return Captioner(model, seeded_encoder(device))
    if encoder is None and EXPORTED.exists():
        encoder = EXPORTED
    if encoder is None:
        name = known.get("name", "an encoder that its features file does not name")
        raise UserError(
            f"{path}: trained on the {len(model.scaling.mean)} features of {name}: "
            "give that encoder's ONNX file with --encoder (from Python: encoder=...)"
        )
    # Pictures are prepared as they were for training: there is nothing to choose.
    preprocessing = known.get("preprocessing", "").rpartition("-")[0] or None
    return Captioner(model, Encoder(encoder, device, preprocessing=preprocessing))
