"""Where a plain hook reads a site in an unmodified Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from conceptatlas.subjects.blocks import FAMILY_PARTS, BlockParts, TextStack
from conceptatlas.subjects.sites import Site


@dataclass(frozen=True)
class Place:
    """A module and the side of it on which a site's values pass.

    Attributes:
        module: The module to hook.
        side: Its first ``input``, or its ``output`` (the first of a tuple).
        read: Turns what passes there into the site's values, [B, S, D] -> [B, S, D]; None where they are the same.
        write: The inverse of ``read``, for edits; None where ``read`` is None or has no inverse.
    """

    module: nn.Module
    side: Literal["input", "output"]
    read: Callable[[torch.Tensor], torch.Tensor] | None = None
    write: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def editable(self) -> bool:
        """Whether what an edit puts here reaches everything downstream of the site."""
        return self.read is None or self.write is not None


def find_place(site: Site, stack: TextStack, config: Any) -> Place | None:
    """Return the place of ``site``, or None where plain hooks do not reach it in this family.

    Args:
        site: A site whose layer is one of the stack's.
        stack: The text model.
        config: The text configuration (``model_type`` selects the family).
    """
    if site.layer is None:
        return _embedding(stack, config)
    block = stack.layers[site.layer]
    if site.hook == "hook_resid_pre":
        return Place(block, "input")
    if site.hook == "hook_resid_post":
        return Place(block, "output")
    parts = FAMILY_PARTS.get(config.model_type)
    builder = _IN_BLOCK.get(site.hook)
    if parts is None or builder is None:
        return None
    if site.hook == "hook_resid_mid" and parts.parallel is not None and getattr(config, parts.parallel):
        return None
    return builder(block, parts)


def _embedding(stack: TextStack, config: Any) -> Place:
    # Gemma's embedding module multiplies by sqrt(d_model) itself; Granite's model does it afterwards.
    scale = getattr(config, "embedding_multiplier", None)
    if scale is None or scale == 1:
        return Place(stack.embed, "output")
    return Place(stack.embed, "output", read=lambda x: x * scale, write=lambda x: x / scale)


def _normalized(block: nn.Module, parts: BlockParts) -> Place:
    norm = block.get_submodule(parts.mlp_norm)
    epsilon = float(cast(Any, norm).variance_epsilon if hasattr(norm, "variance_epsilon") else cast(Any, norm).eps)
    centred = isinstance(norm, nn.LayerNorm)

    def read(x: torch.Tensor) -> torch.Tensor:
        # TransformerLens's hook_normalized: centred (LayerNorm only) and scaled in float32, before gain and bias.
        wide = x.float()
        if centred:
            wide = wide - wide.mean(-1, keepdim=True)
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype)

    return Place(norm, "input", read=read)


def _attn_out(block: nn.Module, parts: BlockParts) -> Place:
    return Place(block.get_submodule(parts.attn_post_norm or parts.attn), "output")


def _mlp_out(block: nn.Module, parts: BlockParts) -> Place:
    return Place(block.get_submodule(parts.mlp_post_norm or parts.mlp), "output")


def _mlp_in(block: nn.Module, parts: BlockParts) -> Place:
    return Place(block.get_submodule(parts.mlp), "input")


_IN_BLOCK: dict[str, Callable[[nn.Module, BlockParts], Place]] = {
    "attn.hook_z": lambda block, parts: Place(block.get_submodule(parts.attn_proj), "input"),
    "attn.hook_out": lambda block, parts: Place(block.get_submodule(parts.attn), "output"),
    "hook_attn_out": _attn_out,
    # Read only: the residual branch leaves before this norm, so an edit of the norm's input would miss it.
    "hook_resid_mid": lambda block, parts: Place(block.get_submodule(parts.mlp_norm), "input", read=lambda x: x),
    "ln2.hook_normalized": _normalized,
    "hook_mlp_in": _mlp_in,
    "mlp.hook_in": _mlp_in,
    "mlp.hook_out": lambda block, parts: Place(block.get_submodule(parts.mlp), "output"),
    "hook_mlp_out": _mlp_out,
}


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return what a module is called with first, by position or as ``hidden_states``."""
    value = args[0] if args else kwargs["hidden_states"]
    return cast(torch.Tensor, value)


def with_first_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: torch.Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the call with its first input replaced."""
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": value}


def first_output(output: Any) -> torch.Tensor:
    """Return a module's output, or the first of its tuple."""
    return cast(torch.Tensor, output[0] if isinstance(output, tuple) else output)


def with_first_output(output: Any, value: torch.Tensor) -> Any:
    """Return the module's output with its tensor replaced."""
    return (value, *output[1:]) if isinstance(output, tuple) else value
