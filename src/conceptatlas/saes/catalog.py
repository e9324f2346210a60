"""Every SAE that SAELens knows, with what is known of it before anything is downloaded. Fast: no torch, no SAELens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from conceptatlas.base.errors import InputError, nearest
from conceptatlas.saes.names import ConfigStatus, named
from conceptatlas.saes.registry import all_entries, model_key, neuronpedia_id


@dataclass(frozen=True)
class CatalogRow:
    """One line of the catalogue."""

    release: str
    sae_id: str
    model: str
    """The model, as the registry writes it."""
    site: str | None
    """Where the encoder reads; None where only the files tell."""
    d_sae: int | None
    """Number of features, where the name tells it."""
    average_l0: float | None
    """Published mean number of active features per row."""
    neuronpedia_id: str | None
    """Where this very SAE stands on Neuronpedia, in whichever release."""
    config_status: ConfigStatus
    """``known`` from the registry, ``inferred`` from the name (checked at load), or ``unknown`` until downloaded."""

    @property
    def site_type(self) -> str:
        """Return the site without its layer (``hook_resid_post``), or ``unknown``."""
        return "unknown" if self.site is None else self.site.split(".", 2)[-1] if "blocks." in self.site else self.site


@dataclass(frozen=True)
class SiteCount:
    """How many SAEs read one kind of site, by what is known of them."""

    site_type: str
    known: int
    inferred: int
    unknown: int

    @property
    def total(self) -> int:
        """Return how many there are altogether."""
        return self.known + self.inferred + self.unknown


def read_catalog(model: str | None = None) -> list[CatalogRow]:
    """Return every SAE of the registry, release by release in its order.

    Args:
        model: Only those made for this model; its organisation and case do not matter (``google/gemma-2-2b``).

    Raises:
        InputError: No SAE was made for that model; the message has the nearest models.
    """
    rows = [
        CatalogRow(
            release=entry.release,
            sae_id=entry.sae_id,
            model=entry.model,
            site=(told := named(entry)).site,
            d_sae=told.d_sae,
            average_l0=entry.l0,
            neuronpedia_id=neuronpedia_id(entry),
            config_status=told.status,
        )
        for entry in all_entries()
    ]
    if model is None:
        return rows
    found = [row for row in rows if model_key(row.model) == model_key(model)]
    if not found:
        keys = {model_key(row.model): row.model for row in rows}
        close = ", ".join(keys[key] for key in nearest(model_key(model), sorted(keys)))
        raise InputError(f"The registry has no SAE for the model {model!r}; nearest: {close}.")
    return found


def site_counts(rows: Sequence[CatalogRow] | None = None) -> list[SiteCount]:
    """Count SAEs by kind of site and by what is known of them, the most frequent kind first."""
    counts = Counter((row.site_type, row.config_status) for row in (read_catalog() if rows is None else rows))
    kinds = {
        kind: SiteCount(kind, counts[kind, "known"], counts[kind, "inferred"], counts[kind, "unknown"])
        for kind, _ in counts
    }
    return sorted(kinds.values(), key=lambda count: (-count.total, count.site_type))
