"""Panels of what a feature fires on: the strongest items of each grade, and a sample of each decile."""

from __future__ import annotations

import numpy as np

from conceptatlas.evidence import FeatureRef, TokenExample, examples_by_decile, examples_by_label
from conceptatlas.views.html import render
from conceptatlas.views.sections import Panel, panel
from conceptatlas.views.study_folder import Study

PER_LABEL = 3
PER_DECILE = 1
SEED = 0


def _needs_rows(title: str, study: Study) -> Panel | None:
    """Return the panel that says that activations along the sentence were not kept (None without a recording)."""
    if study.recording is None:
        return None
    return Panel(title, render("empty_rows.html", path=study.path), shape="full")


def _top(groups: dict[int, list[TokenExample]]) -> float:
    return max((example.peak for examples in groups.values() for example in examples), default=0.0)


@panel("examples", order=40)
def strongest(study: Study, feature: FeatureRef) -> Panel | None:
    """The items that score highest in each grade."""
    if not study.keeps_all_rows:
        return _needs_rows("Examples", study)
    by_label = examples_by_label(study.texts, study.column(feature), study.scores(feature), n=PER_LABEL)
    groups = [(label, by_label[label]) for label in sorted(by_label, reverse=True)]
    body = render(
        "examples.html", groups=groups, kind="label", top=_top(by_label), holdout=study.holdout, pool=study.pool
    )
    return Panel("Strongest examples by grade", body, shape="full")


@panel("deciles", order=50)
def across_deciles(study: Study, feature: FeatureRef) -> Panel | None:
    """A seeded sample from each decile of activation: the strongest examples alone flatter a feature."""
    if not study.keeps_all_rows:
        return None
    rng = np.random.default_rng(SEED)
    by_decile = examples_by_decile(study.texts, study.column(feature), n=PER_DECILE, rng=rng)
    if not by_decile:
        return None
    body = render(
        "examples.html",
        groups=list(by_decile.items()),
        kind="decile",
        top=_top(by_decile),
        holdout=study.holdout,
        pool=study.pool,
    )
    return Panel("A sample from each decile of activation", body, shape="full")
