"""Compare generating captions for 1,000 images, greedily and with a beam of 3, with PyTorch.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/generation.py [--beam-size 1 3] [--threads 2]
        [--rounds 5] [--images 1000] [--batch-size 50] [--json FILE]

minicap        beam_search, from features to captions with the log-probability of each word
torch-batched  the same search: all hypotheses of a batch of images (--batch-size; all 1,000 at once
               are slower) in one tensor, LSTMCell, log-sum-exp and topk over the vocabulary, topk
               over an image's candidates, gather, until all captions of the batch have ended
torch-one      the same code with one image at a time (the first 50 images)

The sizes are the original notebook's, with 8,769 words. Parameters are random, except for one unit
of the LSTM that counts the words generated, the last layer's weight from it to #END#, and #END#'s
bias: so captions have about 10 words. The variants run interleaved, each in its own process, after
a warm-up. Prints captions per second, and how many captions equal minicap's word for word. The
parameters are the same float32 numbers, so captions may differ only where two scores agree to the
last digits. The limit is how many captions per second the operations of minicap's search allow at
the rate of the best square matrix product that NumPy reaches in the same run with the same number
of threads.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy
from training_step import matrix_rate

VOCABULARY, MAX_WORDS, LENGTH_PENALTY = 8769, 19, 0.7
END, PAD, START, UNK = range(4)  # as in a sorted vocabulary
FEATURES = 2048
ONE = 50  # images for torch-one
# Weight and bias of #END#'s logit: 10.5 words on average with a beam of 3, 9.6 greedily.
END_WEIGHT, END_BIAS = 10.0, -5.0

Captions = list[list[int]]


def make_decoder():
    """Make a decoder in float32 that generates captions of about 10 words."""
    from minicap.model.config import DecoderConfig
    from minicap.model.decoder import Decoder
    from minicap.model.initial import initial_parameters

    config = DecoderConfig()
    shapes = config.shapes(FEATURES, VOCABULARY)
    p = initial_parameters(config, shapes, numpy.random.default_rng(0), embedding_range=1.0)
    for name in p.keys() - {"img_embed_to_bottleneck", "word_embed"}:
        p[name][:-1] *= 4  # about as large as a trained model's
    H = config.hidden_size
    i, j, f, o = (p["lstm"][:, k * H] for k in range(4))  # unit 0: its gates' weights
    for gate, bias in (i, 10), (j, 0.1), (f, 10), (o, 10):  # c grows by 0.1 with each word
        gate[:] = 0
        gate[-1] = bias
    p["img_embed_bottleneck_to_h0"][:, 0] = 0  # and starts at 0
    p["lstm"][0] = 0  # no other unit depends on it
    p["token_logits_bottleneck"][0] = 0
    p["token_logits_bottleneck"][:, 0] = 0
    p["token_logits_bottleneck"][0, 0] = 1  # except #END#
    p["token_logits"][0] = 0
    p["token_logits"][0, END] = END_WEIGHT
    p["token_logits"][-1, END] = END_BIAS
    return Decoder(config, p)


def make_features(images: int):
    return numpy.random.default_rng(1).standard_normal((images, FEATURES), dtype=numpy.float32)


def limit(beam_size: int, threads: int, features) -> dict:
    """Count the steps of hypotheses in the search and their operations, and measure the possible
    operations per second."""
    from minicap.generation import beam_search as module

    steps, extensions = 0, module.extensions

    def counted(y, *others):
        nonlocal steps
        steps += len(y)
        return extensions(y, *others)

    module.extensions = counted
    minicap(beam_size, 1)(features)
    module.extensions = extensions
    p, names = make_decoder().parameters, ("lstm", "token_logits_bottleneck", "token_logits")
    each = 2 * sum(p[name].size for name in names)
    return {"steps": steps, "operations": steps * each, "rate": matrix_rate(threads)}


def minicap(beam_size: int, threads: int) -> Callable:
    from threadpoolctl import threadpool_limits

    from minicap.generation.beam_search import beam_search
    from minicap.generation.config import Constraints, GenerationConfig

    threadpool_limits(threads)
    decoder = make_decoder()
    constraints = Constraints(START, END, (PAD, UNK), MAX_WORDS)
    config = GenerationConfig(beam_size=beam_size, length_penalty=LENGTH_PENALTY)

    def generate(features) -> Captions:
        return [best.ids for best, *_ in beam_search([decoder], [features], constraints, config)]

    return generate


def torch_search(beam_size: int, threads: int, batch_size: int) -> Callable:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    decoder = make_decoder()
    p, H = decoder.parameters, decoder.config.hidden_size

    def linear(name: str) -> nn.Linear:
        layer = nn.Linear(p[name].shape[0] - 1, p[name].shape[1])
        layer.weight.data = torch.from_numpy(p[name][:-1].T.copy())
        layer.bias.data = torch.from_numpy(p[name][-1].copy())
        return layer

    bottleneck, first = linear("img_embed_to_bottleneck"), linear("img_embed_bottleneck_to_h0")
    narrow, wide = linear("token_logits_bottleneck"), linear("token_logits")
    embed = nn.Embedding.from_pretrained(torch.from_numpy(p["word_embed"].copy()))
    cell = nn.LSTMCell(decoder.config.embedding_size, H)
    i, j, f, o = numpy.arange(4 * H).reshape(4, H)  # PyTorch's gates are in the order i, f, j, o
    weights = torch.from_numpy(p["lstm"][:, numpy.concatenate([i, f, j, o])])
    cell.weight_hh.data, cell.weight_ih.data = (
        weights[:H].T.contiguous(),
        weights[H:-1].T.contiguous(),
    )
    cell.bias_ih.data, cell.bias_hh.data = weights[-1].clone(), torch.zeros(4 * H)
    cell.bias_hh.data[H : 2 * H] = 1  # the forget bias
    banned = torch.tensor([PAD, START, UNK])

    @torch.inference_mode()
    def search(features) -> Captions:
        N, B, minus = len(features), beam_size, -torch.inf
        h = functional.elu(first(functional.elu(bottleneck(torch.from_numpy(features)))))
        h = h.repeat_interleave(B, 0)
        c = h
        words = torch.full((N, B, MAX_WORDS), END)
        last = torch.full((N * B,), START)
        total = torch.full((N, B), minus)
        total[:, 0] = 0  # at first, all hypotheses of an image are the same
        length, finished = torch.zeros(N, B), torch.zeros(N, B, dtype=torch.bool)
        stay = torch.full((B,), minus)
        stay[0] = 0
        base = torch.arange(N)[:, None] * B
        for step in range(MAX_WORDS):
            h, c = cell(embed(last), (h, c))
            logits = wide(functional.elu(narrow(h)))
            log_sum = logits.logsumexp(1, keepdim=True)
            logits[:, banned] = minus
            log_p, word = logits.topk(B)
            log_p = (log_p - log_sum).view(N, B, B)
            log_p = torch.where(finished[:, :, None], stay, log_p)
            word = torch.where(finished[:, :, None], END, word.view(N, B, B))
            new_total = total[:, :, None] + log_p
            new_length = (length + ~finished)[:, :, None]
            score = (new_total / new_length**LENGTH_PENALTY).view(N, B * B)
            place = score.topk(B).indices
            parent = place // B
            total = new_total.view(N, B * B).gather(1, place)
            length = new_length[:, :, 0].gather(1, parent)
            last = word.view(N, B * B).gather(1, place)
            words = words.gather(1, parent[:, :, None].expand_as(words))
            words[:, :, step] = last
            finished = finished.gather(1, parent) | (last == END)
            if finished.all():
                break
            rows = (base + parent).flatten()
            h, c, last = h[rows], c[rows], last.flatten()
        best = words[:, 0].tolist()
        return [row[: row.index(END)] if END in row else row for row in best]

    def generate(features) -> Captions:
        batches = [features[n : n + batch_size] for n in range(0, len(features), batch_size)]
        return [caption for batch in batches for caption in search(batch)]

    return generate


WAYS: dict[str, Callable[[int, int, int], Callable]] = {
    "minicap": lambda beam_size, threads, batch_size: minicap(beam_size, threads),
    "torch-batched": torch_search,
    "torch-one": lambda beam_size, threads, batch_size: torch_search(beam_size, threads, 1),
}


def measure(way: str, options) -> dict:
    """Measure captions per second after a warm-up, the median of some runs in this process."""
    beam_size = options.beam_size[0]
    features = make_features(options.images)
    if way == "torch-one":
        features = features[:ONE]
    generate = WAYS[way](beam_size, options.threads, options.batch_size)
    generate(features[:100])
    rates = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        captions = generate(features)
        rates.append(len(features) / (time.perf_counter() - start))
    found = {"rate": statistics.median(rates), "captions": captions}
    if way == "minicap":
        found["limit"] = limit(beam_size, options.threads, features)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beam-size", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    results = {}
    for beam_size in options.beam_size:
        runs: dict[str, list[dict]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way, found in runs.items():
                command = [sys.executable, __file__, "--one", way, "--beam-size", str(beam_size)]
                for name in ("threads", "images", "repeats", "batch_size"):
                    command += [f"--{name.replace('_', '-')}", str(vars(options)[name])]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
        results[f"beam size {beam_size}"] = table(beam_size, runs, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def table(beam_size: int, runs: dict[str, list[dict]], options) -> dict:
    """Print the results for one beam size, and return them."""
    first = next(iter(runs.values()))[0]["captions"]
    lengths = [len(caption) for caption in first]
    print(
        f"beam size {beam_size}: {options.images} images, {options.threads} threads, "
        f"{options.rounds} interleaved rounds; {statistics.mean(lengths):.1f} words on average, "
        f"{min(lengths)} to {max(lengths)}, {len(set(map(tuple, first)))} different captions"
    )
    limits = [run["limit"] for run in runs.get("minicap", [])]
    if limits:
        steps, operations = limits[0]["steps"], limits[0]["operations"]
        rate = max(found["rate"] for found in limits)
        print(
            f"{steps:,} steps of a hypothesis, {operations / 1e9:.0f} GFLOP: at {rate / 1e9:.0f} "
            f"GFLOP/s {len(first) * rate / operations:,.0f} captions/s"
        )
    print(f"{'':16}{'captions/s':>12}{'best':>8}{'ratio':>8}{'same captions':>18}")
    figures = {}
    for way, found in runs.items():
        rates = [run["rate"] for run in found]
        captions = found[0]["captions"]
        same = sum(a == b for a, b in zip(first, captions, strict=False))
        figures[way] = {"median": statistics.median(rates), "rates": rates, "same": same}
        ratio = next(iter(figures.values()))["median"] / figures[way]["median"]
        print(
            f"{way:16}{figures[way]['median']:12.0f}{max(rates):8.0f}{ratio:8.2f}"
            f"{same:10} of {len(captions)}"
        )
    return figures


if __name__ == "__main__":
    main()
