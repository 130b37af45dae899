"""What each part of `--recipe best` is good for: leave one out at a time, and train for two epochs
(with an LSTM of 300, to be quicker).

    python tests/benchmarks/ablations.py FLICKR8K_FOLDER [--only NAME ...] [--seeds 0 1 2]
        [--json FILE]

Flickr8k's train split, judged on its 1,000 dev photos (dev is also what the recipe was tuned on):
captions by a beam of 5, scores times 100. The folder is one with Flickr8k's token file, split lists
and mobilenetv2_features.npz. Needs the extra `metrics`.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy
from flickr8k_epoch import data_files

from minicap.data.dataset import load_dataset
from minicap.evaluation.metrics import scores
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate_text
from minicap.model.trained_model import Model
from minicap.training.recipes import RECIPES
from minicap.training.run import MODEL, Run
from minicap.training.self_critical import Critic
from minicap.training.trainer import Trainer

SHORT = replace(RECIPES["best"], epochs=2, self_critical=0, choose="loss", hidden=300)
VARIANTS = {
    "two epochs, LSTM of 300": {},
    "then one self-critical epoch": {"epochs": 3, "self_critical": 1, "choose": "cider"},
    "photo as the first state only": {"photo": "first"},
    "features as they are": {"standardise": False},
    "both bottlenecks, 120 wide": {"image_bottleneck": 120, "logit_bottleneck": 120},
    "photo's kernels start at Glorot's range": {"image_gain": 1.0},
    "last bias starts at 0": {"frequency_bias": False},
    "step size neither rises nor falls": {"warmup_epochs": 0.0, "decay": False},
    "dropout 0.3": {"dropout": 0.3},
    "no dropout": {"dropout": 0.0, "embedding_dropout": 0.0},
    "LSTM of 512": {"hidden": 512},
    "a bottleneck of 200 before the last layer": {"logit_bottleneck": 200},
    "batches of 64, half the step size": {"batch_size": 64, "learning_rate": 1e-3},
}


def run(folder: Path, changes: dict, seed: int, threads: int) -> dict:
    """Train and judge one variant."""
    recipe = replace(SHORT, **changes)
    data = load_dataset(
        data_files(folder),
        recipe.min_count,
        recipe.max_length,
        recipe.standardise,
        recipe.components,
    )
    train, dev, words = data.splits["train"], data.splits["dev"], data.vocabulary
    critic = None
    if recipe.self_critical:
        critic = Critic(train, words, recipe.max_length, recipe.samples, recipe.bleu_reward)
    frequencies = train.word_counts(len(words)) if recipe.frequency_bias else None
    sizes = recipe.sizes(len(words), train.features.shape[1])
    trainer = Trainer(recipe, sizes, seed, threads, critic=critic, frequencies=frequencies)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        training = Run(Path(out), trainer, data, {})
        training.fit(tell=lambda text: None)
        model = Model.load(Path(out) / MODEL)
    seconds = time.perf_counter() - began
    trainer.workers.stop()
    captions = generate_text(
        [model.for_scaled_features()],
        dev.features,
        GenerationConfig(beam_size=5, length_penalty=1.0),
    )
    found = scores(
        dict(zip(dev.names, captions, strict=True)),
        dict(zip(dev.names, dev.captions, strict=True)),
    )
    told = {name: 100 * found[name] for name in ("BLEU-4", "ROUGE-L", "CIDEr")}
    loss = min(line["dev_loss"] for line in training.progress.history)
    return told | {"dev loss": loss, "seconds": seconds}


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
            for way in (numpy.mean, numpy.std):
                figures = [f"{way([f[c] for f in results[name]]):10.3f}" for c in columns]
                print(f"{name[:46]:46}{way.__name__:6}{''.join(figures)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
