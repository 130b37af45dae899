"""Backward passes that run once."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def once(backward: Callable[P, R]) -> Callable[P, R]:
    """Let a backward pass run only once.

    A backward pass may overwrite what its forward pass saved, so a second call would return wrong
    gradients.

    Args:
        backward: the backward pass.

    Returns:
        A function that calls ``backward`` the first time and raises RuntimeError after that. It
        also releases ``backward``, and with it the saved arrays, after the first call.
    """
    left = [backward]

    @functools.wraps(backward)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not left:
            raise RuntimeError(
                "this backward pass has already run and has overwritten what the forward pass "
                "saved: run the forward pass again"
            )
        return left.pop()(*args, **kwargs)

    return call
