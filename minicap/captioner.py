"""From images to captions with one object: an encoder, models, and generation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from minicap.backend import device_module
from minicap.generation.beam_search import Caption
from minicap.generation.config import BEAM, GenerationConfig
from minicap.generation.generate import check_vocabularies, encoder_warnings, generate
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError

if TYPE_CHECKING:
    from minicap.encoder.session import Encoder


class Captioner:
    """A model, or several that generate together, with the encoder it was trained on.

    Attributes:
        models: with one vocabulary.
        encoder: makes their features.
        warning: "", or why the encoder may not be the right one: it has the model's weights in
            another precision, or the model does not know its encoder.
    """

    def __init__(self, models: Sequence[Model], encoder: "Encoder"):
        """Join models and an encoder.

        Raises:
            UserError: models with different vocabularies, or trained on another encoder.
        """
        check_vocabularies(models)
        self.models, self.encoder = models, encoder
        self.warning = "; ".join(encoder_warnings(models, encoder.about(), encoder.feature_size))

    def generate(
        self,
        images: Sequence,
        config: GenerationConfig = BEAM,
        count: int = 1,
        rng: numpy.random.Generator | None = None,
    ) -> list[list[Caption]]:
        """Generate captions with their scores and the log-probability of every word.

        Args:
            images: paths, Pillow images or uint8 arrays (H, W, 3).
            config: how to generate.
            count: how many captions to sample; the beam is at least this wide.
            rng: for sampling.

        Returns:
            For each image all captions of its beam, best first, or `count` samples.

        Raises:
            UnusableImage: an image that cannot be read. It is a UserError too.
            UserError: what `minicap.generation.generate.generate` refuses.
        """
        if isinstance(images, str | Path):
            raise UserError(f"{images}: give a list of photos, [{str(images)!r}]")
        return generate(self.models, self.encoder(images), config, count, rng)

    def words(self, caption: Caption) -> str:
        """The caption as a sentence."""
        return self.models[0].vocabulary.decode(caption.ids)

    def caption(self, images: Sequence, seed: int = 0, **options) -> list[str]:
        """Caption each image.

        Args:
            images: paths, Pillow images or uint8 arrays (H, W, 3).
            seed: of the sampling.
            **options: fields of GenerationConfig, such as beam_size=3 or temperature=0.8.

        Returns:
            One sentence for each image: the best caption, or a sample.

        Example:
            >>> minicap.load("model.safetensors").caption(["dog.jpg"])
            ['a dog runs through the snow']
        """
        config = GenerationConfig(**options)
        found = self.generate(images, config, rng=numpy.random.default_rng(seed))
        return [self.words(captions[0]) for captions in found]


def load(
    path: str | Path | Sequence[str | Path],
    encoder: str | Path | None = None,
    device: str = "cpu",
) -> Captioner:
    """Load a captioner.

    Args:
        path: a model file that `minicap train` wrote, or several whose models generate together.
        encoder: the ONNX file that made the model's features. By default inception_v3.onnx in the
            working folder, as `minicap export` writes it; or minicap's own encoder with seeded
            weights, which is built on first use and kept.
        device: "cpu" or "cuda", for both parts.

    Raises:
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
    # Images are prepared as they were for training: there is nothing to choose.
    preprocessing = known.get("preprocessing", "").rpartition("-")[0] or None
    return Captioner(models, Encoder(encoder, device, preprocessing=preprocessing))
