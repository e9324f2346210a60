"""The one hold-out that every stage asks for: by group, or by whole values of a column."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import holdout_by, holdout_mask, holdout_of, split_hash_of, whole_units

CASES = st.tuples(st.integers(1, 60), st.integers(1, 12), st.integers(1, 40), st.integers(0, 10_000))


def drawn(case):
    """Labels, group hashes and column values (some None) of a random set of items."""
    n, n_values, n_groups, seed = case
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    hashes = np.array([split_hash_of(f"g{g}") for g in rng.integers(0, n_groups, n)], dtype=np.uint64)
    values = [None if rng.random() < 0.2 else f"v{v}" for v in rng.integers(0, n_values, n)]
    return labels, hashes, values


def slow_units(hashes, values):
    """Join items that share a group or a value until nothing changes."""
    unit = list(range(len(hashes)))
    changed = True
    while changed:
        changed = False
        for i in range(len(unit)):
            for j in range(i):
                linked = hashes[i] == hashes[j] or (values[i] is not None and values[i] == values[j])
                if linked and unit[i] != unit[j]:
                    unit = [min(unit[i], unit[j]) if u in (unit[i], unit[j]) else u for u in unit]
                    changed = True
    return np.array(unit)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_units_are_what_hangs_together(case):
    _, hashes, values = drawn(case)
    unit, _ = whole_units(hashes, values)
    slow = slow_units(hashes, values)
    np.testing.assert_array_equal(unit[:, None] == unit, slow[:, None] == slow)


@settings(deadline=None, max_examples=80)
@given(CASES, st.floats(0.01, 0.9))
def test_no_value_and_no_group_is_torn_and_every_label_stays_on_discovery(case, share):
    labels, hashes, values = drawn(case)
    try:
        held = holdout_by(labels, hashes, values, share=share)
    except InputError:
        unit, _ = whole_units(hashes, values)  # refused only where some label is in one unit alone
        assert any(len(np.unique(unit[labels == label])) == 1 for label in np.unique(labels))
        return
    kept = {value for value, out in zip(values, held, strict=True) if not out} - {None}
    gone = {value for value, out in zip(values, held, strict=True) if out} - {None}
    assert not kept & gone
    assert not np.intersect1d(hashes[held], hashes[~held]).size
    assert set(labels[~held]) == set(labels)
    assert held.any()
    smaller = holdout_by(labels, hashes, values, share=share / 2)
    assert not (smaller & ~held).any()
    order = np.random.default_rng(0).permutation(len(labels))
    again = holdout_by(labels[order], hashes[order], [values[i] for i in order], share=share)
    np.testing.assert_array_equal(again, held[order])


def test_the_share_is_near_and_labels_are_on_both_sides():
    n = 2000
    labels = np.arange(n) % 4
    hashes = np.array([split_hash_of(f"t{i}") for i in range(n)], dtype=np.uint64)
    values = [f"template {i // 40}" for i in range(n)]
    held = holdout_by(labels, hashes, values, share=0.3)
    assert held.sum() == 600
    assert np.bincount(labels[held]).tolist() == [150] * 4
    # A column whose values each stand in one label: each label gives values.
    values = [f"kind {i % 4} {i // 100}" for i in range(n)]
    held = holdout_by(labels, hashes, values, share=0.3)
    assert abs(held.mean() - 0.3) < 0.02
    assert np.bincount(labels[held], minlength=4).min() > 100


def test_without_a_column_it_is_the_split_by_group():
    labels = np.arange(40) % 4
    hashes = np.array([split_hash_of(f"t{i}") for i in range(40)], dtype=np.uint64)
    items = pl.DataFrame({"label": labels, "split_hash": hashes, "source": [f"s{i // 8}" for i in range(40)]})
    np.testing.assert_array_equal(holdout_of(items, share=0.3), holdout_mask(labels, hashes, share=0.3))
    np.testing.assert_array_equal(
        holdout_of(items, share=0.3, by="source"), holdout_by(labels, hashes, items["source"].to_list(), share=0.3)
    )
    assert not holdout_of(items, share=0, by="source").any()
    with pytest.raises(InputError, match=r"names the column 'sauce'.*further columns are: source\.$"):
        holdout_of(items, share=0.3, by="sauce")


def test_what_cannot_be_held_out_is_refused():
    labels = np.arange(8) % 2
    hashes = np.array([split_hash_of(f"t{i}") for i in range(8)], dtype=np.uint64)
    with pytest.raises(InputError, match="No whole value of 'source' can be held out"):
        holdout_by(labels, hashes, ["a"] * 8, name="source")
    values = ["a", "a", "b", "b", "c", "c", "d", "d"]
    held = holdout_by(labels, hashes, values, split=["holdout", None, *["discovery"] * 4, None, None])
    assert held[:2].all()
    assert not held[2:6].any()
    with pytest.raises(InputError, match=r"puts items of one 'source' on both sides \(such as 'a'\)"):
        holdout_by(labels, hashes, values, split=["holdout", "discovery", *[None] * 6], name="source")
