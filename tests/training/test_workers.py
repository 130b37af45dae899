"""Workers: jobs in parallel, in processes and in threads."""

import gc
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy
import pytest

from minicap.training import workers
from minicap.training.workers import Workers, shared_zeros
from minicap.utils.errors import UserError

forks = pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")


@pytest.fixture(params=["processes", "threads"])
def kind(request, monkeypatch):
    if request.param == "processes" and not workers.FORK:
        pytest.skip("processes are for systems that fork safely")
    monkeypatch.setattr(workers, "FORK", request.param == "processes")
    return request.param


# Tasks. A pipe sends their names, so they are functions of this module.


def slow(replica, number):
    time.sleep(0.05 / (number + 1))
    return replica, number, os.getpid()


def process_id(replica, number):
    return os.getpid()


def add_row(array, row):
    array[row] += array[2] + row
    return float(array[row, 0])


def same(replica, number):
    return number


def fail_if(failing, number):
    if number == failing:
        raise UserError(f"job {number} failed")


def interrupt_first(replica, number):
    if number == 0:
        raise KeyboardInterrupt
    return "interrupted", number


def test_results_come_in_the_order_of_the_jobs(kind):
    """The slowest job is first; also with fewer jobs than workers, and later with the same
    helpers. Every job gets the replica of its own worker."""
    pool = Workers("abc")
    for count in (3, 1, 2, 3):
        found = pool.run(slow, [(n,) for n in range(count)])
        assert [f[:2] for f in found] == [("abc"[n], n) for n in range(count)]
        assert len({pid for *_, pid in found}) == (count if kind == "processes" else 1)


def test_different_tasks_by_the_same_helpers(kind):
    pool = Workers([3, 4])
    assert pool.run(operator.add, [(1,), (2,)]) == [4, 6]
    assert pool.run(operator.mul, [(1,), (2,)]) == [3, 8]
    assert len(pool.helpers) == 1 and pool.count == 2


def test_shared_arrays_are_shared(kind):
    """Every worker sees what another wrote, before and after the helpers have started."""
    array = shared_zeros((3, 2), "float32")
    pool = Workers([array, array])
    array[2] = 5
    assert pool.run(add_row, [(0,), (1,)]) == [5, 6]
    array[2] = 7
    assert pool.run(add_row, [(0,), (1,)]) == [12, 14]
    assert array.tolist() == [[12, 12], [14, 14], [7, 7]] and array.dtype == numpy.float32


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_here_and_the_next_jobs_run(kind, failing):
    pool = Workers([failing, failing])
    with pytest.raises(UserError, match=f"job {failing} failed"):
        pool.run(fail_if, [(0,), (1,)])
    assert pool.run(same, [(0,), (1,)]) == [0, 1]


def test_after_an_interruption_no_old_answer_is_taken_for_a_new_one(kind):
    pool = Workers([None, None])
    with pytest.raises(KeyboardInterrupt):
        pool.run(interrupt_first, [(0,), (1,)])
    assert pool.run(same, [(0,), (1,)]) == [0, 1]


@forks
def test_workers_of_a_child_process_let_it_end(tmp_path):
    """multiprocessing ends a child without what Python does at an exit."""
    code = """if 1:
        import multiprocessing, sys
        from minicap.training.workers import Workers
        def call(replica, number): return number
        def job():
            pool = Workers([None, None])
            pool.me = pool  # kept alive by itself, as a trainer keeps its workers
            print(pool.run(call, [(1,), (2,)]), flush=True)
        if __name__ == "__main__":
            child = multiprocessing.get_context(sys.argv[1]).Process(target=job)
            child.start()
            child.join()
            print(child.exitcode)
    """
    (tmp_path / "x.py").write_text(code.replace("if 1:", "if True:"))
    for method in "fork", "spawn":
        command = [sys.executable, str(tmp_path / "x.py"), method]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.stdout.split("\n") == ["[1, 2]", "0", ""] and not done.stderr


@forks
def test_a_killed_helper_is_an_error_and_not_a_hang():
    pool = Workers([None, None])
    _, helper = pool.run(process_id, [(0,), (1,)])
    os.kill(helper, signal.SIGKILL)
    with pytest.raises(UserError, match="worker process was killed"):
        pool.run(process_id, [(0,), (1,)])
    assert pool.run(process_id, [(0,), (1,)])[1] != helper  # another one has started


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_helpers_ignore_signals_and_end_with_their_pipe(number):
    """Ctrl-C reaches every process of a terminal; the main one decides what it means."""
    pool = Workers([None, None, None])
    _, *helpers = pool.run(process_id, [(0,), (1,), (2,)])
    for helper in helpers:
        os.kill(helper, number)
    assert pool.run(process_id, [(0,), (1,), (2,)])[1:] == helpers
    pool.stop()
    for helper in helpers:
        with pytest.raises(ProcessLookupError):
            os.kill(helper, 0)


@forks
def test_stopping_workers_ends_them_while_others_live():
    """The helpers of the younger workers have inherited the pipes of the older ones."""
    older, younger = (Workers([None, None]) for _ in range(2))
    (_, old), (_, young) = (pool.run(process_id, [(0,), (1,)]) for pool in (older, younger))
    older.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)
    assert younger.run(process_id, [(0,), (1,)])[1] == young
    younger.stop()


def in_a_pool(number):
    pool = Workers([number, number])
    try:
        return pool.run(operator.add, [(0,), (10,)])
    finally:
        pool.stop()


@forks
def test_workers_run_inside_a_pool_of_processes():
    """The pool's processes are daemonic, and cannot have children of their own."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(in_a_pool, [1, 2]) == [[1, 11], [2, 12]]


class Unpicklable(Exception):
    def __init__(self, pipe, reason):
        super().__init__(reason)
        self.lock = threading.Lock()


@dataclass
class Failing:
    """A replica whose second job fails."""

    fail: object

    def compute(self, number):
        if number == 1:
            raise self.fail()


@forks
@pytest.mark.parametrize(
    ("fail", "shown"),
    [
        (lambda: 1 // 0, (ZeroDivisionError, "by zero")),
        (lambda: Unpicklable(1, "odd"), (RuntimeError, "Unpicklable: odd")),
    ],
)
def test_a_bug_in_a_helper_shows_its_own_traceback(fail, shown):
    """Also if its exception cannot be pickled, which is not reported as a killed process."""
    error, message = shown
    with pytest.raises(error, match=message) as caught:
        Workers([Failing(fail), Failing(fail)]).run(Failing.compute, [(0,), (1,)])
    cause = str(caught.value.__cause__)
    assert "in compute" in cause and "test_workers.py" in cause


def test_no_more_helpers_start_than_jobs_need(kind):
    pool = Workers("abc")
    for count, helpers in (1, 0), (2, 1), (3, 2), (2, 2):
        assert pool.run(same, [(n,) for n in range(count)]) == list(range(count))
        assert len(pool.helpers) == helpers
    pool.stop()


class Inherited:
    """Garbage in a cycle that notes where it is collected."""

    collected_in: list = []

    def __init__(self):
        self.itself = self

    def __del__(self):
        self.collected_in.append(os.getpid())


def collect(replica, number):
    gc.collect()
    return os.getpid(), Inherited.collected_in


@forks
def test_a_helper_does_not_collect_what_it_inherits():
    """An ONNX Runtime session in a helper would wait for threads that do not exist there."""
    Inherited.collected_in.clear()
    gc.disable()
    try:
        Inherited()
        (here, mine), (there, theirs) = Workers([0, 1]).run(collect, [(0,), (1,)])
    finally:
        gc.enable()
    assert here != there and mine == [here] and theirs == []
