"""The command `minicap gradcheck`."""

import numpy
import pytest

from minicap import gradcheck
from minicap.nn.gradient_check import as_loss
from minicap.utils.errors import UserError
from tests.checks import cube


@pytest.mark.gradcheck
def test_all_gradients_are_correct(capsys):
    assert gradcheck.main(["--seed", "7", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert "all 51 gradients are correct" in output and "WRONG" not in output


@pytest.mark.parametrize("scale", [1.02, numpy.nan])
def test_the_exit_status_is_1_if_a_gradient_is_wrong(monkeypatch, capsys, scale):
    x = {"x": numpy.array([1.0, -2.0])}

    def cases(rng):
        for name, layer in ("good", cube()), ("bad", cube(scale)), ("good again", cube()):
            yield name, as_loss(layer, x, rng), x

    monkeypatch.setattr(gradcheck, "all_cases", cases)
    assert gradcheck.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("WRONG")] == ["bad"]
    assert lines[-1] == "1 of 3 gradients are wrong"


def test_at_least_one_round_is_required():
    with pytest.raises(UserError, match="--rounds must be at least 1"):
        gradcheck.main(["--rounds", "0"])
