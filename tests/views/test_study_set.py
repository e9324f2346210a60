"""The page of several concepts: the matrix as it was computed, in the report and in the explorer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.base.kinds import RANKING
from conceptatlas.ranking import CrossConcepts
from conceptatlas.views.explorer import Library
from conceptatlas.views.study_set import StudySet
from tests.helpers.artefacts import seal
from tests.helpers.cli import invoke
from tests.views.studies import CONCEPTS
from tests.views.test_explorer import client_of
from tests.views.test_report import Page


@pytest.fixture
def copy(together: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(together, tmp_path / "all"))


def cells_of(text: str) -> list[list[str]]:
    body = text[text.index('<table class="matrix">') :].partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall(r'<td class="n[^"]*"><b>([^<]*)</b>', row) for row in body.split("<tr")[1:]]


def test_the_report_shows_the_matrix_that_was_computed(together: Path, tmp_path: Path) -> None:
    text = ca.report(together, out=tmp_path / "page.html").read_text(encoding="utf-8")
    shades = re.findall(r'<td class="n ?(\w*)(?: own)?"><b>(0\.\d+|1\.000)<', text)
    assert len(shades) == 18
    assert all((shade == "") == (abs(float(auroc) - 0.5) < 0.05) for shade, auroc in shades)
    page = Page(text)
    assert not page.open
    found = json.loads((together / "compare" / "cross_concepts.json").read_text())
    auroc = {(cell["concept"], cell["feature_id"], cell["on"]): cell["auroc"] for cell in found["matrix"]}
    expected = [
        [f"{auroc[row['concept'], row['feature_id'], name]:.3f}" for name in CONCEPTS] + [f"{row['specificity']:+.3f}"]
        for row in found["features"]
    ]
    assert len({tuple(line) for line in expected}) == 5  # feature 3 is among the best of two concepts
    assert cells_of(text) == expected
    assert len(expected) == 6
    assert text.count(' own">') == 6
    assert "data:image/png;base64," in text
    assert "care & <b>" in page.text
    assert "three <i>" in page.text
    assert "i" not in {tag for tag, attrs in page.tags if not attrs}
    for sentence in CrossConcepts.open(together / "compare").sentences():
        assert sentence in page.text
    assert page.text.index("3 of 3 searches exceed chance") < page.text.index("courage: feature")
    link = next(attrs["href"] for tag, attrs in page.tags if tag == "a" and "care" in (attrs.get("href") or ""))
    assert (tmp_path / link.replace("%20", " ").replace("%26", "&").replace("%3C", "<").replace("%3E", ">")).is_file()


def test_too_few_shuffles_for_holm_are_a_caution(copy: Path) -> None:
    for name in CONCEPTS:
        path = copy / name / "rank" / "null.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"permutations": 58}))
        seal(RANKING, path.parent)
    text = ca.report(copy).read_text(encoding="utf-8")
    assert (
        "With 58 shuffles no search can reach p ≤ 0.05 after Holm&#39;s correction over 3 concepts; rank with 60"
        in text
    )
    for name in CONCEPTS:
        path = copy / name / "rank" / "null.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"permutations": 59}))
        seal(RANKING, path.parent)
    assert "no search can reach" not in ca.report(copy).read_text(encoding="utf-8")


def test_a_comparison_that_is_older_than_a_ranking_is_a_caution(copy: Path) -> None:
    assert "older than" not in ca.report(copy).read_text(encoding="utf-8")
    path = copy / "anger" / "rank" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"written": "2999-01-01T00:00:00+00:00"}))
    seal(RANKING, path.parent)
    text = ca.report(copy).read_text(encoding="utf-8")
    assert re.findall(r"The comparison is older than the ranking of (\w+)", text) == ["anger"]


def test_what_is_not_there_yet_is_said(copy: Path) -> None:
    shutil.rmtree(copy / "compare")
    shutil.rmtree(copy / "anger")
    page = Page(ca.report(copy).read_text(encoding="utf-8"))
    assert "The concepts were not compared." in page.text
    assert "anger has nothing to show yet; run the study again." in page.text


def test_the_explorer_offers_the_concepts_and_shows_the_matrix(copy: Path) -> None:
    with client_of(copy) as client:
        home = client.get("/")
        page = Page(home.text)
        assert not page.open
        assert cells_of(home.text) == cells_of(ca.report(copy).read_text(encoding="utf-8"))
        links = [
            attrs["href"] or "" for tag, attrs in page.tags if tag == "a" and (attrs["href"] or "").startswith("/s/")
        ]
        assert len(links) == len(CONCEPTS) + 6
        for link in links:
            assert client.get(link).status_code == 200, link
        part = Page(client.get("/s/anger/").text)
        assert ("a", {"href": "/"}) in part.tags
    with client_of(copy.parent) as client:
        assert client.get("/s/all.courage/").status_code == 200


def test_links_to_elsewhere_are_not_served(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "anger", tmp_path / "elsewhere")
    (copy / "anger").symlink_to(tmp_path / "elsewhere")
    assert list(Library.open(copy).shelves) == ["courage", "care & <b>"]
    found = StudySet.open(copy)
    assert found is not None
    assert list(found.studies) == list(CONCEPTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "other"}, "does not name the concepts of a study"),
        ([], "does not name the concepts of a study"),
        ({"format": "conceptatlas.concepts", "version": 2}, "format version 2, and this conceptatlas reads 1"),
        ({"format": "conceptatlas.concepts", "version": 1, "concepts": ["../x"]}, "which is no folder beside it"),
        ({"format": "conceptatlas.concepts", "version": 1, "concepts": [".."]}, "which is no folder beside it"),
    ],
)
def test_a_damaged_list_of_concepts(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "concepts.json").write_text(json.dumps(content))
    outcome = invoke("report", tmp_path)
    assert outcome.code == 2
    assert message in outcome.stderr


def test_one_concept_is_asked_for_where_several_are(together: Path) -> None:
    with pytest.raises(InputError, match="holds a study of several concepts; give the folder of one: courage, care"):
        ca.card(together)


def test_a_comparison_that_is_none(copy: Path) -> None:
    (copy / "compare" / "cross_concepts.json").write_text("[]")
    outcome = invoke("report", copy)
    assert outcome.code == 1
    assert "cross_concepts.json is damaged" in outcome.stderr
    assert "again" in outcome.stderr
