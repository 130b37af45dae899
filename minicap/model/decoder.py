"""The decoder: generates the words of a caption from an image's features.

    features --dense, elu--> bottleneck --dense, elu--> h0 = c0
    word --embedding--> LSTM (from h0, c0) --dense, elu--> bottleneck --dense--> next word's logits

This is Vinyals et al. 2015 ("Show and Tell"), except that the image is the LSTM's initial state
and not its first input. Either bottleneck can be left out, and the LSTM can get the image at every
step, as a second input next to the word (Mao et al. 2015).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minicap.backend import Allocate, Array, array_module
from minicap.data.batches import Batch
from minicap.model.config import DecoderConfig
from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import dropout
from minicap.nn.embedding import embedding
from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.once import once

# h, c (N, H) and, if the image is an input, its projection (N, 4 H); or with attention what it
# looks at, and the weights (N, L) of the last look
State = tuple[Array, ...]
Backward = Callable[..., Any]
NO_MASKS: Mapping[str, Array] = {}


def split_lstm(config: DecoderConfig, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Split the LSTM's weights [W_image; U; W; b] into blocks, which are views.

    Returns:
        W_image (F or 0, 4 H), U (H, 4 H), [W; b] (D + 1, 4 H) and [U; W; b] (H + D + 1, 4 H).
    """
    H, D = config.hidden_size, config.embedding_size
    W_image, UWb = weights[: -(H + D + 1)], weights[-(H + D + 1) :]
    return W_image, UWb[:H], UWb[H:], UWb


@dataclass(frozen=True)
class Decoder:
    """An architecture with its parameters, on the CPU or a GPU.

    Attributes:
        config: the architecture.
        parameters: arrays by name, with the shapes that `config.shapes` returns.
    """

    config: DecoderConfig
    parameters: Mapping[str, Array]

    # Training: whole captions at once

    def loss(
        self,
        batch: Batch,
        divisor: float | None = None,
        masks: Mapping[str, Array] = NO_MASKS,
        correct: Array | None = None,
        allocate: Allocate | None = None,
    ) -> tuple[Array, Backward]:
        """Compute the cross-entropy of a batch of captions, in nats.

        Args:
            batch: N captions with R words to predict, on the parameters' device.
            divisor: the loss is the sum over the R words, each times its weight if the batch has
                weights, divided by this. By default R: the mean over real (unpadded) words.
            masks: dropout masks, from `draw_masks`.
            correct: (R,) booleans to fill in: whether the likeliest word is the target.
            allocate: makes the large arrays, like Workspace.allocate. They are in use until
                `backward` has run.

        Returns:
            The loss, a 0-d array, and ``backward(gradients)``, which fills in the gradient of
            every parameter, by name.
        """
        divisor = batch.targets.shape[0] if divisor is None else divisor
        y, back_outputs = self.outputs(batch, masks, allocate)  # 1
        loss, back_loss = project_cross_entropy(
            y,
            self.parameters["token_logits"],
            batch.targets,
            batch.weights,
            divisor,
            correct=correct,
            allocate=allocate,
        )  # 2

        @once
        def backward(gradients: Mapping[str, Array]) -> None:
            dy, _ = back_loss(out=gradients["token_logits"])  # from 2
            back_outputs(dy, gradients)  # from 1

        return loss, backward

    def outputs(
        self,
        batch: Batch,
        masks: Mapping[str, Array] = NO_MASKS,
        allocate: Allocate | None = None,
    ) -> tuple[Array, Backward]:
        """Run all layers but the last on each of a batch's R inputs.

        Args:
            batch, masks, allocate: as for `loss`.

        Returns:
            y (R, I), the input of the last layer, `token_logits`; and
            ``backward(dy, gradients)``, which fills in every gradient but that of `token_logits`.
        """
        W_image, U, Wb, _ = split_lstm(self.config, self.parameters["lstm"])
        image, _ = dropout(batch.features, masks.get("features"))
        h0, back_image = self.dense_layers(self.config.image_layers, image, masks)  # 1
        zx, back_words = self.project_words(batch, masks, Wb)  # 2 to 5
        if len(W_image):  # each image is projected once, too
            zx_of_images, back_gather_images = embedding(batch.captions, image @ W_image)  # 6
            zx += zx_of_images
        h, back_lstm = lstm(zx, h0, h0, U, batch.batch_sizes, allocate)  # 7
        y, back_bottleneck = self.dense_layers(self.config.output_layers, h, masks)  # 8
        y, back_dropout_y = dropout(y, masks.get("token_logits"))  # 9

        @once
        def backward(dy: Array, gradients: Mapping[str, Array]) -> None:
            dW_image, dU, dWb, _ = split_lstm(self.config, gradients["lstm"])
            dy = back_dropout_y(dy)  # from 9
            dh = back_bottleneck(dy, gradients)  # from 8
            dzx, dh0, dc0, _ = back_lstm(dh, out=dU)  # from 7
            if len(W_image):
                dzx_of_images = back_gather_images(dzx)
                array_module(image).matmul(image.T, dzx_of_images, out=dW_image)  # from 6
            back_words(dzx, gradients, out=dWb)  # from 5 to 2
            # h0 and c0 are the same array; the gradient of the features is not needed.
            back_image(dh0 + dc0, gradients, need_dx=False)  # from 1

        return y, backward

    def project_words(
        self, batch: Batch, masks: Mapping[str, Array], Wb: Array
    ) -> tuple[Array, Backward]:
        """Embed and project the input words.

        Each distinct word is embedded and projected once; then the projections are gathered.

        Args:
            batch, masks: as for `outputs`.
            Wb: (D + 1, O) weights of the words and, as the last row, biases.

        Returns:
            zx (R, O) and ``backward(dzx, gradients, out)``, which fills in the gradient of the
            embedding, and in `out` that of Wb.
        """
        x, back_words = embedding(batch.words, self.parameters["word_embed"])  # 2
        x, back_dropout = dropout(x, masks.get("lstm"))  # 3
        zx_of_words, back_project = dense(x, Wb)  # 4
        zx, back_gather = embedding(batch.positions, zx_of_words)  # 5

        @once
        def backward(dzx: Array, gradients: Mapping[str, Array], out: Array) -> None:
            dzx_of_words = back_gather(dzx)  # from 5
            dx, _ = back_project(dzx_of_words, out=out)  # from 4
            dx = back_dropout(dx)  # from 3
            back_words(dx, out=gradients["word_embed"])  # from 2

        return zx, backward

    def dense_layers(
        self, names: Sequence[str], x: Array, masks: Mapping[str, Array] = NO_MASKS
    ) -> tuple[Array, Backward]:
        """Apply dense layers with an ELU, each after its dropout mask, if it has one.

        Args:
            names: the layers, in order.
            x: (R, I), the first layer's input.
            masks: dropout masks by layer.

        Returns:
            y (R, O) and ``backward(dy, gradients, need_dx=True)``, which fills in the layers'
            gradients and returns dx, or None if it is not needed.
        """
        layers = []
        for name in names:
            x, back_dropout = dropout(x, masks.get(name))  # 1
            x, back_dense = dense(x, self.parameters[name], elu)  # 2
            layers.append((name, back_dropout, back_dense))

        @once
        def backward(dy: Array, gradients: Mapping[str, Array], need_dx: bool = True) -> Any:
            dx = dy
            while layers:  # the last one first
                name, back_dropout, back_dense = layers.pop()
                needed = need_dx or bool(layers)
                dx, _ = back_dense(dx, out=gradients[name], need_dx=needed)  # from 2
                dx = back_dropout(dx) if needed else None  # from 1
            return dx

        return x, backward

    # Generation: one word at a time

    def initial_state(self, features: Array) -> State:
        """Compute the state before the first word.

        Args:
            features: (N, F), scaled.
        """
        h0, _ = self.dense_layers(self.config.image_layers, features)
        W_image, *_ = split_lstm(self.config, self.parameters["lstm"])
        return (h0, h0, features @ W_image) if len(W_image) else (h0, h0)

    def step(self, words: Array, state: State) -> tuple[Array, State]:
        """Run one word per caption through all layers but the last.

        Args:
            words: (N,) ids of the last words.
            state: from `initial_state` or the step before.

        Returns:
            y (N, I), the input of the last layer, `token_logits`; and the new state.
        """
        _, state = self.lstm_step(words, state)
        y, _ = self.dense_layers(self.config.output_layers, state[0])
        return y, state

    def lstm_step(self, words: Array, state: State) -> tuple[Array, State]:
        """Run one word per caption through the embedding and the LSTM.

        Args:
            words, state: as for `step`.

        Returns:
            The gates i, j, f and o (N, 4 H), and the new state.
        """
        h, c, *image = state
        x, _ = embedding(words, self.parameters["word_embed"])
        xp = array_module(x)
        ones = xp.ones((len(words), 1), dtype=x.dtype)
        *_, UWb = split_lstm(self.config, self.parameters["lstm"])
        z = xp.concatenate([h, x, ones], axis=1) @ UWb  # one GEMM for h, word and bias
        if image:
            z += image[0]
        h, c, _ = lstm_step(z, c, out=z)
        return z, (h, c, *image)

    def attention_weights(self, state: State) -> Array | None:
        """Return where the decoder looked before the word that led to this state.

        Args:
            state: from `step`.

        Returns:
            (N, L) the weight of each position, or None for a decoder without attention.
        """
        return None
