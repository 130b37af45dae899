"""Random number streams: each place in a run has its own, and always the same."""

import itertools

from minicap.training.random_streams import Purpose, stream


def first_numbers(*name):
    return tuple(stream(*name).random(4))


def test_the_same_name_gives_the_same_numbers():
    assert first_numbers(3, Purpose.MASKS, 1, 2) == first_numbers(3, Purpose.MASKS, 1, 2)


def test_every_seed_purpose_and_place_has_its_own_numbers():
    names = list(itertools.product((0, 1), Purpose, (0, 1, 2), (0, 1, 2)))
    assert len({first_numbers(*name) for name in names}) == len(names) == 90


def test_numbers_of_purposes_never_change():
    """A checkpoint stores no generator state: other numbers would change every resumed run."""
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "INITIAL": 0, "ORDER": 1, "SAMPLE": 2, "MASKS": 3, "VALIDATION": 4
    }  # fmt: skip
