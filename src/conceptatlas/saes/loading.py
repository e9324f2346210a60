"""From a source to its configuration, its ``sae_lens.SAE``, or the half of it that is needed.

Published SAEs come through SAELens, with errors that say what to do without a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.saes.architectures import (
    Decoder,
    architecture_of,
    build_decoder,
    build_encoder,
    encoder_parameters,
)
from conceptatlas.saes.encoder import Encoder, on_device
from conceptatlas.saes.layouts import LAYOUTS
from conceptatlas.saes.mixed import to_mixed
from conceptatlas.saes.placed import REGISTRY_LAYOUT, PlacedSAE
from conceptatlas.saes.registry import find_entry
from conceptatlas.subjects.sites import Site

SAE_DTYPES = ("float32", "mixed")
# Formats whose files we read ourselves, so that the decoder half need not be loaded.
PARAMS_LOADERS = frozenset({"gemma_2", "gemma_2_transcoder"})
_SITES = ("site", "site_out")
P = TypeVar("P", bound=PlacedSAE)


def complete(source: P) -> P:
    """See :meth:`SAESource.completed`."""
    if source.config_status == "known" and source.d_in is not None and source.d_sae is not None:
        return source
    config = hub_config(source) if not source.is_local else dict(source.config)
    return with_config(source, config)


def with_config(source: P, config: Mapping[str, Any]) -> P:
    """Return the source with what its configuration says, which must agree with what its name said.

    Raises:
        InputError: They differ; or the configuration names no site.
    """
    metadata = config.get("metadata") or {}
    site = metadata.get("hook_name") or config.get("hook_name")
    if not site:
        renamed = "rename the folder to layers.N, or " if source.layout == "sparsify" else ""
        raise InputError(
            f"The configuration of SAE {source.sae_id!r} in {source.path} names no hook; {renamed}give it in a JSON list of "
            '{"layer", "average_l0", "path"}.'
        )
    site_out = metadata.get("hook_name_out") or config.get("hook_name_out")
    said = {
        "site": site,
        "site_out": site_out or source.site_out,
        "d_in": _width(config, "d_in", source),
        "d_sae": _width(config, "d_sae", source),
        "architecture": architecture_of(config).name,
    }
    for name, value in said.items():
        expected = getattr(source, name)
        if expected and expected != value and not (name in _SITES and _same_site(str(expected), str(value))):
            raise InputError(
                f"The SAE {source.sae_id!r} of {source.release!r} was expected to have {name} {expected!r} and its "
                f"configuration says {value!r}; it is not the SAE that its name promises."
            )
    return replace(
        source,
        **said,
        average_l0=source.average_l0 if source.average_l0 is not None else stated_l0(config),
        model_name=source.model_name or metadata.get("model_name"),
        config_status="inferred" if metadata.get("hook_name_guessed") else "known",
        config=dict(config),
    )


def _width(config: Mapping[str, Any], name: str, source: PlacedSAE) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"The configuration of SAE {source.sae_id!r} in {source.path} says {name} {value!r}; it must be a whole number "
            "from 1."
        )
    return value


def _same_site(one: str, other: str) -> bool:
    """Return whether two spellings (``blocks.3.hook_resid_post``, ``model.layers.3``) mean the same place."""
    return Site.parse(one) == Site.parse(other)


def stated_l0(config: Mapping[str, Any]) -> float | None:
    """Return the mean number of active features that a configuration states (for TopK: k), or None."""
    metadata = config.get("metadata") or {}
    for key in ("average_l0", "l0"):
        value = config.get(key) or metadata.get(key)
        if value:
            return float(value)
    return float(config["k"]) if config.get("k") else None


def load_sae(source: PlacedSAE, device: str, dtype: str) -> Any:
    """See :meth:`SAESource.load`."""
    if not source.is_local:
        sae = hub_sae(source, device, dtype)
        with_config(source, sae.cfg.to_dict())
        return sae
    if source.layout == "saelens":
        from sae_lens import SAE

        sae = SAE.load_from_disk(source.path, device=device, dtype=dtype)
        _finite(dict(sae.state_dict()), source)
    else:
        sae = _sae_from(source.config, _tensors(source, None), device, dtype)
    if source.norm_scale is not None and sae.cfg.normalize_activations == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(source.norm_scale)
    return sae


def _sae_from(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], device: str, dtype: str) -> Any:
    """Return a ``sae_lens.SAE`` made of parts."""
    import sae_lens  # noqa: F401  (registers the architectures)
    from sae_lens.registry import get_sae_class

    sae_class, config_class = get_sae_class(str(config["architecture"]))
    sae = sae_class(config_class.from_dict({**config, "device": "cpu", "dtype": "float32"}))
    known = sae.state_dict()
    sae.load_state_dict({name: tensors[name].to(torch.float32).contiguous() for name in known})
    return sae.to(device=device, dtype=getattr(torch, dtype))


def _tensors(source: PlacedSAE, wanted: tuple[str, ...] | None) -> dict[str, torch.Tensor]:
    layout = LAYOUTS[source.layout]
    return _finite(layout.tensors(Path(source.path), source.config, wanted), source)


def _finite(tensors: dict[str, torch.Tensor], source: PlacedSAE) -> dict[str, torch.Tensor]:
    """Return the parameters.

    Raises:
        InputError: One holds NaN or infinity (a threshold may be +infinity: its feature never fires).
    """
    for name, tensor in tensors.items():
        # One pass in the usual case: a sum is finite only if all its terms are (and may overflow though they are).
        if bool(torch.isfinite(tensor.sum())):
            continue
        bad = ~torch.isfinite(tensor)
        if name == "threshold":
            bad &= ~torch.isposinf(tensor)
        if bad.any():
            raise InputError(
                f"{weights_place(source)}: {name} of the SAE {source.sae_id!r} holds {int(bad.sum())} values that are NaN "
                "or infinite; its features would be wrong, so get the file again or train the SAE anew."
            )
    return tensors


def weights_place(source: PlacedSAE) -> str:
    """Return the file of an SAE's weights, as messages name it."""
    if not source.is_local:
        return f"{source.repo_id}/{source.path}"
    return str(Path(source.path) / LAYOUTS[source.layout].weights)


def load_encoder(source: PlacedSAE, device: str, dtype: str) -> Encoder:
    """See :meth:`SAESource.load_encoder`."""
    if dtype not in SAE_DTYPES:
        raise unknown_name("SAE dtype", dtype, SAE_DTYPES)
    encoder = _encoder(source).to(device)
    return to_mixed(encoder) if dtype == "mixed" else encoder


def _encoder(source: PlacedSAE) -> Encoder:
    if source.is_local:
        tensors = _tensors(source, encoder_parameters(source.config))
        return build_encoder(source.config, tensors, norm_scale=source.norm_scale, centred=source.reads_centred)
    if _reads_params(source):
        config, tensors = _params(source, ("W_enc", "b_enc", "threshold"))
        return build_encoder(config, tensors, centred=source.reads_centred)
    sae = hub_sae(source, "cpu", "float32")
    with_config(source, sae.cfg.to_dict())
    return build_encoder(_live_config(sae), _finite(dict(sae.state_dict()), source), centred=source.reads_centred)


def load_decoder(source: PlacedSAE, device: str) -> Decoder:
    """See :meth:`SAESource.load_decoder`."""
    wanted = ("W_dec", "b_dec", "W_skip")
    if source.is_local:
        decoder = build_decoder(source.config, _tensors(source, wanted), norm_scale=source.norm_scale)
    elif _reads_params(source):
        decoder = build_decoder(*_params(source, wanted))
    else:
        sae = hub_sae(source, "cpu", "float32")
        decoder = build_decoder(_live_config(sae), _finite(dict(sae.state_dict()), source))
    return on_device(decoder, device)


def encoder_of(sae: Any) -> Encoder:
    """Return the encoder of a ``sae_lens.SAE`` (or of one in training), in float32, where it lies.

    Raises:
        InputError: The architecture is not row-wise, or its normalisation lacks its factor.
    """
    return build_encoder(_live_config(sae), dict(sae.state_dict()))


def decoder_of(sae: Any) -> Decoder:
    """Return the decoder of a ``sae_lens.SAE``, in float32, where it lies."""
    return build_decoder(_live_config(sae), dict(sae.state_dict()))


def _live_config(sae: Any) -> dict[str, Any]:
    return dict(sae.cfg.to_dict())


def _reads_params(source: PlacedSAE) -> bool:
    if source.layout != REGISTRY_LAYOUT or source.config_status != "known":
        return False
    entry = find_entry(source.release, source.sae_id)
    return entry is not None and entry.loader in PARAMS_LOADERS


def _params(source: PlacedSAE, wanted: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a Gemma Scope ``params.npz`` of the registry, without what is not wanted."""
    config = {
        "architecture": source.architecture,
        "d_in": source.d_in,
        "d_sae": source.d_sae,
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
    }
    return config, _finite(LAYOUTS["gemma_scope"].tensors(hub_params(source), config, wanted), source)


@contextmanager
def _explained(source: PlacedSAE, what: str) -> Iterator[None]:
    """Turn every way in which a hub can fail into one sentence with the way out."""
    import httpx

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, httpx.HTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"Cannot get the {what} of SAE {source.sae_id!r} (release {source.release!r}) from the repository "
            f"{source.repo_id} at {source.path} ({reason}); without a network, fetch it elsewhere with "
            f"`hf download {source.repo_id} --include '{source.path}*'` and copy the cache (HF_HOME), or give --saes the "
            "local folder; a gated repository needs its terms accepted and HF_TOKEN set."
        ) from error


def hub_config(source: PlacedSAE) -> dict[str, Any]:
    """Return the published configuration in SAELens 6's terms.

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "configuration"):
        from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

        return dict(load_sae_config_from_huggingface(source.release, source.sae_id))


def hub_sae(source: PlacedSAE, device: str, dtype: str) -> Any:
    """Return the ``sae_lens.SAE``, with a known norm factor folded in.

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "weights"):
        from sae_lens import SAE

        return SAE.from_pretrained(source.release, source.sae_id, device=device, dtype=dtype)


def hub_params(source: PlacedSAE) -> Path:
    """Return the local folder of a Gemma Scope ``params.npz`` (from the cache, else downloaded).

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "weights"):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo_id=str(source.repo_id), filename=f"{source.path}/params.npz")).parent
