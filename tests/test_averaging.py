"""The mean of the last epochs' parameters."""

import numpy

from minicap.averaging import Average
from minicap.nn.parameters import Parameters


def means(count, epochs=4):
    """The means after each epoch; in epoch n, from 1, both parameters become n * n."""
    parameters = Parameters({"a": (1,), "b": (1,)})
    average, found = Average(parameters, count), []
    for n in range(1, epochs + 1):
        parameters.flat[...] = n * n
        average.add()
        mean = average.mean()
        assert mean["a"] == mean["b"]
        found.append(float(mean["a"][0]))
        parameters.flat[...] = 1000  # as training goes on
        if count > 1:
            assert average.mean()["a"] == found[-1]
    return found


def test_the_mean_is_over_the_last_epochs():
    """Over as many as there are, at first."""
    assert means(2) == [1, 2.5, 6.5, 12.5]
    assert numpy.allclose(means(3), [1, 2.5, 14 / 3, 29 / 3], rtol=1e-7)


def test_of_one_epoch_it_is_the_parameters_themselves():
    assert means(1) == [1, 4, 9, 16]
    parameters = Parameters({"a": (1,)})
    average = Average(parameters, 1)
    average.add()
    assert average.mean() is parameters and not average.last


def test_before_the_first_epoch_it_is_the_parameters():
    parameters = Parameters({"a": (1,)})
    assert Average(parameters, 3).mean() is parameters
