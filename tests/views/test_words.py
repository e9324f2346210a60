"""Words that stand beside the figures of every view: what the first feature causes, and what a baseline is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import conceptatlas as ca
from conceptatlas.base.kinds import RANKING
from tests.helpers.artefacts import seal
from tests.helpers.cli import invoke
from tests.views.test_report import Page, page_of
from tests.views.test_stage_sections import effect_entry


def test_what_the_first_feature_causes_stands_on_top_of_every_view(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    entry = effect_entry() | {"causal": True, "answer": "at the limit", "verdict": "At the limit: +2.05 nats."}
    found = {
        "targets": ["lie"],
        "readout": {"kind": "end", "append": ""},
        "items": {"neutral": 5},
        "features": [entry] * 2,
    }
    (tmp_path / "s/effect").mkdir()
    (tmp_path / "s/effect/effects.json").write_text(json.dumps(found))
    (tmp_path / "s/stages.json").write_text("{}")
    words = (
        "Steering with feature 7 of a/b (rank 1) makes the next tokens lie likelier, at the limit of what counts as an "
        "effect: "
        "+2.05 nats. Of 2 features measured: 2 at the limit."
    )
    _, page = page_of(tmp_path / "s", tmp_path)
    assert words in page.text.split("Ranked features")[0]
    assert "0 of 2 measured features pass every rule" in page.text
    assert "2 stand at the limit: the interval holds 2 nats." in page.text
    shown = " ".join(invoke("show", tmp_path / "s/rank").stdout.split())
    assert words in shown
    assert shown.index(words) < shown.index("dishonesty: ")
    (tmp_path / "s/stages.json").unlink()  # no study: its ranking may be another than the one that was steered
    assert words not in " ".join(invoke("show", tmp_path / "s/rank").stdout.split())


def test_a_baseline_says_when_it_is_cross_validated_and_when_it_is_the_feature(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    ranking = ca.Ranking.open(study / "rank")
    first = ranking.features.row(0, named=True)
    for one in ranking.baselines:
        mine = one["name"] == "k-sparse probe, k = 1"
        one |= {"slug": first["slug"] if mine else None, "feature_id": first["feature_id"] if mine else None}
    (tmp_path / "s/rank/baselines.json").write_text(json.dumps({"baselines": ranking.baselines}))
    seal(RANKING, tmp_path / "s/rank")
    text, _ = page_of(tmp_path / "s", tmp_path)
    rows = [Page(row).text for row in re.findall(r'<tr class="pin.*?</tr>', text, re.DOTALL)]
    assert [row for row in rows if "†" not in row] == [
        row for row in rows if row.startswith(("·sentence length", "·random directions"))
    ]
    assert [row for row in rows if "the same feature as rank 1" in row] == [
        row for row in rows if row.startswith("·k-sparse probe, k = 1l")
    ]
    shown = " ".join(invoke("show", tmp_path / "s/rank").stdout.split())
    assert "k-sparse probe, k = 1: the same feature as rank 1." in shown
    assert "random directions: median of 5 draws on hold-out." in shown
    assert "† of a baseline: cross-validated" in shown
    notebook = ca.Ranking.open(tmp_path / "s/rank")._repr_html_()
    assert notebook.count("†") > 5
    assert notebook.count("the same feature as rank 1") == 1
