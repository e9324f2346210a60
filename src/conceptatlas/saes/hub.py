"""Published SAEs: their configuration and weights through SAELens, with errors that say what to do without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.saes.source import SAESource

# Formats whose files we read ourselves, so that the decoder half need not be loaded.
PARAMS_LOADERS = frozenset({"gemma_2", "gemma_2_transcoder"})


@contextmanager
def _explained(source: SAESource, what: str) -> Iterator[None]:
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


def hub_config(source: SAESource) -> dict[str, Any]:
    """Return the published configuration in SAELens 6's terms.

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "configuration"):
        from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

        return dict(load_sae_config_from_huggingface(source.release, source.sae_id))


def hub_sae(source: SAESource, device: str, dtype: str) -> Any:
    """Return the ``sae_lens.SAE``, with a known norm factor folded in.

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "weights"):
        from sae_lens import SAE

        return SAE.from_pretrained(source.release, source.sae_id, device=device, dtype=dtype)


def hub_params(source: SAESource) -> Path:
    """Return the local folder of a Gemma Scope ``params.npz`` (from the cache, else downloaded).

    Raises:
        InputError: It cannot be had.
    """
    with _explained(source, "weights"):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repo_id=str(source.repo_id), filename=f"{source.path}/params.npz")).parent
