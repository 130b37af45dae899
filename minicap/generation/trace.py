"""Look into the decoder while it generates a caption: other words, gates and cell states."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from minicap.backend import Array, array_module, to_device, to_host
from minicap.generation.beam_search import join_last_layers
from minicap.generation.generate import scaled_for
from minicap.generation.sampling import extensions, likeliest
from minicap.model.trained_model import Model


@dataclass(frozen=True)
class Trace:
    """What happened at each of the T tokens of a caption.

    Step t reads the token before (#START# at step 0) and chooses token t.

    Attributes:
        ids: (T, k) the likeliest tokens, likeliest first.
        log_probabilities: (T, k) theirs, in nats, given the caption's tokens before.
        gates: (T, 4, H) of the first model's LSTM: input gate, candidate values, forget gate and
            output gate.
        cells: (T + 1, H) its cell state, before the first step and after each.
        weights: (T, L) where it looked before each token, if it has attention; else None.
    """

    ids: numpy.ndarray
    log_probabilities: numpy.ndarray
    gates: numpy.ndarray
    cells: numpy.ndarray
    weights: numpy.ndarray | None = None


def trace(
    models: Sequence[Model], features: Array, captions: Sequence[Sequence[int]], k: int = 10
) -> list[Trace]:
    """Run the decoder along given captions.

    Args:
        models: one model, or an ensemble.
        features: (N, F), as the encoder returns them.
        captions: for each image its token ids, with #END# if the caption is complete.
        k: number of likeliest tokens.

    Returns:
        For each image, as many steps as its caption has tokens.
    """
    v = models[0].vocabulary
    steps = max(map(len, captions), default=0)
    tokens = numpy.full((len(captions), 1 + steps), v.end)  # what follows the end is cut off below
    tokens[:, 0] = v.start
    for row, caption in enumerate(captions):
        tokens[row, 1 : 1 + len(caption)] = caption
    decoders = [model.decoder for model in models]
    states = [model.decoder.initial_state(scaled_for(model, features)) for model in models]
    Wb = join_last_layers(decoders)
    xp = array_module(Wb)
    bans = to_device(numpy.tile([v.start, v.pad, v.unk], (len(captions), 1)), xp)
    found, cells, weights = [], [to_host(states[0][1])], []
    for step in range(steps):
        words = to_device(tokens[:, step], xp)
        stepped = [
            decoder.lstm_step(words, state) for decoder, state in zip(decoders, states, strict=True)
        ]
        states = [state for _, state in stepped]
        y = xp.concatenate(
            [
                decoder.dense_layers(decoder.config.output_layers, h)[0]
                for decoder, (h, *_) in zip(decoders, states, strict=True)
            ],
            axis=1,
        )
        choose = functools.partial(likeliest, min(k, Wb.shape[1] - bans.shape[1]))
        ids, log_probabilities = extensions(y, Wb, bans, choose)
        found.append([*map(to_host, (ids, log_probabilities, stepped[0][0]))])
        cells.append(to_host(states[0][1]))
        looked = decoders[0].attention_weights(states[0])
        weights.append(None if looked is None else to_host(looked))
    ids, log_probabilities, gates = ([step[part] for step in found] for part in range(3))
    return [
        Trace(
            ids=numpy.stack([step[row] for step in ids[:length]]),
            log_probabilities=numpy.stack([step[row] for step in log_probabilities[:length]]),
            gates=numpy.stack([step[row].reshape(4, -1) for step in gates[:length]]),
            cells=numpy.stack([c[row] for c in cells[: length + 1]]),
            weights=_stack(weights[:length], row),
        )
        for row, length in enumerate(map(len, captions))
    ]


def _stack(weights: Sequence[numpy.ndarray | None], row: int) -> numpy.ndarray | None:
    """Stack one image's attention weights of all steps, if there are any."""
    found = [each[row] for each in weights if each is not None]
    return numpy.stack(found) if found else None
