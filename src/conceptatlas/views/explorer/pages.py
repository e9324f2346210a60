"""The pages of studies, features, sentences and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from conceptatlas.base.errors import InputError
from conceptatlas.evidence import FeatureRef, safe_link
from conceptatlas.ranking.legends import marks_of
from conceptatlas.views.explorer.library import Library, Shelf
from conceptatlas.views.explorer.missing import Missing
from conceptatlas.views.explorer.table import Query
from conceptatlas.views.explorer.table_pages import base, feature_path
from conceptatlas.views.firing import firing_of
from conceptatlas.views.headline import headline_of
from conceptatlas.views.html import render
from conceptatlas.views.sections import panels_of, sections_of
from conceptatlas.views.study_set import StudySet, set_headline, set_sections
from conceptatlas.views.svg.distribution import histogram
from conceptatlas.views.svg.lines import sentence_lines

# Sections of the report that have pages of their own here.
_OWN_PAGES = ("features", "sentences")
ROWS_PER_PAGE = 50
TOP_ON_SENTENCE = 20
LINES = 5
SHARED_ROWS = 100

__all__ = [
    "base",
    "compare_page",
    "feature_page",
    "library_page",
    "put_note",
    "sentence_page",
    "sentences_page",
    "study_page",
]


def page(template: str, **context: Any) -> HTMLResponse:
    """Return a template as a page."""
    return HTMLResponse(render(f"explorer/{template}", **context))


def library_page(library: Library) -> Response:
    """Return the list of studies; of several concepts of one study, what compares them."""
    if library.together is not None:
        return _set_page(library.together)
    entries = [
        {"key": key, "href": base(key) + "/", "headline": headline_of(shelf.study)}
        for key, shelf in library.shelves.items()
    ]
    return page("library.html", entries=entries)


def _set_page(found: StudySet) -> Response:
    def feature(concept: str, row: dict[str, Any]) -> str:
        return feature_path(base(concept), row["slug"], row["feature_id"]) if concept in found.studies else ""

    sections = set_sections(found, lambda concept: base(concept) + "/", feature)
    return page("study.html", root="", headline=set_headline(found), sections=sections)


def study_page(shelf: Shelf) -> Response:
    """Return the page of one study: verdict, table, curves, what was run."""
    root = base(shelf.key)
    shelf.study.feature_link = lambda slug, feature, rank: feature_path(root, slug, feature)  # noqa: ARG005
    parts = sections_of(shelf.study, skip=_OWN_PAGES)
    return page("study.html", shelf=shelf, root=root, headline=headline_of(shelf.study), sections=parts)


def _neighbours(shelf: Shelf, feature: FeatureRef, query: Query) -> tuple[str, str, str]:
    """Return the addresses of the features before and after in the table that the query asks for, and its place."""
    table = shelf.table
    if table is None:
        return "", "", ""
    starred = shelf.notes.starred() if query.starred else []
    at, total = table.place(query, starred, feature.slug, feature.feature_id)
    if at is None:
        return "", "", ""
    around, _ = table.part(query, starred, max(at - 1, 0), at + 2)
    lines = table.lines(around, ())
    own = min(at, 1)

    def address(place: int) -> str:
        if not 0 <= place < len(lines):
            return ""
        line = lines[place]
        return feature_path(base(shelf.key), line["slug"], line["feature_id"]) + query.url(page=query.page).rstrip("?")

    return address(own - 1), address(own + 1), f"{at + 1:,} of {total:,}"


def feature_page(shelf: Shelf, slug: str, feature_id: int, parameters: list[tuple[str, str]]) -> Response:
    """Return everything known of one feature."""
    study = shelf.study
    feature = shelf.feature(slug, feature_id)
    query = Query.parse(parameters)
    before, after, place = _neighbours(shelf, feature, query)
    acts = study.column(feature)
    activations = acts[acts > 0]
    row = study.figures(feature)
    root = base(shelf.key)
    return page(
        "feature.html",
        shelf=shelf,
        root=root,
        feature=feature,
        row=row,
        marks=marks_of(row or {}),
        firing=firing_of(study, feature),
        link=safe_link(feature.neuronpedia_url),
        label=shelf.labels.get((slug, feature_id), ""),
        note=shelf.notes.get(slug, feature_id),
        panels=panels_of(study, feature),
        histogram=histogram(
            activations,
            title="activation, over the tokens it fires on",
            n_silent=len(acts) - len(activations) if study.keeps_all_rows else len(study.labels) - len(activations),
        ),
        before=before,
        after=after,
        place=place,
        back=f"{root}/features{query.url(page=query.page)}",
        here=feature_path(root, slug, feature_id),
        family=_family(shelf, feature),
    )


def _family(shelf: Shelf, feature: FeatureRef) -> list[FeatureRef]:
    """Return the other features shown of the same family."""
    rows = shelf.study.rows_by_rank
    own = rows.get(feature.rank or 0, {}).get("family")
    if own is None:
        return []
    return [
        other
        for other in shelf.study.features
        if other != feature and rows.get(other.rank or 0, {}).get("family") == own
    ]


def put_note(shelf: Shelf, slug: str, feature_id: int, form: Mapping[str, str]) -> Response:
    """Change a feature's star or note, and go back to its page."""
    shelf.feature(slug, feature_id)  # refuses what does not exist
    star = None if "star" not in form else form["star"] == "1"
    text = form.get("note", "").replace("\r\n", "\n").strip() if "save" in form else None
    shelf.notes.put(slug, feature_id, star=star, text=text)
    return RedirectResponse(feature_path(base(shelf.key), slug, feature_id), status_code=303)


def _number(value: str, what: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InputError(f"{what} is {value[:60]!r}; give a whole number.") from error


def sentences_page(shelf: Shelf, parameters: Mapping[str, str]) -> Response:
    """Return the sentences, searched and filtered by grade, fifty to a page."""
    study = shelf.study
    texts = study.texts
    words = parameters.get("q", "").strip()[:200]
    label = parameters.get("label", "").strip()
    number = max(1, _number(parameters.get("page") or "1", "page"))
    chosen = list(range(len(texts.texts)))
    if label:
        grade = _number(label, "The grade")
        chosen = [i for i in chosen if int(texts.labels[i]) == grade]
    if words:
        low = words.casefold()
        chosen = [i for i in chosen if low in texts.texts[i].casefold()]
    start = (number - 1) * ROWS_PER_PAGE
    rows = [
        {"item": i, "label": int(texts.labels[i]), "held": bool(study.holdout[i]), "text": texts.texts[i]}
        for i in chosen[start : start + ROWS_PER_PAGE]
    ]
    tail = "".join(f"&{key}={quote(value)}" for key, value in (("q", words), ("label", label)) if value)
    return page(
        "sentences.html",
        shelf=shelf,
        root=base(shelf.key),
        rows=rows,
        total=len(chosen),
        words=words,
        label=label,
        grades=sorted({int(g) for g in texts.labels}),
        before=f"?page={number - 1}{tail}" if number > 1 else "",
        after=f"?page={number + 1}{tail}" if start + ROWS_PER_PAGE < len(chosen) else "",
    )


def sentence_page(shelf: Shelf, item: int) -> Response:
    """Return one sentence with the top features over its tokens."""
    study = shelf.study
    texts = study.texts
    if not 0 <= item < len(texts.texts):
        raise Missing(f"There is no sentence {item}: they are 0 to {len(texts.texts) - 1}.")
    features = study.features[:TOP_ON_SENTENCE] if study.keeps_all_rows else []
    start, stop = (int(bound) for bound in texts.bounds[item])
    pieces = texts.pieces(item)
    rows = []
    for feature in features:
        acts = study.column(feature)
        top = float(acts.max(initial=0.0))
        rows.append({"feature": feature, "acts": [float(a) for a in acts[start:stop]], "top": top})
    picture = None
    if features:
        acts_KP = np.array([row["acts"] for row in rows[:LINES]], dtype=np.float64).reshape(-1, stop - start)
        picture = sentence_lines(pieces[: stop - start], acts_KP, [feature.label for feature in features[:LINES]])
    root = base(shelf.key)
    return page(
        "sentence.html",
        shelf=shelf,
        root=root,
        item=item,
        label=int(texts.labels[item]),
        held=bool(study.holdout[item]),
        text=texts.texts[item],
        pieces=pieces[: stop - start],
        rows=rows,
        picture=picture,
        keys=[(number, f"{f.rank}. layer {f.layer} #{f.feature_id}") for number, f in enumerate(features[:LINES])],
        before=f"{root}/sentence/{item - 1}" if item > 0 else "",
        after=f"{root}/sentence/{item + 1}" if item + 1 < len(texts.texts) else "",
        href=lambda feature: feature_path(root, feature.slug, feature.feature_id),
    )


def _side(library: Library, name: str) -> dict[str, Any] | None:
    """Return one side of a comparison: ``study/slug/feature``; None where none is named."""
    if not name:
        return None
    parts = name.rsplit("/", 2)
    if len(parts) != 3:
        raise InputError(f"{name[:100]!r} names no feature; give study/SAE/feature.")
    shelf = library.shelf(parts[0])
    feature = shelf.feature(parts[1], _number(parts[2], "The feature"))
    return {
        "name": name,
        "shelf": shelf,
        "feature": feature,
        "href": feature_path(base(shelf.key), feature.slug, feature.feature_id),
        "panels": panels_of(shelf.study, feature),
    }


def _rank_folder(library: Library, key: str) -> Path:
    folder = library.shelf(key).study.stages.get("rank")
    if folder is None:
        raise InputError(f"The study {key[:100]!r} has no ranking to compare; rank first.")
    return folder


def _concepts(library: Library, a: str, b: str) -> Response:
    """Return the features of two studies of the same SAEs, those that serve both first."""
    from conceptatlas.ranking import compare_rankings

    table = compare_rankings(_rank_folder(library, a), _rank_folder(library, b))
    titles = [library.shelf(key).study.title for key in (a, b)]
    rows = table.head(SHARED_ROWS).rows(named=True)
    for row in rows:
        row["hrefs"] = [feature_path(base(key), row["slug"], row["feature_id"]) for key in (a, b)]
    return page(
        "concepts.html",
        rows=rows,
        titles=titles,
        both=table.filter(table["serves"] == "both").height,
        total=table.height,
    )


def compare_page(library: Library, a: str, b: str) -> Response:
    """Return two features side by side, or two studies; with how far two features of the same sentences agree."""
    if a in library.shelves and b in library.shelves:
        return _concepts(library, a, b)
    sides = [_side(library, name) for name in (a, b)]
    together = None
    left, right = sides
    if left is not None and right is not None:
        one, two = left["shelf"].study, right["shelf"].study
        if one.recording.manifest.concept.data_hash == two.recording.manifest.concept.data_hash:
            scores = np.stack([one.scores(left["feature"]), two.scores(right["feature"])])
            if (scores.std(axis=1) > 0).all():
                together = float(np.corrcoef(scores)[0, 1])
    choices = [
        (f"{key}/{f.slug}/{f.feature_id}", f"{shelf.study.title}: {f.rank}. layer {f.layer} #{f.feature_id}")
        for key, shelf in library.shelves.items()
        for f in shelf.study.features
    ]
    studies = [(key, shelf.study.title) for key, shelf in library.shelves.items() if "rank" in shelf.study.stages]
    return page("compare.html", sides=sides, chosen=(a, b), choices=choices, together=together, studies=studies)
