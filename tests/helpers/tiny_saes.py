"""Small random SAEs in every layout that we read, written without SAELens where its format is plain.

Each writer returns the folder it wrote. Weights come from a seeded generator, thresholds are such that a few features
are active on standard normal rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

SAE_LENS_VERSION = "6.54.12"
ROW_WISE = (
    "standard",
    "jumprelu",
    "gated",
    "topk",
    "abstopk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
BY_SEQUENCE = ("temporal", "matching_pursuit")


def tiny_parts(
    architecture: str = "jumprelu",
    *,
    d_in: int = 16,
    d_sae: int = 64,
    d_out: int | None = None,
    k: int = 4,
    hook: str = "blocks.1.hook_resid_post",
    hook_out: str | None = None,
    model_name: str = "tiny",
    seed: int = 0,
    **config: Any,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return (configuration, parameters) of a row-wise SAE as SAELens 6 writes them; ``config`` overrides fields."""
    g = torch.Generator().manual_seed(seed)
    transcodes = architecture.endswith("transcoder")
    width_out = d_out or d_in
    full: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "architecture": architecture,
        "metadata": {"sae_lens_version": SAE_LENS_VERSION, "hook_name": hook, "model_name": model_name},
    }
    if hook_out is not None:
        full["metadata"]["hook_name_out"] = hook_out
    tensors = {
        "W_enc": torch.randn(d_in, d_sae, generator=g) / d_in**0.5,
        "W_dec": torch.randn(d_sae, width_out, generator=g) / width_out**0.5,
        "b_dec": torch.randn(width_out, generator=g) * 0.1,
    }
    if architecture == "gated":
        for name in ("b_gate", "b_mag", "r_mag"):
            tensors[name] = torch.randn(d_sae, generator=g) * 0.3 - (1.0 if name == "b_gate" else 0.0)
    else:
        tensors["b_enc"] = torch.randn(d_sae, generator=g) * 0.2
    if architecture.startswith("jumprelu"):
        tensors["threshold"] = torch.randn(d_sae, generator=g) * 0.5 + 1.0
    if "skip" in architecture:
        tensors["W_skip"] = torch.randn(width_out, d_in, generator=g) / d_in**0.5
    if transcodes:
        full["d_out"] = width_out
    if architecture in ("topk", "abstopk"):
        full |= {"k": k, "rescale_acts_by_decoder_norm": False}
    return full | config, tensors


def write_saelens(folder: Path, architecture: str = "jumprelu", **options: Any) -> Path:
    """Write an SAELens folder (``cfg.json``, ``sae_weights.safetensors``); options as for :func:`tiny_parts`."""
    folder.mkdir(parents=True, exist_ok=True)
    if architecture in BY_SEQUENCE:
        return _write_through_saelens(folder, architecture, **options)
    config, tensors = tiny_parts(architecture, **options)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae_weights.safetensors")
    return folder


def _write_through_saelens(
    folder: Path,
    architecture: str,
    *,
    d_in: int = 16,
    d_sae: int = 64,
    hook: str = "blocks.1.hook_resid_post",
    seed: int = 0,
    **config: Any,
) -> Path:
    import sae_lens  # noqa: F401
    from sae_lens.registry import get_sae_class

    defaults: dict[str, dict[str, Any]] = {
        "temporal": {"n_heads": 2, "bottleneck_factor": 8, "kval_topk": 4, "tied_weights": False},
        "matching_pursuit": {"max_iterations": 4, "residual_threshold": 0.1},
    }
    sae_class, config_class = get_sae_class(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, **(defaults[architecture] | config)))
    if architecture == "matching_pursuit":
        sae.W_dec.data /= sae.W_dec.data.norm(dim=1, keepdim=True)
    sae.cfg.metadata.hook_name = hook
    sae.save_model(folder)
    return folder


def write_sparsify(folder: Path, *, d_in: int = 16, d_sae: int = 64, k: int = 4, seed: int = 0, **config: Any) -> Path:
    """Write an EleutherAI sparsify folder; its name must be a module's (``layers.1``, ``layers.1.mlp``)."""
    folder.mkdir(parents=True, exist_ok=True)
    _, parts = tiny_parts("topk", d_in=d_in, d_sae=d_sae, seed=seed)
    plain = {"expansion_factor": 32, "normalize_decoder": True, "num_latents": d_sae, "k": k, "d_in": d_in}
    (folder / "cfg.json").write_text(json.dumps(plain | config))
    tensors = {
        "encoder.weight": parts["W_enc"].T.contiguous(),
        "encoder.bias": parts["b_enc"],
        "W_dec": parts["W_dec"],
        "b_dec": parts["b_dec"],
    }
    save_file(tensors, folder / "sae.safetensors")
    return folder


_LINEAR = {"encoder.weight": ("W_enc", "T"), "encoder.bias": ("b_enc", ""), "decoder.weight": ("W_dec", "T")}
_PLAIN = {name: (name, "") for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
DICTIONARIES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "AutoEncoder": ("standard", _LINEAR | {"bias": ("b_dec", "")}),
    "AutoEncoderNew": ("standard", _LINEAR | {"decoder.bias": ("b_dec", "")}),
    "GatedAutoEncoder": (
        "gated",
        {
            "encoder.weight": ("W_enc", "T"),
            "decoder.weight": ("W_dec", "T"),
            "decoder_bias": ("b_dec", ""),
            "gate_bias": ("b_gate", ""),
            "mag_bias": ("b_mag", ""),
            "r_mag": ("r_mag", ""),
        },
    ),
    "AutoEncoderTopK": ("topk", _LINEAR | {"b_dec": ("b_dec", "")}),
    "BatchTopKSAE": ("jumprelu", _LINEAR | {"b_dec": ("b_dec", "")}),
    "MatryoshkaBatchTopKSAE": ("jumprelu", _PLAIN),
    "JumpReluAutoEncoder": ("jumprelu", _PLAIN | {"threshold": ("threshold", "")}),
}


def write_dictionary_learning(
    folder: Path,
    dict_class: str = "BatchTopKSAE",
    *,
    d_in: int = 16,
    d_sae: int = 64,
    k: int = 4,
    layer: int = 1,
    threshold: float = 1.0,
    seed: int = 0,
    **trainer: Any,
) -> Path:
    """Write a dictionary_learning folder (``ae.pt``, ``config.json``) of one of the classes in ``DICTIONARIES``."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture, names = DICTIONARIES[dict_class]
    _, parts = tiny_parts(architecture, d_in=d_in, d_sae=d_sae, seed=seed)
    state = {ours: (parts[name].T if way else parts[name]).contiguous() for ours, (name, way) in names.items()}
    if "BatchTopK" in dict_class:
        state |= {"threshold": torch.tensor(threshold), "k": torch.tensor(k)}
    torch.save(state, folder / "ae.pt")
    settings = {
        "dict_class": dict_class,
        "activation_dim": d_in,
        "dict_size": d_sae,
        "layer": layer,
        "lm_name": "org/tiny",
        "submodule_name": f"resid_post_layer_{layer}",
        "k": k,
    }
    (folder / "config.json").write_text(json.dumps({"trainer": settings | trainer, "buffer": {"ctx_len": 128}}))
    return folder


def write_gemma_scope(folder: Path, *, d_in: int = 16, d_sae: int = 64, seed: int = 0) -> Path:
    """Write a Gemma Scope ``params.npz``; layer and L0 are read from the path (``layer_1/width_16k/average_l0_8``)."""
    folder.mkdir(parents=True, exist_ok=True)
    _, parts = tiny_parts("jumprelu", d_in=d_in, d_sae=d_sae, seed=seed)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in parts.items()})
    return folder
