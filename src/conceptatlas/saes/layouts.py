"""SAEs in local folders: four layouts, each read into SAELens's terms (configuration and named weights).

Where the format allows it, only the parameters asked for are read. No pickle is executed (``weights_only=True``,
``allow_pickle=False``).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json
from conceptatlas.subjects.sites import Site

Wanted = Collection[str] | None
"""Parameter names to read, in SAELens's spelling; None for all."""


@dataclass(frozen=True)
class Layout:
    """One way of keeping an SAE on disk."""

    name: str
    files: tuple[str, ...]
    """A folder with all of these holds an SAE in this layout."""
    weights: str
    """The one of them that holds the weights."""
    config: Callable[[Path], dict[str, Any]]
    """Folder -> configuration as in SAELens 6's ``cfg.json`` (``metadata.hook_name`` says the site)."""
    tensors: Callable[[Path, dict[str, Any], Wanted], dict[str, torch.Tensor]]
    """Folder, configuration, names -> parameters under SAELens's names and in its shapes, on the CPU."""


def layout_of(folder: Path) -> Layout | None:
    """Return the layout of the SAE that ``folder`` itself holds, or None."""
    return next((spec for spec in LAYOUTS.values() if all((folder / name).is_file() for name in spec.files)), None)


def find_folders(root: Path) -> list[tuple[Path, Layout]]:
    """Return every folder at or below ``root`` that holds an SAE, in natural order of their paths."""
    marks = {name for spec in LAYOUTS.values() for name in spec.files}
    folders = {path.parent for mark in marks for path in root.rglob(mark)}
    # Hidden folders hold copies: .ipynb_checkpoints, .Trash, a hub's .cache.
    folders = {f for f in folders if not any(part.startswith(".") for part in f.relative_to(root).parts)}
    found = [(folder, spec) for folder in folders if (spec := layout_of(folder)) is not None]
    return sorted(found, key=lambda pair: natural_key(pair[0].relative_to(root).as_posix()))


def natural_key(text: str) -> list[tuple[int, int | str]]:
    """Sort key in which ``layer_2`` comes before ``layer_10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", text) if part]


# ---- SAELens -----------------------------------------------------------------------------------------------------

_SAELENS_WEIGHTS = "sae_weights.safetensors"
_FIRST_V6 = 6


def read_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        InputError: It holds something else.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} holds a {type(config).__name__}, and an SAE's configuration is a JSON object.")
    return config


def _saelens_config(folder: Path) -> dict[str, Any]:
    path = folder / "cfg.json"
    config = read_config(path)
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"{path} says metadata {metadata!r}; it must be an object.")
    config["metadata"] = metadata
    if not _is_v6(config):
        # SAELens knows how to bring an older configuration up to date.
        from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

        if not metadata:
            del config["metadata"]
        config = dict(handle_config_defaulting(config))
    for name in ("d_in", "d_sae"):
        if not isinstance(config.get(name), int):
            raise InputError(f"{path} says {name} {config.get(name)!r}; it must be a whole number.")
    _check_inference(path, config)
    return config


def _is_v6(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is SAELens 6's: by its version, and where that is no number by its keys."""
    version = config.get("sae_lens_version") or config["metadata"].get("sae_lens_version")
    number = re.match(r"v?(\d+)", str(version or ""))
    if number is not None:
        return int(number[1]) >= _FIRST_V6
    return "hook_name" in config["metadata"] and "architecture" in config


def _check_inference(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what SAELens's trainer saves between steps and what only its training classes can read."""
    from conceptatlas.saes.architectures import ARCHITECTURES

    name = str(config.get("architecture", "standard"))
    if name not in ARCHITECTURES and ("batchtopk" in name or name.endswith("_training")):
        raise InputError(
            f"{path} says architecture {name!r}, which is a training checkpoint; save it for inference with "
            "save_inference_model, which turns it into a jumprelu SAE."
        )


def _saelens_tensors(folder: Path, _config: dict[str, Any], wanted: Wanted) -> dict[str, torch.Tensor]:
    asked = None if wanted is None else {*wanted, "scaling_factor", "log_threshold"}
    tensors = _read_safetensors(folder / _SAELENS_WEIGHTS, asked)
    log_threshold = tensors.pop("log_threshold", None)
    if log_threshold is not None and "threshold" not in tensors and (wanted is None or "threshold" in wanted):
        tensors["threshold"] = log_threshold.exp()  # a training checkpoint of a JumpReLU SAE
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise InputError(f"The SAE in {folder} has a fine-tuning scaling_factor, which SAELens 6 no longer applies.")
    return tensors


def _read_safetensors(path: Path, wanted: Wanted) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys() if wanted is None or key in wanted}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}); get the file again.") from error


# ---- EleutherAI sparsify -----------------------------------------------------------------------------------------

_SPARSIFY_WEIGHTS = "sae.safetensors"
_SPARSIFY_NAMES = {
    "W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec", "W_skip": "W_skip",
}  # fmt: skip
_DEFAULT_EXPANSION = 32


def _sparsify_config(folder: Path) -> dict[str, Any]:
    """Acts = TopK(relu((x − b_dec) Wᵀ + b_enc)); transcoders do not subtract b_dec, which belongs to their output."""
    raw = read_config(folder / "cfg.json")
    if raw.get("activation", "topk") != "topk":
        raise InputError(f"{folder / 'cfg.json'} says activation {raw['activation']!r}; only 'topk' can be read.")
    transcodes = bool(raw.get("transcode"))
    site = _module_named(folder)
    metadata: dict[str, Any] = {"hook_name": None if site is None else site.hook_name, "model_name": None}
    if transcodes and site is None:
        raise InputError(
            f"{folder} holds a sparsify transcoder and is not called after its module; name it layers.N.mlp."
        )
    if transcodes and site is not None:
        metadata["hook_name"], metadata["hook_name_out"] = _module_input(site, folder), site.hook_name
    return {
        "architecture": "abstopk" if raw.get("signed") else "topk",
        "d_in": int(raw["d_in"]),
        "d_sae": int(raw.get("num_latents") or 0)
        or int(raw["d_in"]) * int(raw.get("expansion_factor", _DEFAULT_EXPANSION)),
        "k": int(raw["k"]),
        "apply_b_dec_to_input": not transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "metadata": metadata,
    }


def _module_named(folder: Path) -> Site | None:
    """Return the site of the module that a folder is called after; None where it is called otherwise."""
    try:
        return Site.parse(re.sub(r"(layers|layer|h)_(\d+)", r"\1.\2", folder.name))
    except InputError:
        return None


def _module_input(site: Site, folder: Path) -> str:
    inputs = {"mlp.hook_out": "mlp.hook_in", "hook_resid_post": "hook_resid_pre"}
    if site.hook not in inputs:
        raise InputError(f"{folder} is a sparsify transcoder of {site}, whose input is no site that can be recorded.")
    return f"blocks.{site.layer}.{inputs[site.hook]}"


def _sparsify_tensors(folder: Path, _config: dict[str, Any], wanted: Wanted) -> dict[str, torch.Tensor]:
    names = [name for name in _SPARSIFY_NAMES if wanted is None or name in wanted]
    raw = _read_safetensors(folder / _SPARSIFY_WEIGHTS, {_SPARSIFY_NAMES[name] for name in names})
    tensors = {name: raw[_SPARSIFY_NAMES[name]] for name in names if _SPARSIFY_NAMES[name] in raw}
    if "W_enc" in tensors:
        tensors["W_enc"] = tensors["W_enc"].T
    return tensors


# ---- dictionary_learning -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _DictionaryClass:
    architecture: str
    names: Mapping[str, tuple[str, ...]]
    applies_b_dec: bool = True


_LINEAR = {"W_enc": ("encoder.weight",), "b_enc": ("encoder.bias",), "W_dec": ("decoder.weight",)}
_PLAIN = {
    "W_enc": ("W_enc",),
    "b_enc": ("b_enc",),
    "W_dec": ("W_dec",),
    "b_dec": ("b_dec",),
    "threshold": ("threshold",),
}
_DICTIONARIES = {
    "AutoEncoder": _DictionaryClass("standard", _LINEAR | {"b_dec": ("bias",)}),
    "AutoEncoderNew": _DictionaryClass("standard", _LINEAR | {"b_dec": ("decoder.bias",)}, applies_b_dec=False),
    "GatedAutoEncoder": _DictionaryClass(
        "gated",
        {
            "W_enc": ("encoder.weight",),
            "W_dec": ("decoder.weight",),
            "b_dec": ("decoder_bias",),
            "b_gate": ("gate_bias",),
            "b_mag": ("mag_bias",),
            "r_mag": ("r_mag",),
        },
    ),
    "AutoEncoderTopK": _DictionaryClass("topk", _LINEAR | {"b_dec": ("b_dec", "bias")}),
    "BatchTopKSAE": _DictionaryClass("jumprelu", _LINEAR | {"b_dec": ("b_dec", "bias"), "threshold": ("threshold",)}),
    "MatryoshkaBatchTopKSAE": _DictionaryClass("jumprelu", _PLAIN),
    "JumpReluAutoEncoder": _DictionaryClass("jumprelu", _PLAIN, applies_b_dec=False),
}
_SUBMODULES = {
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "mlp": "hook_mlp_out",
    "att": "hook_attn_out",
}


def _dictionary_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    trainer = read_config(path).get("trainer", {})
    if not isinstance(trainer, dict):
        raise InputError(f"{path} says trainer {trainer!r}; it must be an object with dict_class and the rest.")
    kind = str(trainer.get("dict_class"))
    if kind not in _DICTIONARIES:
        raise InputError(f"{path} says dict_class {kind!r}; those that can be read are {', '.join(_DICTIONARIES)}.")
    spec = _DICTIONARIES[kind]
    for key in ("activation_dim", "dict_size", "layer", *(("k",) if spec.architecture == "topk" else ())):
        if key not in trainer:
            raise InputError(f"{path} has no trainer.{key}; it is needed to read and place the SAE.")
        if not isinstance(trainer[key], int) or isinstance(trainer[key], bool):
            raise InputError(f"{path} says trainer.{key} {trainer[key]!r}; it must be a whole number.")
    submodule = str(trainer.get("submodule_name") or "resid_post")
    hook = next((hook for start, hook in _SUBMODULES.items() if submodule.startswith(start)), None)
    if hook is None:
        raise InputError(f"{path} says submodule_name {submodule!r}; known are {', '.join(_SUBMODULES)}.")
    config = {
        "architecture": spec.architecture,
        "d_in": int(trainer["activation_dim"]),
        "d_sae": int(trainer["dict_size"]),
        "apply_b_dec_to_input": spec.applies_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "dtype": "float32",
        "metadata": {"hook_name": f"blocks.{trainer['layer']}.{hook}", "model_name": trainer.get("lm_name")},
    }
    return config | (
        {"k": int(trainer["k"]), "rescale_acts_by_decoder_norm": False} if spec.architecture == "topk" else {}
    )


def _dictionary_tensors(folder: Path, config: dict[str, Any], wanted: Wanted) -> dict[str, torch.Tensor]:
    path = folder / "ae.pt"
    spec = _DICTIONARIES[read_json(folder / "config.json")["trainer"]["dict_class"]]
    try:
        # mmap: pages of parameters that nobody asks for are never read. Torch's old format, no archive, has no pages.
        raw = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise InputError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}); get the file again."
        ) from error
    # A compiled or wrapped module saves its parameters under a prefix.
    raw = {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in raw.items()}
    if spec.architecture == "jumprelu" and "threshold" not in raw and (wanted is None or "threshold" in wanted):
        raise InputError(
            f"{path} has no threshold: this SAE was saved before dictionary_learning kept it; "
            "measure it (the smallest activation that is kept, on average) and save it in ae.pt as 'threshold'."
        )
    tensors = {}
    for name, keys in spec.names.items():
        key = next((key for key in keys if key in raw), None)
        if key is not None and (wanted is None or name in wanted):
            tensors[name] = raw[key].T if key.endswith(".weight") else raw[key]
    if "threshold" in tensors and tensors["threshold"].ndim == 0:
        tensors["threshold"] = tensors["threshold"].expand(int(config["d_sae"]))
    return tensors


# ---- Gemma Scope -------------------------------------------------------------------------------------------------

_PARAMS = "params.npz"


def _gemma_scope_config(folder: Path) -> dict[str, Any]:
    """Site and L0 come from the path (``layer_12/width_16k/average_l0_82``), as in the published repositories."""
    d_in, d_sae = _npz_shapes(folder / _PARAMS)["W_enc"]
    parts = folder.resolve().parts
    own = parts[-_OWN_FOLDERS:]
    places = [match[1] or match[0] for part in own if (match := re.fullmatch(r"layer_(\d+)|embedding", part))]
    kind = next((kind for part in reversed(parts) if (kind := _gemma_scope_kind(part))), None)
    metadata: dict[str, Any] = {"hook_name": None, "model_name": None, "hook_name_guessed": kind is None}
    architecture = "jumprelu_transcoder" if kind == "transcoders" else "jumprelu"
    if places and places[-1] == "embedding":
        metadata |= {"hook_name": "hook_embed", "hook_name_guessed": False}
    elif places:
        metadata["hook_name"] = f"blocks.{places[-1]}.{_GEMMA_SCOPE_HOOKS[kind or 'res']}"
        if kind == "transcoders":
            metadata["hook_name_out"] = f"blocks.{places[-1]}.hook_mlp_out"
    l0 = [match[1] for part in own if (match := re.fullmatch(r"average_l0_(\d+)", part))]
    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "dtype": "float32",
        "l0": float(l0[-1]) if l0 else None,
        "metadata": metadata,
    } | ({"d_out": d_in} if architecture == "jumprelu_transcoder" else {})


# In a published repository an SAE lies in layer_12/width_16k/average_l0_82.
_OWN_FOLDERS = 3
_GEMMA_SCOPE_HOOKS = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
}


def _gemma_scope_kind(part: str) -> str | None:
    """Return what a folder's name says if it is exactly that of a published repository (or of its place in a cache)."""
    name = rf"(?:models--google--)?gemma-scope-\d+b-(?:pt|it)-({'|'.join(_GEMMA_SCOPE_HOOKS)})(?:-canonical)?"
    match = re.fullmatch(name, part)
    return match[1] if match else None


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in an ``.npz``, from their headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as handle:
                    major, _ = np.lib.format.read_magic(handle)
                    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                    shapes[name.removesuffix(".npy")] = tuple(read(handle)[0])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as .npz ({error}); get the file again.") from error
    if "W_enc" not in shapes:
        raise InputError(f"{path} has no W_enc; it holds {', '.join(shapes) or 'nothing'}.")
    return shapes


def _gemma_scope_tensors(folder: Path, _config: dict[str, Any], wanted: Wanted) -> dict[str, torch.Tensor]:
    with np.load(folder / _PARAMS, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files if wanted is None or name in wanted}


LAYOUTS: dict[str, Layout] = {
    spec.name: spec
    for spec in (
        Layout("saelens", ("cfg.json", _SAELENS_WEIGHTS), _SAELENS_WEIGHTS, _saelens_config, _saelens_tensors),
        Layout("sparsify", ("cfg.json", _SPARSIFY_WEIGHTS), _SPARSIFY_WEIGHTS, _sparsify_config, _sparsify_tensors),
        Layout("dictionary_learning", ("ae.pt", "config.json"), "ae.pt", _dictionary_config, _dictionary_tensors),
        Layout("gemma_scope", (_PARAMS,), _PARAMS, _gemma_scope_config, _gemma_scope_tensors),
    )
}
