"""Families: ranked features that say the same thing, across SAEs, layers and sparsities.

Two good features of one concept always correlate, because both follow the grade. So what counts is whether they rise
and fall together *within* a grade, or whether their decoders point the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import ConceptAtlasError
from conceptatlas.ranking.kernels import F64
from conceptatlas.recording import Recording

MIN_CORRELATION = 0.6
MIN_COSINE = 0.7
# Where neither feature varies within a grade, only all but identical scores are the same thing.
_IDENTICAL = 0.999


@dataclass(frozen=True)
class Families:
    """Families of K ranked features.

    Attributes:
        family: Number of each feature's family from 1, in the order of their best features, int32 [K].
        correlation: Correlation with the family's best feature within grades, float64 [K] (1 for the best itself).
        cosine: Cosine of the decoder with that of the family's best feature, float64 [K]; NaN where not known.
    """

    family: npt.NDArray[np.int32]
    correlation: F64
    cosine: F64


def within_grade_correlation(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> F64:
    """Return the correlation of every two features once each grade's mean is taken off, float64 [K, K].

    A feature that does not vary within any grade is compared by its plain correlation, and counts as alike (1) only
    where that is above 0.999, else as unlike (0).

    Args:
        scores: [n, K], best feature first.
        labels: Grades, [n].
    """
    x = scores.astype(np.float64)
    within = x.copy()
    for grade in np.unique(labels):
        within[labels == grade] -= within[labels == grade].mean(axis=0)
    plain = _correlation(x - x.mean(axis=0))
    spread = np.linalg.norm(within, axis=0)
    still = spread <= 1e-9 * np.maximum(np.linalg.norm(x, axis=0), 1e-300)
    out = _correlation(np.where(still, 0.0, within))
    rigid = still[:, None] | still[None, :]
    return np.where(rigid, (plain > _IDENTICAL).astype(np.float64), out)


def _correlation(centred: F64) -> F64:
    norm = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(norm > 0, norm, 1)
    return np.asarray(unit.T @ unit)


def group(correlation: F64, cosine: F64) -> Families:
    """Group features that are given best first: each joins the family whose best feature it is most like, or founds one.

    Comparing with the best feature of a family only keeps a family from growing along a chain of half-likenesses.

    Args:
        correlation: Within-grade correlations, [K, K].
        cosine: Cosines of decoders, [K, K]; NaN where not known.
    """
    count = len(correlation)
    family = np.zeros(count, dtype=np.int32)
    with_head, cosine_head = np.ones(count), np.full(count, np.nan)
    heads: list[int] = []
    for k in range(count):
        r, c = correlation[k, heads], np.nan_to_num(cosine[k, heads], nan=-1.0)
        alike = (r >= MIN_CORRELATION) | (c >= MIN_COSINE)
        if alike.any():
            nearest = int(np.argmax(np.where(alike, np.maximum(r, c), -2.0)))
            family[k] = nearest + 1
            with_head[k], cosine_head[k] = r[nearest], cosine[k, heads[nearest]]
        else:
            heads.append(k)
            family[k] = len(heads)
            cosine_head[k] = cosine[k, k]
    return Families(family, with_head, cosine_head)


def decoder_cosines(ranked: pl.DataFrame, recording: Recording) -> tuple[F64, list[str]]:
    """Return cosines between the features' decoder directions, float64 [K, K], and notes on what could not be read.

    NaN where a decoder could not be read, and between SAEs of different widths.
    """
    count = ranked.height
    vectors: dict[int, F64] = {}
    lost: list[str] = []
    for (slug,), own in ranked.with_row_index("line").group_by("slug", maintain_order=True):
        try:
            decoder = recording.source(str(slug)).load_decoder("cpu").W_dec
        except ConceptAtlasError as error:
            lost.append(f"{slug} ({str(error).rstrip('.')})")
            continue
        directions = decoder[own["feature_id"].to_list()].numpy().astype(np.float64)
        vectors.update(zip(own["line"].to_list(), directions, strict=True))
    cosine = np.full((count, count), np.nan)
    for width in {len(v) for v in vectors.values()}:
        members = np.array([k for k, v in vectors.items() if len(v) == width])
        unit = np.array([vectors[k] / max(float(np.linalg.norm(vectors[k])), 1e-300) for k in members])
        cosine[np.ix_(members, members)] = unit @ unit.T
    if not lost:
        return cosine, []
    others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return cosine, [
        f"Families have no decoder cosine for {lost[0]}{others}; their members were found by correlation only."
    ]


def describe(ranked: pl.DataFrame, families: Families) -> list[dict[str, Any]]:
    """Return the content of ``families.json``: each family's best feature, its members, and its first and last layer.

    Args:
        ranked: The features, best first (those beyond the ranked table too).
        families: Their families.
    """
    out: list[dict[str, Any]] = []
    table = ranked.select("rank", "layer", "average_l0", "feature_id", "sae_id", "slug", "interpretability_score")
    for number in range(1, int(families.family.max(initial=0)) + 1):
        members = np.flatnonzero(families.family == number)
        lines = table[members].to_dicts()
        for line, member in zip(lines, members, strict=True):
            line["correlation"] = float(families.correlation[member])
            line["cosine"] = None if np.isnan(families.cosine[member]) else float(families.cosine[member])
        layers = [line["layer"] for line in lines]
        out.append(
            {
                "family": number,
                "size": len(lines),
                "first_layer": min(layers),
                "last_layer": max(layers),
                "best": lines[0],
                "members": lines,
            }
        )
    return out
