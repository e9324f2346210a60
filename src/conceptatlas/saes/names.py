"""What the registry alone says of an SAE: its site and width, known or inferred from its name.

*known*: SAELens itself computes the configuration from repository and path, without asking the hub; our rules for these
are tested to give the same. *inferred*: the name says it plainly, and it is checked when the SAE is loaded. *unknown*:
only the files tell. One rule per format (``RegistryEntry.loader``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from conceptatlas.saes.registry import RegistryEntry

ConfigStatus = Literal["known", "inferred", "unknown"]

_K = 1024
_GEMMA_WIDTHS = {
    "4k": 4 * _K, "16k": 16 * _K, "32k": 32 * _K, "65k": 64 * _K, "131k": 128 * _K, "262k": 256 * _K,
    "524k": 512 * _K, "1m": 1024 * _K,
}  # fmt: skip
_GEMMA_2 = {"2b": (2304, 2048), "9b": (3584, 4096), "27b": (4608, 4608)}  # model's width, width of hook_z in SAELens
_QWEN_WIDTHS = {
    "Qwen3-1.7B-Base": 2048, "Qwen3-8B-Base": 4096, "Qwen3-30B-A3B-Base": 2048, "Qwen3.5-2B-Base": 2048,
    "Qwen3.5-9B-Base": 4096, "Qwen3.5-27B": 5120, "Qwen3.5-35B-A3B-Base": 2048,
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """What a name tells."""

    status: ConfigStatus
    site: str | None = None
    """Where the encoder reads, as SAELens writes it; None where only the files tell."""
    site_out: str | None = None
    """Where a transcoder writes."""
    d_in: int | None = None
    d_sae: int | None = None
    architecture: str | None = None


UNKNOWN = Named("unknown")
Rule = Callable[[RegistryEntry], Named]
_RULES: dict[str, Rule] = {}


def _rule(*loaders: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for loader in loaders:
            if loader in _RULES:
                raise ValueError(f"There are two rules for the format {loader!r}.")
            _RULES[loader] = rule
        return rule

    return register


def named(entry: RegistryEntry) -> Named:
    """Return what the registry alone says of an SAE (never fails: a format without a rule is unknown)."""
    rule = _RULES.get(entry.loader)
    return UNKNOWN if rule is None else rule(entry)


def _number(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None


def _gemma_width(path: str) -> int | None:
    match = re.search(r"width_(\d+[km])", path)
    return _GEMMA_WIDTHS.get(match[1]) if match else None


def _gemma_2_size(repo_id: str) -> tuple[int, int] | None:
    match = re.search(r"gemma-scope-(\d+b)", repo_id)
    return _GEMMA_2.get(match[1]) if match else None


@_rule("gemma_2")
def _gemma_2(entry: RegistryEntry) -> Named:
    widths, layer = _gemma_2_size(entry.repo_id), _number(r"layer_(\d+)", entry.path)
    kind = entry.repo_id.rsplit("-", 1)[-1]
    if widths is None:
        return UNKNOWN
    d_sae = _gemma_width(entry.path)
    if kind == "res" and "embedding" in entry.path:
        return Named("known", "hook_embed", d_in=widths[0], d_sae=d_sae, architecture="jumprelu")
    hooks = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
    if layer is None or kind not in hooks:
        return UNKNOWN
    d_in = widths[1] if kind == "att" else widths[0]
    return Named("known", f"blocks.{layer}.{hooks[kind]}", d_in=d_in, d_sae=d_sae, architecture="jumprelu")


@_rule("gemma_2_transcoder")
def _gemma_2_transcoder(entry: RegistryEntry) -> Named:
    widths, layer = _gemma_2_size(entry.repo_id), _number(r"layer_(\d+)", entry.path)
    if widths is None or layer is None:
        return UNKNOWN
    return Named(
        "known",
        f"blocks.{layer}.ln2.hook_normalized",
        f"blocks.{layer}.hook_mlp_out",
        widths[0],
        _gemma_width(entry.path),
        "jumprelu_transcoder",
    )


@_rule("gemma_3")
def _gemma_3(entry: RegistryEntry) -> Named:
    layer, d_sae = _number(r"layer_(\d+)", entry.path), _gemma_width(entry.path)
    if layer is None:
        return UNKNOWN
    kinds = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}
    for kind, hook in kinds.items():
        if kind in entry.path:
            return Named("inferred", f"blocks.{layer}.{hook}", d_sae=d_sae, architecture="jumprelu")
    if "transcoder" in entry.path or "clt" in entry.path:
        architecture = "jumprelu_skip_transcoder" if "affine" in entry.path else "jumprelu_transcoder"
        return Named(
            "inferred",
            f"blocks.{layer}.hook_mlp_in",
            f"blocks.{layer}.hook_mlp_out",
            d_sae=d_sae,
            architecture=architecture,
        )
    return UNKNOWN


@_rule("qwen_scope")
def _qwen_scope(entry: RegistryEntry) -> Named:
    match = re.search(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)", entry.repo_id)
    layer = _number(r"layer(\d+)\.sae\.pt", entry.path)
    if match is None or layer is None or match[1] not in _QWEN_WIDTHS:
        return UNKNOWN
    return Named(
        "known",
        f"blocks.{layer}.hook_resid_post",
        d_in=_QWEN_WIDTHS[match[1]],
        d_sae=int(match[2]) * _K,
        architecture="topk",
    )


@_rule("deepseek_r1")
def _deepseek_r1(entry: RegistryEntry) -> Named:
    layer = _number(r"l(\d+)", entry.path)
    if layer is None:
        return UNKNOWN
    return Named("known", f"blocks.{layer}.hook_resid_post", d_in=4096, d_sae=16 * 4096, architecture="standard")


@_rule("goodfire")
def _goodfire(entry: RegistryEntry) -> Named:
    widths = {"Llama-3.3-70B-Instruct-SAE-l50": 8192, "Llama-3.1-8B-Instruct-SAE-l19": 4096}
    layer, d_in = _number(r"-l(\d+)\.pth?$", entry.path), widths.get(entry.path.rsplit(".", 1)[0])
    if layer is None or d_in is None:
        return UNKNOWN
    return Named("known", f"blocks.{layer}.hook_resid_post", d_in=d_in, d_sae=65536, architecture="standard")


@_rule("llama_scope", "llama_scope_r1_distill")
def _llama_scope(entry: RegistryEntry) -> Named:
    match = re.search(r"l(\d+)([ram])_", entry.sae_id)
    if match is None:
        return UNKNOWN
    hook = {"r": "hook_resid_post", "a": "hook_attn_out", "m": "hook_mlp_out"}[match[2]]
    times = _number(r"-(\d+)x$", entry.path)
    return Named(
        "inferred",
        f"blocks.{match[1]}.{hook}",
        d_in=4096,
        d_sae=None if times is None else times * 4096,
        architecture="jumprelu",
    )


@_rule("dictionary_learning_1")
def _dictionary_learning(entry: RegistryEntry) -> Named:
    layer = _number(r"resid_post_layer_(\d+)", entry.path)
    power = _number(r"width-2pow(\d+)", entry.path) or _number(r"width-2pow(\d+)", entry.repo_id)
    if layer is None:
        return UNKNOWN
    return Named("inferred", f"blocks.{layer}.hook_resid_post", d_sae=None if power is None else 2**power)


@_rule("mwhanna_transcoder")
def _mwhanna(entry: RegistryEntry) -> Named:
    layer = _number(r"layer_(\d+)", entry.path)
    if layer is None:
        return UNKNOWN
    return Named("inferred", f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out", architecture="transcoder")


@_rule("sae_lens", "connor_rob_hook_z", "temporal")
def _hook_in_name(entry: RegistryEntry) -> Named:
    """The hook stands in the name: ``blocks.8.hook_resid_pre_768``."""
    pattern = (
        r"blocks\.(\d+)\.(attn\.hook_z|hook_z|hook_resid_pre|hook_resid_mid|hook_resid_post|hook_mlp_out|hook_attn_out)"
    )
    match = re.search(pattern, str(entry.overrides.get("hook_name", ""))) or re.search(pattern, entry.sae_id)
    if match is None:
        return UNKNOWN
    hook = "attn.hook_z" if match[2] == "hook_z" else match[2]
    architecture = {"temporal": "temporal", "connor_rob_hook_z": "standard"}.get(entry.loader)
    return Named("inferred", f"blocks.{match[1]}.{hook}", d_sae=_stated_width(entry), architecture=architecture)


def _stated_width(entry: RegistryEntry) -> int | None:
    """Return the width that a name of SAELens's own format states, or None."""
    thousands = _number(r"^v5_(\d+)k_", entry.path) or _number(r"-w-(\d+)k-", entry.repo_id)
    if thousands is not None:
        return thousands * _K
    return _number(r"hook_resid_p\w+?_(\d{3,})(?:_|$)", entry.path)
