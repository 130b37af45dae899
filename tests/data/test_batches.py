"""pack and Batch.split: only real words, each exactly once."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.batches import pack


@st.composite
def captions(draw):
    """Features (N, 1) that number the captions; ids with arbitrary padding; lengths."""
    lengths = numpy.array(draw(st.lists(st.integers(2, 7), min_size=1, max_size=8)))
    width = lengths.max() + draw(st.integers(0, 3))
    rng = numpy.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = rng.integers(0, 6, (len(lengths), width))
    return numpy.arange(len(lengths), dtype="float32")[:, None], ids, lengths


def unpack(batch):
    """The captions of a batch by the number in their feature: {number: [ids]}."""
    found = {}
    for n, feature in enumerate(batch.features[:, 0].tolist()):
        rows, start = [], 0
        for size in batch.batch_sizes:
            if size > n:
                rows.append(start + n)
            start += size
        inputs = batch.words[batch.positions[rows]]  # each target is the next input
        found[int(feature)] = [inputs[0], *batch.targets[rows]]
        assert inputs[1:].tolist() == batch.targets[rows][:-1].tolist()
    return found


def assert_well_formed(batch):
    assert (
        batch.batch_sizes == sorted(batch.batch_sizes, reverse=True) and min(batch.batch_sizes) > 0
    )
    assert batch.batch_sizes[0] == len(batch.features)
    assert sum(batch.batch_sizes) == len(batch.positions) == len(batch.targets)
    used = numpy.unique(batch.words[batch.positions])
    assert batch.words.tolist() == used.tolist()  # distinct, ascending, each used


@given(captions())
def test_pack_keeps_every_word_and_nothing_else(example):
    features, ids, lengths = example
    batch = pack(features, ids, lengths)
    assert_well_formed(batch)
    assert unpack(batch) == {n: ids[n, : lengths[n]].tolist() for n in range(len(lengths))}


@given(captions(), st.integers(1, 10))
def test_split_assigns_every_caption_exactly_once(example, workers):
    batch = pack(*example)
    whole, found = unpack(batch), {}
    indices = {"captions": [], "rows": []}
    for part, rows in batch.split(workers):
        assert_well_formed(part)
        assert not found.keys() & unpack(part).keys()
        found |= unpack(part)
        # The indices are correct: they also split the dropout masks.
        assert (part.features == batch.features[rows["captions"]]).all()
        assert (part.words == batch.words[rows["words"]]).all()
        assert (part.targets == batch.targets[rows["rows"]]).all()
        for name in indices:
            indices[name] += rows[name].tolist()
    assert found == whole
    assert sorted(indices["captions"]) == list(range(len(batch.features)))
    assert sorted(indices["rows"]) == list(range(len(batch.targets)))


@given(captions())
def test_workers_get_nearly_equal_parts(example):
    """Parts differ by at most the longest caption, and the first has the longest captions."""
    batch = pack(*example)
    parts = [part for part, _ in batch.split(2)]
    if len(parts) == 2:
        assert abs(len(parts[0].targets) - len(parts[1].targets)) <= len(batch.batch_sizes)
        assert sum(size > 0 for size in parts[0].batch_sizes) == len(batch.batch_sizes)
        shortest = sum(size == len(parts[0].features) for size in parts[0].batch_sizes)
        assert shortest >= len(parts[1].batch_sizes)


def test_the_layout_in_the_docstring():
    """s a cat e and s dogs e, with s = 1, e = 2, a = 3, cat = 4, dogs = 5, given shortest first."""
    ids = numpy.array([[1, 5, 2, 0], [1, 3, 4, 2]])
    batch = pack(numpy.array([[10.0], [20.0]]), ids, numpy.array([3, 4]))
    assert batch.features.tolist() == [[20], [10]]
    assert batch.words[batch.positions].tolist() == [1, 1, 3, 5, 4]
    assert batch.targets.tolist() == [3, 5, 4, 2, 2]
    assert batch.batch_sizes == [2, 2, 1]


@pytest.mark.gradcheck
@given(captions())
def test_padding_changes_no_bit(example):
    """Neither its values, even ids outside the vocabulary, nor its length."""
    features, ids, lengths = example
    padding = numpy.arange(ids.shape[1] + 2) >= lengths[:, None]
    wider = numpy.pad(ids, [(0, 0), (0, 2)])
    wider[padding] = -999
    batch, same = pack(features, ids, lengths), pack(features, wider, lengths)
    for name, array in vars(batch).items():
        assert numpy.array_equal(array, getattr(same, name)), name


def test_a_caption_with_nothing_to_predict_is_refused():
    with pytest.raises(ValueError, match="at least one word"):
        pack(numpy.zeros((2, 1)), numpy.ones((2, 3), dtype=int), numpy.array([3, 1]))
