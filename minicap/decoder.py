"""The decoder: from the features of a photo to the words of its caption, assembled from nn/.

    features --dense, elu--> bottleneck --dense, elu--> h0 = c0
    word --embedding--> LSTM (from h0, c0) --dense, elu--> bottleneck --dense--> logits of the next

As in Vinyals et al. 2015 ("Show and Tell"), but the photo is the LSTM's first state and not its
first input. Either bottleneck can be left out, and the LSTM can see the photo at every step, as a
second input next to the word (as in Mao et al. 2015). The parameters are named as in
the course's notebook; each weight matrix has its bias as the last row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from minicap.backend import Array, array_module
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import draw_mask, dropout
from minicap.nn.embedding import embedding
from minicap.nn.initial import glorot_uniform
from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.once import once
from minicap.nn.parameters import Parameters

IMAGE_LAYERS = ("img_embed_to_bottleneck", "img_embed_bottleneck_to_h0")
WORD_LAYERS = ("token_logits_bottleneck",)


@dataclass(frozen=True)
class Sizes:
    """The decoder's widths; the defaults are the course's. A bottleneck of 0 is left out.

    photo: whether the LSTM sees the photo as its "first" state only, or "always".
    """

    vocabulary: int
    feature: int = 2048
    image_bottleneck: int = 120
    hidden: int = 300
    embedding: int = 100
    logit_bottleneck: int = 120
    photo: str = "first"

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Each parameter's shape. lstm is [V; U; W; b]: from the photo (if it is seen always),
        from h, from the word, and the bias."""
        seen = self.feature if self.photo == "always" else 0
        shapes = {
            "img_embed_to_bottleneck": (self.feature + 1, self.image_bottleneck),
            "img_embed_bottleneck_to_h0": (
                (self.image_bottleneck or self.feature) + 1,
                self.hidden,
            ),
            "word_embed": (self.vocabulary, self.embedding),
            "lstm": (seen + self.hidden + self.embedding + 1, 4 * self.hidden),
            "token_logits_bottleneck": (self.hidden + 1, self.logit_bottleneck),
            "token_logits": ((self.logit_bottleneck or self.hidden) + 1, self.vocabulary),
        }
        return {name: shape for name, shape in shapes.items() if shape[1]}


def lstm_parts(p: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
    """V (F or 0, 4 H), U (H, 4 H), [W; b] (E + 1, 4 H) and [U; W; b]: views of the LSTM's
    parameters."""
    H = p["img_embed_bottleneck_to_h0"].shape[1]
    E = p["word_embed"].shape[1]
    V, UWb = p["lstm"][: -(H + E + 1)], p["lstm"][-(H + E + 1) :]
    return V, UWb[:H], UWb[H:], UWb


def initialise(
    sizes: Sizes,
    rng: numpy.random.Generator,
    word_range: float = 0.05,
    photo_gain: float = 1.0,
    frequencies: numpy.ndarray | None = None,
) -> Parameters:
    """Parameters as TensorFlow 1 starts them: kernels Glorot-uniform, biases zero, embedding
    uniform within +-`word_range`. float32, on the host.

    photo_gain: what the kernels that see the photo's features start with, times this; frequencies:
    None, or how often each word comes, (V,) positive: the last layer's bias is their logarithm, so
    that the first guess is what is common (Karpathy and Fei-Fei 2015's code does so).
    """
    parameters = Parameters(sizes.shapes())
    V, _, _, UWb = lstm_parts(parameters)
    first = next(name for name in IMAGE_LAYERS if name in parameters)
    for name, Wb in parameters.items():
        if name == "word_embed":
            Wb[...] = rng.uniform(-word_range, word_range, Wb.shape)
        else:  # the bias, the last row, stays zero
            W = (UWb if name == "lstm" else Wb)[:-1]
            W[...] = glorot_uniform(rng, *W.shape)
    if len(V):
        V[...] = photo_gain * glorot_uniform(rng, *V.shape)
    parameters[first][:-1] *= photo_gain
    if frequencies is not None:
        parameters["token_logits"][-1] = numpy.log(frequencies / frequencies.sum())
    return parameters


def dense_layers(
    p: Mapping[str, Array], names: Sequence[str], x: Array, masks: Mapping[str, Array]
) -> tuple[Array, Callable]:
    """x through those of the dense layers `names` that this decoder has, each behind the dropout
    that `masks` has for it, and with an ELU.

    Returns y and backward(dy, gradients, need_dx=True) -> dx or None, which fills in the layers'
    gradients.
    """
    ways = []
    for name in names:
        if name in p:
            x, back_dropout = dropout(x, masks.get(name))  # 1
            x, back_dense = dense(x, p[name], elu)  # 2
            ways.append((name, back_dropout, back_dense))

    @once
    def backward(dx: Array, gradients: Mapping[str, Array], need_dx: bool = True):
        while ways:
            name, back_dropout, back_dense = ways.pop()
            needed = need_dx or bool(ways)
            dx, _ = back_dense(dx, out=gradients[name], need_dx=needed)  # from 2
            dx = back_dropout(dx) if needed else None  # from 1
        return dx

    return x, backward


def outputs(
    p: Mapping[str, Array],
    batch,
    masks: Mapping[str, Array] | None = None,
    empty: Callable | None = None,
) -> tuple[Array, Callable]:
    """All but the last layer, for each of a batch's R inputs.

    p: the parameters, by name; batch: the arrays of minicap.data.batches.Batch, where they lie;
    masks: for dropout, from `draw_masks`, or None; empty: makes the large arrays
    (minicap.nn.scratch), which last until `backward` has run.
    Returns y (R, I), from which `token_logits` makes the next words' logits, and
    backward(dy, gradients), which fills in every gradient but that of `token_logits`.
    """
    masks = masks or {}
    V, U, Wb, _ = lstm_parts(p)
    photo, _ = dropout(batch.features, masks.get("features"))
    h0, back_image = dense_layers(p, IMAGE_LAYERS, photo, masks)  # 1
    # Each distinct word is looked up and projected once, then the projections are dealt out.
    x, back_words = embedding(batch.words, p["word_embed"])  # 2
    x, back_dropout_x = dropout(x, masks.get("lstm"))  # 3
    zx_of_words, back_project = dense(x, Wb)  # 4
    zx, back_deal = embedding(batch.positions, zx_of_words)  # 5
    if len(V):  # and so is each photo
        zx_of_photos, back_deal_photos = embedding(batch.captions, photo @ V)  # 6
        zx += zx_of_photos
    h, back_lstm = lstm(zx, h0, h0, U, batch.sizes, empty)  # 7
    y, back_bottleneck = dense_layers(p, WORD_LAYERS, h, masks)  # 8
    y, back_dropout_y = dropout(y, masks.get("token_logits"))  # 9

    @once
    def backward(dy: Array, gradients: Mapping[str, Array]) -> None:
        dV, dU, dWb, _ = lstm_parts(gradients)
        dy = back_dropout_y(dy)  # from 9
        dh = back_bottleneck(dy, gradients)  # from 8
        dzx, dh0, dc0, _ = back_lstm(dh, out=dU)  # from 7
        if len(V):
            dzx_of_photos = back_deal_photos(dzx)
            array_module(dV).matmul(photo.T, dzx_of_photos, out=dV)  # from 6
        dzx_of_words = back_deal(dzx)  # from 5
        dx, _ = back_project(dzx_of_words, out=dWb)  # from 4
        dx = back_dropout_x(dx)  # from 3
        back_words(dx, out=gradients["word_embed"])  # from 2
        # h0 and c0 are the same numbers; nobody asks for the features' gradient.
        back_image(dh0 + dc0, gradients, need_dx=False)  # from 1

    return y, backward


def caption_loss(
    p: Mapping[str, Array],
    batch,
    divisor: float | None = None,
    masks: Mapping[str, Array] | None = None,
    hits: Array | None = None,
    empty: Callable | None = None,
) -> tuple[Array, Callable]:
    """The cross-entropy of a batch of captions in nats, summed over its R words, each times its
    weight if the batch has weights, and divided by `divisor` (default R: the mean over real words).

    p, batch, masks, empty: as in `outputs`; hits: None, or (R,) booleans to fill in with whether
    the likeliest word was right.
    Returns the loss (0-d) and backward(gradients), which fills in every gradient; used once.
    """
    divisor = batch.targets.shape[0] if divisor is None else divisor
    y, back_outputs = outputs(p, batch, masks, empty)  # 1
    loss, back_loss = project_cross_entropy(
        y, p["token_logits"], batch.targets, batch.weights, divisor, hits, empty
    )  # 2

    @once
    def backward(gradients: Mapping[str, Array]) -> None:
        dy, _ = back_loss(out=gradients["token_logits"])  # from 2
        back_outputs(dy, gradients)  # from 1

    return loss, backward


MASK_AXES = {  # each mask's name, after the layer that it stands before, and what its rows are
    "features": "captions",
    "img_embed_bottleneck_to_h0": "captions",
    "lstm": "words",
}  # of all the others: "rows"


def draw_masks(
    rng: numpy.random.Generator,
    rate: float,
    rate_words: float,
    sizes: Sizes,
    counts: Mapping[str, int],
) -> dict[str, numpy.ndarray]:
    """Dropout masks for one batch, on the host.

    rate: of the features, the bottlenecks and the LSTM's outputs; rate_words: of the words'
    embeddings; a rate of 0 makes no mask. counts: the batch's. A word that occurs several times in
    a batch has the same mask each time, because it is projected only once (Gal and Ghahramani 2016
    argue for that within a sequence).
    """
    bottleneck, narrow = sizes.image_bottleneck, sizes.logit_bottleneck
    widths = {
        "features": (rate, sizes.feature),
        "img_embed_bottleneck_to_h0": (rate, bottleneck),
        "lstm": (rate_words, sizes.embedding),
        "token_logits_bottleneck": (rate, sizes.hidden if narrow else 0),
        "token_logits": (rate, narrow or sizes.hidden),
    }
    return {
        name: draw_mask(rng, (counts[MASK_AXES.get(name, "rows")], width), rate)
        for name, (rate, width) in widths.items()
        if rate and width
    }


def first_state(p: Mapping[str, Array], features: Array) -> tuple[Array, ...]:
    """What writing starts from: h0 and c0 (N, H) and, if the LSTM always sees the photo, what that
    adds to its gates' inputs (N, 4 H). features: (N, F)."""
    h0, _ = dense_layers(p, IMAGE_LAYERS, features, {})
    V, *_ = lstm_parts(p)
    return (h0, h0, features @ V) if len(V) else (h0, h0)


def next_word(
    p: Mapping[str, Array], words: Array, h: Array, c: Array, *photo: Array
) -> tuple[Array, ...]:
    """One step of writing, all but the last layer: the words (N,) just written and the state, as
    `first_state` or the step before left it, -> y (N, I), from which `token_logits` makes the next
    word's logits, and the new state."""
    x, _ = embedding(words, p["word_embed"])
    xp = array_module(x)
    ones = xp.ones((len(words), 1), dtype=x.dtype)
    *_, UWb = lstm_parts(p)
    z = xp.concatenate([h, x, ones], axis=1) @ UWb  # one product for all three
    if photo:
        z += photo[0]
    h, c, _ = lstm_step(z, c, out=z)
    y, _ = dense_layers(p, WORD_LAYERS, h, {})
    return y, h, c, *photo
