"""The report: complete in itself, shows what there is, and shows hostile text as text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from markupsafe import escape

import conceptatlas as ca
from conceptatlas.base.errors import InputError
from conceptatlas.base.kinds import RANKING
from conceptatlas.views.html import content_hash, heat_levels
from conceptatlas.views.study_folder import Study
from tests.helpers.artefacts import seal
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.views.studies import study_parts, write_study

VOID = {"meta", "br", "img", "link", "input", "hr"}
RESOURCE = ("src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href")


class Page(HTMLParser):
    """Collects tags, attributes, text and whether every element was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]


def page_of(folder: Path, tmp_path: Path) -> tuple[str, Page]:
    path = ca.report(folder, out=tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_report_shows_every_part_of_the_study(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study, tmp_path)
    for anchor in ("ranked", "emergence", "chance", "features", "sentences", "data", "provenance", "feature-1"):
        assert anchor in page.ids()
    assert len(page.ids()) == len(set(page.ids()))
    assert not page.open
    assert "dishonesty" in page.text
    assert "builtin:dishonesty" in page.text  # run.json
    assert "hold-out AUROC" in page.text
    assert "swore" in page.text
    assert "difference of means" in page.text
    assert "bag of words" in page.text


def test_every_link_within_the_report_leads_somewhere(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study, tmp_path)
    targets = [a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")]
    assert targets
    assert set(targets) <= set(page.ids())


def test_the_report_needs_nothing_but_itself(study: Path, tmp_path: Path) -> None:
    text, page = page_of(study, tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "img"}
    for _, attrs in page.tags:
        assert "style" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        for name in RESOURCE:
            value = attrs.get(name) or "#"
            assert value.startswith("#"), (name, value)
    assert "@import" not in text
    assert "url(" not in text
    assert len(text.encode()) < 12_000_000


def test_its_policy_forbids_everything_but_its_own_style(study: Path, tmp_path: Path) -> None:
    text, page = page_of(study, tmp_path)
    policy = next(a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert content_hash(style.group(1)) in policy


def test_hostile_text_is_shown_as_text(nasty_study: Path, tmp_path: Path) -> None:
    text, page = page_of(nasty_study, tmp_path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}
    assert "b" in {tag for tag, _ in page.tags}
    assert "<b>sae</b>" not in text
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        assert not (attrs.get("href") or "").lower().startswith("javascript:")
    assert "<script>alert(2)</script>" in page.text  # the concept's name
    assert "{{7*7}}" in page.text
    assert "49" not in page.text.split("What was run")[0].split("Ranked features")[0]


def test_a_link_to_neuronpedia_stands_where_the_sae_has_one(nasty_study: Path, tmp_path: Path) -> None:
    _, page = page_of(nasty_study, tmp_path)
    links = {a["href"] for tag, a in page.tags if tag == "a" and (a.get("href") or "").startswith("http")}
    assert links
    assert all(re.fullmatch(r"https://www\.neuronpedia\.org/x/\d+", link or "") for link in links)
    assert all("noopener" in (a.get("rel") or "") for tag, a in page.tags if (a.get("href") or "").startswith("http"))


def test_what_could_not_be_compared_of_an_sae_is_said(tmp_path: Path) -> None:
    message = "only its reconstruction was judged, no L0 is stated to compare with."
    saes = {"blocks.1.hook_resid_post__l0_12": {"message": message}}
    options = {"permutations": 0, "resplits": 0, "baselines": False}
    write_study(tmp_path / "study", 40, saes=saes, sinks=[1], pool="max", without_sinks=True, **options)
    text, page = page_of(tmp_path / "study", tmp_path)
    assert page.text.count("ok, in part") == 1
    assert f'title="{message}"' in text
    assert "largest activation in the sentence, without attention sinks" in text


def test_where_nothing_passed_the_best_stand_with_what_each_lacks(strict_study: Path, tmp_path: Path) -> None:
    text, page = page_of(strict_study, tmp_path)
    assert "No feature passes the classic filters; the first one fails these: Pearson" in page.text
    assert "0.999 needed" in text
    assert "feature-1" in page.ids()
    assert "emergence" in page.ids()


def test_the_summary_stands_on_top_word_for_word(study: Path, tmp_path: Path) -> None:
    ranking = ca.Ranking.open(study / "rank")
    text, page = page_of(study, tmp_path)
    said = ranking.summary()
    assert [sentence.kind for sentence in said][:3] == ["chance", "holds", "best"]
    for sentence in said:
        assert sentence.text in page.text
    assert f"<b>{escape(said[0].text)}</b>" in text
    shown = " ".join(invoke("show", study / "rank").stdout.split())
    assert all(sentence.text in shown for sentence in said)


def test_cautions_stand_in_a_list_and_as_marks(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings of the run, and a best feature that is dense, confounded and unstable."""
    shutil.copytree(study, tmp_path / "s")
    path = tmp_path / "s/rank/ranked_features.csv"
    first = pl.col("rank") == 1
    table = pl.read_csv(path).with_columns(
        pl.when(first).then(True).otherwise(pl.col("confounded")).alias("confounded"),
        pl.when(first).then(True).otherwise(pl.col("dense")).alias("dense"),
        pl.when(first).then(0.8).otherwise(pl.col("density")).alias("density"),
        pl.when(first).then(0.1).otherwise(pl.col("comes_back")).alias("comes_back"),
    )
    table.write_csv(path)
    run = json.loads((tmp_path / "s/rank/run.json").read_text())
    (tmp_path / "s/rank/run.json").write_text(json.dumps(run | {"warnings": ["Grade 2 has no item."]}))
    seal(RANKING, tmp_path / "s/rank")
    text, _ = page_of(tmp_path / "s", tmp_path)
    cautions = Page(re.search(r'<div class="cautions">.*?</div>', text, re.DOTALL).group()).text
    for words in (
        "Grade 2 has no item.",
        "dense: active on 80% of the recorded rows",
        "is confounded",
        "comes back in 10%",
    ):
        assert words in cautions
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("show", tmp_path / "s/rank").stdout
    assert "UNSTABLE: it comes back in 10%" in " ".join(shown.split())
    assert " ".join(shown.split()).count("! The best feature is") == 3
    monkeypatch.setenv("COLUMNS", "200")
    assert "dense, confounded, unstable" in invoke("show", tmp_path / "s/rank").stdout
    assert "unstable: in fewer than 50% of" in " ".join(shown.split())
    assert "unstable: in fewer than 50% of" in Page(text).text
    card = re.search(r'<details class="feature" id="feature-1".*?</summary>', text, re.DOTALL).group()
    assert [mark in Page(card).text for mark in ("dense", "confounded", "unstable")] == [True] * 3
    row = re.search(r"<tr><td class=\"n\">1</td>.*?</tr>", text, re.DOTALL).group()
    assert [mark in Page(row).text for mark in ("dense", "confounded", "unstable")] == [True] * 3


def test_noise_is_shown_as_noise(noise_study: Path, tmp_path: Path) -> None:
    """Where nothing exceeds chance nothing on the page, tiles included, is presented as a finding."""
    _, page = page_of(noise_study, tmp_path)
    head = page.text.split("Ranked features")[0]
    assert "Nothing here exceeds chance: in " in head
    assert "0exceed chance on the " in head  # the tile
    assert "hold on the" not in head
    assert "AUROC" not in head
    assert "tells grade" not in page.text
    assert "None of them exceeds chance." in page.text
    assert "best feature against" not in page.text
    assert "The first feature of the table against each baseline" in page.text
    shown = invoke("show", noise_study / "rank").stdout
    assert shown.startswith("Nothing here exceeds chance")
    assert "tells grade" not in shown
    assert "best feature" not in shown.lower()


def test_grades_are_named_as_they_are_in_the_data(tmp_path: Path) -> None:
    """The highest grade of these data is 2: nothing says grade 3, and the data's grades are never called labels."""
    columns, labels, lengths, texts, hidden = study_parts(80)
    recording = write_synthetic_recording(
        tmp_path / "s/rec", columns, [min(label, 2) for label in labels], lengths, hidden=hidden, texts=texts
    )
    ca.rank(recording, tmp_path / "s/rank", permutations=100, resplits=0)
    _, page = page_of(tmp_path / "s", tmp_path)
    assert "grade 2 against 0" in page.text
    assert "AUROC of grade 2 against grade 0 on the held-out items" in page.text
    assert "grade 2 above the threshold" in page.text
    everything = page.text + " ".join(
        attrs.get(name) or "" for _, attrs in page.tags for name in ("title", "aria-label")
    )
    assert not re.search(r"\bgrade 3\b", everything)
    assert not re.search(r"\blabels? \d", everything)


def test_the_best_feature_stands_against_each_baseline(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    entry = {"baseline": "logistic", "name": "<i>logistic</i> probe", "site": "blocks.2.hook_resid_post", "k": None,
             "relation": "cannot be told apart from", "auroc_baseline": 0.91, "difference": -0.0123, "low": -0.06,
             "high": 0.04, "p_value": 0.5, "p_holm": 1.0, "strongest": True, "control": False}  # fmt: skip
    other = entry | {"name": "random directions", "relation": "beats", "difference": 0.4, "p_value": 0.001, "p_holm": 0.002,
                     "strongest": False, "control": True}  # fmt: skip
    (tmp_path / "s/rank/comparisons.json").write_text(json.dumps({"comparisons": [entry, other]}))
    seal(RANKING, tmp_path / "s/rank")
    text, page = page_of(tmp_path / "s", tmp_path)
    assert "The best feature against each baseline, on the same held-out items" in page.text
    assert "<i>logistic</i> probe" in page.text
    part = re.search(r'<section class="part" id="against".*?</section>', text, re.DOTALL).group()
    cells = [Page(cell).text for cell in re.findall(r"<td.*?</td>", part)]
    assert cells[1:7] == ["cannot be told apart from", "0.910", "-0.012", "-0.06 to +0.04", "0.500", "1.000"]
    assert "strongest" in part
    assert "after Holm's correction over the 2 comparisons" in page.text
    assert "It cannot be told apart from the strongest baseline" in page.text.split("Ranked features")[0]
    assert "+0.400" in invoke("show", tmp_path / "s/rank").stdout


def test_a_baseline_that_is_not_comparable_is_greyed_and_compared_with_nothing(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    path = tmp_path / "s/rank/baselines.json"
    found = json.loads(path.read_text())["baselines"]
    for one in found:
        if one["baseline"] == "logistic":
            one |= {"comparable": False, "why_not": "the rows of max were not kept", "auroc_holdout": 0.0123}
    path.write_text(json.dumps({"baselines": found}))
    seal(RANKING, tmp_path / "s/rank")
    text, page = page_of(tmp_path / "s", tmp_path)
    assert "Not comparable: the rows of max were not kept" in page.text
    row = Page(re.search(r'<tr class="pin apart.*?</tr>', text, re.DOTALL).group()).text
    assert row.startswith("·logistic probe")
    assert "0." not in row
    emergence = re.search(r'<section class="part" id="emergence".*?</section>', text, re.DOTALL).group()
    assert "difference of means" in emergence
    assert "logistic probe" not in emergence
    line = next(line for line in invoke("show", tmp_path / "s/rank").stdout.splitlines() if "not comparable" in line)
    assert "0." not in line


def test_where_only_final_rows_were_kept_it_says_so(final_study: Path, tmp_path: Path) -> None:
    _, page = page_of(final_study, tmp_path)
    assert "Only final tokens were kept." in page.text
    assert "sentences" not in page.ids()
    assert "features" in page.ids()


def test_without_a_hold_out_there_is_no_emergence(tmp_path: Path) -> None:
    _, page = page_of(write_study(tmp_path / "s", 80, holdout=0.0, baselines=False), tmp_path)
    assert "emergence" not in page.ids()
    assert "on the items that it was chosen on" in page.text


def test_a_recording_alone_and_a_ranking_alone_are_studies(study: Path, tmp_path: Path) -> None:
    _, page = page_of(study / "rec", tmp_path)
    assert {"data", "provenance"} <= set(page.ids())
    assert "ranked" not in page.ids()
    assert Study.open(study / "rank").recording is not None  # run.json says where it is


def test_a_folder_that_holds_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no study"):
        ca.report(tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        ca.report(tmp_path / "nowhere")


def test_the_same_study_gives_the_same_bytes(study: Path, tmp_path: Path) -> None:
    first = ca.report(study, out=tmp_path / "a.html").read_bytes()
    assert ca.report(study, out=tmp_path / "b.html").read_bytes() == first


def test_the_command_prints_the_path(study: Path, tmp_path: Path) -> None:
    outcome = invoke("report", study, "--out", tmp_path / "x.html")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == str(tmp_path / "x.html")
    assert invoke("report", tmp_path / "nowhere").code == 2


def test_heat_is_relative_to_the_hottest() -> None:
    assert heat_levels([0.0, 0.01, 5.0, 10.0, -1.0, -9.0], 10.0) == ["", "w1", "w5", "w9", "c1", "c2"]
    assert heat_levels([0.0, 0.0], 0.0) == ["", ""]


def test_a_report_needs_no_model(study: Path, tmp_path: Path) -> None:
    # Torch and SAELens take seconds to import; showing what was found takes neither.
    code = (
        "import sys, conceptatlas as ca; "
        f"ca.report({str(study)!r}, out={str(tmp_path / 'r.html')!r}); "
        "sys.exit(', '.join({'torch', 'transformers', 'sae_lens', 'matplotlib', 'fastapi'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_feature_set_is_shown_with_its_gap_and_its_path(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "s")
    (tmp_path / "s/rank/sets.json").write_text("{}")
    seal(RANKING, tmp_path / "s/rank")
    assert "set" not in page_of(tmp_path / "s", tmp_path)[1].ids()
    figures = {"auroc_holdout": 0.9376, "low": 0.85, "high": 0.98}
    name = {"slug": "blocks.2.hook_resid_post__l0_12", "sae_id": "<b>layer_2</b>", "layer": 2, "feature_id": 3}
    step = {"k": 1, "auroc_discovery": 0.9, "standard_error": 0.02, **figures, "members": [name]}
    found = {"method": "greedy", "k": 2, "n_candidates": 40, "figures": figures,
             "members": [name | {"weight": 1.5, "drop": 0.123, "auroc_holdout": 0.8}] * 2,
             "against": {"name": "logistic probe", "site": "blocks.2.hook_resid_post", "auroc_baseline": 0.95,
                         "difference": -0.0124, "low": -0.07, "high": 0.05, "p_value": 0.7},
             "paths": {"greedy": [step, step | {"k": 2}], "l1": [step]}}  # fmt: skip
    (tmp_path / "s/rank/sets.json").write_text(json.dumps(found))
    line = {"method": "best feature", "n_per_grade": 10, "median": 0.8, "low": 0.7, "high": 0.9, "draws": 5}
    (tmp_path / "s/rank/efficiency.json").write_text(json.dumps({"efficiency": [line, line | {"n_per_grade": 20}]}))
    seal(RANKING, tmp_path / "s/rank")
    text, page = page_of(tmp_path / "s", tmp_path)
    part = re.search(r'<section class="part" id="set".*?</section>', text, re.DOTALL).group()
    words = Page(part).text
    assert "2 features of 40 candidates" in words
    assert "AUROC 0.938 (0.85–0.98)" in words
    assert "-0.012 (-0.07 to +0.05; p = 0.700)" in words
    assert "<b>layer_2</b>" in words
    assert part.count("chosen</span>") == 1
    assert "0.8000.70–0.90" in page.text.replace(" ", "")


def test_a_feature_table_of_thousands_shows_the_first_only(study: Path, tmp_path: Path) -> None:
    """The table holds every feature that passes; views show the first top_n, and families cost no square of it."""
    shutil.copytree(study, tmp_path / "s")
    path = tmp_path / "s/rank/ranked_features.csv"
    table = pl.read_csv(path)
    many = pl.concat([table] * 100).with_columns(pl.int_range(1, 100 * table.height + 1).alias("rank"))
    many.write_csv(path)
    seal(RANKING, tmp_path / "s/rank")
    opened = Study.open(tmp_path / "s")
    assert len(opened.rows_by_rank) == len(opened.features) == 50
    heads = {rank: opened.family_head(rank) for rank in opened.rows_by_rank}
    for rank, head in heads.items():
        same = [r for r, row in opened.rows_by_rank.items() if row["family"] == opened.rows_by_rank[rank]["family"]]
        assert head == (None if opened.rows_by_rank[rank]["family"] is None or min(same) == rank else min(same))
    assert "The first 50 of 5,000 features" in page_of(tmp_path / "s", tmp_path)[1].text


def test_the_page_tells_no_time_and_no_home(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same study gives the same page, whenever it was made and wherever it stands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    run = json.loads((study / "rank/run.json").read_text())
    shutil.copytree(study, tmp_path / "s")
    mine = run | {"options": run["options"] | {"rec": str(tmp_path / "s/rec")}, "written": "2031-02-03T04:05:06+00:00"}
    (tmp_path / "s/rank/run.json").write_text(json.dumps(mine))
    seal(RANKING, tmp_path / "s/rank")
    text, _ = page_of(tmp_path / "s", tmp_path)
    assert "2031" not in text
    assert str(tmp_path) not in text
    assert "~/s/rec" in text
