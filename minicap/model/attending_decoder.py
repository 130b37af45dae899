"""A decoder that looks at an image's positions before each word.

    positions --mean--> dense layers --> h0 = c0
    h --query--> attention over the positions --> context
    word --embedding--> LSTM (with the context as one more input) --> next word's logits

This is Xu et al. 2015 ("Show, attend and tell") with its soft attention. The rest is that of
`minicap.model.decoder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicap.backend import Allocate, Array, array_module
from minicap.data.batches import Batch
from minicap.model.config import DecoderConfig
from minicap.model.decoder import NO_MASKS, Backward, Decoder, State
from minicap.nn.attention import attend, exponentials
from minicap.nn.attention_lstm import attention_lstm
from minicap.nn.dense import affine, dense
from minicap.nn.dropout import dropout
from minicap.nn.embedding import embedding
from minicap.nn.lstm import lstm_step
from minicap.nn.once import once


def make_decoder(config: DecoderConfig, parameters: Mapping[str, Array]) -> Decoder:
    """Make the decoder of an architecture, with its parameters."""
    kind = AttendingDecoder if config.image_input == "attention" else Decoder
    return kind(config, parameters)


@dataclass(frozen=True)
class Looking:
    """What N hypotheses look at: keys and values are stored once for each image.

    Attributes:
        exp_keys: (M, L, K) of M images, see `attend`.
        values: (M, L, A).
        rows: (N,) each hypothesis' image.
    """

    exp_keys: Array
    values: Array
    rows: Array

    def __getitem__(self, rows: Array) -> "Looking":
        return Looking(self.exp_keys, self.values, self.rows[rows])

    def arrays(self) -> list[Array]:
        """The exp_keys (N, L, K) and values (N, L, A) of each hypothesis."""
        return [self.exp_keys[self.rows], self.values[self.rows]]


class AttendingDecoder(Decoder):
    """An architecture with attention, with its parameters. See `Decoder`."""

    def positions(self, features: Array) -> Array:
        """View features (N, L A) as positions (N, L, A)."""
        return features.reshape(len(features), self.config.positions, -1)

    def outputs(
        self,
        batch: Batch,
        masks: Mapping[str, Array] = NO_MASKS,
        allocate: Allocate | None = None,
    ) -> tuple[Array, Backward]:
        """Run all layers but the last on each of a batch's R inputs. See `Decoder.outputs`."""
        p, xp = self.parameters, array_module(batch.features)
        features, _ = dropout(batch.features, masks.get("features"))
        values = self.positions(features)
        (N, L, A), H = values.shape, self.config.hidden_size
        h0, back_image = self.dense_layers(
            self.config.image_layers, values.mean(axis=1), masks
        )  # 1
        keys, back_keys = dense(values.reshape(N * L, A), p["attention_keys"])  # 2
        Wb = xp.concatenate([p["lstm"][A + H :], p["attention_query"][H:]], axis=1)
        zx, back_words = self.project_words(batch, masks, Wb)  # 3
        h, weights, back_lstm = attention_lstm(
            zx, h0, h0, p["lstm"][: A + H], p["attention_query"][:H], p["attention_scores"][:, 0],
            keys=keys.reshape(N, L, keys.shape[1]), values=values,
            batch_sizes=batch.batch_sizes, allocate=allocate,
        )  # 4  # fmt: skip
        y, back_bottleneck = self.dense_layers(self.config.output_layers, h, masks)  # 5
        y, back_dropout = dropout(y, masks.get("token_logits"))  # 6

        @once
        def backward(dy: Array, gradients: Mapping[str, Array]) -> None:
            dy = back_dropout(dy)  # from 6
            dh = back_bottleneck(dy, gradients)  # from 5
            dweights = xp.zeros_like(weights)  # the loss does not use them
            dzx, dh0, dc0, dWcU, dWq, dv, dkeys, _ = back_lstm(
                dh, dweights, need_dvalues=False
            )  # from 4
            gradients["lstm"][: A + H] = dWcU
            gradients["attention_query"][:H] = dWq
            gradients["attention_scores"][:, 0] = dv
            dWb = xp.empty_like(Wb)
            back_words(dzx, gradients, out=dWb)  # from 3
            gradients["lstm"][A + H :] = dWb[:, : 4 * H]
            gradients["attention_query"][H:] = dWb[:, 4 * H :]
            dkeys = dkeys.reshape(keys.shape)
            back_keys(dkeys, out=gradients["attention_keys"], need_dx=False)  # from 2
            back_image(dh0 + dc0, gradients, need_dx=False)  # from 1

        return y, backward

    def initial_state(self, features: Array) -> State:
        """Compute the state before the first word. See `Decoder.initial_state`."""
        xp, values = array_module(features), self.positions(features)
        h0, _ = self.dense_layers(self.config.image_layers, values.mean(axis=1))
        keys = affine(values, self.parameters["attention_keys"])
        looking: Any = Looking(exponentials(keys), values, xp.arange(len(values)))
        return h0, h0, looking, xp.zeros(values.shape[:2], h0.dtype)

    def lstm_step(self, words: Array, state: State) -> tuple[Array, State]:
        """Look at the image, and run one word per caption through embedding and LSTM."""
        h, c, looking, _ = state
        p, xp = self.parameters, array_module(h)
        x, _ = embedding(words, p["word_embed"])
        inputs = xp.concatenate([h, x, xp.ones((len(words), 1), dtype=x.dtype)], axis=1)
        query = inputs @ p["attention_query"]
        exp_keys, values = looking.arrays()
        context, weights, _ = attend(query, exp_keys, values, p["attention_scores"][:, 0])
        z = xp.concatenate([context, inputs], axis=1) @ p["lstm"]
        h, c, _ = lstm_step(z, c, out=z)
        return z, (h, c, looking, weights)

    def attention_weights(self, state: State) -> Array:
        """Return the weight of each position in the last step. See `Decoder.attention_weights`."""
        return state[3]
