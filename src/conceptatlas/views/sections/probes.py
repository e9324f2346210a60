"""Probes: what a classifier reads from each layer, beside its control, and the versions that were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conceptatlas.base.files import read_json
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.lines import Point, Series, by_layer

SWEEP_FILE = "sweep.json"
RESULTS_FILE = "results.json"
MAX_VERSIONS = 50
SIZES = ((860.0, 300.0), (350.0, 290.0))


def _points(rows: list[dict[str, Any]], value: str, low: str, high: str) -> tuple[Point, ...]:
    return tuple(
        Point(float(row["layer"]), float(row[value]), row.get(low), row.get(high))
        for row in rows
        if row.get(value) is not None
    )


def sweep_context(sweep: dict[str, Any]) -> dict[str, Any]:
    """Return what the section shows of a sweep over layers."""
    rows = sweep["layers"]
    series = [
        Series("probe, on test items", 0, _points(rows, "test", "test_low", "test_high")),
        Series("the same on shuffled labels", 6, _points(rows, "shuffled_mean", "shuffled_low", "shuffled_high")),
    ]
    shown = [line for line in series if line.points]
    return {
        "rows": rows,
        "metric": sweep["metric"],
        "best": sweep.get("best_layer"),
        "pictures": [
            by_layer(shown, null=None, width=width, height=height, what=str(sweep["metric"])) for width, height in SIZES
        ],
        "legend": [(line.look, line.name) for line in shown],
    }


def versions_of(folder: Path) -> list[dict[str, Any]]:
    """Return the trained versions in a folder, by name: model, figures on both sides, number of samples."""
    found = []
    for path in sorted(folder.glob(f"*/{RESULTS_FILE}"))[:MAX_VERSIONS]:
        if not path.resolve().is_relative_to(folder.resolve()):
            continue
        results = read_json(path)
        metric = str(results.get("cv_metric") or "")
        found.append(
            {
                "name": path.parent.name,
                "model": str(results.get("model_type") or ""),
                "metric": metric,
                "cv_mean": results.get("cv_mean"),
                "test": results.get(f"test_{metric}"),
                "train": results.get(f"train_{metric}"),
                "n": results.get("n_samples_total"),
            }
        )
    return found


@section("probes", order=70)
def probes(study: Study) -> Section | None:
    """The sweep over layers and the trained versions, where there are any."""
    folder = study.stages.get("probe")
    if folder is None:
        return None
    places = (study.file("probe", SWEEP_FILE), study.file("probe", f"sweep/{SWEEP_FILE}"))
    path = next((place for place in places if place is not None), None)
    sweep = None if path is None else sweep_context(read_json(path))
    versions = versions_of(folder) or versions_of(folder / "runs")
    if sweep is None and not versions:
        return None
    return Section(
        title="Probes",
        lead="What a classifier trained on the hidden states reads from each layer. The best layer is chosen by "
        "cross-validation on the training items; the test items are only reported on.",
        body=render("probes.html", sweep=sweep, versions=versions),
    )
