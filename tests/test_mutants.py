"""Every mutant of mutants.py makes its named test fail."""

import numpy
import pytest

from minicap.model.gradient_cases import decoder_case
from minicap.nn.adam import Adam
from tests.mutants import ATTENTION, BACKWARD, OTHER, Mutant, planted

pytestmark = pytest.mark.gradcheck


@pytest.mark.parametrize("mutant", BACKWARD + ATTENTION + OTHER, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, monkeypatch):
    """The test passes, fails by an assertion with the mutant, and passes again."""
    # Comparing long lists for the failure message would take pytest minutes.
    monkeypatch.setattr("_pytest.assertion.util._reprcompare", None)
    mutant.caught_by()
    with planted(mutant), pytest.raises(AssertionError):
        mutant.caught_by()
    mutant.caught_by()


def test_every_wrong_backward_pass_is_caught_by_a_complex_step():
    assert all(m.caught_by.__name__.startswith("test_complex_step") for m in BACKWARD + ATTENTION)


def loss_falls():
    """Run a naive test: does the loss fall by a third in sixty steps of Adam?"""
    decoder, batch, masks = decoder_case(numpy.random.default_rng(0))
    parameters = decoder.parameters
    gradients, adam, losses = parameters.like(), Adam(parameters.flat, learning_rate=0.02), []
    for _ in range(60):
        loss, backward = decoder.loss(batch, masks=masks)
        losses.append(loss)
        backward(gradients)
        adam.step(gradients.flat)
    return losses[-1] < 2 / 3 * losses[0]


def test_a_falling_loss_misses_most_wrong_backward_passes():
    """With three in four of them the loss still falls by a third."""
    assert loss_falls()
    caught = []
    for mutant in BACKWARD:
        with planted(mutant):
            try:
                if not loss_falls():
                    caught.append(mutant.name)
            except ValueError:  # shapes that do not fit
                caught.append(mutant.name)
    print(f"a falling loss catches {len(caught)} of {len(BACKWARD)}: {caught}")
    assert len(caught) <= len(BACKWARD) / 4


def test_a_mutant_that_does_not_match_the_source_raises():
    stale = Mutant("stale", "nn.dense:dense", "no such code", "", lambda: None)
    with pytest.raises(LookupError, match="stale"), planted(stale):
        pass
