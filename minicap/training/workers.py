"""Workers that compute side by side in memory they share.

They are processes where the system forks safely, and threads elsewhere. The threads of a Python
process share the global interpreter lock (GIL), which each of the hundreds of small array functions
of a training step would hand over: a tenth of the step (docs/speed.md). Processes share the arrays
of `shared_zeros` only.
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

from minicap.utils.errors import UserError

FORK = sys.platform == "linux"
OPEN: set[Connection] = set()  # this process's ends of the pipes to all helpers, of any Workers

Helper = multiprocessing.process.BaseProcess | threading.Thread
Outcome = tuple[Any, Exception | None, str]  # result, exception, the exception's traceback


def shared_zeros(shape: int | tuple[int, ...], dtype) -> numpy.ndarray:
    """Like numpy.zeros, in memory that forked processes read and write together."""
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    return numpy.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, math.prod(shape)).reshape(shape)


class WorkerTraceback(Exception):
    """The traceback of an exception raised in a helper, as text: its cause."""


class Workers:
    """This process and `count` - 1 helpers, which start when first needed and end with `stop`."""

    def __init__(self, replicas: Sequence[Any]):
        """Make one worker for each replica.

        Args:
            replicas: what each worker works on. A helper sees its replica as it was when the helper
                started; later changes reach it through shared arrays or a job's arguments only.
        """
        self.replicas = replicas
        self.helpers: list[tuple[Connection, Helper]] = []

    @property
    def count(self) -> int:
        """The number of workers, this process included."""
        return len(self.replicas)

    def run(self, task: Callable, jobs: Sequence[tuple]) -> list[Any]:
        """Call task(replica, *job) for each job at the same time, the first of them here.

        Args:
            task: a function of a module or class, such as Replica.update.
            jobs: the arguments for each worker, at most `count`.

        Returns:
            The results in order.

        Raises:
            Exception: what the first failing job raised.
            UserError: a helper was killed.
        """
        while len(self.helpers) < len(jobs) - 1:
            self.helpers.append(self.start(self.replicas[len(self.helpers) + 1]))
        pipes = [pipe for pipe, _ in self.helpers[: len(jobs) - 1]]
        try:
            for pipe, job in zip(pipes, jobs[1:], strict=True):
                pipe.send((task, job))
            outcomes = [outcome_of(task, self.replicas[0], *jobs[0])]
            outcomes += [pipe.recv() for pipe in pipes]
        except (EOFError, OSError) as error:
            self.stop()
            raise UserError(
                "a worker process was killed (out of memory?): resume with --resume, or start "
                "again with fewer --workers"
            ) from error
        except BaseException:
            self.stop()  # answers are still under way, and nobody will wait for them
            raise
        for _, failure, text in outcomes:
            if failure:
                raise failure from (WorkerTraceback(text) if text else None)
        return [result for result, _, _ in outcomes]

    def start(self, replica: Any) -> tuple[Connection, Helper]:
        """Start a helper. Returns this end of the pipe to it, and the helper."""
        if not self.helpers:  # runs before multiprocessing waits for its own processes at exit
            Finalize(self, stop_helpers, [self.helpers], exitpriority=0)
        here, there = multiprocessing.Pipe()
        OPEN.add(here)
        helper: Helper
        # A daemonic process, such as a worker of multiprocessing.Pool, may not have children.
        if FORK and not multiprocessing.current_process().daemon:
            context = multiprocessing.get_context("fork")
            helper = context.Process(target=work, args=(there, replica, True), daemon=True)
            helper.start()
            there.close()
        else:
            helper = threading.Thread(target=work, args=(there, replica), daemon=True)
            helper.start()
        return here, helper

    def stop(self) -> None:
        """End all helpers."""
        stop_helpers(self.helpers)


def stop_helpers(helpers: list[tuple[Connection, Helper]]) -> None:
    """Close the pipes to helpers, which then end, and wait for them."""
    ending = []
    while helpers:
        pipe, helper = helpers.pop()
        OPEN.discard(pipe)
        pipe.close()
        ending.append(helper)
    for helper in ending:
        helper.join(timeout=1)  # one in the middle of a job may take longer


def outcome_of(task: Callable, replica: Any, *job) -> Outcome:
    """Run a job. Returns its result or its exception."""
    try:
        return task(replica, *job), None, ""
    except Exception as error:
        return None, error, ""


def sendable(outcome: Outcome) -> Outcome:
    """The outcome in a form that a pipe can carry: with the traceback as text, and an exception
    that cannot be pickled replaced by a RuntimeError with its message."""
    result, error, _ = outcome
    if error is None:
        return result, None, ""
    text = "".join(traceback.format_exception(error))
    try:
        send_and_receive(error)
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return None, error, text


def send_and_receive(error: Exception) -> None:
    """Send an exception through a pipe and read it again, to see whether that works."""
    here, there = multiprocessing.Pipe()
    with here, there:
        here.send(error)
        there.recv()


def work(pipe: Connection, replica: Any, forked: bool = False) -> None:
    """Run a helper: job after job, until the other end of the pipe is closed."""
    if forked:
        for end in OPEN:  # inherited: while they are open here, other helpers would never end
            end.close()
        OPEN.clear()
        for number in signal.SIGINT, signal.SIGTERM:  # the first process decides when to stop
            signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            task, job = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = outcome_of(task, replica, *job)
        try:
            pipe.send(sendable(outcome) if forked else outcome)
        except OSError:
            return
