"""Workers that compute side by side in memory that they share.

They are processes where the system forks safely, and threads elsewhere. The threads of a Python
process share a lock, which each of the hundreds of small array functions in a training step would
hand over: a tenth of the step (docs/speed.md). Processes share the arrays of `shared_zeros` only.
"""

import math
import mmap
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import numpy

from minicap.errors import UserError

FORK = sys.platform == "linux"


def shared_zeros(shape: int | tuple[int, ...], dtype) -> numpy.ndarray:
    """As numpy.zeros, in memory that forked processes see and write together."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    return numpy.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, math.prod(shape)).reshape(shape)


class Workers:
    """This process and `count` - 1 helpers, which start when they are first needed.

    call: call(method, *arguments) does one job. A helper sees what this process held when it
    started, and later only what stands in shared arrays or comes with a job.
    """

    def __init__(self, count: int, call: Callable):
        self.count, self.call = count, call
        self.helpers: list[Connection] = []

    def run(self, method: str, jobs: Sequence[tuple]) -> list[Any]:
        """call(method, *job) for each of the jobs, `count` at the most, all at the same time, the
        first of them here. Returns the results in order.

        Raises what the first job to fail has raised; UserError if a helper was killed.
        """
        while len(self.helpers) < len(jobs) - 1:
            self.helpers.append(self.start())
        busy = self.helpers[: len(jobs) - 1]
        try:
            for helper, job in zip(busy, jobs[1:], strict=True):
                helper.send((method, *job))
            found = [attempt(self.call, method, *jobs[0])]
            found += [helper.recv() for helper in busy]
        except (EOFError, OSError) as error:
            self.stop()
            raise UserError(
                "a worker process was killed (out of memory?): go on with --resume, or "
                "start again with fewer --threads"
            ) from error
        except BaseException:
            self.stop()  # answers are still under way, and nobody will wait for them
            raise
        for _, failure in found:
            if failure:
                raise failure
        return [result for result, _ in found]

    def start(self) -> Connection:
        """A new helper: this end of the pipe to it."""
        if not self.helpers:  # at the exit, before multiprocessing waits for those that are its own
            Finalize(self, let_go, [self.helpers], exitpriority=0)
        here, there = multiprocessing.Pipe()
        if FORK:
            foreign = [here, *self.helpers]  # open in the helper, too, until it closes them
            context = multiprocessing.get_context("fork")
            context.Process(target=serve, args=(there, self.call, foreign), daemon=True).start()
            there.close()
        else:
            threading.Thread(target=serve, args=(there, self.call), daemon=True).start()
        return here

    def stop(self) -> None:
        """Let all helpers go."""
        let_go(self.helpers)


def let_go(helpers: list[Connection]) -> None:
    """Close the pipes to helpers, which then end."""
    while helpers:
        helpers.pop().close()


def attempt(call: Callable, *job) -> tuple[Any, Exception | None]:
    """What the call returns or raises: (result, None) or (None, the exception)."""
    try:
        return call(*job), None
    except Exception as error:
        return None, error


def serve(pipe: Connection, call: Callable, foreign: Sequence[Connection] = ()) -> None:
    """A helper's life: job after job, until nobody is left at the other end of the pipe."""
    for end in foreign:
        end.close()
    if foreign:  # a process of its own: it is the first one that decides when to stop
        for number in signal.SIGINT, signal.SIGTERM:  # which may be sent to both
            signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            pipe.send(attempt(call, *pipe.recv()))
        except (EOFError, OSError):
            return
