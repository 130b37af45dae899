"""Workers: jobs side by side, in processes and in threads."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy
import pytest

from minicap.training import workers
from minicap.training.workers import Workers, shared_zeros
from minicap.utils.errors import UserError


@pytest.fixture(params=["processes", "threads"])
def kind(request, monkeypatch):
    if request.param == "processes" and not workers.FORK:
        pytest.skip("processes are for systems that fork safely")
    monkeypatch.setattr(workers, "FORK", request.param == "processes")
    return request.param


def test_results_come_in_the_order_of_the_jobs(kind):
    """The slowest first; also with fewer jobs than workers, and again with the same helpers."""

    def call(method, number):
        time.sleep(0.05 / (number + 1))
        return method, number, os.getpid()

    crew = Workers(3, call)
    for count in (3, 1, 2, 3):
        found = crew.run("square", [(n,) for n in range(count)])
        assert [f[:2] for f in found] == [("square", n) for n in range(count)]
        assert len({pid for *_, pid in found}) == (count if kind == "processes" else 1)


def test_shared_arrays_are_shared(kind):
    """What one writes, all see: in both directions, before and after the helpers have started."""
    array = shared_zeros((3, 2), "float32")

    def call(method, row):
        array[row] += array[2] + row
        return float(array[row, 0])

    crew = Workers(2, call)
    array[2] = 5
    assert crew.run("add", [(0,), (1,)]) == [5, 6]
    array[2] = 7
    assert crew.run("add", [(0,), (1,)]) == [12, 14]
    assert array.tolist() == [[12, 12], [14, 14], [7, 7]] and array.dtype == numpy.float32


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_here_and_the_next_jobs_run(kind, failing):
    def call(method, number):
        if method == "fail" and number == failing:
            raise UserError(f"job {number} failed")
        return number

    crew = Workers(2, call)
    with pytest.raises(UserError, match=f"job {failing} failed"):
        crew.run("fail", [(0,), (1,)])
    assert crew.run("work", [(0,), (1,)]) == [0, 1]


def test_after_an_interruption_no_old_answer_is_taken_for_a_new_one(kind):
    def call(method, number):
        if method == "stop" and number == 0:
            raise KeyboardInterrupt
        return method, number

    crew = Workers(2, call)
    with pytest.raises(KeyboardInterrupt):
        crew.run("stop", [(0,), (1,)])
    assert crew.run("work", [(0,), (1,)]) == [("work", 0), ("work", 1)]


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
def test_workers_of_a_child_process_let_it_end(tmp_path):
    """multiprocessing ends a child without what Python does at an exit."""
    code = """if 1:
        import multiprocessing, sys
        from minicap.training.workers import Workers
        def call(method, number): return number
        def job():
            crew = Workers(2, call)
            crew.me = crew  # kept alive by itself, as a trainer keeps its workers
            print(crew.run("", [(1,), (2,)]), flush=True)
        if __name__ == "__main__":
            child = multiprocessing.get_context(sys.argv[1]).Process(target=job)
            child.start()
            child.join()
            print(child.exitcode)
    """
    (tmp_path / "x.py").write_text(code.replace("if 1:", "if True:"))
    for how in "fork", "spawn":
        command = [sys.executable, str(tmp_path / "x.py"), how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.stdout.split("\n") == ["[1, 2]", "0", ""] and not done.stderr


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
def test_a_killed_helper_is_one_line_and_not_a_hang():
    crew = Workers(2, lambda method, number: os.getpid())
    _, helper = crew.run("pid", [(0,), (1,)])
    os.kill(helper, signal.SIGKILL)
    with pytest.raises(UserError, match="worker process was killed"):
        crew.run("pid", [(0,), (1,)])
    assert crew.run("pid", [(0,), (1,)])[1] != helper  # another one has started


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_helpers_ignore_signals_and_end_with_their_pipe(number):
    """Ctrl-C reaches every process of a terminal; the first one decides what it means."""
    crew = Workers(3, lambda method, number: os.getpid())
    _, *helpers = crew.run("pid", [(0,), (1,), (2,)])
    for helper in helpers:
        os.kill(helper, number)
    assert crew.run("pid", [(0,), (1,), (2,)])[1:] == helpers
    crew.stop()
    for helper in helpers:
        with pytest.raises(ProcessLookupError):
            os.kill(helper, 0)


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
def test_stopping_one_crew_ends_it_while_another_lives():
    """The younger one's helpers have inherited the pipes of the older one's."""
    older, younger = (Workers(2, lambda method, number: os.getpid()) for _ in range(2))
    (_, old), (_, young) = (crew.run("pid", [(0,), (1,)]) for crew in (older, younger))
    older.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)
    assert younger.run("pid", [(0,), (1,)])[1] == young
    younger.stop()


def in_a_pool(number):
    crew = Workers(2, lambda method, n: n + number)
    try:
        return crew.run("add", [(0,), (10,)])
    finally:
        crew.stop()


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
def test_workers_work_inside_a_pool_of_processes():
    """Which are daemonic, and may have no children of their own."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(in_a_pool, [1, 2]) == [[1, 11], [2, 12]]


class Unpicklable(Exception):
    def __init__(self, pipe, reason):
        super().__init__(reason)
        self.lock = threading.Lock()


@pytest.mark.skipif(not workers.FORK, reason="processes are for systems that fork safely")
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (lambda: 1 // 0, (ZeroDivisionError, "by zero")),
        (lambda: Unpicklable(1, "odd"), (RuntimeError, "Unpicklable: odd")),
    ],
)
def test_a_bug_in_a_helper_shows_its_own_traceback(error, shown):
    """Also where its exception cannot be sent: it is no killed process."""

    def call(method, number):
        if number == 1:
            raise error()

    kind, message = shown
    with pytest.raises(kind, match=message) as caught:
        Workers(2, call).run("x", [(0,), (1,)])
    assert "in call" in str(caught.value.__cause__) and "test_workers.py" in str(
        caught.value.__cause__
    )
