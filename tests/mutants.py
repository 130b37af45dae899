"""Plausible bugs, and for each the test that must find it.

A mutant is a small edit of the real source of one function. `planted` puts it in the place of
the real function, everywhere, for as long as a `with` block lasts.
"""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from tests import (
    test_backend,
    test_choosing,
    test_decoder,
    test_generate,
)
from tests.data import test_batches
from tests.nn import (
    test_adam,
    test_cross_entropy,
    test_dense,
    test_dropout,
    test_embedding,
    test_lstm,
)


@dataclass(frozen=True)
class Mutant:
    name: str
    function: str  # "module.function" or "module.Class.method", without the leading "minicap."
    old: str  # occurs exactly once in the function's source
    new: str
    caught_by: Callable[[], None]


@contextlib.contextmanager
def planted(mutant):
    """The function runs the mutant's code instead of its own, whoever has imported it."""
    module_name, function_name = mutant.function.split(":")
    module = importlib.import_module(f"minicap.{module_name}")
    function = module
    for name in function_name.split("."):
        function = getattr(function, name)
    function = inspect.unwrap(function)  # whatever its decorators do, they do to the mutant
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: not exactly once in {mutant.function}: {mutant.old!r}")
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
OPEN, CELL_BACK = "nn.lstm:gate_activations", "nn.lstm:cell_backward"
LOSS = "nn.cross_entropy:project_cross_entropy"
OUTPUTS, DECODER, ADAM = "decoder:outputs", "decoder:caption_loss", "nn.adam:Adam.update"
BLOCKS, CLIP = "backend:blocks", "nn.adam:clip_scale"
SEARCH, BANS = "generate:_search", "generate:_bans"

# Wrong backward passes beside right forward passes: the complex step finds every one of them.
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
        "dense: W in the place of its transpose",
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
        "dense: the activation's slope forgotten",
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
        "elu: exp of the output instead of the input",
        ELU,
        "dy * (xp.minimum(y, 0) + 1)",
        "dy * xp.exp(xp.minimum(y, 0))",
        test_dense.test_complex_step_with_elu_and_square_weights,
    ),
    Mutant(
        "dropout: no mask on the way back",
        "nn.dropout:dropout",
        "return dy * mask",
        "return dy",
        test_dropout.test_complex_step,
    ),
    Mutant(
        "dropout: mask twice on the way back",
        "nn.dropout:dropout",
        "return dy * mask",
        "return dy * mask * mask",
        test_dropout.test_complex_step,
    ),
    Mutant(
        "dropout: mask without its scale on the way back",
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
        CELL_BACK,
        "(dc, j, out=di)  # from 2\n    xp.multiply(dc, i, out=dj)",
        "(dc, i, out=di)\n    xp.multiply(dc, j, out=dj)",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: gradients of f and o swapped",
        CELL_BACK,
        "out=df)  # from 2\n    xp.multiply(dh, t, out=do)",
        "out=do)\n    xp.multiply(dh, t, out=df)",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: no slope of tanh(c)",
        CELL_BACK,
        "dh * o * (1 - t * t)",
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
        "lstm_step: the new cell instead of the old at the forget gate",
        STEP,
        "cell_backward(dh, dc, c, t,",
        "cell_backward(dh, dc, c_next, t,",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: the cell instead of its tanh at the output gate",
        CELL_BACK,
        "xp.multiply(dh, t, out",
        "xp.multiply(dh, xp.arctanh(t), out",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: dc not carried from the next step",
        CELL_BACK,
        "dc = dc + dh * o",
        "dc = dh * o",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm_step: dc goes back without the forget gate",
        CELL_BACK,
        "return dc * f",
        "return dc",
        test_lstm.test_complex_step_of_a_step,
    ),
    Mutant(
        "lstm: dh not carried from the next step",
        LSTM,
        "dh_t = dh[rows] + carry_h[:size]",
        "dh_t = dh[rows]",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: dh of other sequences carried",
        LSTM,
        "dh[rows] + carry_h[:size]",
        "dh[rows] + carry_h[-size:]",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: dh of all later steps carried at once",
        LSTM,
        "multiply_few_rows(dz_t, UT, carry_h[:size])",
        "carry_h[:size] += dz_t @ UT",
        test_lstm.test_complex_step_of_ragged_sequences,
    ),
    Mutant(
        "lstm: h after the step instead of before it in dU",
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
        "loss: the target's 1 forgotten",
        LOSS,
        "e[rows, targets] -= s",
        "pass",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: 1 taken from e, which is not normalised yet",
        LOSS,
        "e[rows, targets] -= s",
        "e[rows, targets] -= 1",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: never normalised",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(scale * dloss + 0 * s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: weights forgotten on the way back",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(dloss / divisor / s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: gradient from above ignored",
        LOSS,
        "(scale * dloss / s)[:, None]",
        "(scale / s)[:, None]",
        test_cross_entropy.test_complex_step,
    ),
    Mutant(
        "loss: gradient divided by the number of rows once more",
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
        "decoder: each photo's gradient from its first word only",
        OUTPUTS,
        "back_deal_photos(dzx)",
        "dzx[: len(photo)]",
        test_decoder.test_complex_step_of_a_photo_that_is_always_seen,
    ),
    Mutant(
        "decoder: dropout of the features only where they make h0",
        OUTPUTS,
        "matmul(photo.T, ",
        "matmul(batch.features.T, ",
        test_decoder.test_complex_step_of_a_photo_that_is_always_seen,
    ),
    Mutant(
        "decoder: dh0 without dc0",
        OUTPUTS,
        "back_image(dh0 + dc0, ",
        "back_image(dh0, ",
        test_decoder.test_complex_step_trained,
    ),
    Mutant(
        "decoder: dropout of the logit bottleneck only on the way forward",
        OUTPUTS,
        "dy = back_dropout_y(dy)",
        "pass",
        test_decoder.test_complex_step_trained_with_dropout,
    ),
    Mutant(
        "decoder: dropout before dense layers only on the way forward",
        "decoder:dense_layers",
        "back_dropout(dx) if needed else None",
        "dx",
        test_decoder.test_complex_step_trained_with_dropout,
    ),
]

# Right derivatives of the wrong function, and optimisers: the complex step is blind to these.
OTHER = [
    Mutant(
        "lstm_step: no forget bias",
        OPEN,
        "xp.add(z, shift, out",
        "xp.add(z, 0, out",
        test_lstm.test_untrained_cell_remembers,
    ),
    Mutant(
        "lstm_step: gates f and o swapped, forwards and backwards",
        "nn.lstm:split_gates",
        "a[:, 2 * H : 3 * H], a[:, 3 * H :]",
        "a[:, 3 * H :], a[:, 2 * H : 3 * H]",
        test_lstm.test_step_is_tensorflows_cell_number_by_number,
    ),
    Mutant(
        "loss: log-sum-exp without its shift given back",
        LOSS,
        "xp.log(s) + shift - target_logits",
        "xp.log(s) - target_logits",
        test_cross_entropy.test_huge_logits_do_not_overflow,
    ),
    Mutant(
        "loss: a hit for every word",
        LOSS,
        "target_logits.real == shift",
        "target_logits.real <= shift",
        test_cross_entropy.test_hits_say_where_the_target_is_the_likeliest,
    ),
    Mutant(
        "decoder: divided by the number of captions",
        DECODER,
        "divisor = batch.targets.shape[0] if",
        "divisor = batch.features.shape[0] if",
        test_decoder.test_writing_word_by_word_equals_the_loss,
    ),
    Mutant(
        "decoder: divided by N * T, padding counted",
        DECODER,
        "divisor = batch.targets.shape[0] if",
        "divisor = batch.features.shape[0] * len(batch.sizes) if",
        test_decoder.test_writing_word_by_word_equals_the_loss,
    ),
    Mutant(
        "decoder: writing starts every step from an empty cell",
        "decoder:next_word",
        "step(z, c, out=z)",
        "step(z, 0 * c, out=z)",
        test_decoder.test_writing_word_by_word_equals_the_loss,
    ),
    Mutant(
        "search: states not re-ordered with their hypotheses",
        SEARCH,
        "tuple(array[row] for array in state)",
        "tuple(array[numpy.sort(row)] for array in state)",
        test_generate.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "search: finished captions go on",
        SEARCH,
        "pool.finished[new] = ids == rules.end",
        "pool.finished[new] = False",
        test_generate.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: finished captions are forgotten",
        SEARCH,
        "frozen = numpy.flatnonzero(held.finished)",
        "frozen = numpy.flatnonzero(held.finished)[:0]",
        test_generate.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: the beam is shared by all pictures",
        SEARCH,
        "numpy.searchsorted(picture, picture)",
        "0",
        test_generate.test_order_changes_no_caption,
    ),
    Mutant(
        "search: likelier captions last",
        SEARCH,
        "-pool.scores",
        "pool.scores",
        test_generate.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: #END# does not count as a word",
        "generate:Hypotheses.scores",
        "numpy.maximum(self.length, 1)",
        "numpy.maximum(self.length - self.finished, 1)",
        test_generate.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: all captions are as long as the longest",
        "generate:Hypotheses.scores",
        "numpy.maximum(self.length, 1)",
        "max(self.length.max(initial=1), 1)",
        test_generate.test_a_wide_beam_is_the_whole_tree,
    ),
    Mutant(
        "search: an ensemble adds up its logits",
        "generate:beam_search",
        "Wb /= len(decoders)",
        "pass",
        test_generate.test_decoders_write_by_the_mean_of_their_log_probabilities,
    ),
    Mutant(
        "search: all pictures draw with the first one's luck",
        SEARCH,
        "chances[held.picture[going], step]",
        "chances[0 * held.picture[going], step]",
        test_generate.test_drawn_captions_come_as_often_as_they_are_likely,
    ),
    Mutant(
        "bans: only the last word is compared",
        BANS,
        ".all(axis=2)",
        "[:, :, -1:].all(axis=2)",
        test_generate.test_no_triple_of_words_is_blocked_that_is_new,
    ),
    Mutant(
        "bans: #END# one word too late",
        BANS,
        "if t < writing.min_length",
        "if t <= writing.min_length",
        test_generate.test_min_length_is_the_least_and_no_more,
    ),
    Mutant(
        "candidates: banned words taken out of the probability",
        "choosing:candidates",
        "e[every, bans] = barred",
        "pass",
        test_generate.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "likeliest: the word found last is lost to the probability",
        "choosing:likeliest",
        "reversed(range(k))",
        "reversed(range(k - 1))",
        test_generate.test_scores_of_a_beam_are_those_of_training,
    ),
    Mutant(
        "draw: the same chance twice",
        "choosing:draw",
        "_place(stretches[every, stretch], left)",
        "_place(stretches[every, stretch], xp.minimum(chance, BELOW_1))",
        test_choosing.test_draws_from_a_hundred_words,
    ),
    Mutant(
        "draw: times the temperature instead of divided by it",
        "choosing:draw",
        "/ max(temperature, 1e-30)",
        "* max(temperature, 1e-30)",
        test_choosing.test_draws_are_from_the_set,
    ),
    Mutant(
        "likely: the nucleus is one word short",
        "choosing:likely",
        "more = (so_far <",
        "more = (so_far[:, 1:] <",
        test_choosing.test_each_row_has_its_own_set,
    ),
    Mutant(
        "batches: each word's target is the word itself",
        "data.batches:pack",
        "by_step[1 : steps + 1][going]",
        "by_step[:steps][going]",
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
        test_backend.test_repeated_ids_are_added_every_time,
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
        "range(share * block, rows, shares * block)",
        "range(share * block, block, block)",
        test_adam.test_every_block_is_updated_alike,
    ),
    Mutant(
        "adam: shares overlap",
        BLOCKS,
        "shares * block)",
        "block)",
        test_adam.test_shares_of_a_step_change_nothing,
    ),
    Mutant(
        "clip: each part by itself",
        CLIP,
        "math.sqrt(math.fsum(map(float, squares)))",
        "max(map(math.sqrt, squares))",
        test_adam.test_clipping_is_over_all_parts_together,
    ),
    Mutant(
        "clip: short gradients are lengthened",
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
        test_adam.test_clipping_is_over_all_parts_together,
    ),
]
