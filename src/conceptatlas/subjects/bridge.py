"""Sites that plain hooks do not reach, through TransformerLens's `TransformerBridge` on the same weights.

The bridge puts its own modules into the model that it is given. It gets a copy of the module tree that shares every
weight, so the subject's own model stays as it is and little memory is spent (fused projections, as GPT-2 has them, are
split into copies). Its attention is always eager.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from conceptatlas.base.errors import InputError
from conceptatlas.subjects.places import Place
from conceptatlas.subjects.sites import Site

# The bridge's name where it is not ours: its own hook_mlp_in stands before the norm and is off by default.
_BRIDGE_NAMES = {"hook_mlp_in": "mlp.hook_in"}


def share_weights(model: nn.Module) -> Any:
    """Return a copy of the module tree with the same tensors and without any hook."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    clone = copy.deepcopy(model, memo=dict(shared))
    for module in clone.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return clone


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep the bridge's advice about its own modes out of our output."""
    logger = logging.getLogger("transformer_lens")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_bridge(model: Any, tokenizer: Any, location: str) -> Any:
    """Return a `TransformerBridge` over the weights of ``model``.

    Args:
        model: A Hugging Face text model.
        tokenizer: Its tokenizer, loaded from a folder or the cache (the bridge reads it again from there).
        location: The model's folder or hub id.

    Raises:
        InputError: The bridge does not know the architecture, or the model is not a pure text model. (For models with a
            vision part, TransformerLens installs packages on its own; that must not happen behind a user's back.)
    """
    name = type(model).__name__
    if model.config.get_text_config() is not model.config:
        raise InputError(
            f"{name} is not a pure text model, and TransformerLens's bridge reads only those here; choose a residual, "
            "MLP or attention output site."
        )
    from transformer_lens.model_bridge import TransformerBridge

    clone = share_weights(model)
    clone.set_attn_implementation("eager")
    clone.config.architectures = [name]  # The bridge chooses by it; models that were never saved have none.
    try:
        with _without_notices():
            return TransformerBridge.boot_transformers(
                location,
                hf_model=clone,
                tokenizer=copy.deepcopy(tokenizer),
                device=str(next(model.parameters()).device),
                dtype=next(model.parameters()).dtype,
            )
    except (ValueError, NotImplementedError, KeyError, AttributeError) as error:
        raise InputError(
            f"TransformerLens's bridge cannot read {name} ({str(error).split('. ')[0]}); choose a residual site "
            "(hook_resid_pre, hook_resid_post), which plain hooks read in any architecture."
        ) from error


def bridge_place(bridge: Any, site: Site) -> Place | None:
    """Return where the bridge shows ``site``, or None where the architecture has no such place."""
    name = f"blocks.{site.layer}.{_BRIDGE_NAMES.get(site.hook, site.hook)}"
    hook_point = bridge.get_hook_point(name) or bridge.hook_dict.get(name)
    return None if hook_point is None else Place(hook_point, "output")
