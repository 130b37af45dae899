"""Answer concurrent requests in batches, on one thread, from a bounded queue."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Busy(Exception):
    """The queue is full."""


class Batcher(Generic[Job, Answer]):
    """Collects jobs while the previous batch is computed."""

    def __init__(
        self,
        answer: Callable[[Sequence[Job]], Sequence[Answer | Exception]],
        size: int = 32,
        limit: int = 128,
    ) -> None:
        """Set up an empty queue.

        Args:
            answer: computes the answers of a batch, each an Exception if that job failed.
            size: largest batch.
            limit: most jobs that wait or are computed.
        """
        self._answer, self._size, self._limit = answer, size, limit
        self._waiting: list[tuple[Job, asyncio.Future[Answer]]] = []
        self._arrived = asyncio.Event()
        self.unfinished = 0

    async def __call__(self, job: Job) -> Answer:
        """Compute one answer, in a batch with others.

        Raises:
            Busy: the queue is full.
            Exception: what `answer` returned for this job.
        """
        self.check_room()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._arrived.set()
        self.unfinished += 1
        try:
            return await future
        finally:
            self.unfinished -= 1

    def check_room(self) -> None:
        """Raise Busy if the queue is full."""
        if self.unfinished >= self._limit:
            raise Busy(f"{self._limit} requests are waiting; try again in a few seconds")

    async def run(self) -> None:
        """Answer jobs until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "captions") as thread:
            while True:
                await self._arrived.wait()
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                if not self._waiting:
                    self._arrived.clear()
                # A client that gave up has cancelled the future.
                batch = [(job, future) for job, future in batch if not future.done()]
                if not batch:
                    continue
                jobs = [job for job, _ in batch]
                try:
                    answers = await loop.run_in_executor(thread, self._answer, jobs)
                except Exception as error:  # a bug must not stop the loop
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
