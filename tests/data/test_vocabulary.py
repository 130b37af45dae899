"""Words, their ids, and captions as ids."""

import numpy
import pytest

from minicap.data.captions import read_captions, read_names
from minicap.data.vocabulary import END, PAD, SPECIAL, START, UNK, Vocabulary, tokenise


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog's ball -- it's RED .", ["a", "dog", "s", "ball", "it", "s", "red"]),
        ("two2 snake_case\t3", ["two2", "snake_case", "3"]),
        ("Ein Mädchen übt", ["ein", "mädchen", "übt"]),
        (" ... !", []),
        ("", []),
    ],
)
def test_tokens_are_runs_of_word_characters_in_lower_case(caption, words):
    assert tokenise(caption) == words


def test_ids_are_indices_in_sorted_order():
    """In any order of input; special tokens come first, as in the course."""
    vocabulary = Vocabulary(["zebra", "a", "3", "_", "ärmel", "a"])
    assert vocabulary.words == [END, PAD, START, UNK, "3", "_", "a", "zebra", "ärmel"]
    assert [vocabulary.ids[word] for word in vocabulary.words] == list(range(9))
    assert [vocabulary.end, vocabulary.pad, vocabulary.start, vocabulary.unk] == [0, 1, 2, 3]


def test_min_count_counts_occurrences_not_captions():
    """b occurs twice in one caption and counts twice."""
    captions = ["a b b", "a c.", "A?"]
    assert Vocabulary.of(captions, 2).words[4:] == ["a", "b"]
    assert Vocabulary.of(captions, 3).words[4:] == ["a"]
    assert Vocabulary.of(captions, 1).words[4:] == ["a", "b", "c"]


def test_a_caption_that_spells_a_special_word_does_not_get_it():
    vocabulary = Vocabulary.of(["#END# #END#"], 1)
    ids, _ = vocabulary.encode(["#END#"], 5)
    assert ids[0, 1] == vocabulary.ids["end"] != vocabulary.end


def test_encode_starts_ends_and_pads():
    v = Vocabulary(["a", "dog"])
    ids, lengths = v.encode(["A dog", "a cat a", "..."], 6)
    a, dog = v.ids["a"], v.ids["dog"]
    assert ids.tolist() == [
        [v.start, a, dog, v.end, v.pad, v.pad],
        [v.start, a, v.unk, a, v.end, v.pad],
        [v.start, v.end, v.pad, v.pad, v.pad, v.pad],
    ]
    assert lengths.tolist() == [4, 5, 2] and ids.dtype == numpy.int32


def test_a_long_caption_is_truncated_without_its_end():
    """max_length 20 counts #START# and #END#: 18 words keep their end, 19 words do not, and there
    are never more than 19 targets."""
    v = Vocabulary(["w"])
    ids, lengths = v.encode(["w " * count for count in (18, 19, 20, 50)], 20)
    assert lengths.tolist() == [20, 20, 20, 20] and ids.shape == (4, 20)
    assert ids[0, -1] == v.end
    assert (ids[1:, 1:] == v.ids["w"]).all()


def test_decode_stops_at_the_end_and_hides_special_words():
    v = Vocabulary(["a", "dog"])
    ids, _ = v.encode(["a strange dog"], 10)
    assert v.decode(ids[0]) == "a dog"
    assert v.decode([v.ids["a"], v.end, v.ids["dog"]]) == "a"
    assert v.decode([]) == ""


def test_difference_names_the_words():
    ours, theirs = Vocabulary(["a", "b"]), Vocabulary([*"acdefgh"])
    assert ours.difference(Vocabulary(["b", "a"])) is None
    text = ours.difference(theirs)
    assert "6 against 11" in text and "1 (b)" in text and "6 (c, d, e, f, g, ...)" in text
    assert "\n" not in text
    assert Vocabulary(["a"]).difference(ours) == "5 against 6 words; only in the second: 1 (b)"


def test_flickr8k_has_the_known_number_of_words(real_data):
    """2,539 entries with the official train split and 5 occurrences, as in the reference run."""
    folder = real_data / "flickr8k"
    captions = read_captions(folder / "Flickr8k.token.txt").texts
    train = read_names(folder / "Flickr_8k.trainImages.txt")
    dev = read_names(folder / "Flickr_8k.devImages.txt")
    assert len(captions) == 7000 and {len(texts) for texts in captions.values()} == {5}
    assert (len(train), len(dev)) == (6000, 1000)
    vocabulary = Vocabulary.of((text for name in train for text in captions[name]), 5)
    assert len(vocabulary) == 2539
    assert set(SPECIAL) < set(vocabulary.words)
