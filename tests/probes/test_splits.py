"""Splits keep groups whole, and the probe's test items are among the ranking's hold-out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.model import holdout_mask, split_hash_of
from conceptatlas.probes.splits import cross_validation_folds, probe_test_mask


def grouped(n_groups, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, size=n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    grades = (np.arange(n_groups) % 4)[group]
    return grades, np.array([split_hash_of(f"g{g}") for g in group], dtype=np.uint64)


def items_of(grades, hashes, split=None):
    return pl.DataFrame({"label": grades, "split_hash": hashes, "split": split or [None] * len(grades)})


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 80), st.integers(0, 50))
def test_the_test_items_are_nested_in_the_hold_out(n_groups, seed):
    grades, hashes = grouped(n_groups, seed)
    test = probe_test_mask(items_of(grades, hashes), share=0.2)
    assert not (test & ~holdout_mask(grades, hashes, share=0.3)).any()
    assert not np.intersect1d(hashes[test], hashes[~test]).size


@settings(deadline=None, max_examples=20)
@given(st.integers(20, 60), st.integers(0, 50), st.integers(2, 5))
def test_folds_part_the_samples_and_keep_groups_whole(n_groups, seed, n_folds):
    grades, hashes = grouped(n_groups, seed)
    folds = cross_validation_folds(grades, hashes, n_folds=n_folds, seed=seed)
    assert len(folds) == n_folds
    np.testing.assert_array_equal(np.sort(np.concatenate([f.validation for f in folds])), np.arange(len(grades)))
    for fold in folds:
        assert not np.intersect1d(hashes[fold.train], hashes[fold.validation]).size
    again = cross_validation_folds(grades, hashes, n_folds=n_folds, seed=seed)
    assert all(np.array_equal(a.train, b.train) for a, b in zip(folds, again, strict=True))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_of_nothing_or_all_is_refused(share):
    grades, hashes = grouped(20, 0)
    with pytest.raises(InputError, match=r"^The test split must lie between 0 and 1, and .* was given"):
        probe_test_mask(items_of(grades, hashes), share=share)


def test_a_split_column_that_leaves_no_test_items_is_refused():
    grades, hashes = grouped(20, 0)
    with pytest.raises(InputError, match=r"none of the \d+ items is left for test; add items, or change --test-split"):
        probe_test_mask(items_of(grades, hashes, ["discovery"] * len(grades)), share=0.2)


def test_the_data_s_own_split_wins():
    grades, hashes = grouped(20, 0)
    said = ["holdout" if i % 3 == 0 else "discovery" for i in range(len(grades))]
    test = probe_test_mask(items_of(grades, hashes, said), share=0.2)
    np.testing.assert_array_equal(test, np.arange(len(grades)) % 3 == 0)


def test_too_few_items_for_the_folds():
    labels = np.array([0, 1, 0, 1])
    with pytest.raises(InputError, match=r"^There are 4 training items or groups for 5 folds; .* at most 4\."):
        cross_validation_folds(labels, np.arange(4), n_folds=5, seed=0)
    labels = np.array([0] * 9 + [1] * 3)
    with pytest.raises(InputError, match=r"^Class 1 has 3 training items or groups for 5 folds; .* at most 3\."):
        cross_validation_folds(labels, np.arange(12), n_folds=5, seed=0)
    with pytest.raises(InputError, match=r"needs at least 2 folds, and 1 was given"):
        cross_validation_folds(labels, np.arange(12), n_folds=1, seed=0)
