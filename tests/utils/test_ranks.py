"""Ranks: what they compute together, and how they end."""

import json
import sys
import time

import pytest

from minicap.utils import ranks as module
from minicap.utils.errors import UserError
from minicap.utils.ranks import STARTED, STARTED_HERE, Ranks, started, world
from tests.mpi import needs_mpi, ranks, succeed


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in STARTED + STARTED_HERE:
        monkeypatch.delenv(name, raising=False)
    world.cache_clear()
    yield
    world.cache_clear()


def test_without_mpiexec_there_is_one_rank_and_no_mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    one = world()
    assert type(one) is Ranks and (one.rank, one.size) == (0, 1)
    assert one.first(lambda: 5) == 5
    assert one.share([1, 2, 3], lambda n: n * n) == [1, 4, 9]
    assert list(one.deal(range(2, 5))) == [2, 3, 4]
    assert list(one.in_order(range(2, 5), lambda numbers: (n * n for n in numbers))) == [4, 9, 16]
    assert one.total(3.0) == 3 and one.equal(b"x")


TOGETHER = """
import json, time
from minicap.utils.ranks import world
r = world()
r.silence()

def slow(numbers):  # rank 1 is slower, and the results are too large to be sent unasked
    for n in numbers:
        time.sleep(0.02 * r.rank)
        yield n, "x" * 1_000_000

found = {
    "rank": r.first(lambda: r.rank),
    "share": r.share(list(range(8)), lambda n: [n, r.rank]),
    "few": r.share([5], lambda n: n),
    "dealt": [[n, rank] for _ in range(2) for rank, own in
              enumerate(r.share(range(r.size), lambda _: list(r.deal(range(10, 30)))))
              for n in own],
    "order": [n for _ in range(2) for n, _ in r.in_order(range(3, 40), slow)],
    "none": list(r.in_order(range(0), slow)),
    "total": r.total(r.rank + 0.5),
    "equal": [r.equal(b"x"), r.equal(b"%d" % r.rank)],
    "size": [r.size, r.size_here],
}
r.wait()
print(json.dumps(found))
r.exit(None)
"""


@needs_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_ranks_work_together(count):
    text = succeed(count, "-c", TOGETHER)
    found = json.loads(text)  # of rank 0 alone: the others do not print
    assert found["rank"] == 0
    assert found["share"] == [[n, n % count] for n in range(8)] and found["few"] == [5]
    assert sorted(n for n, _ in found["dealt"]) == sorted([*range(10, 30)] * 2)
    assert found["order"] == [*range(3, 40)] * 2 and found["none"] == []
    assert found["total"] == sum(rank + 0.5 for rank in range(count))
    assert found["equal"] == [True, False] and found["size"] == [count, count]


FAIL = """
import sys
from minicap.utils import command_line
from minicap.utils.errors import UserError
from minicap.utils.ranks import world

def main():
    if str(world().rank) in sys.argv[2]:
        if sys.argv[1] == "bug":
            1 / 0
        if sys.argv[1] == "user":
            raise UserError("there is no such photo")
        return int(sys.argv[1])
    world().wait()

command_line.run(main)
"""


@needs_mpi
@pytest.mark.parametrize(
    "kind, where, message",
    [
        ("user", "0123", "error: there is no such photo\n"),
        ("user", "2", "error: there is no such photo (rank 2)\n"),
        ("bug", "1", "ZeroDivisionError: division by zero"),
        ("3", "1", ""),
    ],
)
def test_a_rank_that_fails_ends_the_job_with_one_message(kind, where, message):
    begun = time.perf_counter()
    done = ranks(4, "-c", FAIL, kind, where)
    assert done.returncode == (3 if kind == "3" else 1) and time.perf_counter() - begun < 30
    assert message in done.stderr and done.stderr.count("error:") <= 1


def test_a_missing_mpi4py_is_named(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match=r"2 processes were started, but mpi4py .*'\.\[mpi\]'"):
        world()


@needs_mpi
def test_another_mpi_s_mpiexec_is_refused():
    """Otherwise each process would think that it is alone, and all would write the same files."""
    code = "from minicap.utils import command_line, ranks; command_line.run(ranks.world)"
    done = ranks(1, "-c", "import os; os.environ['OMPI_COMM_WORLD_SIZE'] = '4'; " + code)
    assert "4 processes were started, but MPI connects 1 of them" in done.stderr
    assert done.returncode == 1


def test_what_the_environment_says(monkeypatch):
    assert started() == 1
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4(x2)")
    assert started(STARTED_HERE) == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "8")
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    assert started() == 8 and started(STARTED_HERE) == 4


def test_ranks_on_one_machine_divide_its_processors(monkeypatch):
    from minicap.utils.command_line import cpu_count

    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    assert cpu_count() == 12  # not started by mpiexec
    monkeypatch.setenv("PMI_SIZE", "8")
    assert cpu_count() == 3
    monkeypatch.setenv("MPI_LOCALNRANKS", "40")
    assert cpu_count() == 1
