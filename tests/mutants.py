"""Plausible bugs (mutants), each with the test that must catch it.

A mutant is a small edit of the source of one function. `planted` runs it in place of the original
within a `with` block.
"""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from tests import test_backend
from tests.data import test_batches
from tests.generation import test_beam_search, test_sampling
from tests.model import test_decoder
from tests.nn import (
    test_adam,
    test_attention,
    test_cross_entropy,
    test_dense,
    test_dropout,
    test_embedding,
    test_lstm,
)


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        name: describes it.
        function: "module:function" or "module:Class.method", without the leading "minicap.".
        old: text that occurs exactly once in the function's source.
        new: text that replaces it.
        caught_by: the test that must fail.
    """

    name: str
    function: str
    old: str
    new: str
    caught_by: Callable[[], None]


@contextlib.contextmanager
def planted(mutant):
    """Make the function run the mutant's code, also where it is already imported."""
    module_name, function_name = mutant.function.split(":")
    module = importlib.import_module(f"minicap.{module_name}")
    function = module
    for name in function_name.split("."):
        function = getattr(function, name)
    function = inspect.unwrap(function)  # the decorators stay and apply to the mutant
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {mutant.function} must have {mutant.old!r} exactly once")
    namespace = dict(vars(module))
    exec(compile(source.replace(mutant.old, mutant.new), f"<{mutant.name}>", "exec"), namespace)
    original = function.__code__
    function.__code__ = inspect.unwrap(namespace[function.__name__]).__code__
    try:
        yield
    finally:
        function.__code__ = original


DENSE, ELU = "nn.dense:dense", "nn.dense:elu"
STEP, LSTM = "nn.lstm:lstm_step", "nn.lstm:lstm"
GATES, CELL_BACKWARD = "nn.lstm:gate_activations", "nn.lstm:cell_backward"
LOSS = "nn.cross_entropy:project_cross_entropy"
OUTPUTS, DECODER = "model.decoder:Decoder.outputs", "model.decoder:Decoder.loss"
LOOK, LOOKING = "nn.attention:attend", "nn.attention_lstm:attention_lstm"
ADAM, CLIP, BLOCKS = "nn.adam:Adam.update", "nn.adam:clip_scale", "backend:blocks"
SEARCH, BANS = "generation.beam_search:_search", "generation.beam_search:_banned_ids"
SCORES = "generation.beam_search:Hypotheses.scores"

# A wrong backward pass of a correct forward pass. The complex step catches every one of them.
BACKWARD = [
    Mutant(
        "dense: no bias gradient",
        DENSE,
        "xp.matmul(xp.ones(dz.shape[0], dtype=dz.dtype), dz, out=dWb[-1])",
        "dWb[-1] = 0",
        test_dense.test_complex_step,
    ),
    Mutant(
        "dense: bias gradient averaged",
        DENSE,
        "xp.ones(dz.shape[0], dtype=dz.dtype)",
        "xp.ones(dz.shape[0], dtype=dz.dtype) / len(dz)",
        test_dense.test_complex_step,
    ),
    Mutant(
        "dense: W in place of its transpose",
        DENSE,
        "dz @ Wb[:-1].T",
        "dz @ Wb[:-1]",
        test_dense.test_complex_step_with_elu_and_square_weights,
    ),
    Mutant(
        "dense: gradient of W 2 % too large",
        DENSE,
        "xp.matmul(x.T, dz,",
        "xp.matmul(1.02 * x.T, dz,",
        test_dense.test_complex_step,
    ),
    Mutant(
        "dense: no slope of the activation",
        DENSE,
        "dz = activation_backward(dy) if activation else dy",
        "dz = dy",
        test_dense.test_complex_step_with_elu_and_square_weights,
    ),
    Mutant(
        "elu: the slope of a ReLU",
        ELU,
        "dy * (xp.minimum(y, 0) + 1)",
        "dy * (y > 0)",
        test_dense.test_complex_step_with_elu_and_square_weights,
    ),
    Mutant(
        "elu: exp of the output, not of the input",
        ELU,
        "dy * (xp.minimum(y, 0) + 1)",
        "dy * xp.exp(xp.minimum(y, 0))",
        test_dense.test_complex_step_with_elu_and_square_weights,
    ),
    Mutant(
        "dropout: no mask in the backward pass",
        "nn.dropout:dropout",
        "return dy * mask",
        "return dy",
        test_dropout.test_complex_step,
    ),
    Mutant(
        "dropout: mask twice in the backward pass",
        "nn.dropout:dropout",
        "return dy * mask",
        "return dy * mask * mask",
        test_dropout.test_complex_step,
    ),
    Mutant(
        "dropout: mask without its scale in the backward pass",
        "nn.dropout:dropout",
        "return dy * mask",
        "return dy * (mask > 0)",
        test_dropout.test_complex_step,
    ),
    Mutant(
        "embedding: repeated words counted once (buffered +=)",
        "backend:add_rows",
        ".sum(axis=0)",
        "[-1]",
        test_embedding.test_complex_step,
    ),
    Mutant(
        "embedding: repeated words averaged",
        "backend:add_rows",
        ".sum(axis=0)",
        ".mean(axis=0)",
        test_embedding.test_complex_step,
    ),
    Mutant(
        "embedding: the last batch's gradient not cleared",
        "nn.embedding:embedding",
        "dtable[...] = 0",
        "pass",
        test_decoder.test_complex_step_trained,
    ),
    Mutant(
        "lstm_step: gradients of i and j swapped",
        CELL_BACKWARD,
        "(dc, j, out=di)  # from 2\n    xp.multiply(dc, i, out=dj)",
        "(dc, i, out=di)\n    xp.multiply(dc, j, out=dj)",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: gradients of f and o swapped",
        CELL_BACKWARD,
        "out=df)  # from 2\n    xp.multiply(dh, tanh_c, out=do)",
        "out=do)\n    xp.multiply(dh, tanh_c, out=df)",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: no slope of tanh(c)",
        CELL_BACKWARD,
        "dh * o * (1 - tanh_c * tanh_c)",
        "dh * o",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: j's slope as if it were a sigmoid",
        "nn.lstm:gate_activations_backward",
        "(gates + (2 * scale - 1))",
        "gates",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: c' in place of c at the forget gate",
        STEP,
        "cell_backward(dh, dc, c, tanh_c,",
        "cell_backward(dh, dc, c_next, tanh_c,",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: c' in place of tanh(c') at the output gate",
        CELL_BACKWARD,
        "xp.multiply(dh, tanh_c, out",
        "xp.multiply(dh, xp.arctanh(tanh_c), out",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: no dc from the next step",
        CELL_BACKWARD,
        "dc = dc + dh * o",
        "dc = dh * o",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: dc without the forget gate",
        CELL_BACKWARD,
        "return dc * f",
        "return dc",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm: no dh from the next step",
        LSTM,
        "dh_t = dh[rows] + carry_h[:size]",
        "dh_t = dh[rows]",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: dh from other sequences",
        LSTM,
        "dh[rows] + carry_h[:size]",
        "dh[rows] + carry_h[-size:]",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: dh summed over all later steps",
        LSTM,
        "multiply_few_rows(dz_t, UT, carry_h[:size])",
        "carry_h[:size] += dz_t @ UT",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: h after the step, not before it, in dU",
        LSTM,
        "xp.matmul(h_before.T, dz",
        "xp.matmul(h_after.T, dz",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: no gradient for h0",
        LSTM,
        "return dz, carry_h, carry_c, dU",
        "return dz, 0 * carry_h, carry_c, dU",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: no gradient for c0",
        LSTM,
        "return dz, carry_h, carry_c, dU",
        "return dz, carry_h, 0 * carry_c, dU",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "loss: no 1 at the target",
        LOSS,
        "e[rows, targets] -= s",
        "pass",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: 1 subtracted before normalisation",
        LOSS,
        "e[rows, targets] -= s",
        "e[rows, targets] -= 1",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: not normalised",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(scale * dloss + 0 * s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: no weights in the backward pass",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(dloss / divisor / s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: upstream gradient ignored",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(scale / s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: gradient also divided by the number of rows",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(scale * dloss / s / len(s))[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: no bias gradient",
        LOSS,
        "xp.matmul((x1 * column).T, e, out=dWb)",
        "xp.matmul((x1 * column).T, e, out=dWb)\n        dWb[-1] = 0",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: dx neither normalised nor scaled",
        LOSS,
        "dx = (e @ Wb[:-1].T) * column",
        "dx = e @ Wb[:-1].T",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "decoder: each image's gradient from its first word only",
        OUTPUTS,
        "back_gather_images(dzx)",
        "dzx[: len(image)]",
        test_decoder.test_complex_step_with_the_image_at_every_step,
    ),
    Mutant(
        "decoder: no dropout of the features in dW_image",
        OUTPUTS,
        "matmul(image.T, ",
        "matmul(batch.features.T, ",
        test_decoder.test_complex_step_with_the_image_at_every_step,
    ),
    Mutant(
        "decoder: dh0 without dc0",
        OUTPUTS,
        "back_image(dh0 + dc0, ",
        "back_image(dh0, ",
        test_decoder.test_complex_step_trained,
    ),
    Mutant(
        "decoder: no dropout of the logit bottleneck in the backward pass",
        OUTPUTS,
        "dy = back_dropout_y(dy)",
        "pass",
        test_decoder.test_complex_step_trained_with_dropout,
    ),
    Mutant(
        "decoder: no dropout before dense layers in the backward pass",
        "model.decoder:Decoder.dense_layers",
        "back_dropout(dx) if needed else None",
        "dx",
        test_decoder.test_complex_step_trained_with_dropout,
    ),
]

# The same for attention, which the usual decoder does not have.
ATTENTION = [
    Mutant(
        "attention: the softmax's slope without its mean",
        LOOK,
        "a * (da - (a * da).sum(axis=1)[:, None])",
        "a * da",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: gradient of the weights ignored",
        LOOK,
        "da = dweights + ",
        "da = ",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: no slope of tanh",
        LOOK,
        "dkeys = xp.subtract(0.25, s, out=s)",
        "dkeys = xp.ones_like(s) / 4",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: the query's gradient is a mean",
        LOOK,
        "dkeys.sum(axis=1)",
        "dkeys.mean(axis=1)",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: v's gradient without the scores'",
        LOOK,
        "dv = -2 * (de[:, None]",
        "dv = -2 * (a[:, None]",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: values' gradient without the weights",
        LOOK,
        "a[:, :, None] * dcontext",
        "xp.ones_like(a)[:, :, None] * dcontext",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention: v forgotten in the keys' gradient",
        LOOK,
        "dkeys *= 4 * v",
        "dkeys *= 4",
        test_attention.test_complex_step_of_one_look,
    ),
    Mutant(
        "attention LSTM: the path through the query is forgotten",
        LOOKING,
        "dinputs[:, A:] + dquery[rows] @ WqT",
        "dinputs[:, A:]",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: the path through h U is forgotten",
        LOOKING,
        "dinputs[:, A:] + dquery[rows] @ WqT",
        "dquery[rows] @ WqT",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: keys' gradient of the first step only",
        LOOKING,
        "dkeys[:size] += dkeys_t",
        "dkeys[:size] = dkeys_t",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: values' gradient of the first step only",
        LOOKING,
        "dvalues[:size] += dvalues_t",
        "dvalues[:size] = dvalues_t",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: v's gradient of the first step only",
        LOOKING,
        "dv += dv_t",
        "dv = dv_t",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: the query does not use the input",
        LOOKING,
        "query = zx[rows, 4 * H :] + h",
        "query = h",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: query's weights from the h after the step",
        LOOKING,
        "inputs[:, A:].T @ dquery",
        "h_after.T @ dquery",
        test_attention.test_complex_step_of_sequences,
    ),
    Mutant(
        "attention LSTM: the gradient of other steps' weights",
        LOOKING,
        "dweights[rows], need",
        "dweights[:size], need",
        test_attention.test_complex_step_of_sequences,
    ),
]

# A wrong forward pass with a matching backward pass, a wrong optimiser or wrong generation. The
# complex step cannot catch these.
OTHER = [
    Mutant(
        "lstm_step: no forget bias",
        GATES,
        "xp.add(z, shift, out",
        "xp.add(z, 0, out",
        test_lstm.test_the_forget_bias_is_1,
    ),
    Mutant(
        "lstm_step: gates f and o swapped in both passes",
        "nn.lstm:split_gates",
        "a[:, 2 * H : 3 * H], a[:, 3 * H :]",
        "a[:, 3 * H :], a[:, 2 * H : 3 * H]",
        test_lstm.test_one_step_agrees_with_tensorflows_formula,
    ),
    Mutant(
        "loss: shift not added back after log",
        LOSS,
        "xp.log(s) + shift - target_logits",
        "xp.log(s) - target_logits",
        test_cross_entropy.test_huge_logits_do_not_overflow,
    ),
    Mutant(
        "loss: every word counted as correct",
        LOSS,
        "target_logits.real == shift",
        "target_logits.real <= shift",
        test_cross_entropy.test_correct_is_where_the_target_has_the_largest_logit,
    ),
    Mutant(
        "decoder: divided by the number of captions",
        DECODER,
        "divisor = batch.targets.shape[0] if",
        "divisor = batch.features.shape[0] if",
        test_decoder.test_generation_step_by_step_equals_the_loss,
    ),
    Mutant(
        "decoder: divided by N * T, padding counted",
        DECODER,
        "divisor = batch.targets.shape[0] if",
        "divisor = batch.features.shape[0] * len(batch.batch_sizes) if",
        test_decoder.test_generation_step_by_step_equals_the_loss,
    ),
    Mutant(
        "decoder: generation resets the cell state at every step",
        "model.decoder:Decoder.lstm_step",
        "lstm_step(z, c, out=z)",
        "lstm_step(z, 0 * c, out=z)",
        test_decoder.test_generation_step_by_step_equals_the_loss,
    ),
    Mutant(
        "search: states not re-ordered with their hypotheses",
        SEARCH,
        "tuple(array[row] for array in state)",
        "tuple(array[numpy.sort(row)] for array in state)",
        test_beam_search.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "search: finished captions are extended",
        SEARCH,
        "candidates.finished[new] = ids == constraints.end",
        "candidates.finished[new] = False",
        test_beam_search.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: finished captions are dropped",
        SEARCH,
        " finished = numpy.flatnonzero(beam.finished)",
        " finished = numpy.flatnonzero(beam.finished)[:0]",
        test_beam_search.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: one beam for all images",
        SEARCH,
        "numpy.searchsorted(image, image)",
        "0",
        test_beam_search.test_order_changes_no_caption,
    ),
    Mutant(
        "search: best captions last",
        SEARCH,
        "-candidates.scores",
        "candidates.scores",
        test_beam_search.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: #END# does not count as a word",
        SCORES,
        "numpy.maximum(self.length, 1)",
        "numpy.maximum(self.length - self.finished, 1)",
        test_beam_search.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: every score divided by the largest length",
        SCORES,
        "numpy.maximum(self.length, 1)",
        "max(self.length.max(initial=1), 1)",
        test_beam_search.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: an ensemble sums its logits",
        "generation.beam_search:join_last_layers",
        " / len(decoders)",
        "",
        test_beam_search.test_an_ensemble_averages_log_probabilities,
    ),
    Mutant(
        "search: all images use the first one's random numbers",
        SEARCH,
        "uniform[beam.image[unfinished], step]",
        "uniform[0 * beam.image[unfinished], step]",
        test_beam_search.test_samples_follow_the_model_s_distribution,
    ),
    Mutant(
        "bans: only the last word is compared",
        BANS,
        ".all(axis=2)",
        "[:, :, -1:].all(axis=2)",
        test_beam_search.test_new_ngrams_are_not_banned,
    ),
    Mutant(
        "bans: #END# one word too late",
        BANS,
        "if t < config.min_length",
        "if t <= config.min_length",
        test_beam_search.test_min_length_bans_shorter_captions_only,
    ),
    Mutant(
        "extensions: banned words left out of the softmax",
        "generation.sampling:extensions",
        "e[every, bans] = banned",
        "pass",
        test_beam_search.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "likeliest: the last word's logit not restored",
        "generation.sampling:likeliest",
        "reversed(range(k))",
        "reversed(range(k - 1))",
        test_beam_search.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "sample: the same random number twice",
        "generation.sampling:sample",
        "_inverse_cdf(blocks[every, block], rest)",
        "_inverse_cdf(blocks[every, block], xp.minimum(uniform, BELOW_1))",
        test_sampling.test_samples_from_a_hundred_words,
    ),
    Mutant(
        "sample: multiplied by the temperature, not divided",
        "generation.sampling:sample",
        "/ max(temperature, 1e-30)",
        "* max(temperature, 1e-30)",
        test_sampling.test_samples_are_from_the_set,
    ),
    Mutant(
        "nucleus: one word short",
        "generation.sampling:nucleus",
        "more = (cumulative <",
        "more = (cumulative[:, 1:] <",
        test_sampling.test_each_row_has_its_own_set,
    ),
    Mutant(
        "batches: each word's target is the word itself",
        "data.batches:pack",
        "by_step[1 : steps + 1][active]",
        "by_step[:steps][active]",
        test_batches.test_the_layout_in_the_docstring,
    ),
    Mutant(
        "batches: features not sorted with their captions",
        "data.batches:pack",
        "features[order]",
        "features",
        test_batches.test_the_layout_in_the_docstring,
    ),
    Mutant(
        "add_rows: overwrites what is there",
        "backend:add_rows",
        "target[id_] +=",
        "target[id_] =",
        test_backend.test_add_rows_adds_repeated_ids,
    ),
    Mutant(
        "adam: no bias correction",
        ADAM,
        "rate = learning_rate * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)",
        "rate = learning_rate",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: bias correction of m forgotten",
        ADAM,
        " / (1 - self.beta1**t)",
        "",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: epsilon added after the bias correction, as in PyTorch",
        ADAM,
        "*rates, self.epsilon",
        "*rates, self.epsilon * math.sqrt(1 - self.beta2**t)",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: epsilon inside the root",
        "nn.adam:adam",
        "xp.sqrt(v, out=w)",
        "xp.sqrt(v + epsilon, out=w); w -= epsilon",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: betas swapped",
        "nn.adam:adam",
        "w *= rate1",
        "w *= rate2",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: steps not counted",
        "nn.adam:Adam.step",
        "self.t += 1",
        "self.t = 1",
        test_adam.test_three_steps_with_scalars,
    ),
    Mutant(
        "adam: only the first block is updated",
        BLOCKS,
        "range(worker * block, rows, num_workers * block)",
        "range(worker * block, block, block)",
        test_adam.test_the_block_size_does_not_change_the_update,
    ),
    Mutant(
        "adam: blocks of the workers overlap",
        BLOCKS,
        "num_workers * block)",
        "block)",
        test_adam.test_the_update_does_not_depend_on_the_number_of_workers,
    ),
    Mutant(
        "clip: each block separately",
        CLIP,
        "math.sqrt(math.fsum(map(float, squares)))",
        "max(map(math.sqrt, squares))",
        test_adam.test_clipping_uses_the_global_norm,
    ),
    Mutant(
        "clip: small gradients are scaled up",
        CLIP,
        "if norm > limit else 1.0",
        "if norm > 0 else 1.0",
        test_adam.test_clipping_leaves_short_gradients_alone,
    ),
    Mutant(
        "clip: by the squared norm",
        CLIP,
        "math.sqrt(math.fsum(map(float, squares)))",
        "math.fsum(map(float, squares))",
        test_adam.test_clipping_uses_the_global_norm,
    ),
]
