"""Caption images: joins an encoder, models and generation."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy
from tqdm import tqdm

from minicap.backend import device_module, to_host
from minicap.data.caption_file import CaptionFile
from minicap.generation.beam_search import Caption
from minicap.generation.config import BEAM, GenerationConfig
from minicap.generation.generate import check_vocabularies, encoder_warnings, generate
from minicap.generation.trace import trace
from minicap.model.pretrained import PRETRAINED
from minicap.model.trained_model import Model
from minicap.utils.errors import UserError
from minicap.utils.ranks import world

if TYPE_CHECKING:
    from PIL import Image

    from minicap.encoder.photos import PhotoSource
    from minicap.encoder.session import Encoder

GROUP = 32  # photos whose captions are generated together, or a little fewer


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

    def generate_many(
        self,
        photos: "PhotoSource",
        config: GenerationConfig = BEAM,
        count: int = 1,
        seed: int = 0,
        *,
        done: int = 0,
        workers: int = 1,
    ) -> Iterator[tuple[list[dict], dict[str, str]]]:
        """Generate captions for any number of photos, in groups, while the next ones are read.

        The ranks of an MPI job share the groups.

        Args:
            photos: from `minicap.encoder.photos`.
            config: how to generate.
            count: captions per photo: the best ones of the beam, or samples.
            seed: seed for sampling.
            done: number of groups to leave out, because they are done already.
            workers: batches of photos that the encoder encodes at the same time.

        Yields:
            On rank 0, for each group of `group_size` photos: rows with "photo", "caption", "score"
            and "doubt" (why the caption is doubtful, or ""); and photo -> the reason for those that
            cannot be read. On other ranks nothing.

        Raises:
            UserError: an option is out of range.
        """
        from minicap.encoder.pipeline import encode_batches

        names, size = photos.names, self.encoder.batch
        draws = count * (min(model.max_length for model in self.models) - 1)  # for each photo

        def batches(group: int) -> list[list[str]]:
            own = names[group * self.group_size :][: self.group_size]
            return [own[start : start + size] for start in range(0, len(own), size)]

        def compute(groups: Iterator[int]) -> Iterator[tuple[list[dict], dict[str, str]]]:
            groups, ahead = itertools.tee(groups)
            wanted = (batch for group in ahead for batch in batches(group))
            encoded = encode_batches(self.encoder, wanted, photos.open, workers + 1, workers)
            for group in groups:
                usable: list[tuple[str, numpy.ndarray]] = []
                unusable: dict[str, str] = {}
                for batch in batches(group):
                    features, reasons = next(encoded)
                    pairs = zip(batch, features, strict=True)
                    usable += [pair for pair in pairs if pair[0] not in reasons]
                    unusable |= reasons
                stream = numpy.random.PCG64(seed).advance(group * self.group_size * draws)
                rng = numpy.random.Generator(stream)
                array, found = numpy.array([row for _, row in usable]), []
                if usable:
                    found = generate(self.models, array, config, count, rng)
                yield (
                    [
                        {
                            "photo": name,
                            "caption": self.text(caption),
                            "score": caption.score,
                            "doubt": self.doubt(features, caption),
                        }
                        for (name, features), captions in zip(usable, found, strict=True)
                        for caption in captions[:count]
                    ],
                    unusable,
                )

        total = -(-len(names) // self.group_size)
        yield from world().in_order(range(done, total), compute)

    def doubt(self, features: numpy.ndarray, caption: Caption) -> str:
        """Say why a caption is doubtful; "" if it is not, or if the model has no such limits.

        Args:
            features: (F,) of the photo.
            caption: from `generate`.
        """
        model = self.models[0]
        if not model.doubt:
            return ""
        scaling = model.scaling
        scaled = (features - to_host(scaling.mean)) * to_host(scaling.scale)
        return model.doubt.reason(scaled, caption.log_probabilities)

    def attention(self, features: numpy.ndarray, caption: Caption) -> numpy.ndarray:
        """Return where the first model looked before each token of a caption.

        Args:
            features: (F,) of the photo.
            caption: from `generate`.

        Returns:
            (T, L) the weights of the positions, for T tokens with #END# if it was generated.

        Raises:
            UserError: the model has no attention.
        """
        (found,) = trace(self.models, features[None], [self.token_ids(caption)], 1)
        if found.weights is None:
            raise UserError(
                "this model has no attention: it gets the photo as a whole. Train one that has "
                "with `minicap train --recipe attend`"
            )
        return found.weights

    def attention_picture(
        self,
        image: "str | Path | IO[bytes] | Image.Image",
        config: GenerationConfig = BEAM,
        count: int = 1,
        seed: int = 0,
    ) -> "Image.Image":
        """Caption an image, and draw where the model looked for each word of the best caption.

        Args:
            image: a path, a file object or a Pillow image.
            config, count, seed: as for `generate_many`.

        Raises:
            UnusableImage: the image cannot be read.
            UserError: the model has no attention, or an option is out of range.
        """
        from minicap.encoder.image import load_image
        from minicap.evaluation.attention_maps import attention_sheet

        photo, rng = load_image(image), numpy.random.default_rng(seed)
        features = self.encoder([photo])
        best = generate(self.models, features, config, count, rng)[0][0]
        v = self.models[0].vocabulary
        words = ["(end)" if n == v.end else v.words[n] for n in self.token_ids(best)]
        weights = self.attention(to_host(features)[0], best)
        return attention_sheet(photo, words, weights, self.encoder.preprocessing)

    def token_ids(self, caption: Caption) -> list[int]:
        """Return the ids of a caption's tokens, with #END# if it was generated."""
        return (caption.ids + [self.models[0].vocabulary.end])[: len(caption.log_probabilities)]

    @property
    def group_size(self) -> int:
        """The number of photos whose captions `generate_many` generates together."""
        return self.encoder.batch * max(1, GROUP // self.encoder.batch)

    def write(
        self,
        photos: "PhotoSource",
        out: Path,
        config: GenerationConfig = BEAM,
        count: int = 1,
        seed: int = 0,
        *,
        scores: bool = False,
        workers: int = 1,
    ) -> tuple[int, int]:
        """Write captions of any number of photos to a file, with a progress bar.

        If it is interrupted, the next call resumes it.

        Args:
            photos, config, count, seed, workers: as for `generate_many`.
            out: the file, see `minicap.data.caption_file`.
            scores: write each caption's score too.

        Returns:
            The number of photos with captions, and without.

        Raises:
            UserError: as for `generate_many` and `CaptionFile.open`.
        """
        task = {
            "model": [model.fingerprint() for model in self.models],
            "encoder": self.encoder.id,
            "set of photos": hashlib.sha256(json.dumps(photos.names).encode()).hexdigest(),
            "generation option": asdict(config),
            "--count, --seed or --scores": [count, seed, scores],
            "--device": self.group_size,
        }
        total, size = len(photos.names), self.group_size
        with CaptionFile.open(out, task) as file:
            done = min(file.groups * size, total)
            with tqdm(total=total, initial=done, unit=" photos", smoothing=0.1) as bar:
                for rows, unusable in self.generate_many(
                    photos, config, count, seed, done=file.groups, workers=workers
                ):
                    for row in rows:
                        score, _ = round(row.pop("score"), 4), row.pop("doubt")
                        row |= {"score": score} if scores else {}
                    file.append(rows, unusable)
                    bar.update(min(size, total - bar.n))
            return world().first(file.finish)

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
    path: str | Path | Sequence[str | Path] = PRETRAINED,
    encoder: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Captioner:
    """Load a captioner.

    Args:
        path: a model file from `minicap train`, or several for an ensemble. By default the
            pretrained model, which needs the extra `pretrained`.
        encoder: the ONNX file of the encoder the model was trained on. By default
            inception_v3.onnx in the current folder, as `minicap export` saves it. The pretrained
            encoder, and the one with seeded weights, are built on first use and cached.
        device: "cpu" or "cuda", for encoder and model.
        threads: threads of each operator of the encoder; None leaves the choice to ONNX Runtime.

    Raises:
        UserError: a file is missing or damaged, or files do not fit together; onnxruntime is not
            installed; there is no GPU.

    Example:
        >>> captioner = minicap.load()
        >>> captioner.caption(["dog.jpg"])
        ['a dog runs through the snow']
    """
    from minicap.encoder import session

    paths = [path] if isinstance(path, str | Path) else path
    models = [Model.load(Path(each), device_module(device)) for each in paths]
    known = models[0].encoder or {}
    if encoder is None and known.get("id") == session.SEEDED_ENCODER_ID:
        return Captioner(models, session.seeded_encoder(device, threads))
    if encoder is None and known.get("id") == session.PRETRAINED_ENCODER_ID:
        return Captioner(models, session.pretrained_encoder(device, threads))
    if encoder is None and session.EXPORTED.exists():
        encoder = session.EXPORTED
    if encoder is None:
        name = known.get("name", "an unknown encoder")
        raise UserError(
            f"{paths[0]}: was trained on the {len(models[0].scaling.mean)} features of {name}: "
            "name that encoder's ONNX file with --encoder (in Python: encoder=...)"
        )
    # Images must be preprocessed as for training.
    preprocessing = known.get("preprocessing", "").rpartition("-")[0] or None
    opened = session.open_encoder(Path(encoder), device, threads, preprocessing)
    return Captioner(models, opened)
