"""Writing in the background, so that the disk and the processor work at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Lock

# Pieces that wait to be written while the next SAE is encoded.
WAITING_PIECES = 2


class BackgroundWriter:
    """Writes pieces in a thread of its own; at most ``WAITING_PIECES`` wait. An error shows at the next call.

    Pieces may come from any thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._room = BoundedSemaphore(WAITING_PIECES)
        self._futures: list[Future[None]] = []
        self._lock = Lock()

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
