"""The background writer, given up while others still bring pieces."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from conceptatlas.recording.writer import WAITING_PIECES, BackgroundWriter


def test_nobody_waits_for_a_writer_that_was_given_up() -> None:
    writer, go_on = BackgroundWriter(), threading.Event()

    def first() -> None:
        go_on.wait(10)

    writer.submit(first)
    for _ in range(WAITING_PIECES - 1):
        writer.submit(lambda: None)
    with ThreadPoolExecutor(3) as pool:
        late = [pool.submit(writer.submit, lambda: None) for _ in range(3)]
        closing = threading.Thread(target=writer.abandon)
        closing.start()
        go_on.set()
        closing.join(10)
        for one in late:  # taken in time or refused, but not left waiting
            assert one.exception(timeout=10) is None or isinstance(one.exception(), RuntimeError | CancelledError)


def test_an_error_shows_at_the_next_piece_and_room_stays() -> None:
    writer = BackgroundWriter()

    def fail() -> None:
        raise OSError("disk full")

    writer.submit(fail)
    raised = 0
    for _ in range(3 * WAITING_PIECES):
        try:
            writer.submit(lambda: None)
        except OSError:
            raised += 1
    writer._pool.shutdown(wait=True)
    if not raised:
        with pytest.raises(OSError, match="disk full"):
            writer.close()
