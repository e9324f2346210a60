"""Logits and generated text of a subject, with whatever edits are in force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.places import first_input, with_first_input


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        prompt_ids: int32, what it was given.
        new_ids: int32, what it added (its end token not counted).
        text: ``new_ids`` as text.
    """

    prompt_ids: npt.NDArray[np.int32]
    new_ids: npt.NDArray[np.int32]
    text: str


def output_head(model: Any, name: str) -> nn.Module:
    """Return the module that turns hidden states into logits.

    Raises:
        InputError: The model has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"{name} ({type(model).__name__}) has no head that predicts tokens; take a causal model.")
    return head


@contextmanager
def head_on_rows(head: nn.Module, rows: torch.Tensor) -> Iterator[None]:
    """Let the head see the asked rows only, as one sequence [1, T, D]: logits of all rows would fill memory."""

    def before(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = first_input(args, kwargs)
        return with_first_input(args, kwargs, hidden.reshape(-1, hidden.shape[-1]).index_select(0, rows)[None])

    handle = head.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the token ids that end a text."""
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = given if isinstance(given, Sequence) else [given]
    return frozenset(int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None)


@torch.no_grad()
def continue_text(
    model: Any,
    prompt: torch.Tensor,
    *,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | None,
    stop: frozenset[int],
) -> list[int]:
    """Continue ``prompt`` (int64 [1, S]) token by token, with a key-value cache where the model has one; return new ids.

    Args:
        model: A causal model with its head.
        prompt: What stands before.
        max_new_tokens: At most so many.
        temperature: 0 takes the likeliest token; otherwise one is drawn from the softmax of logits / temperature.
        generator: For the draws, on the CPU; needed when ``temperature`` is not 0.
        stop: Ids that end the text; they are not returned.
    """
    if temperature < 0 or (temperature > 0 and generator is None):
        raise InputError(
            f"Generating at temperature {temperature} needs a torch.Generator; pass one, or temperature=0 for the "
            "likeliest tokens."
        )
    new: list[int] = []
    cache: Any = None
    step = prompt
    cached = "past_key_values" in signature(model.forward).parameters  # Recurrent models keep their state elsewhere.
    for _ in range(max_new_tokens):
        output = model(input_ids=step, past_key_values=cache, use_cache=True) if cached else model(input_ids=step)
        cache = output.past_key_values if cached else None
        logits = output.logits[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if token in stop:
            break
        new.append(token)
        last = torch.tensor([[token]], device=prompt.device)
        step = last if cached else torch.cat([step, last], dim=1)
    return new
