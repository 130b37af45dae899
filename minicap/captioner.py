"""From pictures to sentences with one object: encoder and model together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from minicap.backend import device_module
from minicap.ensemble import check_vocabularies, encoder_warnings, generate
from minicap.errors import UserError
from minicap.generate import BEAM, Caption, Writing
from minicap.model import Model

if TYPE_CHECKING:
    from minicap.encoder.session import Encoder


class Captioner:
    """A model, or several that write together, with the encoder that it was trained on.

    encoder: an Encoder. UserError when the encoder is not the one whose features a model has
    learned from. Two that differ only in the precision of their weights do, and a model that was
    never told its encoder takes any: `note` then says so, else it is "".
    """

    def __init__(self, models: Sequence[Model], encoder: "Encoder"):
        check_vocabularies(models)
        self.models, self.encoder = models, encoder
        self.note = "; ".join(encoder_warnings(models, encoder.about(), encoder.feature_size))

    def candidates(
        self,
        images: Sequence,
        writing: Writing = BEAM,
        count: int = 1,
        rng: numpy.random.Generator | None = None,
    ) -> list[list[Caption]]:
        """For each picture all captions of its beam, best first, or `count` that are drawn.

        images: paths, Pillow images or uint8 (H, W, 3) arrays; writing, count, rng, UserError: as
        in `ensemble.generate`. UnusableImage, a UserError too: a picture that cannot be read.
        """
        if isinstance(images, str | Path):
            raise UserError(f"{images}: give a list of pictures, [{str(images)!r}]")
        return generate(self.models, self.encoder(images), writing, count, rng)

    def words(self, caption: Caption) -> str:
        """The caption as a sentence."""
        return self.models[0].vocabulary.decode(caption.ids)

    def caption(self, images: Sequence, seed: int = 0, **options) -> list[str]:
        """A caption for each picture: the best, or one that is drawn.

        options: any of minicap.generate.Writing, as beams=5 or temperature=0.8; seed: of drawing.
        """
        found = self.candidates(images, Writing(**options), rng=numpy.random.default_rng(seed))
        return [self.words(captions[0]) for captions in found]


def load(
    path: str | Path | Sequence[str | Path],
    encoder: str | Path | None = None,
    device: str = "cpu",
) -> Captioner:
    """A captioner from a model file that `python -m minicap.train` wrote, or from several whose
    models then write together.

    encoder: the ONNX file that made the model's features; by default inception_v3.onnx, as
    `python -m minicap.export` writes it here, or minicap's own seeded encoder, which is built on
    first use and kept. device: "cpu" or "cuda", for both parts.
    UserError: a file that is missing, damaged or does not fit; no onnxruntime; no GPU.
    """
    from minicap.encoder.session import EXPORTED, SEEDED_ENCODER_ID, Encoder, seeded_encoder

    paths = [path] if isinstance(path, str | Path) else path
    models = [Model.load(Path(each), device_module(device)) for each in paths]
    known = models[0].encoder or {}
    if encoder is None and known.get("id") == SEEDED_ENCODER_ID:
        return Captioner(models, seeded_encoder(device))
    if encoder is None and EXPORTED.exists():
        encoder = EXPORTED
    if encoder is None:
        name = known.get("name", "an encoder that its features file does not name")
        raise UserError(
            f"{paths[0]}: trained on the {len(models[0].scaling.mean)} features of {name}: "
            "give that encoder's ONNX file with --encoder (from Python: encoder=...)"
        )
    # Pictures are prepared as they were for training: there is nothing to choose.
    preprocessing = known.get("preprocessing", "").rpartition("-")[0] or None
    return Captioner(models, Encoder(encoder, device, preprocessing=preprocessing))
