"""Examples by grade and decile: which items, in which order, cut into which pieces."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.evidence.examples import cut_text, decile_of, sample_by_decile, strongest_by_label


def test_text_is_cut_after_each_fragment() -> None:
    assert cut_text("He lied again.", [2, 7, 13, 14]) == ["He", " lied", " again", "."]


def test_text_after_the_last_row_is_one_more_piece() -> None:
    assert cut_text("He lied again.", [2, 7]) == ["He", " lied", " again."]


def test_a_token_that_ends_inside_a_character_gives_an_empty_piece() -> None:
    assert cut_text("né", [1, 2, 2]) == ["n", "é", ""]
    assert cut_text("", []) == []


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=12), st.lists(st.integers(-2, 15), max_size=8))
def test_the_pieces_joined_are_the_text_whatever_the_ends(text: str, ends: list[int]) -> None:
    pieces = cut_text(text, ends)
    assert "".join(pieces) == text
    assert len(pieces) in (len(ends), len(ends) + 1)


def test_the_strongest_of_each_grade_come_first_and_ties_keep_their_order() -> None:
    scores = np.array([1.0, 3.0, 3.0, 2.0, 5.0])
    labels = np.array([0, 0, 0, 0, 3])
    assert strongest_by_label(scores, labels, 3) == {0: [1, 2, 3], 3: [4]}


def test_deciles_cut_the_active_items_into_ten_even_runs() -> None:
    peaks = np.concatenate([np.zeros(5), np.arange(1, 21)])
    deciles = decile_of(peaks)
    assert deciles[:5].tolist() == [0] * 5
    assert deciles[5:].tolist() == [d for d in range(1, 11) for _ in range(2)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), max_size=40))
def test_deciles_are_even_and_monotone(values: list[float]) -> None:
    peaks = np.array(values)
    deciles = decile_of(peaks)
    assert ((deciles == 0) == (peaks <= 0)).all()
    active = deciles[deciles > 0]
    if len(active) >= 10:
        counts = np.bincount(active, minlength=11)[1:]
        assert counts.max() - counts.min() <= 1
    for low in range(1, 10):
        if (deciles == low).any() and (deciles > low).any():
            assert peaks[deciles == low].max() <= peaks[deciles > low].min()


def test_the_sample_is_the_generator_s_and_never_repeats_an_item() -> None:
    peaks = np.arange(100, dtype=float)
    once = sample_by_decile(peaks, 3, np.random.default_rng(4))
    again = sample_by_decile(peaks, 3, np.random.default_rng(4))
    other = sample_by_decile(peaks, 3, np.random.default_rng(5))
    assert once == again != other
    assert list(once) == list(range(10, 0, -1))
    for decile, items in once.items():
        assert len(set(items)) == 3
        assert (decile_of(peaks)[items] == decile).all()
        assert sorted(items, reverse=True) == items  # strongest first


def test_a_silent_feature_has_no_deciles() -> None:
    assert sample_by_decile(np.zeros(7), 3, np.random.default_rng(0)) == {}
