"""Batches form while the thread is busy; the queue is bounded; failures reach their own job."""

import asyncio
import threading

import pytest

from minicap.server.batcher import Batcher, Busy


def run(scenario, batcher):
    async def main():
        task = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(scenario(), 20)
        finally:
            task.cancel()

    return asyncio.run(main())


class Gate:
    """Doubles numbers in batches, each after `open` has been set."""

    def __init__(self):
        self.open, self.batches = threading.Event(), []

    def __call__(self, jobs):
        assert self.open.wait(20)
        self.batches.append(list(jobs))
        return [ValueError(job) if job < 0 else 2 * job for job in jobs]


def test_jobs_that_arrive_together_are_answered_together_and_in_order():
    gate = Gate()
    batcher = Batcher(gate, size=4)

    async def scenario():
        jobs = [asyncio.create_task(batcher(n)) for n in range(10)]
        await asyncio.sleep(0.05)
        gate.open.set()
        return await asyncio.gather(*jobs)

    assert run(scenario, batcher) == [2 * n for n in range(10)]
    assert sum(gate.batches, []) == list(range(10))
    assert max(map(len, gate.batches)) == 4 and batcher.unfinished == 0


def test_a_full_queue_refuses_and_recovers():
    gate = Gate()
    batcher = Batcher(gate, size=2, limit=3)

    async def scenario():
        jobs = [asyncio.create_task(batcher(n)) for n in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy, match="3 requests are waiting"):
            await batcher(4)
        gate.open.set()
        await asyncio.gather(*jobs)
        return await batcher(5)

    assert run(scenario, batcher) == 10


def test_one_job_s_failure_is_its_own():
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate)

    async def scenario():
        return await asyncio.gather(*map(batcher, (1, -2, 3)), return_exceptions=True)

    first, second, third = run(scenario, batcher)
    assert (first, third) == (2, 6) and isinstance(second, ValueError)


def test_a_bug_fails_its_batch_and_not_the_queue():
    calls = []

    def answer(jobs):
        calls.append(jobs)
        if len(calls) == 1:
            raise ZeroDivisionError
        return jobs

    batcher = Batcher(answer)

    async def scenario():
        with pytest.raises(ZeroDivisionError):
            await batcher(1)
        return await batcher(2)

    assert run(scenario, batcher) == 2


def test_a_job_given_up_is_not_computed():
    gate = Gate()
    batcher = Batcher(gate, size=1)

    async def scenario():
        first, second, third = (asyncio.create_task(batcher(n)) for n in range(3))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, third)

    assert run(scenario, batcher) == [0, 4]
    assert gate.batches == [[0], [2]] and batcher.unfinished == 0
