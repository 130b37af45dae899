"""The trace of a caption: its words, gates and cell states are those of generation."""

import numpy
import pytest

from minicap.generation.config import GREEDY, GenerationConfig
from minicap.generation.generate import generate
from minicap.generation.trace import trace
from tests import tiny

FEATURES = numpy.random.default_rng(1).normal(size=(5, tiny.WIDTH)).astype("float32")


def tokens(model, caption):
    end = [model.vocabulary.end]
    return (caption.ids + end)[: len(caption.log_probabilities)]


@pytest.mark.parametrize("count", [1, 2])
def test_the_words_of_a_caption_have_the_probabilities_of_generation(count):
    models = [tiny.model()] * count
    captions = [found[0] for found in generate(models, FEATURES, GREEDY)]
    paths = [tokens(models[0], caption) for caption in captions]
    assert len({len(path) for path in paths}) > 1, "captions of several lengths"
    for caption, path, of_caption in zip(captions, paths, trace(models, FEATURES, paths, 4)):
        assert of_caption.ids.shape == (len(path), 4)
        assert of_caption.ids[:, 0].tolist() == path  # greedy: the likeliest word each time
        numpy.testing.assert_allclose(
            of_caption.log_probabilities[:, 0], caption.log_probabilities, rtol=1e-5, atol=1e-6
        )
        assert (numpy.diff(of_caption.log_probabilities) <= 0).all()


def test_only_words_that_can_be_generated_are_listed():
    model = tiny.model()
    v = model.vocabulary
    (found,) = trace([model], FEATURES[:1], [[v.ids["dog"], v.end]], 100)
    allowed = sorted(set(range(len(v))) - {v.start, v.pad, v.unk})
    assert [sorted(row) for row in found.ids.tolist()] == [allowed, allowed]


def test_the_gates_explain_the_cell_states():
    model = tiny.model()
    (caption,) = generate([model], FEATURES[:1], GenerationConfig(beam_size=3))[0][:1]
    (found,) = trace([model], FEATURES[:1], [tokens(model, caption)])
    i, j, f, o = found.gates.swapaxes(0, 1)
    numpy.testing.assert_allclose(
        found.cells[1:], f * found.cells[:-1] + i * j, rtol=1e-5, atol=1e-6
    )
    assert (numpy.abs(j) <= 1).all() and all(((g >= 0) & (g <= 1)).all() for g in (i, f, o))
