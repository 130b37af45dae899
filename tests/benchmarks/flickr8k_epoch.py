"""Compare one epoch on Flickr8k with PyTorch.

    python tests/benchmarks/flickr8k_epoch.py FLICKR8K_FOLDER [--rounds 3] [--threads 2]

All variants have the same data, sizes, batches of 64, dropout 0.3, clipping at 5 and Adam. They run
interleaved, each in its own process. PyTorch has two: torch-course pads, projects every position to
the vocabulary and masks the loss; torch-packed projects only real words and uses fused Adam. Prints
the seconds per epoch (minimum and median over the rounds), the peak memory of all processes, and
the ratio to minicap. The folder has Flickr8k's token file, split lists and
mobilenetv2_features.npz.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy
from training_step import peak_megabytes

WAYS = ("minicap", "torch-packed", "torch-course")


def data_files(folder: Path):
    """Return the folder's captions, features and splits."""
    from minicap.data.dataset import DataFiles

    return DataFiles(
        folder / "Flickr8k.token.txt",
        folder / "mobilenetv2_features.npz",
        folder / "Flickr_8k.trainImages.txt",
        folder / "Flickr_8k.devImages.txt",
    )


def load(folder: Path, max_length: int = 22):
    """Load the data set for all variants with minicap's reader."""
    from minicap.data.dataset import load_dataset

    return load_dataset(data_files(folder), min_count=5, max_length=max_length, standardise=False)


def minicap_epoch(dataset, threads: int) -> tuple[float, float]:
    """Measure seconds and mean loss of one epoch, after a warm-up of ten steps."""
    from minicap.training.recipes import RECIPES
    from minicap.training.trainer import Trainer

    trainer = Trainer(RECIPES["flickr8k"], dataset, 0, threads)
    batches = trainer.batches()
    for _ in range(10):
        trainer.train_step(next(batches))
    start, losses = time.perf_counter(), []
    trainer.step = 0
    for batch in trainer.batches():
        losses.append(trainer.train_step(batch))
    return time.perf_counter() - start, float(numpy.mean(losses))


def torch_epoch(dataset, threads: int, packed: bool) -> tuple[float, float]:
    """Measure the same with PyTorch's layers."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    train, vocabulary = dataset.splits["train"], dataset.vocabulary

    class Decoder(nn.Module):
        def __init__(self, feature: int, words: int):
            super().__init__()
            self.bottleneck, self.h0 = nn.Linear(feature, 120), nn.Linear(120, 300)
            self.embed, self.lstm = nn.Embedding(words, 100), nn.LSTM(100, 300, batch_first=True)
            self.logit_bottleneck, self.logits = nn.Linear(300, 120), nn.Linear(120, words)
            self.drop = nn.Dropout(0.3)

        def forward(self, features, ids):
            x = functional.elu(self.bottleneck(self.drop(features)))
            h0 = functional.elu(self.h0(self.drop(x)))[None]
            h, _ = self.lstm(self.drop(self.embed(ids[:, :-1])), (h0, h0))
            targets = ids[:, 1:]
            if packed:
                real = targets != vocabulary.pad
                h, targets = h[real], targets[real]
            y = functional.elu(self.logit_bottleneck(self.drop(h)))
            logits = self.logits(self.drop(y)).flatten(0, -2)
            return functional.cross_entropy(logits, targets.flatten(), ignore_index=vocabulary.pad)

    model = Decoder(train.features.shape[1], len(vocabulary))
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=packed)
    features, all_ids = torch.from_numpy(train.features), torch.from_numpy(train.ids).long()
    image, lengths = torch.from_numpy(train.image), torch.from_numpy(train.lengths)

    def step(rows) -> float:
        ids = all_ids[rows, : int(lengths[rows].max())]
        loss = model(features[image[rows]], ids)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        adam.step()
        return loss.item()

    batches = torch.randperm(len(lengths)).split(64)
    for rows in batches[:10]:
        step(rows)
    start = time.perf_counter()
    losses = [step(rows) for rows in batches]
    return time.perf_counter() - start, float(numpy.mean(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        dataset = load(options.folder)
        if options.one == "minicap":
            seconds, loss = minicap_epoch(dataset, options.threads)
        else:
            seconds, loss = torch_epoch(dataset, options.threads, options.one == "torch-packed")
        print(json.dumps({"seconds": seconds, "loss": loss, "megabytes": peak_megabytes()}))
        return
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, str(options.folder), "--one", way]
            command += ["--threads", str(options.threads)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(json.loads(output))
    print(f"one epoch of Flickr8k, {options.threads} threads, {options.rounds} interleaved rounds")
    print(f"{'':20}{'min s':>8}{'median s':>10}{'ratio':>8}{'peak MB':>9}{'loss':>8}")
    ours = statistics.median(run["seconds"] for run in found["minicap"])
    for way, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        median = statistics.median(seconds)
        print(
            f"{way:20}{min(seconds):8.1f}{median:10.1f}{median / ours:8.2f}"
            f"{max(run['megabytes'] for run in runs):9.0f}{runs[0]['loss']:8.3f}"
        )


if __name__ == "__main__":
    main()
