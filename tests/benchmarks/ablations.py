"""Measure what each setting of `--recipe best` contributes: train two epochs without it.

To be quicker, the LSTM has 300 units.

    python tests/benchmarks/ablations.py FLICKR8K_FOLDER [--only NAME ...] [--seeds 0 1 2]
        [--json FILE]

Trains on Flickr8k and evaluates on its 1,000 dev images, on which the recipe was tuned as well:
captions with a beam of 5, scores times 100. The folder has Flickr8k's token file, split lists and
mobilenetv2_features.npz. Needs the extra `metrics`.
"""

import argparse
import json
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy
from flickr8k_epoch import data_files

from minicap.data.dataset import load_dataset
from minicap.evaluation.metrics import scores
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate_text
from minicap.model.config import DecoderConfig
from minicap.model.trained_model import Model
from minicap.training.recipes import RECIPES, Recipe
from minicap.training.run import MODEL, Run
from minicap.training.trainer import Trainer

SHORT = {"epochs": 2, "self_critical_epochs": 0, "monitor": "loss", "hidden_size": 300}
VARIANTS = {
    "two epochs, LSTM of 300": {},
    "then one self-critical epoch": {"epochs": 3, "self_critical_epochs": 1, "monitor": "cider"},
    "image in the initial state only": {"image_input": "initial_state"},
    "features not standardised": {"standardise": False},
    "both bottlenecks, 120 units": {"image_bottleneck": 120, "logit_bottleneck": 120},
    "image layers with Glorot initialisation": {"image_gain": 1.0},
    "last bias initialised with 0": {"frequency_bias": False},
    "constant learning rate": {"warmup_epochs": 0.0, "decay": False},
    "dropout 0.3": {"dropout": 0.3},
    "no dropout": {"dropout": 0.0, "embedding_dropout": 0.0},
    "LSTM of 512": {"hidden_size": 512},
    "a bottleneck of 200 before the last layer": {"logit_bottleneck": 200},
    "batches of 64, half the learning rate": {"batch_size": 64, "learning_rate": 1e-3},
}


def recipe(changes: dict) -> Recipe:
    """Make the best recipe with changes to its two configurations."""
    values, best = SHORT | changes, RECIPES["best"]
    decoder = {field.name for field in fields(DecoderConfig)} & values.keys()
    return Recipe(
        replace(best.decoder, **{name: values[name] for name in decoder}),
        replace(best.training, **{name: values[name] for name in values.keys() - decoder}),
    )


def run(folder: Path, changes: dict, seed: int, threads: int) -> dict:
    """Train and evaluate one variant."""
    variant = recipe(changes)
    config = variant.training
    data = load_dataset(
        data_files(folder),
        config.min_count,
        config.max_length,
        config.standardise,
        components=config.components,
    )  # with the tokeniser `course`, as when these figures were first measured
    dev = data.splits["dev"]
    trainer = Trainer(variant, data, seed, threads)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        training = Run(Path(out), trainer, {})
        training.fit(log=lambda line: None)
        model = Model.load(Path(out) / MODEL)
    seconds = time.perf_counter() - start
    captions = generate_text(
        [model.for_scaled_features()],
        dev.features,
        GenerationConfig(beam_size=5, length_penalty=1.0),
    )
    found = scores(
        dict(zip(dev.names, captions, strict=True)),
        dict(zip(dev.names, dev.captions, strict=True)),
    )
    percent = {name: 100 * found[name] for name in ("BLEU-4", "ROUGE-L", "CIDEr")}
    loss = min(line["dev_loss"] for line in training.progress.history)
    return percent | {"dev loss": loss, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = ("dev loss", "BLEU-4", "ROUGE-L", "CIDEr", "seconds")
    print(f"{'':52}" + "".join(f"{column:>10}" for column in columns), flush=True)
    results: dict[str, list[dict]] = {}
    for name in options.only:
        for seed in options.seeds:
            found = run(options.folder, VARIANTS[name], seed, options.threads)
            results.setdefault(name, []).append(found)
            figures = [f"{found[c]:10.{3 if c == 'dev loss' else 1}f}" for c in columns]
            print(f"{name:46}seed {seed:<2}{''.join(figures)}", flush=True)
        if len(options.seeds) > 1:
            for statistic in (numpy.mean, numpy.std):
                figures = [f"{statistic([f[c] for f in results[name]]):10.3f}" for c in columns]
                print(f"{name[:46]:46}{statistic.__name__:6}{''.join(figures)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
