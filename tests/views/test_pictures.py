"""The small pictures and the curves behind them: scales, figures in the right place, nothing that cannot be read."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import conceptatlas as ca
from conceptatlas.evidence import FeatureRef
from conceptatlas.ranking.summary import rising
from conceptatlas.views.emergence import best_by_layer, chance_auroc, emergence_of
from conceptatlas.views.headline import headline_of
from conceptatlas.views.html import chance, figure, interval, probability
from conceptatlas.views.plots.style import LineLook, line_look, printable
from conceptatlas.views.plots.trajectories import TrajectoryOptions, trajectory_figure
from conceptatlas.views.rivals import Rival, best_of_each
from conceptatlas.views.scores import score_curve
from conceptatlas.views.sections import (
    panel,
    ranked,  # noqa: F401 - registers its section
    section,
)
from conceptatlas.views.sections.distribution import mean_course
from conceptatlas.views.study_folder import Study, pool_rows
from conceptatlas.views.svg.build import Scale, el, ticks
from conceptatlas.views.svg.distribution import by_label, histogram, interval_mark, means_mark, swarm_offsets
from conceptatlas.views.svg.lines import Point, Series, along_sentence, by_layer, score_by_rank, sentence_lines
from tests.views.studies import write_study


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(str(svg))


def test_an_element_escapes_what_it_is_given() -> None:
    made = el("text", "<b>&", class_="x", aria_label='"><script>')
    root = parsed(made)
    assert root.text == "<b>&"
    assert root.attrib == {"class": "x", "aria-label": '"><script>'}


def test_a_scale_is_linear_and_survives_a_point() -> None:
    assert Scale(0, 10, 100, 200)(5) == 150
    assert Scale(3, 3, 100, 200)(3) == 150


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9))
def test_ticks_are_round_within_and_few(low: float, width: float, about: int) -> None:
    high = low + width
    if high <= low:
        return
    found = ticks(low, high, about)
    assert len(found) <= 2 * about + 2
    assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)
    steps = np.diff(found)
    if len(steps):
        assert np.allclose(steps, steps[0], rtol=1e-3)


def test_ticks_of_nothing() -> None:
    assert ticks(1, 1) == [1]
    assert ticks(math.nan, 1) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 300), max_size=80))
def test_a_swarm_stays_in_its_row_and_covers_no_twin(x: list[float]) -> None:
    offsets = swarm_offsets(np.array(x), bin_width=4.6, half_height=19)
    assert (np.abs(offsets) <= 19 + 1e-9).all()
    for place in {math.floor(value / 4.6) for value in x}:
        own = [o for o, value in zip(offsets, x, strict=True) if math.floor(value / 4.6) == place]
        assert len(set(own)) == len(own)


def test_every_picture_is_well_formed_also_when_empty() -> None:
    nothing = np.zeros(0)
    labels, held = np.array([0, 3, 3]), np.array([False, True, False])
    pictures = [
        by_label(np.array([0.0, 2.0, 1.0]), labels, held, threshold=1.5, score_name="a <b> score"),
        by_label(np.zeros(3), labels, held, threshold=None, score_name="x"),
        by_label(np.array([-2.0, -1.0, 0.0]), labels, held, threshold=0.0, score_name="x"),
        histogram(np.array([1.0, 2.0]), title="t", n_silent=3),
        histogram(np.array([1.0]), title="t", n_silent=0),
        histogram(nothing, title="t", n_silent=3),
        interval_mark(0.9, 0.8, 0.95),
        interval_mark(0.2, None, None),
        means_mark([None, 0.0, 1.0, -2.0]),
        along_sentence(np.linspace(0, 1, 5), np.zeros((2, 5)), [0, 3]),
        sentence_lines(["<i>", " "], np.array([[0.0, 1.0]] * 9), ["f"] * 9),
        by_layer([Series("one", 0, (Point(0, 0.5), Point(1, 0.9, 0.8, 1.0)))], null=0.6, width=300),
        by_layer([], null=None, width=300),
        score_by_rank(np.array([0.9, 0.2]), np.array([0.8, math.nan]), null=0.3, score_name="r", width=300),
        score_by_rank(nothing, nothing, null=None, score_name="r", width=300),
    ]
    for svg in pictures:
        root = parsed(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "nan" not in str(svg)
        assert "inf" not in str(svg).replace("info", "")
        assert "style=" not in str(svg)
    assert interval_mark(None, None, None) == ""


def test_a_mean_stands_where_the_mean_is() -> None:
    root = parsed(by_label(np.array([0.0, 4.0]), np.array([0, 3]), np.zeros(2, bool), threshold=None, score_name="x"))
    lines = {e.attrib["class"]: float(e.attrib["x1"]) for e in root if e.attrib.get("class") == "mean"}
    grid = sorted(float(e.attrib["x1"]) for e in root if e.attrib.get("class") == "grid")
    assert lines["mean"] in (grid[0], grid[-1])


def test_without_groups_the_line_of_chance_is_mann_and_whitneys() -> None:
    """The 95th percentile of U / (n₁·n₀) over all 924 arrangements of six and six items."""
    is_high = np.arange(12) < 6
    sums = np.array([sum(chosen) for chosen in itertools.combinations(range(1, 13), 6)])
    exact = np.quantile((sums - 21) / 36, 0.95, method="higher")
    line = chance_auroc(np.arange(12.0)[:, None], is_high, np.arange(12))
    assert line == pytest.approx(exact, abs=1.5 / 36)
    assert chance_auroc(np.zeros((3, 1)), np.zeros(3, bool), np.arange(3)) is None


def test_the_line_of_chance_is_that_of_groups() -> None:
    """Three groups of eight that score alike: of 56 arrangements 1, 1 and 2 reach 1, 14/15 and 13/15."""
    groups = np.arange(160) // 20
    is_high = groups < 3
    assert chance_auroc(groups[:, None] / 10, is_high, groups) == pytest.approx(13 / 15)
    assert chance_auroc(groups[:, None] / 10, is_high, np.arange(160)) < 0.6


def test_the_line_of_chance_exchanges_matched_pairs_within_pairs() -> None:
    """One of each of 16 pairs scores 1: the AUROC is the share of pairs in order, binomial; over items it is narrower."""
    one_of_two = np.arange(32)[:, None] % 2
    is_high = np.arange(32) % 2 == 1
    binomial = stats.binom(16, 0.5).ppf(0.95) / 16
    assert chance_auroc(one_of_two, is_high, np.arange(32) // 2) == pytest.approx(binomial)
    assert chance_auroc(one_of_two, is_high, np.arange(32)) < binomial


def test_the_best_of_a_layer_is_chosen_on_discovery() -> None:
    table = pl.DataFrame(
        {
            "layer": [1, 0, 1, 1],
            "slug": ["b", "a", "b", "c"],
            "sae_id": ["b", "a", "b", "c"],
            "average_l0": [1.0, 1.0, 1.0, 1.0],
            "feature_id": [5, 6, 7, 8],
            "direction": ["up"] * 4,
            "interpretability_score": [0.2, None, 0.9, 0.9],
            "auroc_holdout": [1.0, 1.0, 0.1, 1.0],
        }
    )
    assert best_by_layer(table.lazy())["feature_id"].to_list() == [7]


def test_the_curves_of_a_study_hold_the_planted_concept(study: Path) -> None:
    opened = Study.open(study)
    found = emergence_of(opened)
    assert found is not None
    assert opened.ranking is not None
    names = {series.name for series in found.series}
    assert found.grades == (0, 3)
    assert {
        "best feature",
        "k-sparse probe",
        "difference of means",
        "logistic probe",
    } < names  # one curve a kind, all k
    kinds = {entry["baseline"] for entry in opened.ranking.baselines if entry["layer"] is not None}
    assert len(names) == 1 + len(kinds)
    best = next(series for series in found.series if series.name == "best feature")
    assert [point.x for point in best.points] == [0.0, 1.0, 2.0, 3.0]
    assert best.points[0].y < 0.75 < best.points[2].y  # layer 0 knows nothing of it
    assert all(p.low is not None and p.low <= p.y <= (p.high or 1) for p in best.points)
    # The same figure that the ranking has for its first feature.
    row = opened.rows_by_rank[1]
    point = best.points[row["layer"]]
    assert (point.y, point.low, point.high) == pytest.approx(
        (row["auroc_holdout"], row["auroc_holdout_low"], row["auroc_holdout_high"]), abs=1e-6
    )
    curve = score_curve(opened)
    assert curve is not None
    assert (np.diff(curve.scores) <= 0).all()
    assert curve.null == opened.ranking.null["pearson_95"]


def test_a_baseline_is_chosen_by_its_discovery_figure() -> None:
    first = Rival("logistic", "logistic probe", "a", 0, 0.9, 0.1, None, None)
    second = Rival("logistic", "logistic probe", "b", 1, 0.8, 1.0, None, None)
    sparse = Rival("k_sparse", "k = 2", "b", 1, None, 1.0, None, None, k=2)
    assert best_of_each([second, first, sparse]) == [first, sparse]
    apart = replace(first, comparable=False, why_not="it read other rows")
    assert best_of_each([apart, second]) == [second]


def test_chance_is_said_as_what_was_counted() -> None:
    assert chance(1 / 1001, 1000) == "0 of 1,000"
    assert chance(1.0, 1000) == "1,000 of 1,000"
    assert chance(0.5, 0) == chance(None, 1000) == "–"


def test_figures_are_written_for_people() -> None:
    assert figure(None) == figure(math.nan) == "–"
    assert figure(12345) == "12,345"
    assert figure(0.12345, 2) == "0.12"
    assert interval(0.5, None) == interval(math.nan, 0.5) == ""
    assert probability(0.0001) == "1e-04"
    assert probability(0.25) == "0.250"


@pytest.mark.parametrize(("pool", "wanted"), [("final", [3, 0, 0]), ("max", [5, 0, 0]), ("mean", [8 / 3, 0, 0])])
def test_rows_are_pooled_as_the_ranking_does(pool: str, wanted: list[float]) -> None:
    bounds = np.array([[0, 3], [3, 5], [5, 5]])
    assert pool_rows(np.array([0.0, 5.0, 3.0, 0.0, 0.0]), bounds, pool) == pytest.approx(wanted)


def assert_scores_are_the_ranking_s(opened: Study) -> None:
    """The mean score of each grade is what the ranking's table says of its best feature."""
    row = opened.rows_by_rank[1]
    scores = opened.scores(opened.features[0])
    inside = ~opened.holdout
    for grade in range(4):
        mean = scores[inside & (opened.labels == grade)].mean()
        assert mean == pytest.approx(row[f"mean_label_{grade}"], rel=1e-6)


def test_the_pooled_scores_are_the_ranking_s_own(study: Path) -> None:
    assert_scores_are_the_ranking_s(Study.open(study))


def test_the_pooled_scores_leave_out_the_sinks_that_the_ranking_left_out(tmp_path: Path) -> None:
    options = {"permutations": 0, "resplits": 0, "baselines": False, "min_pearson": -1, "min_tpr": 0, "max_fpr": 1}
    write_study(tmp_path, 40, sinks=range(3, 800, 2), pool="max", without_sinks=True, **options)
    assert_scores_are_the_ranking_s(Study.open(tmp_path))


def test_the_course_of_a_sentence_is_read_at_its_rows() -> None:
    acts = np.array([0, 1, 2, 3, 4, 10, 20], dtype=np.float32)
    course = mean_course(acts, np.array([[0, 5], [5, 7], [7, 7]]), 5)
    np.testing.assert_allclose(course, [5.0, 5.5, 6.0, 11.5, 12.0])  # the second item: 10, 10, 10, 20, 20
    assert mean_course(acts, np.zeros((0, 2), dtype=int), 3).tolist() == [0, 0, 0]


def test_a_name_can_be_taken_once() -> None:
    with pytest.raises(ValueError, match="already a section 'ranked'"):
        section("ranked", order=1)(lambda study: None)
    with pytest.raises(ValueError, match="already a panel 'metrics'"):
        panel("metrics", order=1)(lambda study, feature: None)


def test_tokens_are_shown_on_one_line() -> None:
    assert printable("a\nb\tc\x00", 10) == "a⏎b⇥c�"
    assert printable("abcdef", 4) == "abc…"


def test_the_first_twenty_one_lines_look_different() -> None:
    looks = [line_look(i) for i in range(21)]
    assert len({(look.colour, look.dash) for look in looks}) == 21
    assert isinstance(looks[0], LineLook)


def test_a_trajectory_names_tokens_and_features_verbatim() -> None:
    features = [FeatureRef("s", "x", 2, 12.0, 313, 1), FeatureRef("s", "x", 3, 31.5, 11, 2)]
    figure = trajectory_figure(
        ["He", " paid", " $5$"], np.array([[0, 1, 2], [0, 0, 1.0]]), features,
        title="He paid $5$", subtitle="s", options=TrajectoryOptions(8, 4, 50, 15),
    )  # fmt: skip
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["He", "paid", "$5$"]
    assert axes.get_title(loc="left") == "He paid $5$"
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["1. layer 2 · L0 12 · #313", "2. layer 3 · L0 31.5 · #11"]


def test_a_long_sentence_names_as_many_tokens_as_can_be_read() -> None:
    figure = trajectory_figure(
        [f"t{i}" for i in range(600)], np.zeros((1, 600)), [FeatureRef("s", "x", 0, 1.0, 0, 1)],
        title="", subtitle="", options=TrajectoryOptions(14, 7, 50, 15),
    )  # fmt: skip
    labels = figure.axes[0].get_xticklabels()
    assert 40 <= len(labels) <= 90
    assert "one in" in figure.axes[0].get_xlabel()
    assert any("No traced feature fires" in text.get_text() for text in figure.axes[0].texts)


def test_probes_of_a_study_are_shown(study: Path, tmp_path: Path) -> None:
    import shutil

    from conceptatlas.views.sections import sections_of

    shutil.copytree(study / "rank", tmp_path / "s/rank")
    shutil.copytree(study / "rec", tmp_path / "s/rec")
    ca.prepare_probe(study / "rec", tmp_path / "X.npz", strategy="hidden-to-concept", layers=2)
    ca.train_probe(tmp_path / "X.npz", tmp_path / "s/probe", name="plain")
    ca.sweep_probes(study / "rec", tmp_path / "s/probe", workers=1)
    body = dict(sections_of(Study.open(tmp_path / "s")))["probes"].body
    assert "v1_plain" in body
    assert "embedding" not in body  # the recording has no embedding
    assert body.count("<tr>") == 1 + 4 + 1 + 1


def test_a_feature_that_falls_is_counted_in_its_own_direction(study: Path) -> None:
    row = {
        "direction": "down",
        "auroc": 0.1,
        "auroc_holdout": 0.2,
        "auroc_holdout_low": 0.15,
        "auroc_holdout_high": 0.3,
    }
    turned = rising(row)
    assert turned["auroc_holdout"] == pytest.approx(0.8)
    assert (turned["auroc_holdout_low"], turned["auroc_holdout_high"]) == pytest.approx((0.7, 0.85))
    assert rising(row | {"direction": "up"})["auroc"] == 0.1
    assert rising({"direction": "down", "auroc": None})["auroc"] is None
    opened = Study.open(study)
    assert opened.ranking is not None
    turned_round = opened.ranking.features.with_columns(
        *(
            pl.when(pl.col("rank") == 1).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            for name, value in row.items()
        )
    )
    opened.ranking.features = turned_round
    said = " ".join(sentence.text for sentence in headline_of(opened).sentences)
    assert "which falls with the concept" in said
    assert "AUROC 0.800 (95% interval 0.70–0.85)" in said
