"""The feature table of the explorer: filter, search, sort and page millions of features, column by column.

Columns are read from ``all_features.parquet`` when first asked for and kept: no query touches the columns that it does
not need. Only the lines up to the page asked for are put in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError

# Column -> how the table heads it; the order is that of the columns.
FIGURES: dict[str, str] = {
    "layer": "layer",
    "average_l0": "L0",
    "feature_id": "feature",
    "interpretability_score": "score",
    "auroc_holdout": "AUROC hold-out",
    "auroc": "AUROC discovery",
    "pearson_holdout": "Pearson hold-out",
    "pearson_corr": "Pearson discovery",
    "spearman_corr": "Spearman",
    "separation_score": "separation",
    "tpr_holdout": "TPR hold-out",
    "fpr_holdout": "FPR hold-out",
    "tpr": "TPR discovery",
    "fpr": "FPR discovery",
    "mean_label_0": "mean of grade 0",
    "mean_label_1": "mean of grade 1",
    "mean_label_2": "mean of grade 2",
    "mean_label_3": "mean of grade 3",
    "n_active": "items active",
    "density": "rows active",
    "p_max": "shuffles as good",
    "p_max_sae": "shuffles (its SAE)",
    "q_value": "q",
    "partial_corr": "partial corr.",
}
DEFAULT_COLUMNS = (
    "interpretability_score",
    "auroc_holdout",
    "auroc",
    "pearson_holdout",
    "n_active",
    "density",
    "p_max",
)
ALWAYS = ("layer", "average_l0", "feature_id")
DEFAULT_SORT = "interpretability_score"
PAGE_SIZES = (25, 50, 100, 200)
MAX_SEARCH = 200


@dataclass(frozen=True)
class Query:
    """What the table is asked for: the state that stands in the URL.

    Attributes:
        search: Words that the SAE's name or the feature's label must contain, or a feature's index.
        sort: The figure to sort by.
        descending: Largest first.
        layer: Only this layer.
        sae: Only this SAE (its slug).
        at_least: Figure -> least value.
        at_most: Figure -> greatest value.
        kept: Only features that passed the filters of the ranking.
        starred: Only features with a star.
        columns: The figures shown.
        page: From 1.
        size: Rows per page.
    """

    search: str = ""
    sort: str = DEFAULT_SORT
    descending: bool = True
    layer: int | None = None
    sae: str = ""
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    kept: bool = False
    starred: bool = False
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    page: int = 1
    size: int = 50

    @classmethod
    def parse(cls, parameters: list[tuple[str, str]]) -> Query:
        """Read the query from a URL's parameters; what is empty is not asked for.

        Raises:
            InputError: A parameter has a value that it cannot have.
        """
        values: dict[str, str] = dict(parameters)
        columns = tuple(dict.fromkeys(value for key, value in parameters if key == "col"))
        low: dict[str, float] = {}
        high: dict[str, float] = {}
        for key, value in parameters:
            side, _, name = key.partition("_")
            if side in ("min", "max") and value.strip():
                (low if side == "min" else high)[_figure(name)] = _float(key, value)
        layer = values.get("layer", "").strip()
        size = _int("size", values.get("size") or "50")
        return cls(
            search=values.get("q", "").strip()[:MAX_SEARCH],
            sort=_figure(values.get("sort") or DEFAULT_SORT),
            descending=values.get("dir", "desc") != "asc",
            layer=_int("layer", layer) if layer else None,
            sae=values.get("sae", ""),
            at_least=low,
            at_most=high,
            kept=values.get("kept") == "1",
            starred=values.get("starred") == "1",
            columns=tuple(_figure(column) for column in columns) or DEFAULT_COLUMNS,
            page=max(1, min(_int("page", values.get("page") or "1"), 10**9)),
            size=size if size in PAGE_SIZES else 50,
        )

    def url(self, **changes: Any) -> str:
        """Return the query string of this query with some attributes changed (the page goes back to 1)."""
        new = replace(self, **{"page": 1, **changes})
        pairs: list[tuple[str, Any]] = []
        if new.search:
            pairs.append(("q", new.search))
        if new.sort != DEFAULT_SORT or not new.descending:
            pairs += [("sort", new.sort), ("dir", "desc" if new.descending else "asc")]
        if new.layer is not None:
            pairs.append(("layer", new.layer))
        if new.sae:
            pairs.append(("sae", new.sae))
        pairs += [(f"min_{name}", f"{value:g}") for name, value in new.at_least.items()]
        pairs += [(f"max_{name}", f"{value:g}") for name, value in new.at_most.items()]
        pairs += [(name, "1") for name, asked in (("kept", new.kept), ("starred", new.starred)) if asked]
        if new.columns != DEFAULT_COLUMNS:
            pairs += [("col", column) for column in new.columns]
        if new.size != 50:
            pairs.append(("size", new.size))
        if new.page != 1:
            pairs.append(("page", new.page))
        return "?" + urlencode(pairs) if pairs else "?"


def _figure(name: str) -> str:
    if name not in FIGURES:
        raise InputError(f"There is no column {name[:60]!r}; the columns are {', '.join(FIGURES)}.")
    return name


def _int(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InputError(f"{name} is {value[:60]!r}; give a whole number.") from error


def _float(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise InputError(f"{name} is {value[:60]!r}; give a number.") from error
    if not np.isfinite(number):
        raise InputError(f"{name} is {value[:60]!r}; give a finite number.")
    return number


@dataclass(frozen=True)
class Words:
    """A text column as its different values and the number of its value on each line, int32 [K]."""

    values: list[str]
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, series: pl.Series) -> Words:
        """Encode a column. The features of an SAE stand together, so only the runs are looked at."""
        runs = series.rle().struct.unnest()
        values, codes = np.unique(runs["value"].fill_null("").to_numpy().astype(str), return_inverse=True)
        return cls([str(value) for value in values], np.repeat(codes.astype(np.int32), runs["len"].to_numpy()))

    def at(self, places: npt.NDArray[np.int64]) -> list[str]:
        """Return the values on some lines."""
        return [self.values[code] for code in self.codes[places]]


class FeatureTable:
    """``all_features.parquet`` read column by column.

    Args:
        path: The Parquet file.
        labels: Label text of features that have one: (slug, feature) -> text.
    """

    def __init__(self, path: Path, labels: Mapping[tuple[str, int], str] | None = None) -> None:
        self._scan = pl.scan_parquet(path)
        self.height: int = self._scan.select(pl.len()).collect().item()
        self.names = set(self._scan.collect_schema().names())
        self.labels = dict(labels or {})
        self._columns: dict[str, pl.Series] = {}
        self._words: dict[str, Words] = {}
        self._lock = Lock()

    def column(self, name: str) -> pl.Series:
        """Return a column of figures, read when first asked for."""
        with self._lock:
            if name not in self._columns:
                self._columns[name] = self._scan.select(name).collect()[name]
            return self._columns[name]

    def words(self, name: str) -> Words:
        """Return a column of text, read when first asked for."""
        with self._lock:
            if name not in self._words:
                self._words[name] = Words.of(self._scan.select(name).collect()[name])
            return self._words[name]

    def saes(self) -> list[str]:
        """Return the slugs of the SAEs in the table."""
        return self.words("slug").values

    def layers(self) -> list[int]:
        """Return the layers in the table."""
        return [int(layer) for layer in self.column("layer").unique().sort()]

    def _members(self, name: str, wanted: list[str]) -> npt.NDArray[np.bool_]:
        """Return where a text column has one of the values ``wanted``, bool [K]."""
        words = self.words(name)
        hit = np.array([value in wanted for value in words.values], dtype=bool)
        return np.asarray(hit[words.codes], dtype=bool) if hit.any() else np.zeros(self.height, dtype=bool)

    def _keys(self, keys: list[tuple[str, int]]) -> npt.NDArray[np.bool_]:
        """Return where the feature is one of ``keys``, bool [K]."""
        mask = np.zeros(self.height, dtype=bool)
        features = self.column("feature_id").to_numpy()
        by_slug: dict[str, list[int]] = {}
        for slug, feature in keys:
            by_slug.setdefault(slug, []).append(feature)
        for slug, indices in by_slug.items():
            mask |= self._members("slug", [slug]) & np.isin(features, indices)
        return mask

    def is_feature(self, slug: str, feature_id: int) -> npt.NDArray[np.bool_]:
        """Return where the line is this feature, bool [K]."""
        return self._keys([(slug, feature_id)])

    def _matches(self, words: str) -> npt.NDArray[np.bool_]:
        low = words.casefold()
        names = [value for value in self.words("slug").values if low in value.casefold()]
        ids = [value for value in self.words("sae_id").values if low in value.casefold()]
        mask = self._members("slug", names) | self._members("sae_id", ids)
        if words.lstrip("#").isdecimal() and len(words) < 12:
            mask |= self.column("feature_id").to_numpy() == int(words.lstrip("#"))
        hits = [key for key, text in self.labels.items() if low in text.casefold()]
        return mask | self._keys(hits) if hits else mask

    def _mask(self, query: Query, starred: list[tuple[str, int]]) -> npt.NDArray[np.bool_] | None:
        """Return which features the query asks for, bool [K]; None for all of them."""
        parts: list[npt.NDArray[np.bool_]] = []
        if query.kept and "kept" in self.names:
            parts.append(self.column("kept").to_numpy())
        if query.layer is not None:
            parts.append(self.column("layer").to_numpy() == query.layer)
        if query.sae:
            parts.append(self._members("slug", [query.sae]))
        for name, bound in query.at_least.items():
            parts.append((self.column(name) >= bound).fill_null(value=False).to_numpy())
        for name, bound in query.at_most.items():
            parts.append((self.column(name) <= bound).fill_null(value=False).to_numpy())
        if query.starred:
            parts.append(self._keys(starred))
        if query.search:
            parts.append(self._matches(query.search))
        return np.logical_and.reduce(parts) if parts else None

    def _candidates(self, query: Query, starred: list[tuple[str, int]]) -> npt.NDArray[np.int64]:
        mask = self._mask(query, starred)
        return np.arange(self.height) if mask is None else np.flatnonzero(mask)

    def _keys_of(self, query: Query, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.floating]:
        """Return what to sort the lines by, ascending; what is empty comes last."""
        column = self.column(query.sort)
        kind = pl.Float32 if column.dtype == pl.Float32 else pl.Float64
        values = column.cast(kind).fill_null(float("nan")).to_numpy()[lines]
        return np.where(np.isnan(values), np.inf, -values if query.descending else values)

    def select(self, query: Query, starred: list[tuple[str, int]]) -> npt.NDArray[np.int64]:
        """Return every line that the query asks for, in its order; ties in the order of the table."""
        lines = self._candidates(query, starred)
        return lines[np.argsort(self._keys_of(query, lines), kind="stable")]

    def part(
        self, query: Query, starred: list[tuple[str, int]], start: int, stop: int
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Return the lines ``start`` to ``stop`` (half-open) of what ``select`` gives, and how many there are in all.

        Only the first ``stop`` lines are put in order: a page of millions needs no sort of millions.
        """
        lines = self._candidates(query, starred)
        total = len(lines)
        stop = min(stop, total)
        if start >= stop:
            return lines[:0], total
        keys = self._keys_of(query, lines)
        if stop < total // 4:
            # Many lines can share the best figure (a p of 1, say), and a partition of equals is slow.
            first = keys.min()
            tied = int((keys == first).sum())
            last = first if tied >= stop else np.partition(keys, stop - 1)[stop - 1]
            better = np.flatnonzero(keys < last)
            chosen = np.concatenate([better, np.flatnonzero(keys == last)[: stop - len(better)]])
            lines, keys = lines[chosen], keys[chosen]
        return lines[np.argsort(keys, kind="stable")][start:stop], total

    def place(self, query: Query, starred: list[tuple[str, int]], slug: str, feature_id: int) -> tuple[int | None, int]:
        """Return a feature's place (from 0) in what ``select`` gives, None where it is not in it; and how many are."""
        lines = self._candidates(query, starred)
        here = np.flatnonzero(self.is_feature(slug, feature_id)[lines])
        if not len(here):
            return None, len(lines)
        keys = self._keys_of(query, lines)
        at = int(here[0])
        return int((keys < keys[at]).sum() + (keys[:at] == keys[at]).sum()), len(lines)

    def lines(self, places: npt.NDArray[np.int64], columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return some lines with the columns asked for, and what names a feature."""
        rows = self.frame(places, columns).rows(named=True)
        for row in rows:
            row["label_text"] = self.labels.get((row["slug"], row["feature_id"]), "")
        return rows

    def frame(self, places: npt.NDArray[np.int64], columns: tuple[str, ...]) -> pl.DataFrame:
        """Return some lines as a table; a column that the file lacks is empty."""
        found = []
        for name in dict.fromkeys((*ALWAYS, "sae_id", "slug", *columns)):
            if name in ("sae_id", "slug"):
                found.append(pl.Series(name, self.words(name).at(places), dtype=pl.String))
            elif name in self.names:
                found.append(self.column(name).gather(places))
            else:
                found.append(pl.Series(name, [None] * len(places), dtype=pl.Float64))
        return pl.DataFrame(found)
