"""Find the text model inside any Hugging Face model, and the modules of its blocks.

The names of the blocks' parts differ between families; `FAMILY_PARTS` says them for the families whose values have been
checked against TransformerLens's bridge. The residual stream needs no table: every block takes it in and gives it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from conceptatlas.base.errors import InputError


@dataclass(frozen=True)
class TextStack:
    """The text model that turns token ids into hidden states, without any head.

    Attributes:
        base: The module to call with ``input_ids``.
        layers: Its blocks, in order.
        embed: Its token embedding.
    """

    base: nn.Module
    layers: nn.ModuleList
    embed: nn.Embedding


def find_stack(model: nn.Module, n_layers: int) -> TextStack:
    """Find the blocks of the text model in ``model``, wherever they are nested.

    Of all lists of ``n_layers`` modules, the one is taken whose nearest ancestor that also holds the token embedding is
    deepest: a vision tower's blocks share only the outermost module with the embedding.

    Raises:
        InputError: There is no such list; the architecture is none that we can read.
    """
    embed = model.get_input_embeddings()  # type: ignore[operator]
    modules = dict(model.named_modules())
    holds_embed = {name for name, module in modules.items() if any(inner is embed for inner in module.modules())}
    best: tuple[int, str, nn.ModuleList] | None = None
    for name, module in modules.items():
        if not isinstance(module, nn.ModuleList) or len(module) != n_layers:
            continue
        parts = name.split(".")
        ancestors = [".".join(parts[:depth]) for depth in range(len(parts))]
        holders = [depth for depth, ancestor in enumerate(ancestors) if ancestor in holds_embed]
        if holders and (best is None or holders[-1] > best[0]):
            best = (holders[-1], ancestors[holders[-1]], module)
    if best is None:
        raise InputError(
            f"Cannot find the {n_layers} blocks of {type(model).__name__} beside its token embedding; only "
            "transformers with one list of blocks can be read."
        )
    return TextStack(base=modules[best[1]] if best[1] else model, layers=best[2], embed=embed)


@dataclass(frozen=True)
class BlockParts:
    """Where a family keeps the parts of a block, as attribute paths within it.

    Attributes:
        attn: The attention module; its output (the first of a tuple) is in the residual stream's width.
        attn_proj: The attention's output projection; its input is the heads' outputs, concatenated.
        mlp: The MLP.
        mlp_norm: The norm before the MLP.
        attn_post_norm: The norm between attention and the residual stream, if there is one.
        mlp_post_norm: The norm between MLP and the residual stream, if there is one.
        parallel: Configuration attribute that, when true, says that attention and MLP read the same stream, so that
            nothing stands between them.
    """

    attn: str
    attn_proj: str
    mlp: str
    mlp_norm: str
    attn_post_norm: str | None = None
    mlp_post_norm: str | None = None
    parallel: str | None = None


_LLAMA = BlockParts("self_attn", "self_attn.o_proj", "mlp", "post_attention_layernorm")
_GEMMA = BlockParts(
    "self_attn",
    "self_attn.o_proj",
    "mlp",
    "pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)

# By the text configuration's model_type. What is not here goes through a TransformerBridge.
FAMILY_PARTS: dict[str, BlockParts] = {
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": BlockParts("attn", "attn.c_proj", "mlp", "ln_2"),
    "gpt_neox": BlockParts(
        "attention", "attention.dense", "mlp", "post_attention_layernorm", parallel="use_parallel_residual"
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
