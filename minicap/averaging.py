"""The mean of a model's parameters after its last epochs.

Each step follows the gradient of one batch, so the parameters jitter around where they drift to.
Their mean over some points of the way jitters less, and costs nothing when the model is used
(Polyak and Juditsky 1992; of saved checkpoints: Vaswani et al. 2017, section 6.1).
"""

from minicap.backend import Array
from minicap.nn.parameters import Parameters


class Average:
    """The mean of `parameters` as they were after each of the last `count` epochs.

    It holds `count` copies of them, but none for a count of 1: then the mean is the parameters
    as they are. Training goes on from the parameters, never from the mean.
    """

    def __init__(self, parameters: Parameters, count: int):
        self.parameters, self.count = parameters, count
        self.last: list[Array] = []  # flat copies, the newest last

    def add(self) -> None:
        """An epoch has ended."""
        if self.count > 1:
            self.last = [*self.last, self.parameters.flat.copy()][-self.count :]

    def mean(self) -> Parameters:
        """The mean; before the first epoch has ended, the parameters as they are."""
        if not self.last:
            return self.parameters
        mean = self.parameters.like()
        mean.flat[...] = sum(self.last) / len(self.last)
        return mean
