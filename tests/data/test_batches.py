"""pack and Batch.split: only real words, each exactly once."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.batches import pack


@st.composite
def captions(draw):
    """features (N, 1), which are just the captions' numbers; ids with rubbish after each
    caption's end; lengths."""
    lengths = numpy.array(draw(st.lists(st.integers(2, 7), min_size=1, max_size=8)))
    width = lengths.max() + draw(st.integers(0, 3))
    rng = numpy.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = rng.integers(0, 6, (len(lengths), width))
    return numpy.arange(len(lengths), dtype="float32")[:, None], ids, lengths


def unpack(batch):
    """The captions of a batch, by what their feature says: {number: [ids]}."""
    found = {}
    for n, feature in enumerate(batch.features[:, 0].tolist()):
        rows, start = [], 0
        for size in batch.sizes:
            if size > n:
                rows.append(start + n)
            start += size
        inputs = batch.words[batch.positions[rows]]
        found[int(feature)] = [inputs[0], *batch.targets[rows]]
        assert inputs[1:].tolist() == batch.targets[rows][:-1].tolist()  # each target comes next
    return found


def assert_well_formed(batch):
    assert batch.sizes == sorted(batch.sizes, reverse=True) and min(batch.sizes) > 0
    assert batch.sizes[0] == len(batch.features)
    assert sum(batch.sizes) == len(batch.positions) == len(batch.targets)
    used = numpy.unique(batch.words[batch.positions])
    assert batch.words.tolist() == used.tolist()  # distinct, ascending, none without a use


@given(captions())
def test_pack_keeps_every_word_and_nothing_else(example):
    features, ids, lengths = example
    batch = pack(features, ids, lengths)
    assert_well_formed(batch)
    assert unpack(batch) == {n: ids[n, : lengths[n]].tolist() for n in range(len(lengths))}


@given(captions(), st.integers(1, 10))
def test_split_deals_out_every_caption_exactly_once(example, workers):
    batch = pack(*example)
    whole, dealt = unpack(batch), {}
    held = {"captions": [], "rows": []}
    for share, rows in batch.split(workers):
        assert_well_formed(share)
        assert not dealt.keys() & unpack(share).keys()
        dealt |= unpack(share)
        # What the share says that it holds of the whole is what it holds: masks are cut so.
        assert (share.features == batch.features[rows["captions"]]).all()
        assert (share.words == batch.words[rows["words"]]).all()
        assert (share.targets == batch.targets[rows["rows"]]).all()
        for name in held:
            held[name] += rows[name].tolist()
    assert dealt == whole
    assert sorted(held["captions"]) == list(range(len(batch.features)))
    assert sorted(held["rows"]) == list(range(len(batch.targets)))


@given(captions())
def test_workers_have_nearly_the_same_to_do(example):
    """Shares differ by the longest caption at the most, and the first has the longest ones."""
    batch = pack(*example)
    shares = [share for share, _ in batch.split(2)]
    if len(shares) == 2:
        assert abs(len(shares[0].targets) - len(shares[1].targets)) <= len(batch.sizes)
        assert sum(size > 0 for size in shares[0].sizes) == len(batch.sizes)
        shortest = sum(size == len(shares[0].features) for size in shares[0].sizes)
        assert shortest >= len(shares[1].sizes)


def test_the_layout_in_the_docstring():
    """s a cat e and s dogs e, with s = 1, e = 2, a = 3, cat = 4, dogs = 5, given shortest first."""
    ids = numpy.array([[1, 5, 2, 0], [1, 3, 4, 2]])
    batch = pack(numpy.array([[10.0], [20.0]]), ids, numpy.array([3, 4]))
    assert batch.features.tolist() == [[20], [10]]
    assert batch.words[batch.positions].tolist() == [1, 1, 3, 5, 4]
    assert batch.targets.tolist() == [3, 5, 4, 2, 2]
    assert batch.sizes == [2, 2, 1]


@pytest.mark.gradcheck
@given(captions())
def test_padding_changes_no_bit(example):
    """Neither what it holds, even ids that no vocabulary has, nor how much of it there is."""
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
