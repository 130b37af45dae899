"""Caption images: joins an encoder, models and generation."""

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
    """A model or an ensemble, with the encoder it was trained on.

    Attributes:
        models: one or more, with the same vocabulary.
        encoder: computes their features.
        warning: "", or why the encoder may be the wrong one (see Model.check_encoder).
    """

    def __init__(self, models: Sequence[Model], encoder: "Encoder"):
        """Join models and an encoder.

        Args:
            models: one or more, with the same vocabulary.
            encoder: the encoder they were trained on.

        Raises:
            UserError: the vocabularies differ, or a model was trained on another encoder.
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
            count: number of samples, or minimum beam size.
            rng: random number generator for sampling.

        Returns:
            For each image, the captions of its final beam, best first, or `count` samples.

        Raises:
            UnusableImage: an image cannot be read. This is a UserError too.
            UserError: an option is out of range (see `minicap.generation.generate.generate`).
        """
        if isinstance(images, str | Path):
            raise UserError(f"{images}: give a list of images, [{str(images)!r}]")
        return generate(self.models, self.encoder(images), config, count, rng)

    def text(self, caption: Caption) -> str:
        """Return the caption's text."""
        return self.models[0].vocabulary.decode(caption.ids)

    def caption(self, images: Sequence, seed: int = 0, **options) -> list[str]:
        """Caption each image.

        Args:
            images: paths, Pillow images or uint8 arrays (H, W, 3).
            seed: seed for sampling.
            **options: fields of GenerationConfig, such as beam_size=3 or temperature=0.8.

        Returns:
            The text of one caption for each image: the best, or a sample.

        Raises:
            UnusableImage: an image cannot be read.
            UserError: an option is out of range.

        Example:
            >>> minicap.load("model.safetensors").caption(["dog.jpg"])
            ['a dog runs through the snow']
        """
        config = GenerationConfig(**options)
        found = self.generate(images, config, rng=numpy.random.default_rng(seed))
        return [self.text(captions[0]) for captions in found]


def load(
    path: str | Path | Sequence[str | Path],
    encoder: str | Path | None = None,
    device: str = "cpu",
) -> Captioner:
    """Load a captioner.

    Args:
        path: a model file from `minicap train`, or several for an ensemble.
        encoder: the ONNX file of the encoder the model was trained on. By default
            inception_v3.onnx in the current folder, as `minicap export` saves it. For a model
            trained on minicap's encoder with seeded weights, by default that encoder, which is
            built on first use and cached.
        device: "cpu" or "cuda", for encoder and model.

    Raises:
        UserError: a file is missing or damaged, or files do not fit together; onnxruntime is not
            installed; there is no GPU.

    Example:
        >>> captioner = minicap.load("runs/scenes/model.safetensors")
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
        name = known.get("name", "an unknown encoder")
        raise UserError(
            f"{paths[0]}: was trained on the {len(models[0].scaling.mean)} features of {name}: "
            "name that encoder's ONNX file with --encoder (in Python: encoder=...)"
        )
    # Images must be preprocessed as for training.
    preprocessing = known.get("preprocessing", "").rpartition("-")[0] or None
    return Captioner(models, Encoder(encoder, device, preprocessing=preprocessing))
