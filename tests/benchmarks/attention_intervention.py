"""Score a trained model with attention after changing where it looks.

    python tests/benchmarks/attention_intervention.py MODEL [options of minicap evaluate]

learned    the model's own weights
equal      all weights 1 / L
elsewhere  the model's weights, each moved to another position, in the same way for all photos
"""

import contextlib
import io
import sys
import tempfile

import numpy

from minicap import evaluate
from minicap.model import attending_decoder

attend = attending_decoder.attend


def changed(way: str):
    """Make a version of `attend` for generation that looks in another way."""

    def look(query, exp_keys, values, v, buffer=None):
        context, a, backward = attend(query, exp_keys, values, v, buffer)
        if way == "equal":
            a = numpy.full_like(a, 1 / a.shape[1])
        elif way == "elsewhere":
            a = a[:, numpy.random.default_rng(0).permutation(a.shape[1])]
        if way != "learned":
            context = (a[:, None] @ values)[:, 0]
        return context, a, backward

    return look


def main() -> None:
    model, *options = sys.argv[1:]
    for way in "learned", "equal", "elsewhere":
        attending_decoder.attend = changed(way)
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
            evaluate.main(["--model", model, "--out", folder, *options])
        lines = printed.getvalue().splitlines()
        if way == "learned":
            print(*(line for line in lines if "CIDEr" in line and "BLEU-4" in line))
        print(*(line for line in lines if line.split()[:1] == ["model"]), f"  {way}", flush=True)


if __name__ == "__main__":
    main()
