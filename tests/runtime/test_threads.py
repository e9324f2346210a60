"""Threads: their cores, what each keeps, and the background writer given up while others still bring pieces."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
import torch

from conceptatlas.runtime.threads import WAITING_PIECES, BackgroundWriter, each_in_a_thread, scratch, two_at_a_time


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


def test_encoding_in_threads_leaves_torch_its_own_threads_and_takes_one_core_each() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen = each_in_a_thread(lambda _part: (threading.get_ident(), torch.get_num_threads()), range(50))
        assert {count for _, count in seen} == {1}
        assert threading.get_ident() not in {thread for thread, _ in seen}
        assert torch.get_num_threads() == 2
        again = each_in_a_thread(lambda _part: torch.ones(1 << 20).add_(1).sum() and torch.get_num_threads(), range(4))
        assert set(again) == {1}
        assert each_in_a_thread(lambda part: part * 2, []) == []
        torch.set_num_threads(4)
        halves = two_at_a_time(lambda _part: (threading.get_ident(), torch.get_num_threads()), range(50))
        assert {count for _, count in halves} == {2}
        assert len({thread for thread, _ in halves}) <= 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_scratch_is_used_again_and_grows() -> None:
    first = scratch("test", (3, 5), torch.float64)
    assert scratch("test", (15,), torch.float64).data_ptr() == first.data_ptr()
    assert scratch("other", (3, 5), torch.float64).data_ptr() != first.data_ptr()
    assert scratch("test", (100, 100), torch.float64).shape == (100, 100)
    assert scratch("test", (3, 5), torch.float16).dtype == torch.float16
