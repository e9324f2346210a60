"""The pages on which the user tries things on the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse, Response

from conceptatlas.base.errors import InputError
from conceptatlas.evidence import FeatureRef
from conceptatlas.views.explorer.library import Shelf
from conceptatlas.views.explorer.live import Job, Steered, Tried
from conceptatlas.views.explorer.table_pages import base, feature_path
from conceptatlas.views.html import render
from conceptatlas.views.svg.lines import sentence_lines

DEFAULT_FEATURES = 5
MAX_FEATURES = 12


def _named(shelf: Shelf, names: str) -> tuple[FeatureRef, ...]:
    """Return the features of a list ``slug/feature,…``; the best kept ones where it is empty."""
    if not names.strip():
        return tuple(shelf.study.varied[:DEFAULT_FEATURES])
    found = []
    for name in names.split(",")[:MAX_FEATURES]:
        slug, _, index = name.strip().rpartition("/")
        if not index.isdecimal() or len(index) > 9:
            raise InputError(f"{name[:100]!r} names no feature; give SAE/feature.")
        found.append(shelf.feature(slug, int(index)))
    return tuple(found)


def _page(shelf: Shelf, **context: Any) -> Response:
    return HTMLResponse(render("explorer/try.html", shelf=shelf, root=base(shelf.key), **context))


def try_page(shelf: Shelf, parameters: list[tuple[str, str]]) -> Response:
    """Return the form to type a sentence."""
    names = ",".join(value for key, value in parameters if key == "feature")
    features = _named(shelf, names)
    return _page(
        shelf, features=features, names=_names(features), job=None, text="", rows=[], picture=None, steered=None
    )


def _names(features: tuple[FeatureRef, ...]) -> str:
    return ",".join(f"{feature.slug}/{feature.feature_id}" for feature in features)


def start_try(shelf: Shelf, form: Mapping[str, str]) -> Response:
    """Start showing activations along a text, and go to the job's page."""
    job = shelf.live.try_text(form.get("text", ""), _named(shelf, form.get("features", "")))
    job.asked["features"] = form.get("features", "")
    return RedirectResponse(f"{base(shelf.key)}/job/{job.number}", status_code=303)


def start_steer(shelf: Shelf, form: Mapping[str, str]) -> Response:
    """Start writing with and without a feature, and go to the job's page."""
    features = _named(shelf, form.get("feature", ""))
    if not features:
        raise InputError("No feature is chosen; open one, or rank first.")
    try:
        dose = float(form.get("dose", "0.4"))
    except ValueError as error:
        raise InputError(f"The dose is {form['dose'][:60]!r}; give a number.") from error
    job = shelf.live.steer(form.get("prompt", ""), features[0], dose)
    job.asked["features"] = form.get("feature", "")
    return RedirectResponse(f"{base(shelf.key)}/job/{job.number}", status_code=303)


def job_page(shelf: Shelf, number: int) -> Response:
    """Return how far a job is, or what came of it."""
    job: Job = shelf.live.job(number)
    features = _named(shelf, str(job.asked.get("features", "")))
    context: dict[str, Any] = {"rows": [], "picture": None, "steered": None}
    if isinstance(job.result, Tried):
        context |= _tried(shelf, job.result)
    elif isinstance(job.result, Steered):
        context["steered"] = job.result
    text = str(job.asked.get("text") or job.asked.get("prompt") or "")
    return _page(shelf, features=features, names=_names(features), job=job, text=text, **context)


def _tried(shelf: Shelf, tried: Tried) -> dict[str, Any]:
    root = base(shelf.key)
    rows = []
    for feature, acts in zip(tried.features, tried.acts_KP, strict=True):
        seen = float(shelf.study.column(feature).max(initial=0.0))
        rows.append(
            {
                "feature": feature,
                "href": feature_path(root, feature.slug, feature.feature_id),
                "pieces": tried.pieces,
                "acts": [float(value) for value in acts],
                "top": max(seen, float(acts.max(initial=0.0))),
            }
        )
    names = [feature.label for feature in tried.features]
    return {"rows": rows, "picture": sentence_lines(tried.pieces, tried.acts_KP, names)}
