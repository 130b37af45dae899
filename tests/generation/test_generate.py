"""From encoder features to captions, with one model or several."""

from dataclasses import replace

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.beam_search import beam_search
from minicap.generation.config import GREEDY, Constraints, GenerationConfig
from minicap.generation.generate import (
    check_vocabularies,
    encoder_warnings,
    generate,
    generate_text,
    scaled_for,
)
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, model

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH)).astype("float32")


def test_captions_are_words_within_the_training_length():
    """max_length counts #START# and, unless the caption was cut, #END#."""
    captions = [caption.split() for caption in generate_text([model(max_length=7)], FEATURES)]
    assert max(map(len, captions)) == 6
    assert {word for caption in captions for word in caption} <= {"a", "blue", "dog", "red"}


def test_special_words_are_never_generated():
    """However likely #UNK#, #PAD# and #START# are, the captions are the same."""
    m = model()
    expected = generate_text([m], FEATURES)
    v = m.vocabulary
    for banned in (v.unk, v.pad, v.start):
        m.decoder.parameters["token_logits"][-1, banned] += 100
    assert generate_text([m], FEATURES) == expected


def test_text_is_the_best_of_the_beam_and_samples_depend_on_the_seed():
    m = model()
    found = generate([m], FEATURES, GenerationConfig(beam_size=3))
    best = [m.vocabulary.decode(captions[0].ids) for captions in found]
    assert generate_text([m], FEATURES, GenerationConfig(beam_size=3)) == best
    samples = [
        generate([m], FEATURES, GenerationConfig(temperature=1), 2, numpy.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    assert samples[0] == samples[1] != samples[2]
    assert all(len(captions) == 2 for captions in samples[0])


def test_each_model_scales_the_features_as_it_was_trained():
    """The encoder's own features go in, so they cannot be unscaled or scaled twice."""
    mean, scale = numpy.full(WIDTH, 2, "float32"), numpy.full(WIDTH, 3, "float32")
    plain, scaling = model(), replace(model(), scaling=Scaling(mean, scale))
    as_scaled = (FEATURES - 2) * 3
    assert generate([scaling], FEATURES) == generate([plain], as_scaled)
    assert generate([scaling.for_scaled_features()], as_scaled) == generate([scaling], FEATURES)
    assert generate_text([scaling], FEATURES) != generate_text([plain], FEATURES)
    v = plain.vocabulary
    constraints = Constraints(v.start, v.end, (v.pad, v.unk), plain.max_length - 1)
    decoders = [plain.decoder, scaling.decoder]
    together = beam_search(decoders, [FEATURES, as_scaled], constraints, GREEDY)
    assert generate([plain, scaling], FEATURES) == together


def test_scaled_features_are_not_changed():
    """Bit for bit, whatever the model's scaling: these are the features it was trained on."""
    rotation = numpy.random.default_rng(0).normal(size=(5, WIDTH)).astype("float32")
    scaling = Scaling(numpy.ones(5, "float32"), numpy.ones(5, "float32"), rotation)
    m = replace(model(), scaling=scaling).for_scaled_features()
    assert (scaled_for(m, FEATURES) == FEATURES).all()


def test_an_ensemble_has_the_shortest_limit_of_its_models():
    captions = generate([model(max_length=7), model(max_length=4)], FEATURES)
    assert max(len(some[0].ids) for some in captions) == 3


def test_an_ensemble_has_one_vocabulary():
    other = replace(model(), vocabulary=Vocabulary(["a", "cat", "dog", "red"]))
    with pytest.raises(UserError, match="and number 3 differ: 8 against 8 words.*blue.*cat"):
        check_vocabularies([model(), model(), other])
    with pytest.raises(UserError, match="number 2"):
        generate([model(), other], FEATURES)


def test_a_prefix_of_known_words():
    """In any case and with any punctuation, as in captions."""
    found = generate([model()], FEATURES, GenerationConfig(prefix="A blue, red", beam_size=2))
    v = model().vocabulary
    assert {v.decode(caption.ids[:3]) for some in found for caption in some} == {"a blue red"}


def test_a_prefix_may_be_as_long_as_a_caption_and_no_longer():
    found = generate([model(max_length=4)], FEATURES, GenerationConfig(prefix="a blue red"))
    assert {model().vocabulary.decode(some[0].ids) for some in found} == {"a blue red"}
    with pytest.raises(UserError, match="prefix: 4 words, but .* have at most 3"):
        generate([model(max_length=4)], FEATURES, GenerationConfig(prefix="a blue red dog"))


def test_every_model_of_an_ensemble_checks_the_encoder():
    """Different warnings are returned once each; what one model refuses is refused."""
    given = {"id": "x", "name": "given", "preprocessing": "p"}
    good, unknown = model(given), model(None)
    assert encoder_warnings([good, good], given, WIDTH) == []
    assert encoder_warnings([good, unknown, unknown], given, WIDTH) == [
        unknown.check_encoder(given, WIDTH)
    ]
    with pytest.raises(UserError, match="use the first"):
        encoder_warnings([good, model(given | {"id": "y"})], given, WIDTH)
