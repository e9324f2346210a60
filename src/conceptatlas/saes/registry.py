"""SAELens's registry of published SAEs, read from its YAML without importing SAELens (which takes eight seconds)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from conceptatlas.base.errors import WorkError

NEURONPEDIA = "https://www.neuronpedia.org"
_REGISTRY_FILE = "pretrained_saes.yaml"
DEFAULT_LOADER = "sae_lens"
# Formats whose decoders, one for each later layer, SAELens adds up: good for features, not for reconstruction.
_CROSS_LAYER = frozenset({"mntss_clt_layer_transcoder"})


@dataclass(frozen=True)
class RegistryEntry:
    """One SAE of the registry."""

    release: str
    """Name of the release it is listed under."""
    sae_id: str
    """Its name within the release."""
    repo_id: str
    """Hugging Face repository of its files."""
    path: str
    """Folder (or file) of the repository."""
    model: str
    """The model it was trained on, as the registry writes it."""
    loader: str
    """SAELens's name for the format of its files."""
    l0: float | None = None
    """Published mean number of active features per row."""
    neuronpedia: str | None = None
    """Neuronpedia id in this release."""
    norm_scale: float | None = None
    """Known factor for ``expected_average_only_in``."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What the release sets over the configuration that was published."""

    @property
    def is_cross_layer(self) -> bool:
        """Return whether it is one layer of a cross-layer transcoder, which alone gives back no site."""
        return self.loader in _CROSS_LAYER


@cache
def registry() -> Mapping[str, tuple[RegistryEntry, ...]]:
    """Return release -> its SAEs, in the registry's order.

    Raises:
        WorkError: SAELens is not installed, or has no registry where we look for it.
    """
    spec = find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        raise WorkError("sae-lens is not installed; install it with `pip install sae-lens`.")
    path = Path(spec.submodule_search_locations[0]) / _REGISTRY_FILE
    if not path.exists():
        raise WorkError(f"This sae-lens has no {path.name} at {path.parent}; install the version in constraints.txt.")
    with path.open(encoding="utf-8") as handle:
        # The C loader is five times as fast; PyYAML can be built without it.
        raw = yaml.load(handle, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {release: tuple(_entries(release, value)) for release, value in raw.items()}


def _entries(release: str, value: Mapping[str, Any]) -> Iterator[RegistryEntry]:
    for sae in value["saes"]:
        yield RegistryEntry(
            release=release,
            sae_id=str(sae["id"]),
            repo_id=value["repo_id"],
            path=str(sae["path"]),
            model=value["model"],
            loader=value.get("conversion_func") or DEFAULT_LOADER,
            l0=float(sae["l0"]) if sae.get("l0") else None,
            neuronpedia=sae.get("neuronpedia"),
            norm_scale=sae.get("norm_scaling_factor"),
            overrides=value.get("config_overrides") or {},
        )


def find_entry(release: str, sae_id: str) -> RegistryEntry | None:
    """Return the SAE of these names, or None where the registry has none."""
    return next((entry for entry in registry().get(release, ()) if entry.sae_id == sae_id), None)


def all_entries() -> list[RegistryEntry]:
    """Return every SAE of the registry, release by release."""
    return [entry for entries in registry().values() for entry in entries]


@cache
def _neuronpedia_index() -> Mapping[tuple[str, str], str]:
    """Return (repository, path) -> Neuronpedia id, whichever release gives it (the first one that does)."""
    index: dict[tuple[str, str], str] = {}
    for entry in all_entries():
        if entry.neuronpedia:
            index.setdefault((entry.repo_id, entry.path), entry.neuronpedia)
    return index


def neuronpedia_id(entry: RegistryEntry) -> str | None:
    """Return the Neuronpedia id of this very SAE (same repository and path) in any release, its own first."""
    return entry.neuronpedia or _neuronpedia_index().get((entry.repo_id, entry.path))


def neuronpedia_url(identifier: str | None, feature: int) -> str:
    """Return the page of a feature, or an empty string where the SAE has no id (never a guess)."""
    return f"{NEURONPEDIA}/{identifier}/{feature}" if identifier else ""


def model_key(model: str) -> str:
    """Return a model's name without its organisation, lower case: the registry writes it both ways."""
    return model.rsplit("/", 1)[-1].lower()
