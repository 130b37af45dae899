"""Compare the photos per second of `minicap encode` with the bare network, PyTorch and TensorFlow.

    python tests/benchmarks/encode_photos.py PHOTOS_FOLDER [--encoder FILE.onnx] [--rounds 3]
        [--photos 96] [--threads 2] [--device cpu|cuda] [--ways bare minicap]
        [--tensorflow PYTHON]

bare        ONNX Runtime's session on preprocessed images: what the network alone can do
minicap     the same session as `minicap encode` uses it, from photo files to a feature store
torch       the seeded InceptionV3 from minicap's table, batch norm folded, channels last
tensorflow  Keras' InceptionV3 with random weights in a tf.function, run by the Python of an
            environment that has TensorFlow (--tensorflow)

All except minicap get preprocessed images. The variants run interleaved, each in its own process,
after a warm-up. Prints the minimum and median seconds, and the rate relative to bare's.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy


def pixels(count: int) -> numpy.ndarray:
    """Make preprocessed images."""
    return numpy.random.default_rng(0).integers(0, 256, (count, 299, 299, 3), numpy.uint8)


def timed(run: Callable[[numpy.ndarray], object], count: int, batch: int = 8) -> float:
    """Measure the seconds for `count` preprocessed images in batches, after a warm-up."""
    images = pixels(batch)
    run(images)
    start = time.perf_counter()
    for _ in range(0, count, batch):
        run(images)
    return time.perf_counter() - start


def bare(options) -> float:
    from minicap.backend import to_host

    ours = encoder(options, options.threads)
    return timed(lambda images: to_host(ours.encode(images)), options.photos, ours.batch)


def minicap(options) -> float:
    from minicap.data.store import FeatureStore
    from minicap.encoder.photos import find_photos
    from minicap.encoder.pipeline import encode_batches

    runs = options.threads if options.device == "cpu" else 1
    ours, photos = encoder(options, 1), find_photos(options.folder)
    ours.encode(pixels(ours.batch))
    names = [f"{n}/{name}" for n in range(options.photos) for name in photos.names]
    names = names[: options.photos]  # a small folder is used several times

    def batches() -> Iterator[list[str]]:
        for start in range(0, len(names), ours.batch):
            yield names[start : start + ours.batch]

    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder, "store"), names, ours.about(), ours.batch)
        started = time.perf_counter()
        found = encode_batches(
            ours, batches(), lambda name: photos.open(name.partition("/")[2]), options.threads, runs
        )
        results = ((row, *result) for row, result in zip(store.todo(), found))
        assert sum(store.fill(results)) == options.photos
        return time.perf_counter() - started


def encoder(options, threads: int):
    from minicap.encoder.session import Encoder, seeded_encoder

    if options.encoder:
        return Encoder(options.encoder, options.device, threads)
    return seeded_encoder(options.device, threads)


def torch(options) -> float:
    import torch
    from torch.nn import functional

    from minicap.encoder.graph import fold
    from minicap.encoder.inception import network
    from minicap.encoder.weights import seeded_weights

    torch.set_num_threads(options.threads)
    last = torch.channels_last
    folded = []
    for index, layer in enumerate(seeded_weights().layers):
        kernel, bias = map(torch.from_numpy, fold(layer, pixels=index == 0))
        folded.append((kernel.to(memory_format=last), bias))

    def run(images):
        weights = iter(folded)

        def conv(name, c, x):
            kernel, bias = next(weights)
            pad = (c.height // 2, c.width // 2) if c.padding == "same" else 0
            return functional.conv2d(x, kernel, bias, c.stride, pad).relu_()

        def pool(name, p, x):
            pad = int(p.padding == "same")
            if p.kind == "max":
                return functional.max_pool2d(x, 3, p.stride, pad)
            return functional.avg_pool2d(x, 3, p.stride, pad, count_include_pad=False)

        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
            x = x.contiguous(memory_format=last)
            return network(x, conv, pool, lambda name, ways: torch.cat(ways, 1)).mean((2, 3))

    return timed(run, options.photos)


def tensorflow(options) -> float:
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(options.threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    network = tensorflow.keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(299, 299, 3)
    )

    @tensorflow.function
    def run(images):
        return network(tensorflow.cast(images, tensorflow.float32) / 127.5 - 1, training=False)

    return timed(lambda images: run(tensorflow.constant(images)).numpy(), options.photos)


WAYS = {way.__name__: way for way in (bare, minicap, torch, tensorflow)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tensorflow", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        seconds = WAYS[options.one](options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "megabytes": peak}))
        return
    ways = [way for way in options.ways if way != "tensorflow" or options.tensorflow]
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, runs in found.items():
            python = options.tensorflow if way == "tensorflow" else sys.executable
            command = [python, __file__, *sys.argv[1:], "--one", way]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs.append(json.loads(output.splitlines()[-1]))
    where = f"{options.device}, {options.threads} threads"
    print(f"{options.photos} photos, {where}, {options.rounds} interleaved rounds")
    print(f"{'':12}{'min s':>8}{'median s':>10}{'photos/s':>10}{'of bare':>9}{'peak MB':>9}")
    base = statistics.median(run["seconds"] for run in found["bare"])
    for way, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        median = statistics.median(seconds)
        print(
            f"{way:12}{min(seconds):8.2f}{median:10.2f}{options.photos / median:10.1f}"
            f"{base / median:9.2f}{max(run['megabytes'] for run in runs):9.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
