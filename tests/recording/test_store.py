"""The on-disk format, read back; damage is named."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.recording import Recording
from tests.helpers.recordings import write_synthetic_recording


@pytest.fixture
def rec(tmp_path):
    generator = np.random.default_rng(0)
    matrix = sp.random(12, 7, density=0.4, random_state=generator, format="csc")
    empty = sp.csc_matrix((12, 3))
    return write_synthetic_recording(
        tmp_path / "rec",
        {"a": matrix, "b": empty},
        [0, 1, 3],
        [3, 4, 5],
        hidden={"embed": generator.normal(size=(3, 6)), "blocks.0.hook_resid_post": generator.normal(size=(3, 6))},
        groups=["x", "x", None],
        extra=pl.DataFrame({"kind": ["p", "q", "r"]}),
    )


def test_what_was_written_is_read(rec, tmp_path):
    matrix = sp.random(12, 7, density=0.4, random_state=np.random.default_rng(0), format="csc").astype(np.float32)
    columns = rec.columns("a")
    again = sp.csc_matrix((columns.values, columns.rows, columns.indptr), shape=(12, 7))
    assert np.array_equal(again.toarray(), matrix.toarray())
    assert isinstance(columns.values, np.memmap)
    assert rec.columns("b").nnz == 0
    assert rec.hidden("embed").shape == (3, 6)
    assert rec.hidden_sites == ["embed", "blocks.0.hook_resid_post"]
    assert rec.final_rows.tolist() == [2, 6, 11]
    assert rec.item_of_row.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert rec.row_slice(1) == slice(3, 7)
    assert rec.rows.filter(pl.col("is_final"))["row"].to_list() == [2, 6, 11]
    concept = rec.concept()
    assert concept.items["kind"].to_list() == ["p", "q", "r"]
    assert concept.data_hash == rec.manifest.concept.data_hash
    assert rec.items.columns == ["item", "text", "label", "group", "split_hash", "split", "kind", "n_rows", "first_row"]
    assert "synthetic" in rec._repr_html_()


def test_sae_by_name(rec):
    assert rec.sae("synthetic/a").slug == "a"
    with pytest.raises(InputError, match=r"Unknown SAE of this recording 'aa'; nearest: a"):
        rec.sae("aa")


@pytest.mark.parametrize("name", ["indptr.npy", "rows.npy", "values.npy"])
@pytest.mark.parametrize("damage", ["shorter", "longer", "gone", "noise"])
def test_damage_is_named(rec, name, damage):
    path = rec.path / "features" / "a" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"shorter": data[:-3], "longer": data + b"x", "noise": b"noise" * 40}[damage])
    with pytest.raises(WorkError, match=name):
        rec.columns("a")


def test_array_of_another_length_is_named(rec):
    np.save(rec.path / "features" / "a" / "values.npy", np.zeros(5, np.float32))
    with pytest.raises(WorkError, match=r"values\.npy is damaged \(it has 148 bytes"):
        rec.columns("a")


def test_hidden_not_kept(rec):
    with pytest.raises(InputError, match=r"holds no hidden states of 'blocks\.5"):
        rec.hidden("blocks.5.hook_resid_post")


def test_no_recording(tmp_path):
    with pytest.raises(InputError, match="no recording"):
        Recording.open(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Recording.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the manifest of a recording"),
        ({"version": 99}, "format version 99"),
        ({"plan": {"n_rows": "many"}}, "damaged at 'plan.n_rows'"),
    ],
)
def test_manifest_that_is_not_ours(rec, change, message):
    (rec.path / "artefact.json").unlink()  # recordings of earlier versions have none
    path = rec.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Recording.open(rec.path)


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    features=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_shape_round_trips(tmp_path_factory, lengths, features, density, seed):
    matrix = sp.random(sum(lengths), features, density=density, random_state=np.random.default_rng(seed), format="csc")
    rec = write_synthetic_recording(tmp_path_factory.mktemp("rec"), {"s": matrix}, [0] * len(lengths), lengths)
    columns = rec.columns("s")
    again = sp.csc_matrix((columns.values, columns.rows, columns.indptr), shape=matrix.shape)
    assert np.array_equal(again.toarray(), matrix.astype(np.float32).toarray())


def test_columns_by_feature(rec):
    columns = rec.columns("a")
    dense = columns.to_dense(12)
    assert np.array_equal(columns.counts(), (dense != 0).sum(axis=0))
    rows, values = columns.feature(3)
    assert np.array_equal(dense[rows, 3], values)
