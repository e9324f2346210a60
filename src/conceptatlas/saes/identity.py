"""Which SAE is this? The one way from a recorded SAE to its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import sampled_digest
from conceptatlas.saes.layouts import LAYOUTS
from conceptatlas.saes.placed import REGISTRY_LAYOUT
from conceptatlas.saes.reference import SAEReference
from conceptatlas.saes.registry import find_entry
from conceptatlas.saes.resolving import ORGANISM, folder_sources, local_source, registry_source, resolve_saes
from conceptatlas.saes.source import SAESource


def reference_of(source: SAESource) -> SAEReference:
    """Return what finds this source again; its files are read for their checksum."""
    built_in = source.release == ORGANISM and source.asked_by == ORGANISM
    return SAEReference(
        slug=source.slug,
        release=source.release,
        sae_id=source.sae_id,
        site=source.site,
        layout=ORGANISM if built_in else source.layout,
        path="" if built_in else source.path,
        repo_id=source.repo_id,
        weights=_weights_of(source),
        centred=source.centred,
    )


def _weights_of(source: SAESource) -> str:
    if not source.is_local:
        return ""  # the hub addresses its files by their content
    return sampled_digest([Path(source.path) / name for name in LAYOUTS[source.layout].files])


def find_referenced(reference: SAEReference) -> SAESource:
    """Return the source of the very SAE that a reference was made of.

    Raises:
        InputError: It is not there any more, or its files have changed.
    """
    source = _source_at(reference)
    if source is None:
        place = reference.path or reference.layout
        raise InputError(
            f"The SAE {reference.release}/{reference.sae_id} is not at {place} any more; put it back, or record again from "
            "where it is."
        )
    if reference.weights and _weights_of(source) != reference.weights:
        raise InputError(
            f"The files of the SAE {reference.release}/{reference.sae_id} in {source.path} have changed since it was "
            "recorded (their checksum differs); put the old ones back, or record again."
        )
    return replace(source, centred=reference.centred)


def _source_at(reference: SAEReference) -> SAESource | None:
    if reference.layout == ORGANISM:
        from conceptatlas.subjects.organism import saes_path

        built_in = folder_sources(saes_path(), release=ORGANISM)
        return next((source for source in built_in if source.slug == reference.slug), None)
    if reference.layout == REGISTRY_LAYOUT:
        entry = find_entry(reference.release, reference.sae_id)
        return None if entry is None else registry_source(entry).completed()
    layout = LAYOUTS.get(reference.layout)
    folder = Path(reference.path)
    if layout is None or not all((folder / name).is_file() for name in layout.files):
        return None
    return local_source(folder, layout, reference.sae_id, reference.release, site=reference.site)


def find_by_specs(slug: str, name: str, specs: Sequence[str], model_id: str | None = None) -> SAESource:
    """Return the source of an SAE of a recording that holds no references (made before there were any), by its slug.

    Raises:
        InputError: No specification yields an SAE of this slug.
    """
    for spec in specs:
        try:
            found = resolve_saes([spec], model_id, complete=False)
        except InputError:
            continue  # the specification was a slug: an SAE that was passed as an object
        for source in found:
            if source.slug == slug:
                return source.completed()
    raise InputError(
        f"The SAE {name} is not found any more under {', '.join(specs) or 'any name'}; put it back, or record again from "
        "where it is."
    )
