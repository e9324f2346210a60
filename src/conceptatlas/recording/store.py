"""The on-disk format of a recording, read lazily: plain ``.npy`` and Parquet, memory-mapped, lengths checked.

Nothing here imports torch or SAELens.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.artefact import Artefact
from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.concepts import Concept
from conceptatlas.concepts.model import ITEM_COLUMNS
from conceptatlas.recording.manifest import (
    COLUMN_FILES,
    FEATURES_FOLDER,
    HIDDEN_FOLDER,
    ITEMS_FILE,
    ROWS_FILE,
    TOP_FILE,
    Manifest,
    RecordedSAE,
    open_recording,
    pooled_file,
)
from conceptatlas.saes.sparse import SparseColumns

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource

ROW_COLUMNS = {
    "row": pl.Int32,
    "item": pl.Int32,
    "position": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "fragment_end": pl.Int32,
    "is_final": pl.Boolean,
    "sink": pl.Boolean,
}


def map_array(path: Path) -> npt.NDArray[Any]:
    """Memory-map the (verified) array in ``path``."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # NumPy cannot map an array without elements
        return np.load(path, allow_pickle=False)


class Recording:
    """The folder that one pass over a concept left. Everything is read, and verified, when it is first asked for."""

    def __init__(self, path: Path, manifest: Manifest, sealed: Artefact) -> None:
        self.path = path
        self.manifest = manifest
        self.sealed = sealed
        self._by_slug = {sae.slug: sae for sae in manifest.saes}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """Open the recording in the folder ``path``.

        Raises:
            InputError: There is no (finished) recording, or it is of a later version.
            WorkError: Its manifest or its seal is damaged. Other files are verified when they are first read.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"There is no recording {folder}; check the path.")
        return cls(folder, *open_recording(folder))

    @property
    def saes(self) -> list[RecordedSAE]:
        """The SAEs, in the order in which they were given."""
        return self.manifest.saes

    @property
    def n_items(self) -> int:
        """N, the number of items."""
        return self.manifest.concept.n_items

    @property
    def n_rows(self) -> int:
        """T, the number of rows."""
        return self.manifest.plan.n_rows

    @property
    def keeps_all_rows(self) -> bool:
        """Whether features were kept at every row (``--keep all``), and not at final rows only."""
        return self.manifest.options.keep == "all"

    @cached_property
    def items(self) -> pl.DataFrame:
        """The items, with ``n_rows`` and ``first_row``."""
        return pl.read_parquet(self.sealed.file(ITEMS_FILE), glob=False)

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The rows: the columns of ``ROW_COLUMNS``; those of one item stand together, in order."""
        return pl.read_parquet(self.sealed.file(ROWS_FILE), glob=False)

    @cached_property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """Where each item's rows begin, int64 [N + 1]; the last entry is T."""
        starts = np.zeros(self.n_items + 1, dtype=np.int64)
        np.cumsum(self.items["n_rows"].to_numpy(), out=starts[1:])
        return starts

    @cached_property
    def final_rows(self) -> npt.NDArray[np.int64]:
        """The last row of each item, int64 [N]."""
        return self.first_rows[1:] - 1

    @cached_property
    def item_of_row(self) -> npt.NDArray[np.int32]:
        """The item that each row belongs to, int32 [T]."""
        return np.repeat(np.arange(self.n_items, dtype=np.int32), np.diff(self.first_rows))

    @cached_property
    def sinks(self) -> npt.NDArray[np.bool_]:
        """Rows that are attention sinks at some site (norm above ten times the site's median), bool [T]."""
        if "sink" not in self.rows.columns:
            return np.zeros(self.n_rows, dtype=bool)
        return self.rows["sink"].to_numpy()

    def row_slice(self, item: int) -> slice:
        """Return the rows of one item."""
        return slice(int(self.first_rows[item]), int(self.first_rows[item + 1]))

    def sae(self, slug: str) -> RecordedSAE:
        """Return the SAE of this slug (its sae_id or ``release/sae_id`` is understood, too, where it is unique).

        Raises:
            InputError: There is none, or more than one.
        """
        if slug in self._by_slug:
            return self._by_slug[slug]
        found = [sae for sae in self.saes if slug in (sae.sae_id, sae.name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{slug!r} names {len(found)} SAEs: {', '.join(s.slug for s in found)}; give one of these."
            )
        raise unknown_name("SAE of this recording", slug, self._by_slug)

    def source(self, slug: str) -> SAESource:
        """Return the very SAE that was recorded, to be loaded (``.load_encoder()``, ``.load_decoder()``, ``.load()``).

        Raises:
            InputError: It is not there any more, or its files have changed since.
        """
        from conceptatlas.saes.identity import find_by_specs, find_referenced

        sae = self.sae(slug)
        if sae.reference is not None:
            found = find_referenced(sae.reference)
        else:
            requested = self.manifest.request.get("saes") or []
            specs = [requested] if isinstance(requested, str) else [str(spec) for spec in requested]
            found = find_by_specs(
                sae.slug, sae.name, [sae.source, *specs] if sae.source else specs, self.manifest.subject.id
            )
        if (found.d_in, found.d_sae) != (sae.d_in, sae.d_sae):
            raise InputError(
                f"The SAE {sae.name} in {found.path} has {found.d_sae} features of width {found.d_in}, and {sae.d_sae} of "
                f"width {sae.d_in} were recorded; put the old one back, or record again."
            )
        return found

    @cached_property
    def short_names(self) -> dict[str, str]:
        """Slug → ``layer_{layer}_l0_{l0}``, with ``__{slug}`` where two SAEs would share that."""
        counts = Counter(sae.short_name for sae in self.saes)
        return {
            sae.slug: sae.short_name if counts[sae.short_name] == 1 else f"{sae.short_name}__{sae.slug}"
            for sae in self.saes
        }

    def columns(self, slug: str) -> SparseColumns:
        """Return an SAE's activations as memory-mapped sparse columns (indptr [F+1], rows [nnz], values [nnz]).

        Raises:
            WorkError: A file is missing or damaged; the message names it.
            InputError: The recording kept only the top examples of each feature.
        """
        sae = self.sae(slug)
        if self.manifest.options.keep == "top":
            raise InputError(
                f"{self.path} kept only the top examples of each feature (--keep top); "
                "record again with --keep all --features … for the features that you need."
            )
        names = [f"{FEATURES_FOLDER}/{sae.slug}/{name}" for name in COLUMN_FILES]
        self.sealed.verify(names)
        return SparseColumns(*(map_array(self.path / name) for name in names))

    def top(self, slug: str) -> pl.DataFrame:
        """Return the table of strongest examples of an SAE (``--keep top``)."""
        name = f"{FEATURES_FOLDER}/{self.sae(slug).slug}/{TOP_FILE}"
        if name not in self.sealed.files:
            raise InputError(f"{self.path} has no table of top examples; record with --keep top.")
        return pl.read_parquet(self.sealed.file(name), glob=False)

    @cached_property
    def hidden_sites(self) -> list[str]:
        """The sites whose hidden states were kept (``embed`` is the token embedding)."""
        prefix = HIDDEN_FOLDER + "/"
        return [name[len(prefix) : -len(".npy")] for name in self.manifest.files if name.startswith(prefix)]

    def hidden(self, site: str) -> npt.NDArray[np.float32]:
        """Return the hidden states of a site, memory-mapped: [N, D] with ``--hidden final``, [T, D] with ``all``.

        Raises:
            InputError: They were not kept.
            WorkError: The file is damaged.
        """
        if site not in self.hidden_sites:
            kept = ", ".join(self.hidden_sites) or "none"
            raise InputError(
                f"{self.path} holds no hidden states of {site!r} (kept: {kept}); "
                "record again with --hidden final and --hidden-sites."
            )
        return map_array(self.sealed.file(f"{HIDDEN_FOLDER}/{site}.npy"))

    def hidden_final(self, site: str) -> npt.NDArray[np.float32]:
        """Return the hidden states of a site at each item's final row, float32 [N, D]."""
        found = self.hidden(site)
        return found[self.final_rows] if self.manifest.options.hidden == "all" else found

    def keeps_pooled(self, site: str, how: str) -> bool:
        """Whether ``hidden_pooled`` of a site can be read (recordings of earlier versions lack it)."""
        files = self.manifest.files
        return (site in self.hidden_sites and self.manifest.options.hidden == "all") or pooled_file(how, site) in files

    def hidden_pooled(self, site: str, how: str) -> npt.NDArray[np.float32]:
        """Return the hidden states of a site pooled over all rows of each item (attention sinks too), float32 [N, D].

        Args:
            site: The site.
            how: ``mean``, or ``max`` (of each coordinate on its own).

        Raises:
            InputError: They were not kept.
            WorkError: The file is damaged.
        """
        if not self.keeps_pooled(site, how):
            raise InputError(
                f"{self.path} does not hold the {how} of the hidden states of {site!r} over each item's rows; "
                "record again with --hidden final (or all), --keep all and --hidden-sites."
            )
        if self.manifest.options.hidden == "all":
            rows = self.hidden(site)
            items = (rows[first:last] for first, last in pairwise(self.first_rows))
            return np.stack([item.max(axis=0) if how == "max" else item.mean(axis=0) for item in items])
        return map_array(self.sealed.file(pooled_file(how, site)))

    def concept(self) -> Concept:
        """Return the Concept that was recorded, as it was."""
        info = self.manifest.concept
        items = self.items.drop("n_rows", "first_row")
        first = [name for name in ITEM_COLUMNS if name in items.columns]
        items = items.select(*first, *(name for name in items.columns if name not in first))
        return Concept(name=info.name, items=items, data_hash=info.data_hash, skipped=info.skipped)

    def describe(self) -> str:
        """Return the recording in one line."""
        info = self.manifest
        return (
            f"{info.concept.name}: {self.n_items} items, {self.n_rows} rows, {len(self.saes)} SAEs of {info.subject.id}"
        )

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r}: {self.describe()})"

    def _repr_html_(self) -> str:
        names = ("slug", "site", "architecture", "d_sae", "average_l0", "l0", "fvu", "verdict", "nnz")
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(getattr(sae, name)))}</td>" for name in names) + "</tr>"
            for sae in self.saes
        )
        return f"<p><b>{html.escape(self.describe())}</b></p><table><tr>{head}</tr>{body}</table>"


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
