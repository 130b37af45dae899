"""GenerationConfig captions for 1,000 pictures, greedily and with a beam of 3: minicap beside PyTorch.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/generation.py [--beam-size 1 3] [--threads 2]
        [--rounds 5] [--pictures 1000] [--together 50] [--json FILE]

minicap        Model.candidates, from features to captions with the log-probability of each word
torch-batched  the same search: all hypotheses of a batch of pictures (--together; all 1,000 at once
               are slower) in one tensor, LSTMCell, log-sum-exp and topk over the vocabulary, topk
               over a picture's candidates, gather, until all captions of the batch have ended
torch-one      the same code, one picture at a time (of the first 50 pictures)

The course's sizes and 8,769 words; parameters are random, but for one unit of the LSTM, which
counts the words that were written, and the last layer's weight from it to #END# and #END#'s bias,
so that captions have about 10 words. In turns, each in a process of its own, after a warm-up;
prints captions per second, and how many captions are the same as minicap's, word by word: from
the same float32 parameters, only where two are as good as each other to the last digits may they
differ. The limit: how many captions a second the operations of minicap's search allow, at the rate
of the best square matrix product that NumPy reaches in the same run with as many threads.
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

VOCABULARY, MAX_WORDS, ALPHA = 8769, 19, 0.7
END, PAD, START, UNK = range(4)  # as in a sorted vocabulary
ONE = 50  # pictures for what takes them one by one
STRENGTH, BIAS = 10.0, -5.0  # how #END# listens: 10.5 words on average with beam 3, 9.6 greedily

Captions = list[list[int]]


def parameters():
    """float32, of a decoder that writes captions of about 10 words."""
    from minicap.model.config import Sizes
    from minicap.model.initial import initialise

    sizes = Sizes(VOCABULARY)
    p = initialise(sizes, numpy.random.default_rng(0), embedding_range=1.0)
    for name in p.keys() - {"img_embed_to_bottleneck", "word_embed"}:
        p[name][:-1] *= 4  # opinions as strong as a trained model's
    H = sizes.hidden
    i, j, f, o = (p["lstm"][:, k * H] for k in range(4))  # unit 0: its gates' weights
    for gate, bias in (i, 10), (j, 0.1), (f, 10), (o, 10):  # c grows by 0.1 with each word
        gate[:] = 0
        gate[-1] = bias
    p["img_embed_bottleneck_to_h0"][:, 0] = 0  # and begins at 0
    p["lstm"][0] = 0  # nobody listens to it
    p["token_logits_bottleneck"][0] = 0
    p["token_logits_bottleneck"][:, 0] = 0
    p["token_logits_bottleneck"][0, 0] = 1  # but #END#
    p["token_logits"][0] = 0
    p["token_logits"][0, END] = STRENGTH
    p["token_logits"][-1, END] = BIAS
    return sizes, p


def pictures(number: int):
    return numpy.random.default_rng(1).standard_normal((number, 2048), dtype=numpy.float32)


def limit(beams: int, threads: int, features) -> dict:
    """What captions for these pictures need, steps of a hypothesis and their operations, and how
    many operations there can be in a second."""
    from minicap.generation import beam_search as generate

    _, p = parameters()
    steps, candidates = 0, generate.candidates

    def counted(y, *others):
        nonlocal steps
        steps += len(y)
        return candidates(y, *others)

    generate.candidates = counted
    minicap(beams, 1)(features)
    generate.candidates = candidates
    names = ("lstm", "token_logits_bottleneck", "token_logits")
    each = 2 * sum(p[name].size for name in names)
    return {"steps": steps, "operations": steps * each, "rate": matrix_rate(threads)}


def minicap(beams: int, threads: int) -> Callable:
    from threadpoolctl import threadpool_limits

    from minicap.generation.beam_search import beam_search
    from minicap.generation.config import Constraints, GenerationConfig

    threadpool_limits(threads)
    _, p = parameters()
    rules = Constraints(START, END, (PAD, UNK), MAX_WORDS)
    writing = GenerationConfig(beam_size=beams, length_penalty=ALPHA)

    def write(features) -> Captions:
        return [best[0].ids for best in beam_search([p], [features], rules, writing)]

    return write


def torch_search(beams: int, threads: int, together: int) -> Callable:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    sizes, p = parameters()
    H = sizes.hidden

    def linear(name: str) -> nn.Linear:
        layer = nn.Linear(p[name].shape[0] - 1, p[name].shape[1])
        layer.weight.data = torch.from_numpy(p[name][:-1].T.copy())
        layer.bias.data = torch.from_numpy(p[name][-1].copy())
        return layer

    bottleneck, first = linear("img_embed_to_bottleneck"), linear("img_embed_bottleneck_to_h0")
    narrow, wide = linear("token_logits_bottleneck"), linear("token_logits")
    embed = nn.Embedding.from_pretrained(torch.from_numpy(p["word_embed"].copy()))
    cell = nn.LSTMCell(sizes.embedding, H)
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
        N, B, minus = len(features), beams, -torch.inf
        h = functional.elu(first(functional.elu(bottleneck(torch.from_numpy(features)))))
        h = h.repeat_interleave(B, 0)
        c = h
        words = torch.full((N, B, MAX_WORDS), END)
        last = torch.full((N * B,), START)
        total = torch.full((N, B), minus)
        total[:, 0] = 0  # at first all hypotheses of a picture are one
        length, finished = torch.zeros(N, B), torch.zeros(N, B, dtype=torch.bool)
        stay = torch.full((B,), minus)
        stay[0] = 0
        base = torch.arange(N)[:, None] * B
        for step in range(MAX_WORDS):
            h, c = cell(embed(last), (h, c))
            logits = wide(functional.elu(narrow(h)))
            log_sum = logits.logsumexp(1, keepdim=True)
            logits[:, banned] = minus
            gain, word = logits.topk(B)
            gain = (gain - log_sum).view(N, B, B)
            gain = torch.where(finished[:, :, None], stay, gain)
            word = torch.where(finished[:, :, None], END, word.view(N, B, B))
            new_total = total[:, :, None] + gain
            new_length = (length + ~finished)[:, :, None]
            score = (new_total / new_length**ALPHA).view(N, B * B)
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

    def write(features) -> Captions:
        parts = [features[n : n + together] for n in range(0, len(features), together)]
        return [caption for part in parts for caption in search(part)]

    return write


WAYS: dict[str, Callable[[int, int, int], Callable]] = {
    "minicap": lambda beams, threads, together: minicap(beams, threads),
    "torch-batched": torch_search,
    "torch-one": lambda beams, threads, together: torch_search(beams, threads, 1),
}


def measure(way: str, options) -> dict:
    """Captions per second after a warm-up, median of some runs in this process; the captions."""
    features = pictures(options.pictures)
    if way == "torch-one":
        features = features[:ONE]
    write = WAYS[way](options.beams[0], options.threads, options.together)
    write(features[:100])
    rates = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        captions = write(features)
        rates.append(len(features) / (time.perf_counter() - began))
    found = {"rate": statistics.median(rates), "captions": captions}
    if way == "minicap":
        found["limit"] = limit(options.beams[0], options.threads, features)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beam-size", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--together", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    results = {}
    for beams in options.beams:
        runs: dict[str, list[dict]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way, found in runs.items():
                command = [sys.executable, __file__, "--one", way, "--beam-size", str(beams)]
                for name in ("threads", "pictures", "repeats", "together"):
                    command += [f"--{name}", str(vars(options)[name])]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
        results[f"beams {beams}"] = table(beams, runs, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def table(beams: int, runs: dict[str, list[dict]], options) -> dict:
    """Print one beam's figures, and return them."""
    first = next(iter(runs.values()))[0]["captions"]
    lengths = [len(caption) for caption in first]
    print(
        f"beam {beams}: {options.pictures} pictures, {options.threads} threads, "
        f"{options.rounds} rounds in turns; {statistics.mean(lengths):.1f} words on average, "
        f"{min(lengths)} to {max(lengths)}, {len(set(map(tuple, first)))} different captions"
    )
    most = [run["limit"] for run in runs.get("minicap", [])]
    if most:
        steps, operations = most[0]["steps"], most[0]["operations"]
        rate = max(found["rate"] for found in most)
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
