"""Find out why captions of dev scenes are wrong: the features, or combinations unseen in training?

    python tests/benchmarks/unseen_combinations.py MODEL... [--count 300] [--seed 1]

Each dev scene contains a pair (kind and colour, ground or companion) that no training scene has.
They are compared with new scenes whose pairs all occur in train: how often a linear probe predicts
all eight attributes from the features, and how often a caption of each model is true. Needs
onnxruntime.
"""

import argparse
from pathlib import Path

import numpy

from minicap.data.dataset import shipped_scenes
from minicap.data.scenes.dataset import shipped_features, shipped_split
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.probe import probe
from minicap.data.scenes.scene import ATTRIBUTES, HELD_OUT_REMAINDERS, Scene, sample_splits
from minicap.encoder.session import seeded_encoder
from minicap.evaluation.scene_truth import truths
from minicap.generation.generate import generate_text
from minicap.model.trained_model import Model


def described(scene: Scene) -> tuple:
    """Return everything that a caption could describe."""
    return tuple(getattr(scene, name) for name in ATTRIBUTES)


def new_scenes(count: int, seed: int) -> list[Scene]:
    """Sample scenes like those of train that are not in it."""
    known = {described(scene) for scene in shipped_split("train").values()}
    sampled = sample_splits(seed, {"train": 2 * count, "dev": 0, "test": 0})["train"].values()
    return [scene for scene in sampled if described(scene) not in known][:count]


def as_stored(features: numpy.ndarray) -> numpy.ndarray:
    """Compress an encoder's features as the shipped file does, and decompress them."""
    with numpy.load(shipped_scenes() / "features.npz", allow_pickle=False) as file:
        basis, mean = file["basis"], file["mean"]
    return (features - mean) @ basis.T @ basis + mean


def unseen_colour(scene: Scene) -> bool:
    """Return whether no training scene has this kind in this colour."""
    number = sum(ATTRIBUTES[name].index(getattr(scene, name)) for name in ("kind", "colour"))
    return number % 7 in HELD_OUT_REMAINDERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    encoder, new = seeded_encoder(), new_scenes(options.count, options.seed)
    batches = [[paint(scene) for scene in new[i : i + 32]] for i in range(0, len(new), 32)]
    dev = shipped_split("dev")
    scenes = [*new, *dev.values()]
    features = numpy.concatenate([*map(as_stored, map(encoder, batches)), shipped_features(dev)])
    colour = numpy.array([unseen_colour(scene) for scene in scenes])
    is_new = numpy.arange(len(scenes)) < len(new)
    groups = {
        "new, all pairs seen": is_new,
        "dev, kind and colour seen": ~is_new & ~colour,
        "dev, kind and colour unseen": ~is_new & colour,
    }
    rows = {"linear probe": numpy.all([*probe(features, scenes).values()], axis=0)}
    for path in options.models:
        model = Model.load(path)
        rows[str(path)] = numpy.array(truths(generate_text([model], features), scenes))
    print(f"{'':44}" + "".join(f"{name:>30}" for name in groups))
    print(f"{'scenes':44}" + "".join(f"{group.sum():30}" for group in groups.values()))
    for name, correct in rows.items():
        print(f"{name:44}" + "".join(f"{correct[group].mean():30.1%}" for group in groups.values()))


if __name__ == "__main__":
    main()
