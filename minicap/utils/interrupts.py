"""Ctrl-C that lets the work at hand finish."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[list]:
    """Collect Ctrl-C and SIGTERM, so that the caller can stop after the training step at hand.

    A second signal raises KeyboardInterrupt. A signal that was ignored stays ignored, as in a job
    that a shell script starts with ``&``. Outside the main thread, signals are not handled.

    Yields:
        A list, empty until a signal arrives.
    """
    received: list[int] = []

    def handle(number, _frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {
            number: signal.signal(number, handle)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
    except ValueError:  # only the main thread may set handlers
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
