"""Calibrate and check when `minicap caption` doubts a caption.

    python tests/benchmarks/doubt.py MODEL FLICKR8K_FOLDER FEATURES COCO_FOLDER [--save]

The limits are set on Flickr8k's dev photos: the distance that 5 % of them exceed, and the mean
log-probability that 10 % of their captions fall below. They are checked there and on photos of
COCO's validation set, most of which are of other things. A caption is called wrong if its CIDEr
with the photo's five captions is below 10 (times 100). `--save` stores the limits in MODEL.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy

from minicap.data.captions import read_captions, read_names
from minicap.data.features import read_features
from minicap.encoder.session import pretrained_encoder
from minicap.evaluation.metrics import Scorer
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate
from minicap.model.doubt import Doubt, principal_components
from minicap.model.trained_model import Model

CONFIG = GenerationConfig(beam_size=5, length_penalty=1.0)
WRONG = 0.1
COMPONENTS = 100


def standardised(model: Model, features: numpy.ndarray) -> numpy.ndarray:
    return (features.astype("float32") - model.scaling.mean) * model.scaling.scale


def measure(
    model: Model, doubt: Doubt, features: numpy.ndarray, references: dict[str, list[str]]
) -> tuple[numpy.ndarray, ...]:
    """Distances, mean log-probabilities, and whether captions are wrong, each of shape (N,)."""
    best = [captions[0] for captions in generate([model], features, CONFIG)]
    texts = [model.vocabulary.decode(caption.ids) for caption in best]
    _, each = Scorer(references)(dict(zip(references, texts, strict=True)))
    return (
        numpy.array([doubt.distance_of(row) for row in standardised(model, features)]),
        numpy.array([numpy.mean(caption.log_probabilities) for caption in best]),
        numpy.array(each["CIDEr"]) < WRONG,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("coco", type=Path)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    model = Model.load(options.model)

    stored = read_features(options.features)
    rows = {name: row for row, name in enumerate(stored.names)}
    names = read_names(options.flickr8k / "Flickr_8k.devImages.txt")
    texts = read_captions(options.flickr8k / "Flickr8k.token.txt").texts
    sets = {
        "Flickr8k dev": (
            stored.array[[rows[name] for name in names]],
            {name: texts[name] for name in names},
        )
    }
    photos = sorted((options.coco / "val2017").iterdir())
    texts = read_captions(options.coco / "captions_val2017.json").texts
    photos = [path for path in photos if path.name in texts]
    features = pretrained_encoder()(photos)
    sets["COCO val"] = features, {path.name: texts[path.name] for path in photos}

    train = read_names(options.flickr8k / "Flickr_8k.trainImages.txt")
    known = standardised(model, stored.array[[rows[name] for name in train]])
    doubt = Doubt(0, 0, principal_components(known, COMPONENTS))
    found = {name: measure(model, doubt, *values) for name, values in sets.items()}
    far, sure, _ = found["Flickr8k dev"]
    limits = float(numpy.quantile(far, 0.95)), float(numpy.quantile(sure, 0.1))
    doubt = Doubt(*limits, doubt.basis)
    print(f"limits: distance {doubt.distance:.2f}, log-probability {doubt.log_probability:.2f}")
    for name, (far, sure, wrong) in found.items():
        unlike, unsure = far > doubt.distance, sure < doubt.log_probability
        print(f"{name}: {len(wrong)} photos, {wrong.mean():.0%} of the captions are wrong")
        for label, chosen in (
            ("unlike the training photos", unlike),
            ("unsure of the words", unsure & ~unlike),
            ("doubted for either reason", unlike | unsure),
            ("not doubted", ~(unlike | unsure)),
        ):
            share = f", {wrong[chosen].mean():.0%} of them wrong" if chosen.any() else ""
            print(f"    {label}: {chosen.mean():.0%} of the photos{share}")
    if options.save:
        replace(model, doubt=doubt).save(options.model, "float16")


if __name__ == "__main__":
    main()
