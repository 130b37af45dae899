"""The decoder: from the features of a photo to the words of its caption, assembled from nn/.

    features --dense, elu--> bottleneck --dense, elu--> h0 = c0
    word --embedding--> LSTM (from h0, c0) --dense, elu--> bottleneck --dense--> logits of the next

As in Vinyals et al. 2015 ("Show and Tell"), but the photo is the LSTM's first state and not its
first input. The parameters are named as in the course's notebook; each weight matrix has its bias
as the last row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy

from minicap.backend import Array, array_module
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import draw_mask, dropout
from minicap.nn.embedding import embedding
from minicap.nn.initial import glorot_uniform
from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.parameters import Parameters


@dataclass(frozen=True)
class Sizes:
    """The decoder's widths; the defaults are the course's."""

    vocabulary: int
    feature: int = 2048
    image_bottleneck: int = 120
    hidden: int = 300
    embedding: int = 100
    logit_bottleneck: int = 120

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Each parameter's shape. lstm is [U; W; b]: from h, from the word, and the bias."""
        return {
            "img_embed_to_bottleneck": (self.feature + 1, self.image_bottleneck),
            "img_embed_bottleneck_to_h0": (self.image_bottleneck + 1, self.hidden),
            "word_embed": (self.vocabulary, self.embedding),
            "lstm": (self.hidden + self.embedding + 1, 4 * self.hidden),
            "token_logits_bottleneck": (self.hidden + 1, self.logit_bottleneck),
            "token_logits": (self.logit_bottleneck + 1, self.vocabulary),
        }


def initialise(sizes: Sizes, rng: numpy.random.Generator, word_range: float = 0.05) -> Parameters:
    """Parameters as TensorFlow 1 starts them: kernels Glorot-uniform, biases zero, embedding
    uniform within +-`word_range`. float32, on the host."""
    parameters = Parameters(sizes.shapes())
    for name, Wb in parameters.items():
        if name == "word_embed":
            Wb[...] = rng.uniform(-word_range, word_range, Wb.shape)
        else:  # the bias, the last row, stays zero
            Wb[:-1] = glorot_uniform(rng, Wb.shape[0] - 1, Wb.shape[1])
    return parameters


def first_state(
    p: Mapping[str, Array], features: Array, masks: Mapping[str, Array] | None = None
) -> tuple[Array, Callable]:
    """The LSTM's first state, h0 = c0 (N, H), from features (N, F), and
    backward(dh0, gradients), which fills in the gradients of the two image layers."""
    mask = (masks or {}).get
    x, _ = dropout(features, mask("img_embed_to_bottleneck"))
    x, back_bottleneck = dense(x, p["img_embed_to_bottleneck"], elu)  # 1
    x, back_dropout = dropout(x, mask("img_embed_bottleneck_to_h0"))  # 2
    h0, back_h0 = dense(x, p["img_embed_bottleneck_to_h0"], elu)  # 3

    def backward(dh0: Array, gradients: Mapping[str, Array]) -> None:
        dx, _ = back_h0(dh0, out=gradients["img_embed_bottleneck_to_h0"])  # from 3
        dx = back_dropout(dx)  # from 2
        back_bottleneck(dx, out=gradients["img_embed_to_bottleneck"], need_dx=False)  # from 1

    return h0, backward


def caption_loss(
    p: Mapping[str, Array],
    batch,
    divisor: float | None = None,
    masks: Mapping[str, Array] | None = None,
    hits: Array | None = None,
) -> tuple[Array, Callable]:
    """The cross-entropy of a batch of captions in nats, summed over its R words and divided by
    `divisor` (default R: the mean over real words).

    p: the parameters, by name; batch: the arrays of minicap.data.batches.Batch, where they lie;
    masks: for dropout, from `draw_masks`, each named after the layer that it stands before, or
    None; hits: None, or (R,) booleans to fill in with whether the likeliest word was right.
    Returns the loss (0-d) and backward(gradients), which fills in every gradient; used once.
    """
    mask = (masks or {}).get
    divisor = batch.targets.shape[0] if divisor is None else divisor
    h0, back_image = first_state(p, batch.features, masks)  # 1
    H = h0.shape[1]
    U, Wb = p["lstm"][:H], p["lstm"][H:]
    # Each distinct word is looked up and projected once, then the projections are dealt out.
    x, back_words = embedding(batch.words, p["word_embed"])  # 2
    x, back_dropout_x = dropout(x, mask("lstm"))  # 3
    zx_of_words, back_project = dense(x, Wb)  # 4
    zx, back_deal = embedding(batch.positions, zx_of_words)  # 5
    h, back_lstm = lstm(zx, h0, h0, U, batch.sizes)  # 6
    h, back_dropout_h = dropout(h, mask("token_logits_bottleneck"))  # 7
    y, back_bottleneck = dense(h, p["token_logits_bottleneck"], elu)  # 8
    y, back_dropout_y = dropout(y, mask("token_logits"))  # 9
    loss, back_loss = project_cross_entropy(
        y, p["token_logits"], batch.targets, None, divisor, hits
    )  # 10

    def backward(gradients: Mapping[str, Array]) -> None:
        dU, dWb = gradients["lstm"][:H], gradients["lstm"][H:]
        dy, _ = back_loss(out=gradients["token_logits"])  # from 10
        dy = back_dropout_y(dy)  # from 9
        dh, _ = back_bottleneck(dy, out=gradients["token_logits_bottleneck"])  # from 8
        dh = back_dropout_h(dh)  # from 7
        dzx, dh0, dc0, _ = back_lstm(dh, out=dU)  # from 6
        dzx_of_words = back_deal(dzx)  # from 5
        dx, _ = back_project(dzx_of_words, out=dWb)  # from 4
        dx = back_dropout_x(dx)  # from 3
        back_words(dx, out=gradients["word_embed"])  # from 2
        back_image(dh0 + dc0, gradients)  # from 1: h0 and c0 are the same numbers

    return loss, backward


def draw_masks(
    rng: numpy.random.Generator, rate: float, sizes: Sizes, batch
) -> dict[str, numpy.ndarray]:
    """Dropout masks before every dense layer and the LSTM, for one batch, on the host.

    A word that occurs several times in a batch has the same mask each time, because it is
    projected only once (Gal and Ghahramani 2016 argue for that within a sequence).
    """
    captions, words, rows = batch.features.shape[0], batch.words.shape[0], batch.targets.shape[0]
    shapes = {
        "img_embed_to_bottleneck": (captions, sizes.feature),
        "img_embed_bottleneck_to_h0": (captions, sizes.image_bottleneck),
        "lstm": (words, sizes.embedding),
        "token_logits_bottleneck": (rows, sizes.hidden),
        "token_logits": (rows, sizes.logit_bottleneck),
    }
    return {name: draw_mask(rng, shape, rate) for name, shape in shapes.items()}


def next_word(p: Mapping[str, Array], words: Array, *state: Array) -> tuple[Array, ...]:
    """One step of writing, all but the last layer: the words (N,) just written and the state,
    h and c (N, H) -> y (N, I), from which `token_logits` makes the next word's logits, and the
    new state."""
    h, c = state
    x, _ = embedding(words, p["word_embed"])
    xp = array_module(x)
    ones = xp.ones((len(words), 1), dtype=x.dtype)
    z = xp.concatenate([h, x, ones], axis=1) @ p["lstm"]  # [U; W; b]: one product for all three
    h, c, _ = lstm_step(z, c)
    y, _ = dense(h, p["token_logits_bottleneck"], elu)
    return y, h, c
