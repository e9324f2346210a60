"""Tiles shared out among threads, a whole tile each: product and compaction, one after the other in the same thread.

A product that all threads share leaves torch's own threads spinning for a while, in the way of whatever comes next, and
every tile costs two hand-overs. With a tile per thread nothing waits. Which thread takes which tile changes no result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from conceptatlas.saes._memory import roomy

T = TypeVar("T")
R = TypeVar("R")

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
