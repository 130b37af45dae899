"""The decoder: its loss and every gradient, checked as a whole."""

import dataclasses

import numpy
import pytest

from minicap.data.batches import pack
from minicap.model.config import DecoderConfig
from minicap.model.decoder import NO_MASKS, Decoder
from minicap.model.gradient_cases import as_float64, decoder_case, loss_of
from minicap.model.initial import initial_parameters
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

# What each row of a layer's dropout mask belongs to.
MASK_ROWS = {
    "features": "captions",
    "img_embed_bottleneck_to_h0": "captions",
    "lstm": "words",
    "token_logits_bottleneck": "rows",
    "token_logits": "rows",
}


def case(seed=0, **options):
    return decoder_case(numpy.random.default_rng(seed), **options)


def assert_decoder_complex_step(steps, dropout, **sizes):
    for seed in SEEDS:
        decoder, batch, masks = case(seed, steps=steps, **sizes)
        loss = loss_of(decoder.config, batch, masks if dropout else NO_MASKS)
        errors = check_loss(loss, decoder.parameters, numpy.random.default_rng(seed))
        assert_small(errors, COMPLEX_STEP_TOLERANCE)


def test_the_case_covers_what_it_should():
    """Ragged lengths, a repeated word, a single target, a caption without #END#, masks that drop
    something, and #PAD# and #END# never an input."""
    _, batch, masks = case()
    assert batch.batch_sizes == [5, 4, 4, 3, 1, 1]
    assert len(batch.words) < len(batch.positions) and not {0, 2} & set(batch.words.tolist())
    assert (batch.targets == 2).sum() == 4
    assert all((mask == 0).any() for mask in masks.values()) and masks.keys() == MASK_ROWS.keys()


@pytest.mark.gradcheck
def test_complex_step_untrained():
    assert_decoder_complex_step(steps=0, dropout=False)


@pytest.mark.gradcheck
def test_complex_step_untrained_with_dropout():
    """Where dropout drops a whole row while biases are 0, the ELU is evaluated exactly at 0."""
    assert_decoder_complex_step(steps=0, dropout=True)


@pytest.mark.gradcheck
def test_complex_step_trained():
    assert_decoder_complex_step(steps=20, dropout=False)


@pytest.mark.gradcheck
def test_complex_step_trained_with_dropout():
    assert_decoder_complex_step(steps=20, dropout=True)


EVERY_STEP = {"image_input": "every_step", "image_bottleneck": 0}
SIZES = [
    {"image_bottleneck": image, "logit_bottleneck": logit, "image_input": image_input}
    for image in (0, 4)
    for logit in (0, 6)
    for image_input in ("initial_state", "every_step")
]


@pytest.mark.gradcheck
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_complex_step_of_every_architecture(sizes):
    """With and without either bottleneck, with the image in the initial state or at every step."""
    assert_decoder_complex_step(steps=20, dropout=True, **sizes)


@pytest.mark.gradcheck
def test_complex_step_with_the_image_at_every_step():
    """One of the above, under a name for the mutants."""
    assert_decoder_complex_step(steps=20, dropout=True, **EVERY_STEP)


@pytest.mark.gradcheck
def test_complex_step_of_a_single_caption_of_one_word():
    decoder, _, _ = case(steps=20)
    batch = pack(numpy.ones((1, 5)), numpy.array([[1, 4]]), numpy.array([2]))
    loss = loss_of(decoder.config, batch)
    errors = check_loss(loss, decoder.parameters, numpy.random.default_rng(0))
    assert_small(errors, COMPLEX_STEP_TOLERANCE)


@pytest.mark.gradcheck
@pytest.mark.parametrize("sizes", [{}, EVERY_STEP], ids=["usual", "every_step"])
@pytest.mark.parametrize("dropout", [False, True])
def test_central_differences(dropout, sizes):
    decoder, batch, masks = case(steps=20, **sizes)
    loss = loss_of(decoder.config, batch, masks if dropout else NO_MASKS)
    assert_small(check_coordinates(loss, decoder.parameters), CENTRAL_DIFFERENCE_TOLERANCE)


@pytest.mark.gradcheck
def test_padding_and_unused_words_get_exactly_zero_gradient():
    """More padding, and other words in it, change no bit of the loss or of any gradient. Exactly
    the words that are not inputs of the batch, such as #PAD# and #END#, have gradient 0."""
    decoder, _, _ = case(steps=20)
    ids = numpy.array([[1, 4, 5, 2, 0], [1, 6, 2, 0, 0]])
    lengths, features = numpy.array([4, 3]), numpy.ones((2, 5))
    padded = numpy.hstack([ids, numpy.zeros((2, 3), dtype=int)])
    padded[:, 4:] = 8
    padded[1, 3] = 7
    losses, gradients = [], []
    for each in ids, padded:
        batch = pack(features, each, lengths)
        losses.append(decoder.loss(batch)[0])
        gradients.append(gradients_of(loss_of(decoder.config, batch), decoder.parameters))
    assert losses[0] == losses[1]
    for name in decoder.parameters:
        assert (gradients[0][name] == gradients[1][name]).all()
    has_gradient = gradients[0]["word_embed"].any(axis=1)
    assert has_gradient.nonzero()[0].tolist() == [1, 4, 5, 6]


@pytest.mark.gradcheck
@pytest.mark.parametrize("sizes", [{}, EVERY_STEP], ids=["usual", "every_step"])
@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_the_workers_parts_add_up_to_the_batch(workers, sizes):
    """With the batch's divisor and its masks split too, the sums of losses and of gradients agree
    to 1e-12; with one worker bitwise. (9 workers have 5 captions.)"""
    decoder, batch, masks = case(steps=20, **sizes)
    loss, backward = decoder.loss(batch, masks=masks)
    whole = decoder.parameters.like()
    backward(whole)
    total, summed = 0.0, decoder.parameters.like()
    for part, index in batch.split(workers):
        part_masks = {name: mask[index[MASK_ROWS[name]]] for name, mask in masks.items()}
        part_loss, backward = decoder.loss(part, len(batch.targets), part_masks)
        gradients = decoder.parameters.like()
        backward(gradients)
        total += part_loss
        summed.flat += gradients.flat
    tolerance = 0 if workers == 1 else 1e-12
    numpy.testing.assert_allclose(total, loss, rtol=0, atol=tolerance)
    numpy.testing.assert_allclose(summed.flat, whole.flat, rtol=0, atol=tolerance)


def negative_log_probabilities(decoder, features, caption):
    """Of each word, in nats, from the generation step, one word at a time."""
    state, found = decoder.initial_state(features[None]), []
    for word, target in zip(caption, caption[1:], strict=False):
        y, state = decoder.step(numpy.array([word]), state)
        logits = affine(y, decoder.parameters["token_logits"])[0]
        logits -= logits.max()
        found.append(numpy.log(numpy.exp(logits).sum()) - logits[target])
    return found


@pytest.mark.gradcheck
def test_generation_step_by_step_equals_the_loss():
    """Generation and training are the same model, to 1e-12, and the loss is the mean over all
    real words, not a mean of means."""
    for sizes in SIZES:
        assert_generation_equals_the_loss(case(steps=20, **sizes)[0])


@pytest.mark.gradcheck
def test_generation_with_the_image_at_every_step_equals_the_loss():
    assert_generation_equals_the_loss(case(steps=20, **EVERY_STEP)[0])


def assert_generation_equals_the_loss(decoder):
    captions = [[1, 4, 4, 5, 2], [1, 7], [1, 3, 2]]
    features = numpy.random.default_rng(0).standard_normal((3, 5))
    lengths = numpy.array([len(caption) for caption in captions])
    ids = numpy.zeros((3, 5), dtype=int)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    expected = [
        negative_log_probabilities(decoder, image, caption)
        for image, caption in zip(features, captions, strict=True)
    ]
    loss, _ = decoder.loss(pack(features, ids, lengths))
    assert loss == pytest.approx(sum(map(sum, expected)) / 7, rel=1e-12, abs=0)


def test_correct_marks_targets_that_are_the_likeliest_word():
    decoder, batch, _ = case(steps=20)
    correct = numpy.zeros(len(batch.targets), dtype=bool)
    decoder.loss(batch, correct=correct)
    assert 0 < correct.sum() < len(correct)
    # A bias that makes one word certain: correct where it is the target.
    decoder.parameters["token_logits"][-1, 4] = 1e3
    decoder.loss(batch, correct=correct)
    assert (correct == (batch.targets == 4)).all()


# An untrained decoder, and memorising captions


def untrained(rng, vocabulary, features=2048, config=None):
    """A decoder in float32, at the default sizes or at others."""
    config = config or DecoderConfig()
    return Decoder(config, initial_parameters(config, config.shapes(features, vocabulary), rng))


def random_batch(rng, vocabulary, features=2048, captions=64, longest=12):
    features = rng.standard_normal((captions, features)).astype("float32")
    ids = rng.integers(0, vocabulary, (captions, longest))
    return pack(features, ids, rng.integers(2, longest + 1, captions))


def test_first_loss_is_log_V():
    """The logits of an untrained decoder are independent of the targets. At the default sizes,
    their standard deviation is s = 0.05. The expected loss is log V + s^2 / 2, which is 0.0013
    above log V, with a standard error of s / sqrt(400) = 0.0026 from 400 words."""
    rng = numpy.random.default_rng(0)
    loss, _ = untrained(rng, 5000).loss(random_batch(rng, 5000))
    assert abs(loss - numpy.log(5000) - 0.0013) < 4 * 0.0026


def test_frequency_bias_starts_at_the_unigram_entropy():
    """With a kernel of 0 and log frequencies as the bias, the softmax is exactly the frequencies.
    Words that do not occur get a bias so low that its exp is 0."""
    decoder, batch, _ = case()
    p = decoder.parameters
    frequencies = numpy.bincount(batch.targets, minlength=9) / len(batch.targets)
    p["token_logits"][:-1] = 0
    p["token_logits"][-1] = numpy.log(frequencies, out=numpy.full(9, -1e4), where=frequencies > 0)
    seen = frequencies[frequencies > 0]
    loss, _ = decoder.loss(batch)
    assert loss == pytest.approx(-(seen * numpy.log(seen)).sum(), rel=1e-14, abs=0)


def test_fifty_captions_can_be_memorised():
    """From a loss of log 30 = 3.4 to almost 0, in float32 as in training. At the end, every target
    is the likeliest word."""
    rng = numpy.random.default_rng(0)
    decoder = untrained(rng, 30, 40, DecoderConfig(24, 48, 16, 24))
    p = decoder.parameters
    batch = random_batch(rng, 30, 40, captions=50, longest=7)
    gradients, adam = p.like(), Adam(p.flat, learning_rate=0.01)
    for _ in range(100):
        loss, backward = decoder.loss(batch)
        backward(gradients)
        adam.step(gradients.flat)
    assert loss < 0.01
    correct = numpy.zeros(len(batch.targets), dtype=bool)
    decoder.loss(batch, correct=correct)
    assert correct.all()


def test_ten_recorded_steps():
    """The losses of ten Adam steps from parameters that are not random. Changes of the calculations
    that all other tests accept are found here."""
    config = DecoderConfig(4, 5, 2, 6)
    p = Parameters(config.shapes(3, 8), "float64")
    decoder = Decoder(config, p)
    p.flat[:] = 0.3 * numpy.sin(numpy.arange(len(p.flat)))
    features = numpy.cos(numpy.arange(9.0)).reshape(3, 3)
    batch = pack(features, numpy.arange(15).reshape(3, 5) % 8, numpy.array([5, 3, 2]))
    gradients, adam, losses = p.like(), Adam(p.flat, learning_rate=0.05), []
    for _ in range(10):
        loss, backward = decoder.loss(batch)
        losses.append(loss)
        backward(gradients)
        adam.step(gradients.flat)
    recorded = """2.0313112243104987 1.955039601697822 1.8882177395650337 1.8100814566970431
    1.712984514388149 1.6046391624190337 1.498381346601235 1.389350567106799 1.270123920065876
    1.1486042236659317"""
    numpy.testing.assert_allclose(losses, numpy.array(recorded.split(), float), rtol=1e-10)


# float32, the dtype of training


def test_float32_agrees_with_float64():
    """Each gradient to 1e-5 of its norm. float32 rounds each number to 6e-8; sums of hundreds of
    rounded products, through six layers and ten steps, have errors of about 5e-7. No gradient and
    no loss has become float64."""
    rng = numpy.random.default_rng(0)
    config = DecoderConfig(24, 48, 32, 24)
    p = untrained(rng, 200, 64, config).parameters
    batch = random_batch(rng, 200, 64)
    masks = draw_masks(config, rng, (0.3,) * 3, 64, batch.counts)
    found = {}
    for q in p, as_float64(p):
        exact = q.flat.dtype == numpy.float64
        b = dataclasses.replace(batch, features=batch.features.astype(q.flat.dtype))
        loss, backward = Decoder(config, q).loss(b, masks=masks)
        gradients = q.like()
        backward(gradients)
        assert loss.dtype == gradients.flat.dtype == q.flat.dtype
        found[exact] = loss, gradients
    assert found[False][0] == pytest.approx(found[True][0], rel=1e-6)
    for name in p:
        error = numpy.linalg.norm(found[False][1][name] - found[True][1][name])
        assert error < 1e-5 * numpy.linalg.norm(found[True][1][name]), name


def test_initialisation_is_tensorflows():
    """Kernels within their Glorot bound, embeddings within 0.05, every bias exactly 0."""
    p = untrained(numpy.random.default_rng(0), 500, 64).parameters
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
    assert list(DecoderConfig(4, 3, 4, 6).shapes(5, 9).items()) == list(shapes.items())
    every_step = shapes | {"lstm": (5 + 3 + 4 + 1, 12)}
    assert DecoderConfig(4, 3, 4, 6, "every_step").shapes(5, 9) == every_step


def test_initialisation_with_a_smaller_image_gain_and_frequencies():
    """Only the kernels of the image are smaller, and only the last bias is not 0."""
    counts = numpy.arange(1.0, 51)
    for sizes in ({}, {"image_bottleneck": 0}, {"image_input": "every_step"}):
        config = DecoderConfig(**sizes)
        usual, other = (
            initial_parameters(config, config.shapes(64, 50), numpy.random.default_rng(0), **how)
            for how in ({}, {"image_gain": 0.5, "frequencies": counts})
        )
        assert numpy.allclose(numpy.exp(other["token_logits"][-1]), counts / counts.sum())
        other["token_logits"][-1] = 0
        changed = {name for name in usual if (usual[name] != other[name]).any()}
        first = "img_embed_bottleneck_to_h0" if sizes.get("image_bottleneck") == 0 else None
        expected = {first or "img_embed_to_bottleneck"}
        if "image_input" in sizes:
            expected.add("lstm")
            assert (usual["lstm"][64:] == other["lstm"][64:]).all()
            assert numpy.allclose(usual["lstm"][:64], 2 * other["lstm"][:64])
        assert changed == expected
        layer = first or "img_embed_to_bottleneck"
        assert numpy.allclose(usual[layer], 2 * other[layer])


# PyTorch as an oracle


def torch_loss(torch, config, p, features, ids, lengths):
    """The same decoder of PyTorch's own layers, on padded captions in their original order.

    torch.nn.LSTM has the gates in the order i, f, g, o (its g is our j), weights as (gates,
    inputs), two biases, and no forget bias: the 1 is added here.
    """
    functional, H = torch.nn.functional, config.hidden_size

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
    layer = torch.nn.LSTM(config.embedding_size, H, batch_first=True, dtype=torch.float64)
    words = functional.embedding(ids[:, :-1], p["word_embed"])
    h, _ = torch.func.functional_call(layer, weights, (words, (h0, h0)))
    logits = linear(functional.elu(linear(h, "token_logits_bottleneck")), "token_logits")
    real = torch.arange(1, ids.shape[1]) < lengths[:, None]
    return functional.cross_entropy(logits[real], ids[:, 1:][real])


def oracle_case():
    """PyTorch; a float64 decoder without zeros; features, ids and lengths."""
    torch = pytest.importorskip("torch", reason="the oracle needs PyTorch")
    torch.set_num_threads(1)  # faster for matrices this small
    rng = numpy.random.default_rng(0)
    config = DecoderConfig(6, 5, 4, 7)
    p = as_float64(untrained(rng, 11, 8, config).parameters)
    p.flat += 0.1 * rng.standard_normal(p.flat.shape)
    lengths = numpy.array([4, 7, 2, 5, 5])
    features, ids = rng.standard_normal((5, 8)), rng.integers(0, 11, (5, 7))
    return torch, Decoder(config, p), (features, ids, lengths)


def test_pytorch_agrees_on_the_loss_and_every_gradient():
    torch, decoder, arrays = oracle_case()
    p = decoder.parameters
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in p.items()}
    expected = torch_loss(torch, decoder.config, theirs, *map(torch.tensor, arrays))
    expected.backward()
    loss, backward = decoder.loss(pack(*arrays))
    gradients = p.like()
    backward(gradients)
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    for name in p:
        gradient = theirs[name].grad.numpy()
        error = numpy.linalg.norm(gradients[name] - gradient)
        assert error <= 1e-10 * numpy.linalg.norm(gradient), name


def test_twenty_adam_steps_agree_with_pytorch():
    """Ours divides by sqrt(v) + epsilon and has sqrt(1 - beta2^t) in the learning rate; PyTorch
    divides by sqrt(v) / sqrt(1 - beta2^t) + its epsilon. They agree if PyTorch's epsilon is
    epsilon / sqrt(1 - beta2^t) in each step. Our epsilon is large here, so that it matters."""
    torch, decoder, arrays = oracle_case()
    p = decoder.parameters
    theirs = {name: torch.tensor(x, requires_grad=True) for name, x in p.items()}
    optimiser = torch.optim.Adam(theirs.values(), lr=0.01)
    tensors = [torch.tensor(array) for array in arrays]
    gradients, adam, batch = p.like(), Adam(p.flat, 0.01, epsilon=1e-4), pack(*arrays)
    for t in range(1, 21):
        decoder.loss(batch)[1](gradients)
        adam.step(gradients.flat)
        optimiser.zero_grad()
        torch_loss(torch, decoder.config, theirs, *tensors).backward()
        optimiser.param_groups[0]["eps"] = adam.epsilon / numpy.sqrt(1 - adam.beta2**t)
        optimiser.step()
    for name in p:
        numpy.testing.assert_allclose(p[name], theirs[name].detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("image_input", ["initial_state", "every_step"])
def test_feature_dropout_reaches_every_place_that_reads_the_image(image_input):
    """The mask of the features has the effect of an image with zeros in those places."""
    decoder, batch, masks = case(image_input=image_input)
    mask = masks["features"]
    assert (mask == 0).any()
    loss, backward = decoder.loss(batch, masks={"features": mask})
    zeroed = dataclasses.replace(batch, features=batch.features * mask)
    expected_loss, expected_backward = decoder.loss(zeroed)
    gradients, expected = decoder.parameters.like(), decoder.parameters.like()
    backward(gradients)
    expected_backward(expected)
    assert loss == expected_loss and (gradients.flat == expected.flat).all()
