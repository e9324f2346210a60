"""Work shared out among threads, each part whole in one thread, and files written in the background.

A product that all threads share leaves torch's own threads spinning for a while, in the way of whatever comes next, and
every tile costs two hand-overs. With a tile per thread nothing waits. Which thread takes which tile changes no result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from conceptatlas.runtime.memory import roomy

T = TypeVar("T")
R = TypeVar("R")

# Pieces that wait to be written while the next SAE is encoded.
WAITING_PIECES = 2

_kept = threading.local()
_making = threading.Lock()


def scratch(use: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return this thread's scratch for one use, to be overwritten; fresh memory for every tile costs as much as a read."""
    size = math.prod(shape)
    flat: torch.Tensor | None = getattr(_kept, use, None)
    if flat is None or len(flat) < size or flat.dtype != dtype:
        flat = roomy((size,), dtype)
        setattr(_kept, use, flat)
    return flat[:size].view(shape)


def each_in_a_thread(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Return ``work(part)`` for every part, on as many threads as torch uses, each with one core to compute on.

    A single part is worked on here, by all of torch's threads.
    """
    if min(torch.get_num_threads(), len(parts)) <= 1:
        return [work(part) for part in parts]
    return list(_workers().map(work, parts))


def two_at_a_time(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Return ``work(part)`` for every part, two of them at a time, each on half of the cores: one fills the other's gaps."""
    n_threads = torch.get_num_threads()
    if min(n_threads, len(parts)) <= 1:
        return [work(part) for part in parts]
    with _making:
        pool = _pool(2, n_threads // 2)
    return list(pool.map(work, parts))


def in_a_thread(work: Callable[[], R]) -> R:
    """Return ``work()``, done by a thread of :func:`each_in_a_thread`: no more threads compute than there are cores."""
    if torch.get_num_threads() <= 1:
        return work()
    return _workers().submit(work).result()


def thread_pool(size: int, name: str, cores: int) -> ThreadPoolExecutor:
    """Return ``size`` threads in each of which torch computes on ``cores`` cores, else on as many as were last set in any."""
    return ThreadPoolExecutor(size, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(cores,))


def _workers() -> ThreadPoolExecutor:
    with _making:
        return _pool(torch.get_num_threads(), 1)


@cache
def _pool(n_threads: int, cores: int) -> ThreadPoolExecutor:
    """Return ``n_threads`` threads for each of which torch computes on ``cores`` cores.

    How many threads an operation uses is set per thread, but what a thread begins with is the last figure set in any, taken
    over at its first use. So each is used before its figure is set, and the caller's is set again for those that come later.
    """
    before = torch.get_num_threads()
    ready = threading.Barrier(n_threads)

    def begin() -> None:
        torch.get_num_threads()
        ready.wait()
        torch.set_num_threads(cores)

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="encode")
    for done in [pool.submit(begin) for _ in range(n_threads)]:
        done.result()
    torch.set_num_threads(before)
    return pool


class BackgroundWriter:
    """Writes pieces in a thread of its own, so that the disk and the processor work at the same time.

    At most ``WAITING_PIECES`` wait. An error shows at the next call. Pieces may come from any thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._room = threading.BoundedSemaphore(WAITING_PIECES)
        self._futures: list[Future[None]] = []
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task, waiting for room; raise what an earlier one raised."""
        self._room.acquire()
        try:
            with self._lock:
                self._raise_failed()
                future = self._pool.submit(task)
                self._futures.append(future)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _done: self._room.release())  # also where it is dropped

    def _raise_failed(self) -> None:
        done = [future for future in self._futures if future.done()]
        self._futures = [future for future in self._futures if not future.done()]
        for future in done:
            future.result()

    def close(self) -> None:
        """Wait for everything, and raise what failed."""
        self._pool.shutdown(wait=True)
        self._raise_failed()

    def abandon(self) -> None:
        """Drop what waits; what is being written is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)
