"""Ranks: the processes of an MPI job, on one machine or on many.

``mpiexec -n 8 minicap train`` starts eight processes that run the same command. Each has a number,
its rank, and does its share of the work. Rank 0 prints, logs and saves. Without mpiexec there is
one process, which does all the work, and MPI is not imported.
"""

import atexit
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import numpy

from minicap.utils.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

# Environment variables with the number of processes: of MPICH and Intel MPI, Open MPI, Slurm.
STARTED = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
STARTED_HERE = "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"
PATIENCE = 1.0  # seconds


class Ranks:
    """One process alone, which does all the work.

    Attributes:
        rank: this process's number, from 0.
        size: the number of processes.
        rank_here, size_here: the same among the processes on this machine.
    """

    rank, size = 0, 1
    rank_here, size_here = 0, 1

    def first(self, compute: Callable[[], R]) -> R:
        """Compute something on rank 0 while the others wait; return the result on all ranks."""
        return compute()

    def share(self, items: Sequence[T], compute: Callable[[T], R]) -> list[R]:
        """Compute something for each item, each rank for its share of the items.

        Returns:
            The results for all items, in their order, on all ranks.
        """
        return [compute(item) for item in items]

    def deal(self, numbers: range) -> Iterator[int]:
        """Deal out numbers: each goes to the rank that asks for it first."""
        yield from numbers

    def in_order(
        self, numbers: range, compute: Callable[[Iterator[int]], Iterable[R]]
    ) -> Iterator[R]:
        """Compute something for each number, and collect the results in order.

        Args:
            numbers: they are dealt out (see `deal`).
            compute: turns an iterator of numbers into their results, one for each.

        Yields:
            On rank 0 the results in the order of `numbers`, on the others nothing.
        """
        yield from compute(iter(numbers))

    def total(self, number: float) -> float:
        """Return the sum of all ranks' numbers."""
        return number

    def add(self, array: Any) -> None:
        """Replace an array by the sum of all ranks' arrays.

        Args:
            array: of NumPy, or of CuPy if the MPI library accepts these.
        """

    def wait(self) -> None:
        """Wait until all ranks have reached this point."""

    def equal(self, value: bytes) -> bool:
        """Return whether all ranks have the same value."""
        return True

    def silence(self) -> None:
        """Discard what ranks other than 0 print from now on."""
        if self.rank:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115

    def exit(self, status: int | None, message: str = "") -> NoReturn:
        """Print a message and end this process. If it has failed, end the whole job."""
        if message:
            print(message, file=sys.stderr)
        sys.exit(status)


class MpiRanks(Ranks):
    """The processes of an MPI job."""

    def __init__(self, comm: Any):
        """Join a job.

        Args:
            comm: an mpi4py communicator.
        """
        from mpi4py import MPI

        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        here = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank_here, self.size_here = here.rank, here.size

    @functools.cached_property
    def counter(self) -> Any:
        """A number in rank 0's memory, which all ranks can increase without asking rank 0."""
        from mpi4py import MPI

        window = MPI.Win.Allocate(8 if self.rank == 0 else 0, 8, comm=self.comm)
        window.Lock_all()
        atexit.register(window.Free)
        atexit.register(window.Unlock_all)
        return window

    def first(self, compute: Callable[[], R]) -> R:
        return self.comm.bcast(compute() if self.rank == 0 else None)

    def share(self, items: Sequence[T], compute: Callable[[T], R]) -> list[R]:
        own = [compute(item) for item in items[self.rank :: self.size]]
        found: list = [None] * len(items)
        for rank, results in enumerate(self.comm.allgather(own)):
            found[rank :: self.size] = results
        return found

    def deal(self, numbers: range) -> Iterator[int]:
        counter = self.counter
        self.comm.Barrier()  # all ranks have finished earlier calls
        if self.rank == 0:
            numpy.frombuffer(counter, "i8")[...] = 0
            counter.Sync()
        self.comm.Barrier()
        one, place = numpy.ones(1, "i8"), numpy.zeros(1, "i8")
        while True:
            counter.Fetch_and_op(one, place, 0)
            counter.Flush(0)
            if place[0] >= len(numbers):
                return
            yield numbers[place[0]]

    def in_order(
        self, numbers: range, compute: Callable[[Iterator[int]], Iterable[R]]
    ) -> Iterator[R]:
        if not numbers:
            return
        dealt, taken = itertools.tee(self.deal(numbers))
        own = zip(dealt, compute(taken))
        if self.rank:
            for pair in own:
                self.comm.send(pair, 0)
            return

        def arriving() -> Iterator[tuple[int, R]]:
            for pair in own:
                yield pair
                while self.comm.iprobe():
                    yield self.comm.recv()
            while True:
                yield self.comm.recv()

        pairs = arriving()
        found: dict[int, R] = {}
        for number in numbers:
            while number not in found:
                found.update([next(pairs)])
            yield found.pop(number)

    def total(self, number: float) -> float:
        return self.comm.allreduce(number)

    def add(self, array: Any) -> None:
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, array)

    def wait(self) -> None:
        self.comm.Barrier()

    def equal(self, value: bytes) -> bool:
        return len(set(self.comm.allgather(value))) == 1

    def exit(self, status: int | None, message: str = "") -> NoReturn:
        if not status:
            sys.exit(0)  # mpi4py waits for the others
        if self.rank:
            time.sleep(PATIENCE)  # if all fail for one reason, rank 0 says so and ends the job
            message = message and f"{message} (rank {self.rank})"
        if message:
            print(message, file=sys.__stderr__, flush=True)  # `silence` leaves this one open
        self.comm.Abort(status)
        raise SystemExit(status)  # for the type checker: Abort does not return


def started(names: tuple[str, ...] = STARTED) -> int:
    """Return the number of processes in this job, or, with STARTED_HERE, of those on this machine.

    The environment says so; MPI is not needed, and not imported.
    """
    found = [os.environ.get(name, "") for name in names]
    return max([1, *(int(text) for text in found if text.isdecimal())])


@functools.cache
def world() -> Ranks:
    """Return the ranks that run this command, of which this process is one.

    Raises:
        UserError: mpi4py is missing, or belongs to another MPI than the mpiexec that was used.
    """
    count = started()
    if count == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{count} processes were started, but mpi4py cannot be imported ({error}): "
            "run pip install -e '.[mpi]'"
        ) from error
    if MPI.COMM_WORLD.size != count:
        raise UserError(
            f"{count} processes were started, but MPI connects {MPI.COMM_WORLD.size} of them: "
            f"use the mpiexec that belongs to {MPI.Get_library_version().splitlines()[0]}"
        )
    return MpiRanks(MPI.COMM_WORLD)
