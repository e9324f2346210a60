"""Run the text model once over a padded batch and keep the asked rows of the asked sites, through plain hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.places import Place, first_input, first_output, with_first_input, with_first_output

TokenIds = npt.NDArray[np.int32]
RowMask = npt.NDArray[np.bool_]


class _DeepestReached(Exception):
    """Ends a forward pass once every asked site has been read. Never leaves this module."""


@dataclass(frozen=True)
class Batch:
    """A right-padded batch on the subject's device.

    Attributes:
        input_ids: int64 [B, S].
        attention_mask: int64 [B, S], 1 where there is a token.
        rows: int64 [T], the asked positions in the flattened [B * S], item by item.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor


# Runs one pass over a batch, given what runs it, and returns what was read.
Read = Callable[[Callable[[Batch], object], Batch], dict[str, torch.Tensor]]


def pad_batch(token_ids: Sequence[TokenIds], rows: Sequence[RowMask], *, pad_id: int, device: torch.device) -> Batch:
    """Pad items on the right. ``rows[i]`` masks the asked positions of item i."""
    longest = max(len(ids) for ids in token_ids)
    padded = np.full((len(token_ids), longest), pad_id, dtype=np.int64)
    attention = np.zeros((len(token_ids), longest), dtype=np.int64)
    asked = np.zeros((len(token_ids), longest), dtype=bool)
    for item, (ids, mask) in enumerate(zip(token_ids, rows, strict=True)):
        padded[item, : len(ids)] = ids
        attention[item, : len(ids)] = 1
        asked[item, : len(ids)] = mask
    return Batch(
        torch.from_numpy(padded).to(device, non_blocking=True),
        torch.from_numpy(attention).to(device, non_blocking=True),
        torch.from_numpy(np.flatnonzero(asked)).to(device, non_blocking=True),
    )


def read_hook(place: Place, take: Callable[[torch.Tensor], None]) -> RemovableHandle:
    """Call ``take`` with the values at ``place`` on every pass."""

    def see(value: torch.Tensor) -> None:
        take(value if place.read is None else place.read(value))

    if place.side == "input":

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(first_input(args, kwargs))

        return place.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        see(first_output(output))

    return place.module.register_forward_hook(after)


def edit_hook(place: Place, fn: Callable[[torch.Tensor], torch.Tensor]) -> RemovableHandle:
    """Replace the values at ``place`` by ``fn`` of them on every pass."""

    def change(value: torch.Tensor) -> torch.Tensor:
        changed = fn(value if place.read is None else place.read(value))
        return (changed if place.write is None else place.write(changed)).to(value.dtype)

    if place.side == "input":

        def before(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return with_first_input(args, kwargs, change(first_input(args, kwargs)))

        return place.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return with_first_output(output, change(first_output(output)))

    return place.module.register_forward_hook(after)


@contextmanager
def hooks(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Hold hooks for the time of the block."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def take_rows(values: torch.Tensor, batch: Batch, name: str) -> torch.Tensor:
    """Return the asked rows of the values at a site as [T, D].

    Args:
        values: [B, S, ...] or, as some MLPs have it, [B * S, ...]; what stands after the positions is flattened.
        batch: The batch that ran.
        name: The site's, for the message.

    Raises:
        InputError: The values are of another shape: the site does not hold one vector per token.
    """
    items, length = batch.input_ids.shape
    if tuple(values.shape[:2]) != (items, length) and values.shape[0] != items * length:
        raise InputError(
            f"The site {name} holds values of shape {list(values.shape)} for {items} items of {length} tokens, not one "
            "vector per token; this architecture cannot be read there."
        )
    return values.reshape(items * length, -1).index_select(0, batch.rows)


@contextmanager
def reading(places: Mapping[str, Place], *, dtype: torch.dtype | None) -> Iterator[Read]:
    """Hold hooks at ``places`` for any number of passes, which may run side by side in several threads.

    What is yielded calls its first argument (one forward pass over the batch, stopped after the last of ``places``) and
    returns the asked rows, [T, D] at each place.

    Raises:
        InputError: A pass ended without reaching a site.
    """
    under_way = threading.local()  # hooks are the model's and see all passes: each thread knows its own by this

    def taker(name: str) -> Callable[[torch.Tensor], None]:
        def take(values: torch.Tensor) -> None:
            now: tuple[Batch, dict[str, torch.Tensor]] | None = getattr(under_way, "now", None)
            if now is None:
                return
            batch, found = now
            taken = take_rows(values, batch, name)
            found[name] = taken if dtype is None else taken.to(dtype)
            if len(found) == len(places):
                raise _DeepestReached

        return take

    def read(run: Callable[[Batch], object], batch: Batch) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        under_way.now = batch, found
        try:
            with suppress(_DeepestReached):
                run(batch)
        finally:
            under_way.now = None
        missing = [name for name in places if name not in found]
        if missing:
            raise InputError(
                f"The forward pass of this architecture never reaches the site {missing[0]}; choose a residual site "
                "(hook_resid_pre, hook_resid_post)."
            )
        return {name: found[name] for name in places}

    with hooks([read_hook(place, taker(name)) for name, place in places.items()]):
        yield read
