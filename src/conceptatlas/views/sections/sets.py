"""The feature set that carries the concept together, and how many labels each method needs."""

from __future__ import annotations

from typing import Any

from conceptatlas.base.files import read_json
from conceptatlas.ranking.summary import exceeds_chance
from conceptatlas.views.html import render
from conceptatlas.views.sections import Section, section
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.distribution import interval_mark

SETS_FILE = "sets.json"
EFFICIENCY_FILE = "efficiency.json"
WAYS = {"greedy": "greedy", "l1": "L1 path"}


def _read(study: Study, name: str) -> dict[str, Any]:
    path = study.file("rank", name)
    return {} if path is None else dict(read_json(path))


def _unproven(study: Study) -> str:
    if study.ranking is None or exceeds_chance(study.ranking) is not False:
        return ""
    return " No single feature exceeds chance here: believe a set only where its interval on hold-out lies above 0.5."


@section("set", order=14)
def feature_set(study: Study) -> Section | None:
    """The set chosen on discovery: its members, the path by k, and the gap to the strongest dense probe."""
    found = _read(study, SETS_FILE)
    if not found.get("members"):
        return None
    low, high = study.grades
    against = found.get("against")
    lead = (
        f"{found['k']} feature{'s' if found['k'] != 1 else ''} of {found['n_candidates']} candidates, joined by a logistic "
        f"regression, chosen on discovery ({WAYS.get(found['method'], found['method'])}; the smallest number within one "
        f"standard error of the best). AUROC of grade {high} against grade {low}, on hold-out with intervals of 95%."
        + _unproven(study)
    )
    steps = [
        {"way": WAYS.get(way, way), "chosen": way == found["method"] and step["k"] == found["k"], "step": step,
         "mark": interval_mark(step["auroc_holdout"], step["low"], step["high"])}
        for way, path in found["paths"].items()
        for step in path
    ]  # fmt: skip
    members = [
        member | {"href": study.feature_link(member["slug"], member["feature_id"], _rank_of(study, member))}
        for member in found["members"]
    ]
    return Section(
        title="The feature set",
        lead=lead,
        body=render("sets.html", figures=found["figures"], against=against, members=members, steps=steps),
    )


def _rank_of(study: Study, member: dict[str, Any]) -> int | None:
    key = (member["slug"], member["feature_id"])
    return next((feature.rank for feature in study.features if (feature.slug, feature.feature_id) == key), None)


@section("efficiency", order=35)
def efficiency(study: Study) -> Section | None:
    """The AUROC on hold-out of each method by the number of labelled items."""
    lines = _read(study, EFFICIENCY_FILE).get("efficiency") or []
    if not lines:
        return None
    low, high = study.grades
    sizes = sorted({line["n_per_grade"] for line in lines})
    methods: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        methods.setdefault(line["method"], {})[line["n_per_grade"]] = line
    return Section(
        title="With few labels",
        lead=f"AUROC of grade {high} against grade {low} on the held-out items when so many discovery items of either grade "
        f"are labelled: the median of {lines[0]['draws']} random draws, with their least and greatest. Every draw chooses "
        "anew.",
        body=render("efficiency.html", sizes=sizes, methods=methods),
    )
