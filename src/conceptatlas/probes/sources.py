"""Reading inputs and targets from a recording, in chunks, from memory-mapped arrays.

Letters: T rows, N items, D model width, n samples of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.probes.layers import require_recorded
from conceptatlas.probes.strategies import Strategy
from conceptatlas.recording import EMBED_SITE, RecordedSAE, Recording, SparseColumns

Pool = Literal["final", "max", "mean"]
Rows = Literal["items", "all"]
POOLS: tuple[str, ...] = get_args(Pool)

# Rows read at once: 4,096 x 2,304 x 8 bytes are 75 MB in float64.
CHUNK_ROWS = 4096

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def find_pool(name: str) -> Pool:
    """Return ``name`` as a pooling.

    Raises:
        InputError: It is none; the valid names are listed.
    """
    for known in get_args(Pool):
        if name == known:
            return known
    raise unknown_name("pooling", name, POOLS)


@dataclass(frozen=True)
class InputSite:
    """A recorded site that gives columns of ``X``.

    Attributes:
        site: As SAELens writes it, or ``embed``.
        layer: Its block; -1 for ``embed``.
    """

    site: str
    layer: int


def _block_of(site: str) -> tuple[int, str] | None:
    """Return (layer, hook) of a site such as ``blocks.12.hook_resid_post``, or None."""
    parts = site.split(".", 2)
    if len(parts) == 3 and parts[0] == "blocks" and parts[1].isdecimal():
        return int(parts[1]), parts[2]
    return None


def hidden_layers(rec: Recording, *, hook: str | None = None) -> dict[int, InputSite]:
    """Return the recorded hidden site of each layer, ascending.

    Where several hooks of one layer were recorded, ``hook`` says which one, else ``hook_resid_post`` is taken.

    Raises:
        InputError: Nothing was recorded at ``hook``, or a layer has several hooks, none of them ``hook_resid_post``.
    """
    found: dict[int, dict[str, str]] = {}
    for site in rec.hidden_sites:
        block = _block_of(site)
        if block is not None:
            found.setdefault(block[0], {})[block[1]] = site
    hooks = sorted({name for sites in found.values() for name in sites})
    if hook is not None and hook not in hooks:
        raise InputError(f"No hidden states of {hook!r} were recorded; recorded: {', '.join(hooks) or 'none'}.")
    chosen: dict[int, InputSite] = {}
    for layer, sites in sorted(found.items()):
        names = [hook] if hook is not None else ["hook_resid_post"]
        name = next((name for name in names if name in sites), None)
        if name is None and hook is None:
            if len(sites) > 1:
                raise InputError(
                    f"Layer {layer} was recorded at {', '.join(sorted(sites))}; choose one with --hook, such as "
                    f"--hook {min(sites)}."
                )
            name = next(iter(sites))
        if name is not None:
            chosen[layer] = InputSite(sites[name], layer)
    return chosen


def embed_site(rec: Recording) -> InputSite:
    """Return the token embedding as a site.

    Raises:
        InputError: It was not recorded.
    """
    if EMBED_SITE not in rec.hidden_sites:
        raise InputError(
            f"{rec.path} holds no embeddings; record again with --hidden final, or with embed in --hidden-sites."
        )
    return InputSite(EMBED_SITE, -1)


def pick_sites(rec: Recording, layers: list[int], *, hook: str | None = None) -> list[InputSite]:
    """Return the hidden sites of ``layers``.

    Raises:
        InputError: A layer was not recorded; the sentence lists those that were.
    """
    have = hidden_layers(rec, hook=hook)
    require_recorded(layers, have, what="hidden states")
    return [have[layer] for layer in layers]


def check_samples(rec: Recording, strategy: Strategy, *, pool: Pool, rows: Rows) -> None:
    """Check that the recording kept the rows that ``pool`` and ``rows`` need.

    Raises:
        InputError: It did not; the sentence says how to record again.
    """
    if rows == "all" and pool != "final":
        raise InputError(f"--rows all takes every row as a sample and pools nothing; leave --pool {pool} out.")
    if rows == "all" and strategy.target != "feature":
        raise InputError(
            f"--rows all is for a feature's activation, which every row has; {strategy.name} has one grade per item, "
            "so use --pool."
        )
    if pool == "final" and rows == "items":
        return
    need = f"--pool {pool}" if rows == "items" else "--rows all"
    if strategy.source != "features" and rec.manifest.options.hidden != "all":
        raise InputError(
            f"{need} needs the hidden states of all rows, and {rec.path} was recorded with --hidden "
            f"{rec.manifest.options.hidden}; record again with --hidden all, or use --pool final."
        )
    if (strategy.source == "features" or strategy.target == "feature") and not rec.keeps_all_rows:
        raise InputError(
            f"{need} needs the features of all rows, and {rec.path} was recorded with --keep "
            f"{rec.manifest.options.keep}; record again with --keep all (with --features, for some columns only)."
        )


def sample_chunks(rec: Recording, sites: list[InputSite], *, pool: Pool, rows: Rows) -> Callable[[], Iterator[F32]]:
    """Return a function that walks the inputs in chunks, float32 [n, D of all sites side by side].

    A sample is an item (its final row, or the maximum or mean over its rows), or with ``rows="all"`` a row.
    """
    arrays = [rec.hidden(site.site) for site in sites]
    all_rows = rec.manifest.options.hidden == "all"
    first = rec.first_rows

    def walk() -> Iterator[F32]:
        if rows == "all" or (pool == "final" and not all_rows):
            for start in range(0, len(arrays[0]), CHUNK_ROWS):
                yield _beside([array[start : start + CHUNK_ROWS] for array in arrays])
        elif pool == "final":
            for start in range(0, rec.n_items, CHUNK_ROWS):
                picked = rec.final_rows[start : start + CHUNK_ROWS]
                yield _beside([array[picked] for array in arrays])
        else:
            for a, b in _item_chunks(first, CHUNK_ROWS):
                span = slice(int(first[a]), int(first[b]))
                starts = first[a:b] - first[a]
                lengths = np.diff(first[a : b + 1])
                yield _beside([pool_rows(array[span], starts, lengths, pool) for array in arrays])

    return walk


def _beside(blocks: list[F32]) -> F32:
    return np.concatenate([np.asarray(block, dtype=np.float32) for block in blocks], axis=1)


def _item_chunks(first: Ints, limit: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of items of at most ``limit`` rows (one item at least)."""
    start, n_items = 0, len(first) - 1
    while start < n_items:
        stop = int(np.searchsorted(first, first[start] + limit, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


def pool_rows(rows_TD: npt.NDArray[np.floating], starts_N: Ints, lengths_N: Ints, pool: Pool) -> F32:
    """Return the rows pooled over items: [T, D] → float32 [N, D]; each item has at least one row."""
    if pool == "final":
        return np.asarray(rows_TD[starts_N + lengths_N - 1], dtype=np.float32)
    if pool == "max":
        return np.asarray(np.maximum.reduceat(rows_TD, starts_N, axis=0), dtype=np.float32)
    total = np.add.reduceat(np.asarray(rows_TD, dtype=np.float64), starts_N, axis=0)
    return np.asarray(total / lengths_N[:, None], dtype=np.float32)


def find_sae(rec: Recording, *, layer: int | None, sae: str | None) -> RecordedSAE:
    """Return the SAE that ``layer`` or ``sae`` (slug, sae_id or release/sae_id) means.

    Raises:
        InputError: None or several fit; the sentence lists them.
    """
    if sae is not None:
        found = rec.sae(sae)
        if layer is not None and found.layer != layer:
            raise InputError(f"{found.slug} stands at layer {found.layer}, and layer {layer} was asked for; drop one.")
        return found
    if not rec.saes:
        raise InputError(f"{rec.path} holds no SAE; record again with --saes.")
    if layer is None:
        fitting = rec.saes
    else:
        require_recorded([layer], {each.layer for each in rec.saes}, what="SAEs")
        fitting = [each for each in rec.saes if each.layer == layer]
    if len(fitting) > 1:
        names = ", ".join(each.slug for each in fitting)
        where = "the recording" if layer is None else f"layer {layer}"
        raise InputError(f"There are {len(fitting)} SAEs at {where}: {names}; choose one with --sae.")
    return fitting[0]


def feature_target(rec: Recording, sae: RecordedSAE, feature: int, *, pool: Pool, rows: Rows) -> F32:
    """Return a feature's activation for each sample, float32 [N] or, with ``rows="all"``, [T].

    Raises:
        InputError: The SAE has no such feature, or it was not among the recorded columns.
    """
    if not 0 <= feature < sae.d_sae:
        raise InputError(f"{sae.slug} has features 0-{sae.d_sae - 1}, and feature {feature} was asked for.")
    kept = rec.manifest.options.features
    if kept is not None and feature not in kept:
        raise InputError(
            f"Feature {feature} was not recorded; recorded: {', '.join(map(str, sorted(kept)))}. Choose among these, "
            f"or record again with --features {feature}."
        )
    at, values = rec.columns(sae.slug).feature(feature)
    dense = np.zeros(rec.n_rows, dtype=np.float32)
    dense[at] = values
    if rows == "all":
        return dense
    starts = rec.first_rows[:-1]
    return pool_rows(dense[:, None], starts, np.diff(rec.first_rows), pool)[:, 0]


@dataclass(frozen=True)
class ItemScores:
    """Pooled activations as sparse columns over items: what is not stored is 0.

    Attributes:
        feature: Of each entry, int64 [nnz], ascending.
        item: Of each entry, int64 [nnz], ascending within a feature.
        value: float64 [nnz].
        n_features: F.
    """

    feature: Ints
    item: Ints
    value: npt.NDArray[np.float64]
    n_features: int


def item_scores(rec: Recording, columns: SparseColumns, pool: Pool) -> ItemScores:
    """Return the activations of every feature, pooled over each item's rows."""
    feature = np.repeat(np.arange(columns.n_features, dtype=np.int64), columns.counts())
    at = np.asarray(columns.rows, dtype=np.int64)
    item = rec.item_of_row[at].astype(np.int64)
    value = np.asarray(columns.values, dtype=np.float64)
    if pool == "final":
        final = at == rec.final_rows[item]
        return ItemScores(feature[final], item[final], value[final], columns.n_features)
    if not len(at):
        return ItemScores(feature, item, value, columns.n_features)
    new = np.ones(len(at), dtype=bool)
    new[1:] = (np.diff(feature) != 0) | (np.diff(item) != 0)
    starts = np.flatnonzero(new)
    lengths = np.diff(rec.first_rows)[item[starts]]
    if pool == "mean":
        pooled = np.add.reduceat(value, starts) / lengths
    else:
        stored = np.diff(np.append(starts, len(at)))
        # A row that is not stored counts as 0, so an item with a gap has a maximum of at least 0.
        top = np.maximum.reduceat(value, starts)
        pooled = np.where(stored < lengths, np.maximum(top, 0.0), top)
    return ItemScores(feature[starts], item[starts], pooled, columns.n_features)


def correlations(
    scores: ItemScores, grades_N: npt.NDArray[np.integer], members_N: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the Pearson correlation of each feature with the grades over the items in ``members``, float64 [F].

    A feature that is constant there, or active on fewer than three of these items, has 0.
    """
    keep = members_N[scores.item]
    feature, value = scores.feature[keep], scores.value[keep]
    n = int(members_N.sum())
    y = grades_N.astype(np.float64)
    y = y - y[members_N].mean()
    size = scores.n_features
    sums = np.bincount(feature, value, size)
    squares = np.bincount(feature, value**2, size)
    products = np.bincount(feature, value * y[scores.item[keep]], size)
    active = np.bincount(feature[value != 0], minlength=size)
    spread = squares - sums**2 / n
    scale = np.sqrt(np.maximum(spread, 0) * float((y[members_N] ** 2).sum()))
    usable = (active >= 3) & (spread > 1e-12 * squares) & (scale > 0)
    return np.divide(products, scale, out=np.zeros(size), where=usable)
