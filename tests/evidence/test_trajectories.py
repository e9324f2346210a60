"""Peaks and their classes: planted cases, and an obvious oracle over random ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.evidence.features import FeatureRef
from conceptatlas.evidence.trajectories import (
    classify,
    find_peaks,
    summary_text,
    trace_feature,
    write_summary,
)

FEATURE = FeatureRef(slug="s", sae_id="layer_1/l0_12", layer=1, average_l0=12.0, feature_id=7, rank=1)


def bounds_of(first, lengths) -> np.ndarray:
    first = np.array(first, dtype=np.int64)
    return np.stack([first, first + np.array(lengths, dtype=np.int64)], axis=1)


def test_the_peak_is_the_first_row_of_the_largest_activation() -> None:
    acts = np.array([0, 2, 5, 5, 1, 0, 0, 3, 0], dtype=np.float32)
    peaks = find_peaks(acts, bounds_of([0, 5, 7, 8], [5, 2, 1, 1]))
    assert peaks.position.tolist() == [2, -1, 0, -1]
    assert peaks.value.tolist() == [5.0, 0.0, 3.0, 0.0]
    np.testing.assert_array_equal(peaks.relative, [0.5, np.nan, np.nan, np.nan])  # one row has no place


def test_an_item_without_rows_is_silent() -> None:
    peaks = find_peaks(np.ones(3), bounds_of([0, 3], [3, 0]))
    assert peaks.position.tolist() == [0, -1]


def test_negative_activations_are_no_peak() -> None:
    assert find_peaks(np.array([-3.0, -1.0]), bounds_of([0], [2])).position.tolist() == [-1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), max_size=6), max_size=8))
def test_peaks_equal_a_slow_search(items: list[list[float]]) -> None:
    lengths = [len(item) for item in items]
    first = np.cumsum([0, *lengths])[:-1] if lengths else []
    acts = np.array([value for item in items for value in item])
    peaks = find_peaks(acts, bounds_of(list(first), lengths))
    for i, item in enumerate(items):
        best = max(item, default=0.0)
        if best <= 0:
            assert peaks.position[i] == -1
            assert np.isnan(peaks.relative[i])
        else:
            assert peaks.value[i] == best
            assert peaks.position[i] == item.index(best)
            if len(item) > 1:
                assert peaks.relative[i] == pytest.approx(item.index(best) / (len(item) - 1))


@pytest.mark.parametrize(
    ("median", "name"),
    [(0.0, "early"), (0.333, "early"), (0.334, "contextual"), (0.666, "contextual"), (0.667, "late"), (1.0, "late")],
)
def test_the_classes_are_thirds(median: float, name: str) -> None:
    assert classify(median) == name


def test_a_feature_that_never_fires_is_silent() -> None:
    assert classify(float("nan")) == "silent"


def test_a_feature_takes_the_class_of_the_highest_grade_on_which_it_fires() -> None:
    # Three items of five rows: grade 1 peaks at the start, grade 2 at the end, grade 3 is silent.
    acts = np.array([4, 0, 0, 0, 0] + [0, 0, 0, 0, 9] + [0] * 5, dtype=np.float32)
    traced = trace_feature(FEATURE, acts, bounds_of([0, 5, 10], [5, 5, 5]), np.array([1, 2, 3]), [1, 2, 3])
    assert [peaks.peak_class for peaks in traced.by_label] == ["early", "late", "silent"]
    assert traced.peak_class == "late"
    assert traced.by_label[1].mean_peak_value == 9.0
    assert traced.by_label[2].n_items == 1
    assert traced.by_label[2].mean_peak_value is None


def test_only_the_asked_grades_are_traced() -> None:
    traced = trace_feature(FEATURE, np.ones(4), bounds_of([0, 2], [2, 2]), np.array([0, 3]), [3])
    assert [peaks.label for peaks in traced.by_label] == [3]


def test_the_summary_is_written_twice_and_says_the_same(tmp_path) -> None:
    acts = np.array([0, 0, 3, 0, 0, 5], dtype=np.float32)
    traced = [trace_feature(FEATURE, acts, bounds_of([0, 3], [3, 3]), np.array([2, 3]), [2, 3])]
    write_summary(tmp_path, traced)
    summary = json.loads((tmp_path / "summary_statistics.json").read_text())
    feature = summary["features"][0]
    assert feature["class"] == "late"
    assert feature["by_label"]["3"] == {
        "n_items": 1,
        "n_active": 1,
        "mean_peak_value": 5.0,
        "max_peak_value": 5.0,
        "mean_peak_position": 2.0,
        "median_relative_position": 1.0,
        "class": "late",
    }
    text = (tmp_path / "summary_statistics.txt").read_text()
    assert text == summary_text(traced)
    assert summary["definition"] in text
    assert "1. layer 1 · L0 12 · feature 7 (layer_1/l0_12): late" in text
