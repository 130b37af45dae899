"""Scheduled sampling (Bengio et al. 2015): some input words are words that the model itself draws.

While it is trained, a model goes on from right words; when it writes, from its own, mistakes among
them. So a share of the inputs is replaced, which grows as the model gets better; targets stay.

In two passes, as Mihaylova and Martins 2019 have it: the first one reads the right words and draws
what the model would go on with; the second is training as ever, on the mixed inputs. So all steps
are drawn at once (in the first paper, a drawn word changes what is drawn after it), and no line of
the way back is another. What is drawn has no gradient.
"""

import math
from collections.abc import Callable, Mapping

import numpy

from minicap.backend import Array, array_module, blocks, to_device, to_host
from minicap.choosing import draw
from minicap.data.vocabulary import SPECIAL
from minicap.decoder import outputs
from minicap.nn.dense import affine

BLOCK = 128  # rows whose words are drawn together: so their logits need little memory


def mixed_inputs(
    p: Mapping[str, Array],
    batch,
    share: float,
    luck: numpy.ndarray,
    empty: Callable | None = None,
) -> numpy.ndarray:
    """The inputs of a batch, (R,) ids, with about `share` of them replaced by drawn words.

    p, batch, empty: as in minicap.decoder.outputs; share: in [0, 1]; luck: (2, R) random numbers
    in [0, 1), for each input whether it is replaced, and by which word.
    The word in the place of a caption's input at step t is drawn from the softmax of its step
    t - 1; so the first input, #START#, stays. Special words, which have the first ids, are never
    drawn: a caption that is being written does not go on from one of them, nor from #END#.
    """
    xp, sizes = array_module(batch.features), numpy.array(batch.sizes)
    inputs = to_host(batch.words)[to_host(batch.positions)]
    later = numpy.arange(sizes[0], len(inputs))  # the rows of all steps but the first
    before = later - numpy.repeat(sizes[:-1], sizes[1:])  # and of their captions' steps before
    chosen = luck[0, later] < share
    later, before = later[chosen], before[chosen]
    y, _ = outputs(p, batch, empty=empty)
    chance = to_device(luck[1, later].astype(y.dtype), xp)
    for some in blocks(chance, BLOCK):
        logits = affine(y[to_device(before[some], xp)], p["token_logits"])
        logits[:, : len(SPECIAL)] = -math.inf
        ids, _ = draw(chance[some], 1.0, 0, 1.0, logits)  # as likely as the model believes
        inputs[later[some]] = to_host(ids[:, 0])
    return inputs
