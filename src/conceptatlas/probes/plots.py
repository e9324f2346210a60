"""Curves of probes, as matplotlib figures without a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
_LABELS = {"accuracy": "accuracy", "r2": "R²"}


def emergence_figure(table: pl.DataFrame, facts: Mapping[str, Any]) -> Figure:
    """Return the curve of a sweep: the test score of each layer with its interval, cross-validation, and the control."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    x = list(range(table.height))
    test = table["test"].to_list()
    axes.plot(x, test, color=BLUE, marker="o", label="test (95% interval)", zorder=3)
    if table["test_low"].null_count() < table.height:
        axes.fill_between(x, _floats(table["test_low"]), _floats(table["test_high"]), color=BLUE, alpha=0.18, lw=0)
    axes.plot(x, table["cv_mean"].to_list(), color=BLUE, ls="--", lw=1, label="cross-validation, training part")
    if table["shuffled_mean"].null_count() < table.height:
        axes.plot(x, table["shuffled_mean"].to_list(), color=ORANGE, marker=".", label="control: shuffled targets")
        axes.fill_between(
            x, _floats(table["shuffled_low"]), _floats(table["shuffled_high"]), color=ORANGE, alpha=0.18, lw=0
        )
    if facts.get("majority") is not None:
        axes.axhline(facts["majority"], color=GREY, ls=":", lw=1, label="always the commonest class")
    axes.set_xticks(x, ["embed" if layer < 0 else str(layer) for layer in table["layer"]])
    if table.height > 16:
        axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("layer")
    metric = _LABELS.get(facts["metric"], facts["metric"])
    axes.set_ylabel(f"{metric} on {facts['n_samples_test']} test samples")
    if facts["metric"] == "accuracy":
        axes.set_ylim(0, 1.02)
    else:
        lowest = min([value for value in (*test, *table["shuffled_mean"].to_list()) if value is not None], default=0.0)
        axes.set_ylim(max(min(lowest, 0.0) - 0.05, -1.0), 1.02)  # a control can be far below 0; the curve matters
    # Names come from users and hubs; a dollar sign in one must not be read as mathematics.
    title = f"{facts['strategy']}: {facts['concept']} in {facts['subject']} ({facts['model_type']})".replace("$", r"\$")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def _floats(values: pl.Series) -> list[float]:
    return [float("nan") if value is None else value for value in values]
