"""The decoder: its loss and every gradient, checked as a whole."""

import dataclasses

import numpy
import pytest

from minicap.data.batches import pack
from minicap.model.config import Sizes
from minicap.model.decoder import caption_loss, initial_state, next_word
from minicap.model.gradient_cases import as_float64, decoder_case
from minicap.model.initial import initialise
from minicap.model.masks import draw_masks
from minicap.nn.adam import Adam
from minicap.nn.dense import affine
from minicap.nn.gradient_check import (
    CENTRAL_DIFFERENCE_TOLERANCE,
    COMPLEX_STEP_TOLERANCE,
    check_coordinates,
    check_loss,
    gradients_of,
)
from minicap.nn.parameters import Parameters
from tests.checks import SEEDS, assert_small

# Which of a batch's captions, distinct words or rows a layer's dropout mask has one row for.
MASK_ROWS = {
    "features": "captions",
    "img_embed_bottleneck_to_h0": "captions",
    "lstm": "words",
    "token_logits_bottleneck": "rows",
    "token_logits": "rows",
}


def case(seed=0, **options):
    return decoder_case(numpy.random.default_rng(seed), **options)


def assert_decoder_complex_step(steps, dropout, **widths):
    for seed in SEEDS:
        p, batch, masks = case(seed, steps=steps, **widths)
        masks = masks if dropout else None
        errors = check_loss(
            lambda p, batch=batch, masks=masks: caption_loss(p, batch, masks=masks),
            p,
            numpy.random.default_rng(seed),
        )
        assert_small(errors, COMPLEX_STEP_TOLERANCE)


def test_the_case_has_what_it_is_for():
    """Ragged lengths, a word that is repeated, a single target, a caption without #END#, masks
    that drop something, and #PAD# and #END#, which are never an input."""
    _, batch, masks = case()
    assert batch.sizes == [5, 4, 4, 3, 1, 1]
    assert len(batch.words) < len(batch.positions) and not {0, 2} & set(batch.words.tolist())
    assert (batch.targets == 2).sum() == 4
    assert all((mask == 0).any() for mask in masks.values()) and masks.keys() == MASK_ROWS.keys()


@pytest.mark.gradcheck
def test_complex_step_untrained():
    assert_decoder_complex_step(steps=0, dropout=False)


@pytest.mark.gradcheck
def test_complex_step_untrained_with_dropout():
    """Where dropout takes a whole row while biases are 0, the ELU is looked at exactly in 0."""
    assert_decoder_complex_step(steps=0, dropout=True)


@pytest.mark.gradcheck
def test_complex_step_trained():
    assert_decoder_complex_step(steps=20, dropout=False)


@pytest.mark.gradcheck
def test_complex_step_trained_with_dropout():
    assert_decoder_complex_step(steps=20, dropout=True)


ALWAYS = {"photo": "always", "image_bottleneck": 0}
SHAPES = [
    {"image_bottleneck": image, "logit_bottleneck": logit, "photo": photo}
    for image in (0, 4)
    for logit in (0, 6)
    for photo in ("first", "always")
]


@pytest.mark.gradcheck
@pytest.mark.parametrize("widths", SHAPES, ids=lambda w: "-".join(map(str, w.values())))
def test_complex_step_of_every_shape(widths):
    """With and without either bottleneck, with the photo seen first or always."""
    assert_decoder_complex_step(steps=20, dropout=True, **widths)


@pytest.mark.gradcheck
def test_complex_step_of_a_photo_that_is_always_seen():
    """As one of the above; by name, for the mutants."""
    assert_decoder_complex_step(steps=20, dropout=True, **ALWAYS)


@pytest.mark.gradcheck
def test_complex_step_of_a_single_caption_of_one_word():
    p, _, _ = case(steps=20)
    batch = pack(numpy.ones((1, 5)), numpy.array([[1, 4]]), numpy.array([2]))
    errors = check_loss(lambda p: caption_loss(p, batch), p, numpy.random.default_rng(0))
    assert_small(errors, COMPLEX_STEP_TOLERANCE)


@pytest.mark.gradcheck
@pytest.mark.parametrize("widths", [{}, ALWAYS], ids=["usual", "photo always"])
@pytest.mark.parametrize("dropout", [False, True])
def test_central_differences(dropout, widths):
    p, batch, masks = case(steps=20, **widths)
    errors = check_coordinates(
        lambda p: caption_loss(p, batch, masks=masks if dropout else None), p
    )
    assert_small(errors, CENTRAL_DIFFERENCE_TOLERANCE)


@pytest.mark.gradcheck
def test_padding_and_unused_words_get_exactly_zero_gradient():
    """More padding, and other words in it, change no bit of the loss or of any gradient; words
    that are no input of the batch (#PAD# and #END# among them) have gradient 0, all others not."""
    p, _, _ = case(steps=20)
    ids = numpy.array([[1, 4, 5, 2, 0], [1, 6, 2, 0, 0]])
    lengths, features = numpy.array([4, 3]), numpy.ones((2, 5))
    padded = numpy.hstack([ids, numpy.zeros((2, 3), dtype=int)])
    padded[:, 4:] = 8
    padded[1, 3] = 7
    losses, gradients = [], []
    for which in ids, padded:
        batch = pack(features, which, lengths)
        losses.append(caption_loss(p, batch)[0])
        gradients.append(gradients_of(lambda p, batch=batch: caption_loss(p, batch), p))
    assert losses[0] == losses[1]
    for name in p:
        assert (gradients[0][name] == gradients[1][name]).all()
    has_gradient = gradients[0]["word_embed"].any(axis=1)
    assert has_gradient.nonzero()[0].tolist() == [1, 4, 5, 6]


@pytest.mark.gradcheck
@pytest.mark.parametrize("widths", [{}, ALWAYS], ids=["usual", "photo always"])
@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_shares_of_the_workers_add_up_to_the_batch(workers, widths):
    """With the batch's divisor and its masks cut along: sums of losses and of gradients agree to
    1e-12; one worker agrees to the bit. (9 workers find 5 captions.)"""
    p, batch, masks = case(steps=20, **widths)
    loss, backward = caption_loss(p, batch, masks=masks)
    whole = p.like()
    backward(whole)
    total, summed = 0.0, p.like()
    for share, held in batch.split(workers):
        share_masks = {name: mask[held[MASK_ROWS[name]]] for name, mask in masks.items()}
        share_loss, backward = caption_loss(p, share, len(batch.targets), share_masks)
        gradients = p.like()
        backward(gradients)
        total += share_loss
        summed.flat += gradients.flat
    tolerance = 0 if workers == 1 else 1e-12
    numpy.testing.assert_allclose(total, loss, rtol=0, atol=tolerance)
    numpy.testing.assert_allclose(summed.flat, whole.flat, rtol=0, atol=tolerance)


def surprise_word_by_word(p, features, caption):
    """-log of each word's probability, from the generation step, one word at a time."""
    state, surprise = initial_state(p, features[None]), []
    for word, following in zip(caption, caption[1:], strict=False):
        y, *state = next_word(p, numpy.array([word]), *state)
        logits = affine(y, p["token_logits"])[0]
        logits -= logits.max()
        surprise.append(numpy.log(numpy.exp(logits).sum()) - logits[following])
    return surprise


@pytest.mark.gradcheck
def test_writing_word_by_word_equals_the_loss():
    """Generation and training are the same model, to 1e-12; and the loss is the mean over all
    real words, not a mean of means."""
    for widths in SHAPES:
        assert_writing_equals_the_loss(case(steps=20, **widths)[0])


@pytest.mark.gradcheck
def test_writing_with_a_photo_that_is_always_seen_equals_the_loss():
    assert_writing_equals_the_loss(case(steps=20, **ALWAYS)[0])


def assert_writing_equals_the_loss(p):
    captions = [[1, 4, 4, 5, 2], [1, 7], [1, 3, 2]]
    features = numpy.random.default_rng(0).standard_normal((3, 5))
    lengths = numpy.array([len(caption) for caption in captions])
    ids = numpy.zeros((3, 5), dtype=int)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    surprises = [
        surprise_word_by_word(p, image, caption)
        for image, caption in zip(features, captions, strict=True)
    ]
    loss, _ = caption_loss(p, pack(features, ids, lengths))
    assert loss == pytest.approx(sum(map(sum, surprises)) / 7, rel=1e-12, abs=0)


def test_hits_count_the_words_that_are_likeliest():
    p, batch, _ = case(steps=20)
    correct = numpy.zeros(len(batch.targets), dtype=bool)
    loss, _ = caption_loss(p, batch, correct=correct)
    assert 0 < correct.sum() < len(correct)
    # With a bias that makes one word certain, correct are where this word is the target.
    p["token_logits"][-1, 4] = 1e3
    caption_loss(p, batch, correct=correct)
    assert (correct == (batch.targets == 4)).all()


# What comes out at the start, and what can be learned


def random_batch(rng, sizes, captions=64, longest=12, dtype="float32"):
    features = rng.standard_normal((captions, sizes.feature)).astype(dtype)
    ids = rng.integers(0, sizes.vocabulary, (captions, longest))
    return pack(features, ids, rng.integers(2, longest + 1, captions))


def test_first_loss_is_log_V():
    """An untrained decoder knows nothing. Its logits have, at the default sizes, a standard
    deviation of s = 0.05, and nothing to do with the targets: one expects log V + s^2 / 2, that
    is 0.0013 more than log V, and 0.0026, s / sqrt(400), more or less from 400 words."""
    rng = numpy.random.default_rng(0)
    sizes = Sizes(vocabulary=5000)
    loss, _ = caption_loss(initialise(sizes, rng), random_batch(rng, sizes))
    assert abs(loss - numpy.log(5000) - 0.0013) < 4 * 0.0026


def test_frequency_bias_starts_at_the_unigram_entropy():
    """Exactly: with no kernel and log frequencies as the bias, the softmax is the frequencies.
    Words that do not occur get so low a bias that their exp is 0."""
    p, batch, _ = case()
    frequencies = numpy.bincount(batch.targets, minlength=9) / len(batch.targets)
    p["token_logits"][:-1] = 0
    p["token_logits"][-1] = numpy.log(frequencies, out=numpy.full(9, -1e4), where=frequencies > 0)
    seen = frequencies[frequencies > 0]
    loss, _ = caption_loss(p, batch)
    assert loss == pytest.approx(-(seen * numpy.log(seen)).sum(), rel=1e-14, abs=0)


def test_fifty_captions_can_be_learned_by_heart():
    """From a loss of log 30 = 3.4 to nearly nothing, in float32 as in training; in the end every
    word is the likeliest one."""
    rng = numpy.random.default_rng(0)
    sizes = Sizes(30, feature=40, image_bottleneck=24, hidden=48, embedding=16, logit_bottleneck=24)
    p = initialise(sizes, rng)
    batch = random_batch(rng, sizes, captions=50, longest=7)
    gradients, adam = p.like(), Adam(p.flat, learning_rate=0.01)
    for _ in range(100):
        loss, backward = caption_loss(p, batch)
        backward(gradients)
        adam.step(gradients.flat)
    assert loss < 0.01
    correct = numpy.zeros(len(batch.targets), dtype=bool)
    caption_loss(p, batch, correct=correct)
    assert correct.all()


def test_ten_recorded_steps():
    """The losses of ten Adam steps from a start that no random stream has a part in: whatever
    changes the calculus, in a way that all other tests may agree with, shows here."""
    p = Parameters(Sizes(8, 3, 4, 5, 2, 6).shapes(), "float64")
    p.flat[:] = 0.3 * numpy.sin(numpy.arange(len(p.flat)))
    features = numpy.cos(numpy.arange(9.0)).reshape(3, 3)
    batch = pack(features, numpy.arange(15).reshape(3, 5) % 8, numpy.array([5, 3, 2]))
    gradients, adam, losses = p.like(), Adam(p.flat, learning_rate=0.05), []
    for _ in range(10):
        loss, backward = caption_loss(p, batch)
        losses.append(loss)
        backward(gradients)
        adam.step(gradients.flat)
    recorded = """2.0313112243104987 1.955039601697822 1.8882177395650337 1.8100814566970431
    1.712984514388149 1.6046391624190337 1.498381346601235 1.389350567106799 1.270123920065876
    1.1486042236659317"""
    numpy.testing.assert_allclose(losses, numpy.array(recorded.split(), float), rtol=1e-10)


# float32, in which the decoder is trained


def test_float32_agrees_with_float64():
    """Each gradient to 1e-5 of its length. float32 keeps 6e-8 of each number; sums of some
    hundred rounded products, through six layers and ten steps, leave about 5e-7. No gradient,
    and no loss, has turned into float64 on the way."""
    rng = numpy.random.default_rng(0)
    sizes = Sizes(
        200, feature=64, image_bottleneck=24, hidden=48, embedding=32, logit_bottleneck=24
    )
    p = initialise(sizes, rng)
    batch = random_batch(rng, sizes)
    masks = draw_masks(rng, 0.3, 0.3, sizes, batch.counts)
    found = {}
    for q in p, as_float64(p):
        exact = q.flat.dtype == numpy.float64
        b = dataclasses.replace(batch, features=batch.features.astype(q.flat.dtype))
        loss, backward = caption_loss(q, b, masks=masks)
        gradients = q.like()
        backward(gradients)
        assert loss.dtype == gradients.flat.dtype == q.flat.dtype
        found[exact] = loss, gradients
    assert found[False][0] == pytest.approx(found[True][0], rel=1e-6)
    for name in p:
        error = numpy.linalg.norm(found[False][1][name] - found[True][1][name])
        assert error < 1e-5 * numpy.linalg.norm(found[True][1][name]), name


def test_initialise_is_tensorflows():
    """Kernels within their Glorot bound, embeddings within 0.05, every bias exactly 0."""
    sizes = Sizes(vocabulary=500, feature=64)
    p = initialise(sizes, numpy.random.default_rng(0))
    assert p.flat.dtype == numpy.float32
    assert 0.0499 < numpy.abs(p["word_embed"]).max() <= 0.05
    for name in p.keys() - {"word_embed"}:
        fan_in, fan_out = p[name].shape[0] - 1, p[name].shape[1]
        limit = numpy.sqrt(6 / (fan_in + fan_out))
        assert (p[name][-1] == 0).all()
        assert 0.99 * limit < numpy.abs(p[name][:-1]).max() <= limit * (1 + 1e-7)
    assert p["lstm"].shape == (300 + 100 + 1, 1200)


def test_the_shape_of_every_parameter():
    shapes = {
        "img_embed_to_bottleneck": (6, 4),
        "img_embed_bottleneck_to_h0": (5, 3),
        "word_embed": (9, 4),
        "lstm": (8, 12),
        "token_logits_bottleneck": (4, 6),
        "token_logits": (7, 9),
    }
    assert list(Sizes(9, 5, 4, 3, 4, 6).shapes().items()) == list(shapes.items())
    always = shapes | {"lstm": (5 + 3 + 4 + 1, 12)}
    assert Sizes(9, 5, 4, 3, 4, 6, "always").shapes() == always


def test_initialise_with_a_quieter_photo_and_frequencies():
    """Only the kernels that see the photo are smaller, and only the last bias is not 0."""
    counts = numpy.arange(1.0, 51)
    for widths in ({}, {"image_bottleneck": 0}, {"photo": "always"}):
        sizes = Sizes(vocabulary=50, feature=64, **widths)
        usual = initialise(sizes, numpy.random.default_rng(0))
        other = initialise(sizes, numpy.random.default_rng(0), image_gain=0.5, frequencies=counts)
        assert numpy.allclose(numpy.exp(other["token_logits"][-1]), counts / counts.sum())
        other["token_logits"][-1] = 0
        quiet = {name for name in usual if (usual[name] != other[name]).any()}
        first = "img_embed_bottleneck_to_h0" if widths.get("image_bottleneck") == 0 else None
        expected = {first or "img_embed_to_bottleneck"}
        if "photo" in widths:
            expected.add("lstm")
            assert (usual["lstm"][64:] == other["lstm"][64:]).all()
            assert numpy.allclose(usual["lstm"][:64], 2 * other["lstm"][:64])
        assert quiet == expected
        layer = first or "img_embed_to_bottleneck"
        assert numpy.allclose(usual[layer], 2 * other[layer])


# PyTorch as an oracle


def torch_loss(torch, sizes, p, features, ids, lengths):
    """The same decoder, built from PyTorch's own layers, on padded captions in their own order.

    torch.nn.LSTM has the gates in the order i, f, g, o (its g is our j), weights as (gates,
    inputs), two biases, and no forget bias: the 1 is added here.
    """
    functional, H = torch.nn.functional, sizes.hidden

    def linear(x, name):
        return x @ p[name][:-1] + p[name][-1]

    h0 = functional.elu(linear(features, "img_embed_to_bottleneck"))
    h0 = functional.elu(linear(h0, "img_embed_bottleneck_to_h0"))
    h0 = h0[None]
    i, j, f, o = torch.arange(4 * H).reshape(4, H)
    forget = torch.zeros(4 * H, dtype=torch.float64)
    forget[H : 2 * H] = 1
    U_W_b = p["lstm"][:, torch.cat([i, f, j, o])]
    weights = {
        "weight_hh_l0": U_W_b[:H].T,
        "weight_ih_l0": U_W_b[H:-1].T,
        "bias_ih_l0": U_W_b[-1],
        "bias_hh_l0": forget,
    }
    layer = torch.nn.LSTM(sizes.embedding, H, batch_first=True, dtype=torch.float64)
    words = functional.embedding(ids[:, :-1], p["word_embed"])
    h, _ = torch.func.functional_call(layer, weights, (words, (h0, h0)))
    logits = linear(functional.elu(linear(h, "token_logits_bottleneck")), "token_logits")
    real = torch.arange(1, ids.shape[1]) < lengths[:, None]
    return functional.cross_entropy(logits[real], ids[:, 1:][real])


def oracle_case():
    """Sizes, float64 parameters with no zero among them, features, ids, lengths; and torch."""
    torch = pytest.importorskip("torch", reason="the oracle needs PyTorch")
    torch.set_num_threads(1)  # matrices this small are only slowed down by threads
    rng = numpy.random.default_rng(0)
    sizes = Sizes(11, 8, image_bottleneck=6, hidden=5, embedding=4, logit_bottleneck=7)
    p = as_float64(initialise(sizes, rng))
    p.flat += 0.1 * rng.standard_normal(p.flat.shape)
    lengths = numpy.array([4, 7, 2, 5, 5])
    features, ids = rng.standard_normal((5, 8)), rng.integers(0, 11, (5, 7))
    return torch, sizes, p, (features, ids, lengths)


def test_pytorch_agrees_on_the_loss_and_every_gradient():
    torch, sizes, p, arrays = oracle_case()
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in p.items()}
    expected = torch_loss(torch, sizes, theirs, *map(torch.tensor, arrays))
    expected.backward()
    loss, backward = caption_loss(p, pack(*arrays))
    gradients = p.like()
    backward(gradients)
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    for name in p:
        gradient = theirs[name].grad.numpy()
        error = numpy.linalg.norm(gradients[name] - gradient)
        assert error <= 1e-10 * numpy.linalg.norm(gradient), name


def test_twenty_adam_steps_agree_with_pytorch():
    """Ours divides by sqrt(v) + epsilon, with sqrt(1 - beta2^t) in the rate; PyTorch by
    sqrt(v) / sqrt(1 - beta2^t) + its epsilon. Take sqrt(1 - beta2^t) out of the latter: both are
    the same if PyTorch's epsilon is epsilon / sqrt(1 - beta2^t), set anew for each step. Our
    epsilon is large here, so that it plays a part."""
    torch, sizes, p, arrays = oracle_case()
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in p.items()}
    optimiser = torch.optim.Adam(theirs.values(), lr=0.01)
    tensors = [torch.tensor(array) for array in arrays]
    gradients, adam, batch = p.like(), Adam(p.flat, 0.01, epsilon=1e-4), pack(*arrays)
    for t in range(1, 21):
        caption_loss(p, batch)[1](gradients)
        adam.step(gradients.flat)
        optimiser.zero_grad()
        torch_loss(torch, sizes, theirs, *tensors).backward()
        optimiser.param_groups[0]["eps"] = adam.epsilon / numpy.sqrt(1 - adam.beta2**t)
        optimiser.step()
    for name in p:
        numpy.testing.assert_allclose(p[name], theirs[name].detach().numpy(), rtol=0, atol=1e-10)
