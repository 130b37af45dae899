"""Compare one training step (forward, backward, clipping, Adam) with PyTorch and TensorFlow.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/training_step.py [--work coco flickr8k ...]
        [--threads 2] [--rounds 5] [--steps 40] [--busy] [--tensorflow PYTHON] [--json FILE]
        [--device cuda [--tf32]]

minicap        Trainer.train_step, from ids and features to updated parameters
torch-course   the original notebook's graph: pad, project every position, mask the loss
torch-best     project only real words, give the LSTM a packed sequence, use fused Adam
torch-padded   as torch-best, but the LSTM gets padded captions
torch-compiled torch-padded with torch.compile (needs a C++ compiler)
tensorflow     the original notebook's graph with Keras' layers and Adam in a tf.function, run by
               the Python of an environment that has TensorFlow (--tensorflow)
products       only the matrix products (GEMMs) of minicap's step, in the same shapes and workers:
               a lower bound for NumPy (CPU only)

The variants run interleaved, each in its own process, after a warm-up. Printed are the minimum and
median milliseconds of a step, the ratio to minicap, the peak memory, and the fraction of the limit.
The limit is the rate of the best square matrix product that NumPy reaches in the same run with the
same number of threads; the rate of a step is its nominal operations (without padding, and without
what a trick saves) divided by its time. With --busy another process keeps one core busy. With
--device cuda everything runs on an NVIDIA GPU: minicap on CuPy, PyTorch with cuDNN's LSTM and fused
Adam (except torch-course). Products are in float32 or, with --tf32, in TF32.
"""

import argparse
import json
import math
import multiprocessing
import operator
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy

# vocabulary size, batch size, and the decoder's sizes: features, image bottleneck, hidden,
# embedding, logit bottleneck (0: none)
WORKS = {
    "coco": (8769, 64, (2048, 120, 300, 100, 120)),
    "flickr8k": (2539, 64, (2048, 120, 300, 100, 120)),
    "batch256": (8769, 256, (2048, 120, 300, 100, 120)),
    "batch1024": (8769, 1024, (2048, 120, 300, 100, 120)),
    "large": (8769, 64, (2048, 0, 512, 512, 0)),
}
PAD, START, END = 0, 1, 2


def make_batches(work: str, count: int = 16):
    """Make batches: features (N, F), ids (N, T) padded with PAD, and lengths (N,), which count
    START and END. Captions have 10.5 words on average and at most 20, with word frequencies as in
    Zipf's law."""
    vocabulary, size, (feature, *_) = WORKS[work]
    rng = numpy.random.default_rng(0)
    frequencies = 1 / (numpy.arange(vocabulary - 3) + 2.7)
    frequencies /= frequencies.sum()
    batches = []
    for _ in range(count):
        words = numpy.clip(8 + rng.gamma(1.2, 2.2, size), 6, 20).round().astype(int)
        ids = numpy.full((size, words.max() + 2), PAD)
        ids[:, 0] = START
        for row, length in zip(ids, words, strict=True):
            row[1 : length + 1] = 3 + rng.choice(vocabulary - 3, length, p=frequencies)
            row[length + 1] = END
        features = rng.random((size, feature), dtype=numpy.float32)
        batches.append((features, ids.astype(numpy.int32), words + 2))
    return batches


def operations(work: str, batches) -> float:
    """Count the floating-point operations of the mean step: two for each weight and row in the
    forward pass, and twice that in the backward pass (the first image layer needs no gradient of
    its input)."""
    vocabulary, size, (feature, image, hidden, embedding, logits) = WORKS[work]
    rows = numpy.mean([(lengths - 1).sum() for *_, lengths in batches])
    per_row = (hidden + embedding) * 4 * hidden + hidden * logits
    per_row += (logits or hidden) * vocabulary
    per_image = 2 * feature * image + 3 * image * hidden if image else 2 * feature * hidden
    return 2 * (3 * rows * per_row + size * per_image)


def new_trainer(work: str, threads: int, device: str = "cpu", decoder=None):
    """Make a trainer for a work's sizes, or with another decoder; its own data set is a placeholder
    of one caption."""
    from minicap.backend import device_module
    from minicap.data.dataset import Dataset, Split
    from minicap.data.features import Scaling
    from minicap.data.vocabulary import Vocabulary
    from minicap.model.config import DecoderConfig
    from minicap.training.recipes import RECIPES, Recipe
    from minicap.training.trainer import Trainer

    size, _, (feature, *widths) = WORKS[work]
    vocabulary = Vocabulary(f"w{number}" for number in range(size - 4))
    split = Split(
        ["0.jpg"],
        numpy.zeros((1, feature), numpy.float32),
        numpy.array([0]),
        numpy.array([[vocabulary.start, vocabulary.end]]),
        numpy.array([2]),
        [[""]],
    )
    splits = {"train": split, "dev": split}
    dataset = Dataset(splits, vocabulary, Scaling.none(feature), None, [])
    decoder = decoder or DecoderConfig(*widths)
    recipe = Recipe(decoder, replace(RECIPES["course"].training, clip_norm=5.0))
    return Trainer(recipe, dataset, 0, threads, device_module(device))


def minicap(work: str, threads: int, device: str) -> Callable:
    from minicap.data.batches import pack

    trainer = new_trainer(work, threads, device)
    return lambda features, ids, lengths: trainer.train_step(pack(features, ids, lengths))


def products(work: str, threads: int, device: str) -> Callable:
    from threadpoolctl import ThreadpoolController

    from minicap.data.batches import Batch, pack
    from minicap.nn.lstm import multiply_few_rows
    from minicap.training.workers import Workers

    vocabulary, _, (feature, image, hidden, embedding, logits) = WORKS[work]
    blas = ThreadpoolController()
    largest = 20 * WORKS[work][1] * max(vocabulary, 4 * hidden)  # numbers in the largest array
    operands = numpy.random.default_rng(0).random((3, largest), dtype=numpy.float32)
    result = numpy.empty(largest, numpy.float32)

    def multiply(rows: int, inputs: int, outputs: int, wanted: str) -> None:
        """Compute those of a layer's products that are wanted: y = x W, dW and dx."""
        shapes = {"x": (rows, inputs), "y": (rows, outputs), "W": (inputs, outputs)}
        out = {name: result[: math.prod(shape)].reshape(shape) for name, shape in shapes.items()}
        x, y, W = (
            operand[: math.prod(shape)].reshape(shape)
            for operand, shape in zip(operands, shapes.values(), strict=True)
        )
        if "y" in wanted:
            multiply_few_rows(x, W, out["y"])
        if "W" in wanted:
            numpy.matmul(x.T, y, out=out["W"])
        if "x" in wanted:
            numpy.matmul(y, W.T, out=out["x"])

    def all_products(part: Batch) -> None:
        captions, words, rows = part.counts.values()
        with blas.limit(limits=1, user_api="blas"):
            if image:
                multiply(captions, feature, image, "yW")
            multiply(captions, image or feature, hidden, "yWx" if image else "yW")
            multiply(words, embedding, 4 * hidden, "yWx")
            multiply(rows, hidden, 4 * hidden, "W")
            for size in part.batch_sizes:
                multiply(size, hidden, 4 * hidden, "y")
                multiply(size, 4 * hidden, hidden, "y")  # backward, with a copy of U
            if logits:
                multiply(rows, hidden, logits, "yWx")
            multiply(rows, logits or hidden, vocabulary, "yWx")

    workers = Workers([all_products] * threads)

    def step(features, ids, lengths) -> float:
        parts = pack(features, ids, lengths).split(threads)
        workers.run(operator.call, [(part,) for part, _ in parts])
        return 0.0

    return step


def torch_way(work: str, threads: int, device: str, way: str) -> Callable:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    vocabulary, _, (feature, image, hidden, embedding, logits) = WORKS[work]

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bottleneck = nn.Sequential(nn.Linear(feature, image), nn.ELU()) if image else None
            self.h0 = nn.Linear(image or feature, hidden)
            self.embed = nn.Embedding(vocabulary, embedding)
            self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
            self.narrow = nn.Sequential(nn.Linear(hidden, logits), nn.ELU()) if logits else None
            self.logits = nn.Linear(logits or hidden, vocabulary)

        def forward(self, features, ids, targets, lengths, real):
            x = self.bottleneck(features) if self.bottleneck else features
            h0 = functional.elu(self.h0(x))[None]
            x = self.embed(ids)
            if way == "best":
                x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                order = x.sorted_indices
                h0 = h0[:, order]
                plain = PackedSequence(x.data, x.batch_sizes)
                h = self.lstm(plain, (h0, h0))[0].data
                packed = pack_padded_sequence(
                    targets, lengths, batch_first=True, enforce_sorted=False
                )
                targets = packed.data
            else:
                h, _ = self.lstm(x, (h0, h0))
                if real is not None:
                    h = h.flatten(0, 1)[real]
                    targets = targets.flatten()[real]
            y = self.logits(self.narrow(h) if self.narrow else h)
            return functional.cross_entropy(
                y.flatten(0, -2), targets.flatten(), ignore_index=PAD if way == "course" else -100
            )

    model = Decoder().to(device)
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=way != "course")
    loss_of = torch.compile(model, dynamic=True) if way == "compiled" else model

    def step(features, ids, lengths):
        ids = torch.from_numpy(ids).long().to(device)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        real = None
        if way in ("padded", "compiled"):
            real = (targets != PAD).flatten().nonzero()[:, 0]
        lengths = torch.from_numpy(lengths - 1) if way == "best" else None
        loss = loss_of(torch.from_numpy(features).to(device), inputs, targets, lengths, real)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        adam.step()
        return loss.item()

    return step


def tensorflow(work: str, threads: int, device: str) -> Callable:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    vocabulary, _, (feature, image, hidden, embedding, logits) = WORKS[work]
    layers = tf.keras.layers
    same = layers.Identity()
    bottleneck = layers.Dense(image, "elu") if image else same
    first = layers.Dense(hidden, "elu")
    embed = layers.Embedding(vocabulary, embedding)
    lstm = layers.LSTM(hidden, return_sequences=True)
    narrow = layers.Dense(logits, "elu") if logits else same
    wide = layers.Dense(vocabulary)
    adam = tf.keras.optimizers.Adam(1e-3, global_clipnorm=5.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, feature], tf.float32),
            tf.TensorSpec([None, None], tf.int32),
        ]
    )
    def train(features, ids):
        with tf.GradientTape() as tape:
            h0 = first(bottleneck(features))
            h = lstm(embed(ids[:, :-1]), initial_state=[h0, h0])
            targets = ids[:, 1:]
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, wide(narrow(h)))
            real = tf.cast(targets != PAD, tf.float32)
            loss = tf.reduce_sum(each * real) / tf.reduce_sum(real)
        variables = [v for layer in (bottleneck, first, embed, lstm, narrow, wide)
                     for v in layer.trainable_variables]  # fmt: skip
        adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda features, ids, lengths: float(train(features, ids))


WAYS: dict[str, Callable[[str, int, str], Callable]] = {
    "minicap": minicap,
    "products": products,
    "torch-course": partial(torch_way, way="course"),
    "torch-best": partial(torch_way, way="best"),
    "torch-padded": partial(torch_way, way="padded"),
    "torch-compiled": partial(torch_way, way="compiled"),
    "tensorflow": tensorflow,
}


def matrix_rate(threads: int, device: str = "cpu") -> float:
    """Measure the operations per second of NumPy's or CuPy's best square product in float32."""
    from threadpoolctl import threadpool_limits

    from minicap.backend import device_module, to_device

    best = 0.0
    with threadpool_limits(threads):
        for side in (1000, 2000, 3000):
            a = numpy.random.default_rng(0).random((side, side), dtype=numpy.float32)
            a = to_device(a, device_module(device))
            for _ in range(5):
                start = time.perf_counter()
                float((a @ a)[0, 0])  # waits for a GPU
                best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def peak_megabytes() -> float:
    """Return the peak memory of this process and its helpers, minicap's other workers."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for helper in multiprocessing.active_children():
        status = Path(f"/proc/{helper.pid}/status").read_text()
        peak += int(status.split("VmHWM:")[1].split()[0]) / 1024
    return peak


def measure(way: str, work: str, threads: int, device: str, steps: int) -> dict:
    """Measure the median step after a warm-up, in this process."""
    batches = make_batches(work)
    step = WAYS[way](work, threads, device)
    first = step(*batches[0])
    for batch in batches[1:]:
        step(*batch)
    seconds = []
    for number in range(steps):
        batch = batches[number % len(batches)]
        start = time.perf_counter()
        last = step(*batch)
        seconds.append(time.perf_counter() - start)
    found = {"seconds": statistics.median(seconds), "losses": [first, last]}
    found["megabytes"] = peak_megabytes()
    if way == "minicap":
        found["rate"] = matrix_rate(threads, device)
    return found


def spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", nargs="+", choices=WORKS, default=["coco"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tf32", action="store_true", help="products in TF32 (a GPU's)")
    parser.add_argument("--tensorflow", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = measure(
            options.one, options.work[0], options.threads, options.device, options.steps
        )
        print(json.dumps(found))
        return
    unavailable = {"tensorflow": not options.tensorflow, "products": options.device != "cpu"}
    ways = [way for way in options.ways if not unavailable.get(way)]
    other = multiprocessing.Process(target=spin, daemon=True)
    if options.busy:
        other.start()
    # The same for all: by default cuDNN's LSTM uses TF32, and cuBLAS does not.
    precision = {"NVIDIA_TF32_OVERRIDE": "0"}
    if options.tf32:
        precision = {"CUPY_TF32": "1", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    results, failed = {}, set()
    for work in options.work:
        runs: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, found in runs.items():
                python = options.tensorflow if way == "tensorflow" else sys.executable
                command = [python, __file__, "--one", way, "--work", work]
                command += ["--threads", str(options.threads), "--steps", str(options.steps)]
                command += ["--device", options.device]
                done = subprocess.run(
                    command, env=os.environ | precision, capture_output=True, text=True
                )
                if done.returncode:
                    print(f"{way} fails: {done.stderr.strip().splitlines()[-1][:150]}")
                    failed.add(way)
                    continue
                found.append(json.loads(done.stdout.splitlines()[-1]))
        runs = {way: found for way, found in runs.items() if found}
        results[work] = runs
        table(work, runs, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    sys.exit(bool(failed))


def table(work: str, runs: dict[str, list[dict]], options) -> None:
    """Print the results for one work."""
    from threadpoolctl import threadpool_info

    counted = operations(work, make_batches(work))
    kernel = [pool["architecture"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    rate = max((run["rate"] for run in runs.get("minicap", [])), default=float("nan"))
    busy = ", another process on one core" if options.busy else ""
    where = f"{options.threads} threads"
    if options.device == "cuda":
        where = "GPU, TF32" if options.tf32 else "GPU, float32"
    print(f"{work}: {where}, {options.rounds} interleaved rounds{busy}")
    print(f"{counted / 1e9:.2f} GFLOP a step, {rate / 1e9:.0f} GFLOP/s ({kernel[0]})")
    print(f"{'':16}{'min ms':>8}{'median ms':>11}{'ratio':>8}{'of limit':>10}{'peak MB':>9}")
    times = {way: [1e3 * run["seconds"] for run in found] for way, found in runs.items()}
    ours = statistics.median(times.get("minicap", [float("nan")]))
    for way, found in times.items():
        median = statistics.median(found)
        print(
            f"{way:16}{min(found):8.1f}{median:11.1f}{median / ours:8.2f}"
            f"{counted / median / rate * 1e3:10.0%}"
            f"{max(run['megabytes'] for run in runs[way]):9.0f}"
        )


if __name__ == "__main__":
    main()
