"""Backward passes that run once."""

import functools
from collections.abc import Callable


def once(backward: Callable) -> Callable:
    """Let a backward pass run a single time, and raise RuntimeError when it is called again.

    It may overwrite what its forward pass has kept: a second call would return wrong gradients.
    """
    left = [backward]

    @functools.wraps(backward)
    def call(*args, **kwargs):
        if not left:
            raise RuntimeError(
                "this backward pass has run already: it overwrites what the forward pass has "
                "kept. Run the forward pass again"
            )
        return left.pop()(*args, **kwargs)

    return call
