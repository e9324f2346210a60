"""``--keep top``: summaries against the whole matrix, however it is cut."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError
from conceptatlas.recording import export, fold, record, verify, work
from conceptatlas.recording.strongest import (
    HISTOGRAM_EDGES,
    SAMPLES,
    as_table,
    hash_keys,
    summarise,
    union,
)
from tests.helpers.recordings import columns_of


def part_of(dense, first, last):
    columns = columns_of(dense[first:last])
    return columns._replace(rows=columns.rows + np.int32(first))


def slow_top(dense, feature, per_feature):
    active = [(-abs(value), row) for row, value in enumerate(dense[:, feature]) if value != 0]
    return [row for _, row in sorted(active)[:per_feature]]


@settings(deadline=None, max_examples=40)
@given(
    heights=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    features=st.integers(1, 6),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    per_feature=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_union_of_parts_is_the_whole(heights, features, density, per_feature, seed):
    rng = np.random.default_rng(seed)
    # Few different magnitudes and both signs: many ties.
    dense = rng.integers(-3, 4, (sum(heights), features)) * (rng.random((sum(heights), features)) < density)
    dense = dense.astype(np.float32)
    cuts = np.concatenate([[0], np.cumsum(heights)])
    found = summarise(part_of(dense, 0, cuts[1]), per_feature, seed=7)
    for first, last in pairwise(cuts[1:]):
        found = union(found, summarise(part_of(dense, first, last), per_feature, seed=7), per_feature, seed=7)
    whole = summarise(columns_of(dense), per_feature, seed=7)
    for name, array in whole.arrays().items():
        assert np.array_equal(array, found.arrays()[name]), name
    table, histogram = as_table(found), found.histogram()
    for feature in range(features):
        rows = table["top_rows"][feature].to_list()
        assert rows == slow_top(dense, feature, per_feature)
        assert table["top_values"][feature].to_list() == dense[rows, feature].tolist()
        active = np.flatnonzero(dense[:, feature]).astype(np.int32)
        keys = hash_keys(7, np.full(len(active), feature), active)
        assert table["sample_rows"][feature].to_list() == active[np.argsort(keys)][:SAMPLES].tolist()
        expected = np.histogram(np.abs(dense[active, feature]), [0, *HISTOGRAM_EDGES, np.inf])[0]
        assert histogram[feature].tolist() == expected.tolist()
    assert np.array_equal(table["n_active"], (dense != 0).sum(axis=0))
    np.testing.assert_allclose(found.sums, dense.sum(axis=0))


def test_many_entries_and_magnitudes_that_rise():
    """Each entry is stronger than all before it: what is kept is sorted and cut again and again."""
    dense = np.zeros((1000, 2), np.float32)
    dense[:, 1] = np.arange(1, 1001) * np.where(np.arange(1000) % 2, 1, -1)
    found = summarise(columns_of(dense), 3, seed=0)
    assert found.top_rows.tolist() == [999, 998, 997]
    assert found.top_values.tolist() == [1000.0, -999.0, 998.0]


def test_a_summary_is_no_larger_than_what_it_holds():
    dense = np.zeros((500, 1000), np.float32)
    silent = sum(array.nbytes for array in summarise(columns_of(dense), 20, seed=0).arrays().values())
    dense[:3, 0] = 1.0
    dense[:, 1] = np.arange(1, 501)
    found = summarise(columns_of(dense), 20, seed=0)
    assert np.diff(found.top.starts)[:3].tolist() == [3, 20, 0]
    assert np.diff(found.sample.starts)[:3].tolist() == [3, SAMPLES, 0]
    held = sum(array.nbytes for array in found.arrays().values())
    assert held - silent == (3 + 20 + 3 + SAMPLES) * 8 + len(found.bin_numbers) * 5


def test_the_sample_is_fair():
    """Every row of a feature that is always active is sampled equally often over features."""
    dense = np.ones((200, 400), np.float32)
    found = summarise(columns_of(dense), 1, seed=3)
    times = np.bincount(found.sample_rows, minlength=200)
    expected = 400 * SAMPLES / 200
    assert abs(times - expected).max() < 6 * expected**0.5


def test_table():
    dense = np.zeros((50, 3), np.float32)
    dense[:, 0] = np.arange(1, 51)
    dense[7, 2] = -2.0
    table = as_table(summarise(columns_of(dense), 3, seed=0))
    assert table["n_active"].to_list() == [50, 0, 1]
    assert table["top_rows"].to_list() == [[49, 48, 47], [], [7]]
    assert table["top_values"].to_list() == [[50.0, 49.0, 48.0], [], [-2.0]]
    deciles = table["sample_decile"][0].to_numpy()
    values = table["sample_values"][0].to_numpy()
    assert np.bincount(deciles).tolist() == [SAMPLES // 10] * 10
    assert (np.diff(deciles[np.argsort(values)]) >= 0).all()
    assert table["sum"].to_list() == pytest.approx([1275.0, 0.0, -2.0])


# Recorded -------------------------------------------------------------------------------------------------------------


def test_recorded_in_shards_equals_all_of_it(gemma, concept, saes, tmp_path):
    everything = record(concept, gemma, saes, tmp_path / "all", shard_rows=16)
    rec = record(concept, gemma, saes, tmp_path / "top", keep="top", per_feature=3, shard_rows=16)
    assert len(rec.manifest.plan.shards) > 3
    assert len(rec.manifest.histogram_edges) == len(HISTOGRAM_EDGES)
    assert verify(rec) == []
    assert not (rec.path / ".work").exists()
    for sae in saes:
        expected = as_table(summarise(everything.columns(sae.slug), 3, seed=0))
        found = rec.top(sae.slug)
        assert found.drop("sum").equals(expected.drop("sum"))
        np.testing.assert_allclose(found["sum"], expected["sum"])
        assert rec.sae(sae.slug).nnz == everything.sae(sae.slug).nnz
        assert sorted(path.name for path in (rec.path / "features" / sae.slug).iterdir()) == ["top.parquet"]


def test_recorded_top_says_what_it_has_not(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "top", keep="top")
    assert rec.manifest.options.per_feature == 20
    with pytest.raises(InputError, match=r"kept only the top examples .* record again with --keep all --features"):
        rec.columns("low")
    with pytest.raises(InputError, match="have no dense form"):
        export(rec, tmp_path / "npz")


def test_folds_are_written_once_for_many_shards(gemma, concept, saes, tmp_path, monkeypatch):
    monkeypatch.setattr(fold, "FOLD_SHARDS", 3)
    written = []
    plain = work.WorkFolder.write_piece

    def noted(self, shard, piece, arrays, facts):
        written.append((shard, piece))
        plain(self, shard, piece, arrays, facts)

    monkeypatch.setattr(work.WorkFolder, "write_piece", noted)
    rec = record(concept, gemma, saes, tmp_path / "top", keep="top", shard_rows=16)
    n_shards = len(rec.manifest.plan.shards)
    assert n_shards % 3  # the last group is not whole
    expected = [*range(2, n_shards, 3), n_shards - 1]
    assert [shard for shard, piece in written if piece == "fold-low"] == expected


def test_what_is_missing_is_found_without_listing_folders(gemma, concept, saes, tmp_path, monkeypatch):
    """Folders grow with the number of shards; to list them for every shard takes its square."""
    jobs, listed = [], []
    plain_fold, plain_list = fold.fold_shard, os.scandir

    def noted(job, shard):
        plain_fold(job, shard)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "scandir", lambda *path: (listed.append(path), plain_list(*path))[1])
            jobs.append(len(job.missing(shard)))

    monkeypatch.setattr("conceptatlas.recording.engines.local.fold_shard", noted)
    monkeypatch.setattr(fold, "FOLD_SHARDS", 2)
    record(concept, gemma, saes, tmp_path / "top", keep="top", shard_rows=16)
    assert len(jobs) > 3
    assert set(jobs) == {0}
    assert listed == []


def test_stopped_between_folds_and_run_again(gemma, concept, saes, tmp_path, monkeypatch):

    def top(name):
        rec = record(concept, gemma, saes, tmp_path / name, keep="top", per_feature=3, shard_rows=16)
        return (rec.path / "manifest.json").read_bytes()

    whole = top("whole")
    monkeypatch.setattr(fold, "FOLD_SHARDS", 2)
    assert top("pairs") == whole
    plain = work.WorkFolder.drop_piece
    for calls in (0, 4, 9, 17):
        done = []

        def stop(self, shard, piece, done=done, calls=calls):
            done.append(piece)
            if len(done) > calls:
                raise KeyboardInterrupt
            plain(self, shard, piece)

        with monkeypatch.context() as patch:
            patch.setattr(work.WorkFolder, "drop_piece", stop)
            with pytest.raises(KeyboardInterrupt):
                top(f"top{calls}")
        assert top(f"top{calls}") == whole
