"""What ``--saes`` may be, resolved: a release with an optional pattern, a folder, a JSON list, or ``organism``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError, nearest
from conceptatlas.base.files import read_json
from conceptatlas.saes.layouts import LAYOUTS, Layout, find_folders, natural_key
from conceptatlas.saes.loading import stated_l0, with_config
from conceptatlas.saes.names import named
from conceptatlas.saes.placed import REGISTRY_LAYOUT
from conceptatlas.saes.registry import RegistryEntry, all_entries, model_key, neuronpedia_id, registry
from conceptatlas.saes.source import SAESource

ORGANISM = "organism"
_NEAREST = 3


def resolve_saes(specs: Sequence[str], model_id: str | None = None, *, complete: bool = True) -> list[SAESource]:
    """Return the SAEs that ``specs`` name, in that order, each once.

    Args:
        specs: Each a SAELens release (``gpt2-small-res-jb``), a release and a pattern over its sae_ids
            (``gemma-scope-2b-pt-res:layer_*/width_16k/*``), a folder with one SAE or many below it, a JSON list of
            ``{layer, average_l0, path}``, or ``organism``.
        model_id: The model under study; tells apart paths of a JSON list that several repositories have.
        complete: Read the configuration where the name alone does not tell it (from the hub for published SAEs).

    Raises:
        InputError: A name is unknown (the message has the nearest valid ones), a pattern or folder yields nothing, two
            different SAEs have the same name, or a configuration cannot be had.
    """
    found: dict[str, SAESource] = {}
    for spec in specs:
        for source in _resolve_one(spec, model_id):
            known = found.setdefault(source.slug, source)
            if (known.repo_id, known.path) != (source.repo_id, source.path):
                raise InputError(
                    f"{known.path} and {source.path} would both be called {source.release}/{source.sae_id}; rename one "
                    "of the folders."
                )
            found[source.slug] = replace(known, asked_by=known.asked_by or _findable(spec))
    sources = list(found.values())
    return [source.completed() for source in sources] if complete else sources


def _findable(spec: str) -> str:
    """Return a specification that means the same from any working folder."""
    path = Path(spec).expanduser()
    return str(path.resolve()) if spec != ORGANISM and path.exists() else spec


def _resolve_one(spec: str, model_id: str | None) -> list[SAESource]:
    if spec == ORGANISM:
        from conceptatlas.subjects.organism import saes_path

        return folder_sources(saes_path(), release=ORGANISM)
    path = Path(spec).expanduser()
    if path.is_dir():
        return folder_sources(path)
    if path.is_file():
        return _list_sources(path, model_id) if path.suffix == ".json" else folder_sources(path.parent)
    if spec.startswith((".", "/", "~")) or spec.endswith((".json", ".npz", ".pt", ".safetensors")):
        raise InputError(f"There is no file or folder {spec}; check the path of --saes.")
    return _release_sources(spec)


# ---- the registry ------------------------------------------------------------------------------------------------


def registry_source(entry: RegistryEntry) -> SAESource:
    """Return the source of a registry entry, with what the registry alone says."""
    told = named(entry)
    return SAESource(
        sae_id=entry.sae_id,
        release=entry.release,
        site=told.site or "",
        layout=REGISTRY_LAYOUT,
        path=entry.path,
        repo_id=entry.repo_id,
        site_out=told.site_out,
        d_in=told.d_in,
        d_sae=told.d_sae,
        architecture=told.architecture,
        average_l0=entry.l0,
        neuronpedia_id=neuronpedia_id(entry),
        model_name=entry.model,
        config_status=told.status,
        norm_scale=entry.norm_scale,
    )


def _release_sources(spec: str) -> list[SAESource]:
    release, _, pattern = spec.partition(":")
    if release not in registry():
        raise InputError(
            f"Unknown SAE release {release!r}, and no folder of that name; nearest: "
            f"{', '.join(nearest(release, registry()))} (`conceptatlas catalog` lists all)."
        )
    entries = [e for e in registry()[release] if not pattern or fnmatchcase(e.sae_id, pattern)]
    if not entries:
        close = nearest(pattern, (e.sae_id for e in registry()[release]), n=_NEAREST)
        raise InputError(f"No SAE of release {release!r} matches {pattern!r}; nearest: {', '.join(close)}.")
    return [registry_source(entry) for entry in sorted(entries, key=lambda e: natural_key(e.sae_id))]


# ---- folders -----------------------------------------------------------------------------------------------------


def folder_sources(root: Path, *, release: str | None = None) -> list[SAESource]:
    """Return every SAE at or below a folder, in natural order; ``sae_id`` is the path from ``root``.

    Raises:
        InputError: There is none, or one cannot be understood.
    """
    root = root.resolve()
    folders = find_folders(root)
    if not folders:
        marks = "; ".join(" + ".join(spec.files) for spec in LAYOUTS.values())
        raise InputError(f"There is no SAE in {root} or below it; what is looked for: {marks}.")
    sources = []
    for folder, layout in folders:
        sae_id = folder.relative_to(root).as_posix() if folder != root else root.name
        sources.append(local_source(folder, layout, sae_id, release or root.name))
    return sources


def local_source(folder: Path, layout: Layout, sae_id: str, release: str, *, site: str = "") -> SAESource:
    """Return the source of the SAE that ``folder`` holds; ``site`` places one whose configuration names none."""
    config = layout.config(folder)
    metadata = config.setdefault("metadata", {})
    if not metadata.get("hook_name") and config.get("hook_name"):
        metadata["hook_name"] = config["hook_name"]
    if site and not metadata.get("hook_name"):
        metadata |= {"hook_name": site, "hook_name_guessed": True}
    source = SAESource(
        sae_id=sae_id,
        release=release,
        site="",
        layout=layout.name,
        path=str(folder),
        average_l0=stated_l0(config) or _l0_in(folder.name),
        config_status="unknown",
        config=config,
    )
    return with_config(source, config) if metadata.get("hook_name") else source


def _l0_in(name: str) -> float | None:
    match = re.search(r"(?:^|_)l0_(\d+(?:\.\d+)?)", name)
    return float(match[1]) if match else None


# ---- a JSON list -------------------------------------------------------------------------------------------------


def _list_sources(path: Path, model_id: str | None) -> list[SAESource]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f'{path} must be a JSON list of {{"layer", "average_l0", "path"}} with at least one entry.')
    return [_listed(path, number, row, model_id) for number, row in enumerate(rows, start=1)]


def _listed(listing: Path, number: int, row: Any, model_id: str | None) -> SAESource:
    where = f"{listing}, entry {number}"
    if not isinstance(row, dict) or not {"layer", "path"} <= row.keys():
        raise InputError(f'{where}: an entry needs "layer" and "path" (and "average_l0" where it is known).')
    layer, given = row["layer"], str(row["path"])
    if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
        raise InputError(f"{where}: layer is {layer!r}; it must be a whole number from 0.")
    l0 = row.get("average_l0")
    if l0 is not None and (not isinstance(l0, int | float) or isinstance(l0, bool) or l0 <= 0):
        raise InputError(f"{where}: average_l0 is {l0!r}; it must be a number above 0.")
    local = listing.parent / Path(given).expanduser()
    source = (
        _listed_folder(local if local.is_dir() else local.parent, listing, given, layer, where)
        if local.exists()
        else _listed_published(given, row.get("release"), model_id, where)
    )
    if source.layer is not None and source.layer != layer:
        raise InputError(
            f"{where}: layer is {layer} and the SAE at {given} belongs to {source.site}; correct one of them."
        )
    return source if l0 is None else replace(source, average_l0=float(l0))


def _listed_folder(folder: Path, listing: Path, given: str, layer: int, where: str) -> SAESource:
    found = find_folders(folder.resolve())
    if len(found) != 1:
        raise InputError(f"{where}: {given} holds {len(found)} SAEs; a path of the list is the folder of exactly one.")
    real, layout = found[0]
    root = listing.parent.resolve()
    sae_id = real.relative_to(root).as_posix() if real.is_relative_to(root) else "/".join(real.parts[-3:])
    return local_source(real, layout, sae_id, listing.stem, site=f"blocks.{layer}.hook_resid_post")


def _listed_published(given: str, release: str | None, model_id: str | None, where: str) -> SAESource:
    """Find the registry's SAE at a repository path (``layer_12/width_16k/average_l0_82/params.npz``)."""
    path = re.sub(r"/(params\.npz|ae\.pt|sae_weights\.safetensors)$", "", given)
    entries = [e for e in all_entries() if path in (e.path, e.sae_id) and release in (None, e.release)]
    if model_id is not None and len({(e.repo_id, e.path) for e in entries}) > 1:
        entries = [e for e in entries if model_key(e.model) == model_key(model_id)]
    places = {(e.repo_id, e.path): e for e in reversed(entries)}
    if len(places) == 1:
        return registry_source(next(iter(places.values())))
    if not places:
        raise InputError(f"{where}: {given} is neither a path on this machine nor one of a published repository.")
    raise InputError(
        f'{where}: {given} is a path of several releases ({_some(e.release for e in places.values())}); add "release".'
    )


def _some(names: Iterable[str]) -> str:
    unique = sorted(set(names))
    return ", ".join(unique[:_NEAREST]) + (", ..." if len(unique) > _NEAREST else "")
