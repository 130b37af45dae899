"""Workers: processes that compute in parallel on arrays in shared memory.

On Linux, all workers but the first are forked processes. Elsewhere forking is not safe, and they
are threads. Threads compete for the global interpreter lock (GIL) in each of the hundreds of small
array operations of a training step, which costs a tenth of the step (docs/speed.md). Processes
share only the arrays that `shared_zeros` made.
"""

import gc
import math
import mmap
import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any

import numpy

from minicap.utils.errors import UserError

FORK = sys.platform == "linux"
OPEN: set[Connection] = set()  # this process's ends of the pipes to the helpers of all Workers

Helper = multiprocessing.process.BaseProcess | threading.Thread
Outcome = tuple[Any, Exception | None, str]  # result, exception, the exception's traceback


def shared_zeros(shape: int | tuple[int, ...], dtype) -> numpy.ndarray:
    """Make an array of zeros in memory that this process shares with those it forks.

    Args:
        shape: as for numpy.zeros.
        dtype: as for numpy.zeros.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape) * numpy.dtype(dtype).itemsize
    return numpy.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, math.prod(shape)).reshape(shape)


class WorkerTraceback(Exception):
    """The traceback of an exception in a helper, as text. It is the exception's cause."""


class Workers:
    """This process and its helpers, which compute jobs in parallel.

    Helpers start when they are first needed and end with `stop`.

    Attributes:
        replicas: what each worker works on. The first belongs to this process.

    Example:
        workers = Workers(replicas)
        losses = workers.run(Replica.supervised, jobs)
    """

    def __init__(self, replicas: Sequence[Any]):
        """Make one worker for each replica.

        Args:
            replicas: what each worker works on. A helper process sees its replica as it was when
                the helper started. Later changes reach it only through shared arrays and the
                arguments of jobs.
        """
        self.replicas = replicas
        self.helpers: list[tuple[Connection, Helper]] = []

    @property
    def count(self) -> int:
        """The number of workers, including this process."""
        return len(self.replicas)

    def run(self, task: Callable, jobs: Sequence[tuple]) -> list[Any]:
        """Run one job per worker in parallel: job k computes ``task(replicas[k], *jobs[k])``.

        Args:
            task: a function that pickle finds by name, such as Replica.update.
            jobs: the arguments of each job, 0 to `count`. The first job runs in this process.

        Returns:
            The results, in the order of the jobs.

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
            outcomes = [outcome_of(task, self.replicas[0], *job) for job in jobs[:1]]
            outcomes += [pipe.recv() for pipe in pipes]
        except (EOFError, OSError) as error:
            self.stop()
            raise UserError(
                "a worker process was killed (out of memory?): resume with --resume, or start "
                "again with fewer --workers"
            ) from error
        except BaseException:
            self.stop()  # later runs must not receive the answers to these jobs
            raise
        for _, failure, text in outcomes:
            if failure and text:
                raise failure from WorkerTraceback(text)
            if failure:
                raise failure
        return [result for result, _, _ in outcomes]

    def start(self, replica: Any) -> tuple[Connection, Helper]:
        """Start a helper; return this process's end of its pipe, and the helper."""
        if not self.helpers:  # at exit, end helpers before multiprocessing waits for its processes
            Finalize(self, stop_helpers, [self.helpers], exitpriority=0)
        here, there = multiprocessing.Pipe()
        OPEN.add(here)
        helper: Helper
        # A daemonic process, such as one of a multiprocessing.Pool, cannot have children.
        if FORK and not multiprocessing.current_process().daemon:
            context = multiprocessing.get_context("fork")
            helper = context.Process(target=work, args=(there, replica, True), daemon=True)
            # A helper must not collect garbage that it inherits: an ONNX Runtime session would wait
            # forever for its threads, which exist in this process only.
            gc.freeze()
            try:
                helper.start()
            finally:
                gc.unfreeze()
            there.close()
        else:
            helper = threading.Thread(target=work, args=(there, replica), daemon=True)
            helper.start()
        return here, helper

    def stop(self) -> None:
        """End all helpers."""
        stop_helpers(self.helpers)


def stop_helpers(helpers: list[tuple[Connection, Helper]]) -> None:
    """End helpers by closing their pipes, and wait for them."""
    ending = []
    while helpers:
        pipe, helper = helpers.pop()
        OPEN.discard(pipe)
        pipe.close()
        ending.append(helper)
    for helper in ending:
        helper.join(timeout=1)  # a helper in the middle of a job may need longer


def outcome_of(task: Callable, replica: Any, *job) -> Outcome:
    """Run a job; return its result or its exception."""
    try:
        return task(replica, *job), None, ""
    except Exception as error:
        return None, error, ""


def sendable(outcome: Outcome) -> Outcome:
    """Return an outcome that can be pickled, with the traceback as text.

    An exception that cannot be pickled is replaced by a RuntimeError with its message.
    """
    result, error, _ = outcome
    if error is None:
        return result, None, ""
    text = "".join(traceback.format_exception(error))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return None, error, text


def work(pipe: Connection, replica: Any, forked: bool = False) -> None:
    """Run a helper: compute jobs until the other end of the pipe is closed."""
    if forked:
        for end in OPEN:  # inherited; other helpers would not end while they are open here
            end.close()
        OPEN.clear()
        for number in signal.SIGINT, signal.SIGTERM:  # the main process decides when to stop
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
