"""Sites: places in a subject, written as SAELens writes them (``blocks.12.hook_resid_post``).

A site is a hook name of TransformerLens and, where it stands in a block, that block's number. Names in the style of
Hugging Face modules (``model.layers.12``), as SAELens's metadata and sparsify's folders use them, are read too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from conceptatlas.base.errors import InputError, nearest

EMBED = "embed"

# Hook -> what it is. Read by plain hooks in the families of `families.py`, through a TransformerBridge elsewhere.
BLOCK_HOOKS: dict[str, str] = {
    "hook_resid_pre": "the residual stream as the block receives it",
    "hook_resid_mid": "the residual stream between attention and MLP",
    "hook_resid_post": "the residual stream as the block leaves it",
    "hook_attn_out": "what attention adds to the residual stream (after Gemma's post-norm)",
    "hook_mlp_out": "what the MLP adds to the residual stream (after Gemma's post-norm)",
    "hook_mlp_in": "what the MLP receives (after its norm)",
    "mlp.hook_in": "what the MLP receives (after its norm)",
    "mlp.hook_out": "what the MLP returns (before any post-norm)",
    "ln2.hook_normalized": "the norm before the MLP, as TransformerLens records it",
    "attn.hook_z": "the heads' outputs before the output projection, flattened to [T, H * d_head]",
}

# Hooks that only a TransformerBridge reaches.
BRIDGE_HOOKS: dict[str, str] = {
    "ln1.hook_normalized": "the norm before attention, as TransformerLens records it",
    "attn.hook_in": "what attention receives (after its norm)",
    "attn.hook_out": "what attention returns (before any post-norm)",
    "attn.hook_q": "the queries, flattened",
    "attn.hook_k": "the keys, flattened",
    "attn.hook_v": "the values, flattened",
    "mlp.hook_pre": "the MLP before its activation function",
    "mlp.hook_post": "the MLP after its activation function",
}

_HOOKS = BLOCK_HOOKS | BRIDGE_HOOKS

# The residual stream and what is added to it: the sites that centring the writing weights takes the mean from.
_WRITTEN = frozenset(
    {
        EMBED, "hook_resid_pre", "hook_resid_mid", "hook_resid_post",
        "hook_attn_out", "hook_mlp_out", "attn.hook_out", "mlp.hook_out",
    }
)  # fmt: skip
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
# The list of blocks is called layers, layer or h; anything may stand before it (model., transformer., gpt_neox.).
_HF_BLOCK = re.compile(r"(?:[A-Za-z_]\w*\.)*?(?:layers|layer|h)\.(\d+)(?:\.(.+))?")
_HF_EMBED = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:embed_tokens|wte|embed_in|word_embeddings)(?:\.output)?")

# What stands after the block in a Hugging Face name -> hook. A module without a side means its output. Norms whose
# role differs between families (Llama's and Gemma's post_attention_layernorm) are left out: they would be guesses.
_HF_PARTS: dict[str, str] = {
    "": "hook_resid_post",
    "output": "hook_resid_post",
    "input": "hook_resid_pre",
    "mlp": "mlp.hook_out",
    "mlp.output": "mlp.hook_out",
    "mlp.input": "mlp.hook_in",
    "self_attn.o_proj.input": "attn.hook_z",
    "attn.c_proj.input": "attn.hook_z",
    "attention.dense.input": "attn.hook_z",
    "self_attn": "attn.hook_out",
    "self_attn.output": "attn.hook_out",
    "attn": "attn.hook_out",
    "attn.output": "attn.hook_out",
    "attention": "attn.hook_out",
    "attention.output": "attn.hook_out",
    "pre_feedforward_layernorm": "mlp.hook_in",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm": "hook_mlp_out",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}


@dataclass(frozen=True)
class Site:
    """A place in a subject.

    Attributes:
        hook: The hook's name within its block (``hook_resid_post``, ``attn.hook_z``), or ``embed``.
        layer: The block, from 0; None for ``embed``.
    """

    hook: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.hook == EMBED:
            if self.layer is not None:
                raise InputError(f"The site 'embed' stands in no block, but was given block {self.layer}.")
        elif self.hook not in _HOOKS:
            raise _unknown(f"blocks.{self.layer}.{self.hook}", self.hook)
        elif self.layer is None or self.layer < 0:
            raise InputError(f"The site {self.hook!r} needs a block, such as blocks.12.{self.hook}.")

    @classmethod
    def parse(cls, name: str) -> Site:
        """Read a site's name: SAELens's (``blocks.12.hook_resid_post``), ours (``embed``) or a module's.

        Raises:
            InputError: The name is none of these; the message lists the valid hooks, nearest first.
        """
        if name in (EMBED, "hook_embed", "embed.hook_out"):
            return cls(EMBED)
        for pattern, build in _PATTERNS:
            match = pattern.fullmatch(name)
            if match is not None:
                return build(match)
        raise _unknown(name, name)

    def __str__(self) -> str:
        """Return the name under which files keep the site: ``embed``, else ``blocks.{layer}.{hook}``."""
        return EMBED if self.layer is None else f"blocks.{self.layer}.{self.hook}"

    @property
    def hook_name(self) -> str:
        """The name as SAELens and TransformerLens write it (``hook_embed`` for ``embed``)."""
        return "hook_embed" if self.layer is None else str(self)

    @property
    def is_written(self) -> bool:
        """Whether it is the residual stream, or what a module adds to it."""
        return self.hook in _WRITTEN

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sites by their place in the forward pass: block, then place within it."""
        return (-1, 0) if self.layer is None else (self.layer, _DEPTH[self.hook])


# Place within a block, in the order of computation.
_DEPTH = {
    hook: place
    for place, hooks in enumerate(
        (
            ("hook_resid_pre",),
            ("ln1.hook_normalized",),
            ("attn.hook_in",),
            ("attn.hook_q", "attn.hook_k", "attn.hook_v"),
            ("attn.hook_z",),
            ("attn.hook_out",),
            ("hook_attn_out",),
            ("hook_resid_mid",),
            ("ln2.hook_normalized",),
            ("hook_mlp_in", "mlp.hook_in"),
            ("mlp.hook_pre",),
            ("mlp.hook_post",),
            ("mlp.hook_out",),
            ("hook_mlp_out",),
            ("hook_resid_post",),
        )
    )
    for hook in hooks
}


def _from_block(match: re.Match[str]) -> Site:
    if match[2] not in _HOOKS:
        raise _unknown(match[0], match[2])
    return Site(match[2], int(match[1]))


def _from_module(match: re.Match[str]) -> Site:
    part = match[2] or ""
    if part not in _HF_PARTS:
        raise _unknown(match[0], part)
    return Site(_HF_PARTS[part], int(match[1]))


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Site]], ...] = (
    (_BLOCK, _from_block),
    (_HF_BLOCK, _from_module),
    (_HF_EMBED, lambda _: Site(EMBED)),
)


def _unknown(name: str, hook: str) -> InputError:
    close = nearest(hook, _HOOKS, n=3)
    rest = [valid for valid in _HOOKS if valid not in close]
    return InputError(
        f"Unknown site {name!r}; valid are 'embed' and blocks.N. followed by one of (nearest first) "
        f"{', '.join([*close, *rest])}."
    )


def parse_sites(names: Iterable[str]) -> list[Site]:
    """Read several names; the sites come in the order of the forward pass, each once."""
    return sorted({Site.parse(name) for name in names}, key=lambda site: (site.order, site.hook))
