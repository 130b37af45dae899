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
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import numpy

from minicap.errors import UserError

FORK = sys.platform == "linux"
OPEN: set[Connection] = set()  # this process's ends of the pipes to all helpers, of any pool


def shared_zeros(shape: int | tuple[int, ...], dtype) -> numpy.ndarray:
    """As numpy.zeros, in memory that forked processes see and write together."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    return numpy.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, math.prod(shape)).reshape(shape)


class WorkerTraceback(Exception):
    """The traceback of an exception that was raised in a helper, as text: its cause."""


class Workers:
    """This process and `count` - 1 helpers, which start when they are first needed and end with
    `stop`.

    call: call(method, *arguments) does one job. A helper sees what this process held when it
    started, and later only what stands in shared arrays or comes with a job.
    """

    def __init__(self, count: int, call: Callable):
        self.count, self.call = count, call
        self.helpers: list[tuple[Connection, Helper]] = []

    def run(self, method: str, jobs: Sequence[tuple]) -> list[Any]:
        """call(method, *job) for each of the jobs, `count` at the most, all at the same time, the
        first of them here. Returns the results in order.

        Raises what the first job to fail has raised; UserError if a helper was killed.
        """
        while len(self.helpers) < len(jobs) - 1:
            self.helpers.append(self.start())
        busy = [pipe for pipe, _ in self.helpers[: len(jobs) - 1]]
        try:
            for pipe, job in zip(busy, jobs[1:], strict=True):
                pipe.send((method, *job))
            found = [attempt(self.call, method, *jobs[0])]
            found += [pipe.recv() for pipe in busy]
        except (EOFError, OSError) as error:
            self.stop()
            raise UserError(
                "a worker process was killed (out of memory?): go on with --resume, or "
                "start again with fewer --threads"
            ) from error
        except BaseException:
            self.stop()  # answers are still under way, and nobody will wait for them
            raise
        for _, failure, text in found:
            if failure:
                raise failure from (WorkerTraceback(text) if text else None)
        return [result for result, _, _ in found]

    def start(self) -> "tuple[Connection, Helper]":
        """A new helper, with this end of the pipe to it."""
        if not self.helpers:  # at the exit, before multiprocessing waits for those that are its own
            Finalize(self, let_go, [self.helpers], exitpriority=0)
        here, there = multiprocessing.Pipe()
        OPEN.add(here)
        helper: Helper
        # A daemonic process, as those of multiprocessing.Pool are, may have no children.
        if FORK and not multiprocessing.current_process().daemon:
            context = multiprocessing.get_context("fork")
            helper = context.Process(target=serve, args=(there, self.call, True), daemon=True)
            helper.start()
            there.close()
        else:
            helper = threading.Thread(target=serve, args=(there, self.call), daemon=True)
            helper.start()
        return here, helper

    def stop(self) -> None:
        """End all helpers."""
        let_go(self.helpers)


Helper = multiprocessing.process.BaseProcess | threading.Thread


def let_go(helpers: list[tuple[Connection, Helper]]) -> None:
    """Close the pipes to helpers, which then end, and wait for them."""
    ending = []
    while helpers:
        pipe, helper = helpers.pop()
        OPEN.discard(pipe)
        pipe.close()
        ending.append(helper)
    for helper in ending:
        helper.join(timeout=1)  # one in the middle of a job may take longer


def attempt(call: Callable, *job) -> tuple[Any, Exception | None, str]:
    """What the call returns or raises: the result or None, the exception or None, its traceback."""
    try:
        return call(*job), None, ""
    except Exception as error:
        return None, error, ""


def answer(call: Callable, *job) -> tuple[Any, Exception | None, str]:
    """As `attempt`, in a form that a pipe takes: with the traceback as text, and in the place of an
    exception that cannot be pickled a RuntimeError of the same words."""
    result, error, _ = attempt(call, *job)
    if error is None:
        return result, None, ""
    text = "".join(traceback.format_exception(error))
    try:
        pickled_and_back(error)
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return None, error, text


def pickled_and_back(error: Exception) -> None:
    """Send the exception through a pipe and read it again. Raises what either of them raises."""
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(error)
        there.recv()


def serve(pipe: Connection, call: Callable, forked: bool = False) -> None:
    """A helper's life: job after job, until nobody is left at the other end of the pipe."""
    if forked:  # a process of its own: it is the first one that decides when to stop
        for end in OPEN:  # inherited: while they are open here, other helpers would never end
            end.close()
        OPEN.clear()
        for number in signal.SIGINT, signal.SIGTERM:  # which may be sent to both
            signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(answer(call, *job) if forked else attempt(call, *job))
        except OSError:
            return
