"""Compare one training step of the recipe `attend` with the same model in PyTorch.

    env -u OPENBLAS_CORETYPE python tests/benchmarks/attention_step.py [--threads 1 2]
        [--rounds 5] [--steps 12]

minicap         Trainer.train_step, from ids and features to updated parameters
torch           packed captions: each time step computes only the captions that are long enough;
                the words' part of the gates is computed for all steps at once; fused Adam
torch-compiled  the same, with torch.compile for the attention and for the LSTM's gates

128 captions of images with 49 positions of 512 numbers, an LSTM of 512, keys of 256, words of 200,
2,539 words, no dropout. The variants run interleaved, each in its own process, after a warm-up.
Printed are the minimum and median milliseconds of a step, the ratio to minicap, and peak memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).parent))
from training_step import WORKS, make_batches, peak_megabytes

L, A, H, K, D, V = 49, 512, 512, 256, 200, 2539
WORKS["attend"] = (V, 128, (L * A, 0, H, D, 0))


def minicap(threads: int) -> Callable:
    from training_step import new_trainer

    from minicap.data.batches import pack
    from minicap.training.recipes import RECIPES

    decoder = replace(RECIPES["attend"].decoder, positions=L)
    trainer = new_trainer("attend", threads, decoder=decoder)
    return lambda features, ids, lengths: trainer.train_step(pack(features, ids, lengths))


def torch_way(threads: int, compiled: bool) -> Callable:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.nn.utils.rnn import pack_padded_sequence

    torch.set_num_threads(threads)
    torch.manual_seed(0)

    def attend(query, keys, values, v):
        a = torch.softmax(torch.tanh(keys + query[:, None]) @ v, dim=1)
        return (a[:, None] @ values)[:, 0]

    def cell(z, c):
        i, j, f, o = z.chunk(4, dim=1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
        return torch.sigmoid(o) * torch.tanh(c), c

    if compiled:
        attend = torch.compile(attend, dynamic=True)
        cell = torch.compile(cell, dynamic=True)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.h0, self.keys = nn.Linear(A, H), nn.Linear(A, K)
            self.embed = nn.Embedding(V, D)
            self.words = nn.Linear(D, 4 * H + K)
            self.recurrent = nn.Linear(A + H, 4 * H, bias=False)
            self.query = nn.Linear(H, K, bias=False)
            self.v = nn.Parameter(torch.randn(K) / K**0.5)
            self.logits = nn.Linear(H, V)

        def forward(self, values, inputs, targets, lengths):
            pack = {"lengths": lengths, "batch_first": True, "enforce_sorted": False}
            packed = pack_padded_sequence(inputs, **pack)
            values = values[packed.sorted_indices]
            keys = self.keys(values)
            h = c = functional.elu(self.h0(values.mean(dim=1)))
            zx = self.words(self.embed(packed.data))
            outputs, start = [], 0
            for size in packed.batch_sizes.tolist():
                now = zx[start : start + size]
                h, c = h[:size], c[:size]
                context = attend(
                    now[:, 4 * H :] + self.query(h), keys[:size], values[:size], self.v
                )
                h, c = cell(now[:, : 4 * H] + self.recurrent(torch.cat([context, h], 1)), c)
                outputs.append(h)
                start += size
            wanted = pack_padded_sequence(targets, **pack).data
            return functional.cross_entropy(self.logits(torch.cat(outputs)), wanted)

    model = Decoder()
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def step(features, ids, lengths):
        ids = torch.from_numpy(ids).long()
        values = torch.from_numpy(features).reshape(len(ids), L, A)
        loss = model(values, ids[:, :-1], ids[:, 1:], torch.from_numpy(lengths - 1))
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        adam.step()
        return loss.item()

    return step


WAYS: dict[str, Callable[[int], Callable]] = {
    "minicap": minicap,
    "torch": lambda threads: torch_way(threads, False),
    "torch-compiled": lambda threads: torch_way(threads, True),
}


def measure(way: str, threads: int, steps: int) -> dict:
    """Measure the median step after a warm-up, in this process."""
    batches = make_batches("attend", 4)
    step = WAYS[way](threads)
    losses = [step(*batch) for batch in batches]
    seconds = []
    for number in range(steps):
        start = time.perf_counter()
        losses.append(step(*batches[number % len(batches)]))
        seconds.append(time.perf_counter() - start)
    assert numpy.isfinite(losses).all() and losses[-1] < losses[0]
    return {"seconds": statistics.median(seconds), "megabytes": peak_megabytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.threads[0], options.steps)))
        return
    for threads in options.threads:
        runs: dict[str, list[dict]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way, found in runs.items():
                command = [sys.executable, __file__, "--one", way, "--threads", str(threads)]
                command += ["--steps", str(options.steps)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{threads} threads, {options.rounds} interleaved rounds")
        print(f"{'':16}{'min ms':>8}{'median ms':>11}{'ratio':>8}{'peak MB':>9}")
        times = {way: [1e3 * run["seconds"] for run in found] for way, found in runs.items()}
        ours = statistics.median(times["minicap"])
        for way, found in times.items():
            median, peak = statistics.median(found), max(run["megabytes"] for run in runs[way])
            print(f"{way:16}{min(found):8.0f}{median:11.0f}{median / ours:8.2f}{peak:9.0f}")


if __name__ == "__main__":
    main()
