"""Work that goes on side by side on a GPU: streams, events that put them in order, and copies that nobody waits for.

They are CUDA's streams and events. On other devices work is done in the order of the calls, so that both do nothing there
and a copy is an ordinary one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")

# Bytes that are copied to a GPU at a time: what is pinned for it stays little, however large the tensor.
_PIECE = 64 << 20


@cache
def stream_for(use: str, device: torch.device) -> Stream:
    """Return the stream for one use of a device; always the same, because torch keeps freed memory for each."""
    del use
    return Stream(device)


class Stream:
    """Work that runs in its own order, beside the device's other work."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def work(self) -> AbstractContextManager[object]:
        """Queue what is called within in this stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


class Event:
    """The point up to which work has been queued in the stream that is at work when it is made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))

    def hold(self) -> None:
        """Let what is queued from now on, in the stream at work, begin after this point only; does not wait."""
        if self._event is not None:
            torch.cuda.current_stream(self._device).wait_event(self._event)

    def wait(self) -> None:
        """Wait until all up to this point is done."""
        if self._event is not None:
            self._event.synchronize()


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in the host's memory, which is there once a :class:`Event` made after this call has been waited for."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on a device, with the same strides; from the host to a GPU it is queued in the stream at work."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    if tensor.dim() == 2 and not tensor.is_contiguous() and tensor.t().is_contiguous():
        return _in_pieces(tensor.t(), device).t()
    return _in_pieces(tensor.contiguous(), device)


def _in_pieces(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a contiguous tensor through pinned memory, which torch uses again when it has been read."""
    found = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    size = _PIECE // tensor.element_size()
    for piece, place in zip(torch.split(tensor.view(-1), size), torch.split(found.view(-1), size), strict=True):
        place.copy_(piece.pin_memory(), non_blocking=True)
    return found


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """Yield each item after the next one has been made, so that what an item has queued has company on the device."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
