"""Labels in the report: with their scores, low ones greyed, hostile ones shown as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import conceptatlas as ca
from conceptatlas.views.sections.labels import is_low, labels_of
from conceptatlas.views.study_folder import Study
from tests.views.studies import write_study


def entry(slug: str, index: int, **more: Any) -> dict[str, Any]:
    base = {
        "feature_index": index, "score": 0.5, "label_llm": "a label", "label_search": "some, words", "label": "a label",
        "num_examples": 9, "detection_accuracy": 0.9, "fuzzing_accuracy": 0.8, "detection_n": 40, "fuzzing_n": 20,
        "slug": slug, "sae_id": "layer", "rank": 1,
    }  # fmt: skip
    return base | more


def test_labels_stand_in_the_report(tmp_path: Path) -> None:
    write_study(tmp_path, 60)
    study = Study.open(tmp_path)
    first, second, *_ = study.features
    assert labels_of(study) == []
    assert "What they are called" not in ca.report(tmp_path).read_text()
    entries = [
        entry(first.slug, first.feature_id, label="lies & <b>more</b>", label_llm="lies & <b>more</b>"),
        entry(second.slug, second.feature_id, fuzzing_accuracy=0.55, label="poor one", label_llm="poor one"),
        {"feature_index": 5, "label": None},  # what another program may have left out
    ]
    (tmp_path / "label").mkdir()
    (tmp_path / "label" / "feature_labels.json").write_text(json.dumps({"num_features": 3, "features": entries}))
    study = Study.open(tmp_path)
    assert [one["low"] for one in labels_of(study)] == [False, True, False]
    page = ca.report(tmp_path).read_text()
    assert "What they are called" in page
    assert "lies &amp; &lt;b&gt;more&lt;/b&gt;" in page
    assert "<b>more</b>" not in page
    assert "1 of 2 score below 0.7 and are greyed" in page
    assert 'class="muted"><b>poor one</b>' in page
    assert 'class="muted"><b>lies' not in page
    assert "silent on these texts" in page


def test_what_is_low() -> None:
    assert is_low({"detection_accuracy": 0.69, "fuzzing_accuracy": None})
    assert not is_low({"detection_accuracy": 0.7, "fuzzing_accuracy": 0.9})
    assert not is_low({"detection_accuracy": None})
