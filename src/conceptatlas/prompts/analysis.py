"""Universal features (active on most prompts), specific ones (those of a list), and the contrast between labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.base.ties import comparable
from conceptatlas.concepts.similarity import normalised
from conceptatlas.prompts.data import FeatureList, Prompt, labels_of
from conceptatlas.prompts.reading import Reading
from conceptatlas.prompts.sources import Source
from conceptatlas.statistics import PooledNull, benjamini_hochberg, exchange, mid_ranks
from conceptatlas.statistics.pooled import stratum_of

UNIVERSAL_COLUMNS: dict[str, Any] = {
    "feature_id": pl.Int32,
    "activation_mean": pl.Float64,
    "activation_max": pl.Float64,
    "activation_min": pl.Float64,
    "num_prompts": pl.Int32,
    "chat_desc": pl.String,
    "pt_desc": pl.String,
    "type": pl.String,
    "source": pl.String,
    "token": pl.String,
    "link": pl.String,
}
SPECIFIC_COLUMNS: dict[str, Any] = {
    "prompt_idx": pl.Int32,
    "prompt": pl.String,
    "label": pl.String,
    "feature_id": pl.Int32,
    "activation": pl.Float64,
    "source": pl.String,
    "token": pl.String,
    "link": pl.String,
}
MIN_ACTIVE = 5
N_PERMUTATIONS = 1000
_TESTS = 256


def check_thresholds(threshold: float, activation_threshold: float) -> None:
    """Raise InputError unless the share lies in 0–1 and the activation is not negative."""
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold is a share of the prompts between 0 and 1, not {threshold:g}.")
    if activation_threshold < 0:
        raise InputError(f"--activation-threshold is {activation_threshold:g}; give 0 or more.")


def link_of(source: Source, feature: int) -> str:
    """Return the feature's Neuronpedia page, or an empty string where this very SAE has none."""
    return source.sae.url(feature)


def universal_rows(reading: Reading, *, threshold: float, activation_threshold: float) -> list[dict[str, Any]]:
    """Return a row for every feature that is active on at least ``threshold`` of the prompts at a token type.

    Mean, max and min are over the prompts on which it is active (above ``activation_threshold``). Most prompts first, then
    the larger mean, then the smaller index.
    """
    least = threshold * reading.n_prompts
    found = []
    for kind, token in enumerate(reading.types):
        rows: list[dict[str, Any]] = []
        for feature, _prompts, values in reading.of_type(kind):
            active = values[values > activation_threshold].astype(np.float64)
            if len(active) == 0 or len(active) < least:
                continue
            rows.append(
                {
                    "feature_id": feature,
                    "activation_mean": float(active.mean()),
                    "activation_max": float(active.max()),
                    "activation_min": float(active.min()),
                    "num_prompts": len(active),
                    "chat_desc": "",
                    "pt_desc": "",
                    "type": "",
                    "source": reading.source.name,
                    "token": token,
                    "link": link_of(reading.source, feature),
                }
            )
        found += sorted(rows, key=_most_prompts_first)
    return found


def _most_prompts_first(row: dict[str, Any]) -> tuple[int, float, int]:
    return -row["num_prompts"], -float(comparable(row["activation_mean"])), row["feature_id"]


def specific_rows(reading: Reading, features: FeatureList, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Return a row for each prompt, listed feature and token type (zero activations are rows, too)."""
    found = []
    for feature in features.by_source.get(reading.source.name, []):
        values = reading.values(feature)
        link = link_of(reading.source, feature)
        for number, prompt in enumerate(prompts):
            for kind, token in enumerate(reading.types):
                found.append(
                    {
                        "prompt_idx": number,
                        "prompt": prompt.content,
                        "label": prompt.label,
                        "feature_id": feature,
                        "activation": float(values[number, kind]),
                        "source": reading.source.name,
                        "token": token,
                        "link": link,
                    }
                )
    return found


def active_prompts(
    rows: Sequence[dict[str, Any]], sources: dict[str, Source], *, activation_threshold: float
) -> list[dict[str, Any]]:
    """Return the JSONL entries of the specific rows above the activation threshold, in their order."""
    return [
        {
            "model": sources[row["source"]].short,
            "layer": sources[row["source"]].sae.layer,
            "feature_id": row["feature_id"],
            "prompt": row["prompt"],
            "label": row["label"],
            "activation": row["activation"],
            "token_type": row["token"],
        }
        for row in rows
        if row["activation"] > activation_threshold
    ]


def contrast_rows(reading: Reading, prompts: Sequence[Prompt], *, activation_threshold: float) -> list[dict[str, Any]]:
    """Return, for every feature active on ``MIN_ACTIVE`` prompts or more, its activity by label and a test of difference.

    The test is Kruskal and Wallis's by exchange of labels (``difference_tests``); prompts of the same text (but for case,
    punctuation and white space) are one group.
    ``q_value`` is added over all sources and tokens by ``with_q_values``.
    """
    labels = labels_of(prompts)
    classes = np.array([labels.index(prompt.label) for prompt in prompts])
    groups = np.unique([normalised(prompt.content) for prompt in prompts], return_inverse=True)[1]
    found, columns = [], []
    for kind, token in enumerate(reading.types):
        for feature, where, values in reading.of_type(kind):
            if int((values > activation_threshold).sum()) < MIN_ACTIVE:
                continue
            dense = np.zeros(reading.n_prompts)
            dense[where] = values
            row: dict[str, Any] = {"feature_id": feature, "source": reading.source.name, "token": token}
            for number, label in enumerate(labels):
                mine = dense[classes == number]
                row[f"share_{label}"] = float((mine > activation_threshold).mean())
                row[f"mean_{label}"] = float(mine.mean())
            row["p_value"] = np.nan
            row["link"] = link_of(reading.source, feature)
            found.append(row)
            columns.append(dense.astype(np.float32))
    for row, p_value in zip(found, difference_tests(columns, classes, groups), strict=True):
        row["p_value"] = float(p_value)
    return found


def difference_tests(
    columns: Sequence[npt.NDArray[np.floating]], classes: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the p-value of a difference between classes for each of F features, float64 [F].

    Kruskal and Wallis's H, corrected for ties, against its own values under ``N_PERMUTATIONS`` exchanges of the labels by
    group, pooled over features active on like numbers of prompts; 1 where all values are the same.

    Args:
        columns: Values of each feature on all prompts, [N] each.
        classes: Number of each prompt's label, [N].
        groups: Number of each prompt's group, [N].
    """
    orders = exchange(classes, groups).orders(N_PERMUTATIONS, np.random.default_rng(0))
    drawn = np.concatenate([classes[None], classes[orders]])
    members = [(drawn == c).astype(np.float64).T for c in np.unique(classes)]
    pool, observed, strata = PooledNull(), np.zeros(len(columns)), np.zeros(len(columns), dtype=np.int64)
    for start in range(0, len(columns), _TESTS):
        block = slice(start, start + _TESTS)
        ranks = np.array([mid_ranks(column) for column in columns[block]])
        centred = ranks - ranks.mean(axis=1, keepdims=True)
        variance = (centred**2).sum(axis=1, keepdims=True) / max(len(classes) - 1, 1)
        between = sum((centred @ inside) ** 2 / inside[:, 0].sum() for inside in members)
        # The root, as the pool counts it: with two labels it is |z| of Mann and Whitney.
        h = np.sqrt(between / np.where(variance > 0, variance, 1))
        observed[block] = h[:, 0]
        strata[block] = stratum_of(np.array([np.count_nonzero(column) for column in columns[block]]))
        pool.add(strata[block], h[:, 1:], h[:, :0])
    return pool.p_values(observed, strata)


def with_q_values(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with ``q_value`` (Benjamini–Hochberg over all of them), smallest first."""
    if not rows:
        return []
    q_values = benjamini_hochberg(np.array([row["p_value"] for row in rows]))
    for row, q_value in zip(rows, q_values, strict=True):
        row["q_value"] = float(q_value)
    return sorted(
        rows, key=lambda row: (row["q_value"], row["p_value"], row["source"], row["token"], row["feature_id"])
    )
