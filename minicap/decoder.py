"""The decoder: from the features of a photo to the words of its caption, assembled from nn/.

    features --dense, elu--> bottleneck --dense, elu--> h0 = c0
    word --embedding--> LSTM (from h0, c0) --dense, elu--> bottleneck --dense--> logits of the next

As in Vinyals et al. 2015 ("Show and Tell"), but the photo is the LSTM's first state and not its
first input. Either bottleneck can be left out, and the LSTM can see the photo at every step, as an
input beside the word (Mao et al. 2015 let it in at every step, too). There can be several LSTMs,
one above the other, their cells can be maxout's, and the words' embeddings can be tied to the last
layer. The parameters are named as in the course's notebook; each weight matrix has its bias as the
last row.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from minicap.backend import Array, array_module
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import draw_mask, dropout
from minicap.nn.embedding import embedding
from minicap.nn.initial import glorot_uniform
from minicap.nn.label_smoothing import label_smoothing
from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.maxout import maxout_step
from minicap.nn.parameters import Parameters

IMAGE_LAYERS = ("img_embed_to_bottleneck", "img_embed_bottleneck_to_h0")
WORD_LAYERS = ("token_logits_bottleneck",)


@dataclass(frozen=True)
class Sizes:
    """The decoder's widths; the defaults are the course's. A bottleneck of 0 is left out.

    photo: whether the LSTM sees the photo as its "first" state only, or "always"; layers: LSTMs,
    one above the other; maxout: whether their new values are the greater of two; tie: whether the
    last layer's kernel is also the words' embeddings (which are as wide then as its input).
    """

    vocabulary: int
    feature: int = 2048
    image_bottleneck: int = 120
    hidden: int = 300
    embedding: int = 100
    logit_bottleneck: int = 120
    photo: str = "first"
    layers: int = 1
    maxout: bool = False
    tie: bool = False

    @property
    def above(self) -> list[str]:
        """The names of the LSTMs above the first: lstm_2, lstm_3 and so on."""
        return [f"lstm_{number}" for number in range(2, self.layers + 1)]

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Each parameter's shape. lstm is [V; U; W; b]: from the photo (if it is seen always),
        from h, from the word, and the bias; those above are [U; W; b], with the h of the one below
        in the place of the word."""
        seen = self.feature if self.photo == "always" else 0
        gates = (5 if self.maxout else 4) * self.hidden
        shapes = {
            "img_embed_to_bottleneck": (self.feature + 1, self.image_bottleneck),
            "img_embed_bottleneck_to_h0": (
                (self.image_bottleneck or self.feature) + 1,
                self.hidden,
            ),
            "word_embed": (self.vocabulary, 0 if self.tie else self.embedding),
            "lstm": (seen + self.hidden + self.embedding + 1, gates),
            **dict.fromkeys(self.above, (self.hidden + self.hidden + 1, gates)),
            "token_logits_bottleneck": (self.hidden + 1, self.logit_bottleneck),
            "token_logits": ((self.logit_bottleneck or self.hidden) + 1, self.vocabulary),
        }
        return {name: shape for name, shape in shapes.items() if shape[1]}


def word_table(p: Mapping[str, Array]) -> Array:
    """The words' embeddings, (V, E): a table of their own or, where there is none, the last
    layer's kernel, transposed; a view."""
    return p["word_embed"] if "word_embed" in p else p["token_logits"][:-1].T


def look_up(p: Mapping[str, Array], words: Array) -> tuple[Array, Callable]:
    """x (R, E), what the LSTM sees of R words (for the way back all different), and
    backward(dx, gradients), which fills in the table's gradient.

    Where words are tied to the last layer (Press and Wolf 2017; Inan et al. 2017), that is the
    layer's own, which the loss has filled in before: the words' part is added. The kernel starts
    within +-sqrt(6 / (E + V)), far less than an input should be; so x is sqrt(E) times as large
    (Vaswani et al. 2017, section 3.4).
    """
    if "word_embed" in p:
        x, back = embedding(words, p["word_embed"])
        return x, lambda dx, gradients: back(dx, out=gradients["word_embed"])
    table = word_table(p)
    scale = math.sqrt(table.shape[1])

    def backward(dx: Array, gradients: Mapping[str, Array]) -> None:
        word_table(gradients)[words] += scale * dx  # from 1

    return scale * table[words], backward  # 1


def lstm_names(p: Mapping[str, Array]) -> list[str]:
    """The LSTMs, from the lowest: lstm, lstm_2 and so on."""
    return [name for name in p if name.startswith("lstm")]


def lstm_parts(p: Mapping[str, Array], name: str = "lstm") -> tuple[Array, Array, Array, Array]:
    """V (F or 0, 4 H), U (H, 4 H), [W; b] (E + 1, 4 H) and [U; W; b]: views of one LSTM's
    parameters. Above the first, V is empty and E is H; maxout has 5 H for 4 H."""
    H = p["img_embed_bottleneck_to_h0"].shape[1]
    E = word_table(p).shape[1] if name == "lstm" else H
    V, UWb = p[name][: -(H + E + 1)], p[name][-(H + E + 1) :]
    return V, UWb[:H], UWb[H:], UWb


def lstm_cell(p: Mapping[str, Array]) -> Callable:
    """The step of the cells, which the number of their inputs tells."""
    H = p["img_embed_bottleneck_to_h0"].shape[1]
    return maxout_step if p["lstm"].shape[1] == 5 * H else lstm_step


def initialise(
    sizes: Sizes,
    rng: numpy.random.Generator,
    word_range: float = 0.05,
    photo_gain: float = 1.0,
    frequencies: numpy.ndarray | None = None,
) -> Parameters:
    """Parameters as TensorFlow 1 starts them: kernels Glorot-uniform, biases zero, embedding
    uniform within +-`word_range` (unless it is the last layer's kernel). float32, on the host.

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

    def backward(dx: Array, gradients: Mapping[str, Array], need_dx: bool = True):
        while ways:
            name, back_dropout, back_dense = ways.pop()
            needed = need_dx or bool(ways)
            dx, _ = back_dense(dx, out=gradients[name], need_dx=needed)  # from 2
            dx = back_dropout(dx) if needed else None  # from 1
        return dx

    return x, backward


def lstms_above(
    p: Mapping[str, Array],
    h: Array,
    h0: Array,
    sizes: Sequence[int],
    masks: Mapping[str, Array],
    empty: Callable | None = None,
) -> tuple[Array, Callable]:
    """h (R, H) of the first LSTM through those above it, if there are any, each behind dropout and
    from the same h0 = c0 (N, H). sizes, empty: as `lstm` has them.

    Returns the h of the last and backward(dh, gradients) -> dh, dh0, which fills in the layers'
    gradients; dh0 has the parts of all of them, of c0 too.
    """
    ways = []
    for name in lstm_names(p)[1:]:
        _, U, Wb, _ = lstm_parts(p, name)
        x, back_dropout = dropout(h, masks.get(name))  # 1
        zx, back_project = dense(x, Wb)  # 2
        h, back_lstm = lstm(zx, h0, h0, U, sizes, empty, lstm_cell(p))  # 3
        ways.append((name, back_dropout, back_project, back_lstm))

    def backward(dh: Array, gradients: Mapping[str, Array]):
        dh0_of_all = 0
        while ways:
            name, back_dropout, back_project, back_lstm = ways.pop()
            _, dU, dWb, _ = lstm_parts(gradients, name)
            dzx, dh0, dc0, _ = back_lstm(dh, out=dU)  # from 3
            dh0_of_all = dh0_of_all + dh0 + dc0  # from 3: the same h0 for all
            dx, _ = back_project(dzx, out=dWb)  # from 2
            dh = back_dropout(dx)  # from 1
        return dh, dh0_of_all

    return h, backward


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
    backward(dy, gradients), which fills in every gradient but that of `token_logits` (to which it
    adds the words' part if they are tied to it).
    """
    masks = masks or {}
    V, U, Wb, _ = lstm_parts(p)
    photo, _ = dropout(batch.features, masks.get("features"))
    h0, back_image = dense_layers(p, IMAGE_LAYERS, photo, masks)  # 1
    # Each distinct word is looked up and projected once, then the projections are dealt out.
    x, back_words = look_up(p, batch.words)  # 2
    x, back_dropout_x = dropout(x, masks.get("lstm"))  # 3
    zx_of_words, back_project = dense(x, Wb)  # 4
    zx, back_deal = embedding(batch.positions, zx_of_words)  # 5
    if len(V):  # and so is each photo
        zx_of_photos, back_deal_photos = embedding(batch.captions, photo @ V)  # 6
        zx += zx_of_photos
    h, back_lstm = lstm(zx, h0, h0, U, batch.sizes, empty, lstm_cell(p))  # 7
    h, back_above = lstms_above(p, h, h0, batch.sizes, masks, empty)  # 8
    y, back_bottleneck = dense_layers(p, WORD_LAYERS, h, masks)  # 9
    y, back_dropout_y = dropout(y, masks.get("token_logits"))  # 10

    def backward(dy: Array, gradients: Mapping[str, Array]) -> None:
        dV, dU, dWb, _ = lstm_parts(gradients)
        dy = back_dropout_y(dy)  # from 10
        dh = back_bottleneck(dy, gradients)  # from 9
        dh, dh0_above = back_above(dh, gradients)  # from 8
        dzx, dh0, dc0, _ = back_lstm(dh, out=dU)  # from 7
        if len(V):
            dzx_of_photos = back_deal_photos(dzx)
            array_module(dV).matmul(photo.T, dzx_of_photos, out=dV)  # from 6
        dzx_of_words = back_deal(dzx)  # from 5
        dx, _ = back_project(dzx_of_words, out=dWb)  # from 4
        dx = back_dropout_x(dx)  # from 3
        back_words(dx, gradients)  # from 2
        # h0 and c0 are the same numbers; nobody asks for the features' gradient.
        back_image(dh0 + dc0 + dh0_above, gradients, need_dx=False)  # from 1

    return y, backward


def caption_loss(
    p: Mapping[str, Array],
    batch,
    divisor: float | None = None,
    masks: Mapping[str, Array] | None = None,
    hits: Array | None = None,
    empty: Callable | None = None,
    smoothing: float = 0.0,
) -> tuple[Array, Callable]:
    """The cross-entropy of a batch of captions in nats, summed over its R words, each times its
    weight if the batch has weights, and divided by `divisor` (default R: the mean over real words).

    p, batch, masks, empty: as in `outputs`; hits: None, or (R,) booleans to fill in with whether
    the likeliest word was right; smoothing: the share of `label_smoothing`.
    Returns the loss (0-d) and backward(gradients), which fills in every gradient; used once.
    """
    divisor = batch.targets.shape[0] if divisor is None else divisor
    y, back_outputs = outputs(p, batch, masks, empty)  # 1
    loss, back_loss = project_cross_entropy(
        y, p["token_logits"], batch.targets, batch.weights, divisor, hits, empty
    )  # 2
    if smoothing:
        term, back_smoothing = label_smoothing(
            y, p["token_logits"], batch.targets, batch.weights, divisor, smoothing
        )  # 3
        loss = loss + term

    def backward(gradients: Mapping[str, Array]) -> None:
        dy, _ = back_loss(out=gradients["token_logits"])  # from 2
        if smoothing:
            back_smoothing(dy, gradients["token_logits"])  # from 3: added to both
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

    rate: of the features, the bottlenecks and the LSTMs' outputs; rate_words: of the words'
    embeddings; a rate of 0 makes no mask. counts: the batch's. A word that occurs several times in
    a batch has the same mask each time, because it is projected only once (Gal and Ghahramani 2016
    argue for that within a sequence).
    """
    bottleneck, narrow = sizes.image_bottleneck, sizes.logit_bottleneck
    widths = {
        "features": (rate, sizes.feature),
        "img_embed_bottleneck_to_h0": (rate, bottleneck),
        "lstm": (rate_words, sizes.embedding),
        **dict.fromkeys(sizes.above, (rate, sizes.hidden)),
        "token_logits_bottleneck": (rate, sizes.hidden if narrow else 0),
        "token_logits": (rate, narrow or sizes.hidden),
    }
    return {
        name: draw_mask(rng, (counts[MASK_AXES.get(name, "rows")], width), rate)
        for name, (rate, width) in widths.items()
        if rate and width
    }


def first_state(p: Mapping[str, Array], features: Array) -> tuple[Array, ...]:
    """What writing starts from: h0 and c0 (N, H) of each LSTM and, if the first always sees the
    photo, what that adds to its gates' inputs (N, 4 H). features: (N, F)."""
    h0, _ = dense_layers(p, IMAGE_LAYERS, features, {})
    V, *_ = lstm_parts(p)
    state = (h0, h0) * len(lstm_names(p))
    return (*state, features @ V) if len(V) else state


def next_word(p: Mapping[str, Array], words: Array, *state: Array) -> tuple[Array, ...]:
    """One step of writing, all but the last layer: the words (N,) just written and the state, as
    `first_state` or the step before left it, -> y (N, I), from which `token_logits` makes the next
    word's logits, and the new state."""
    x, _ = look_up(p, words)
    xp = array_module(x)
    ones = xp.ones((len(words), 1), dtype=x.dtype)
    names, step, after = lstm_names(p), lstm_cell(p), []
    photo = state[2 * len(names) :]
    for name, h, c in zip(names, state[::2], state[1::2], strict=False):
        *_, UWb = lstm_parts(p, name)
        z = xp.concatenate([h, x, ones], axis=1) @ UWb  # one product for all three
        if photo and name == "lstm":
            z += photo[0]
        h, c, _ = step(z, c, out=z)
        after += [h, c]
        x = h  # what the next LSTM sees, if there is one
    y, _ = dense_layers(p, WORD_LAYERS, h, {})
    return y, *after, *photo
