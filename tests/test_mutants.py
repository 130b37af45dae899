"""Do the tests find bugs? Each mutant in mutants.py must make its named test fail."""

import numpy
import pytest

from minicap.model.decoder import caption_loss
from minicap.model.gradient_cases import decoder_case
from minicap.nn.adam import Adam
from tests.mutants import BACKWARD, OTHER, Mutant, planted

pytestmark = pytest.mark.gradcheck


@pytest.mark.parametrize("mutant", BACKWARD + OTHER, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, monkeypatch):
    """The test passes, fails with the mutant, by an assertion and not by a crash, and passes."""
    # Nobody reads why it fails; to find words for how two long lists differ takes pytest minutes.
    monkeypatch.setattr("_pytest.assertion.util._reprcompare", None)
    mutant.caught_by()
    with planted(mutant), pytest.raises(AssertionError):
        mutant.caught_by()
    mutant.caught_by()


def test_the_complex_step_catches_every_wrong_backward_pass():
    """Each is in the list above with a complex-step test as the one that finds it."""
    assert all(m.caught_by.__name__.startswith("test_complex_step") for m in BACKWARD)


def loss_falls():
    """A test as one might write it: sixty steps of Adam, and the loss is down by a third."""
    p, batch, masks = decoder_case(numpy.random.default_rng(0))
    gradients, adam, losses = p.like(), Adam(p.flat, learning_rate=0.02), []
    for _ in range(60):
        loss, backward = caption_loss(p, batch, masks=masks)
        losses.append(loss)
        backward(gradients)
        adam.step(gradients.flat)
    return losses[-1] < 2 / 3 * losses[0]


def test_a_falling_loss_proves_nothing():
    """With nearly every one of these wrong backward passes it falls by a third all the same."""
    assert loss_falls()
    found_out = []
    for mutant in BACKWARD:
        with planted(mutant):
            try:
                if not loss_falls():
                    found_out.append(mutant.name)
            except ValueError:  # widths that do not fit
                found_out.append(mutant.name)
    print(f"a falling loss finds {len(found_out)} of {len(BACKWARD)}: {found_out}")
    assert len(found_out) <= len(BACKWARD) / 4


def test_a_mutant_that_no_longer_fits_the_source_is_an_error():
    """Or it would be counted as caught, or as missed, for no reason."""
    stale = Mutant("stale", "nn.dense:dense", "no such code", "", lambda: None)
    with pytest.raises(LookupError, match="stale"), planted(stale):
        pass
