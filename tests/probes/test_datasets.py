"""Preparing data sets: what stands in the file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.probes import sources
from conceptatlas.probes.dataset_file import ProbeDataset
from conceptatlas.probes.datasets import prepare_probe
from tests.helpers.recordings import write_synthetic_recording
from tests.probes.synthetic import WIDTH, planted_recording

CONTRACT = """X y meta_strategy meta_input_source meta_input_layers meta_input_dims meta_n_samples meta_sentence_indices
    meta_target_layer meta_target_feature meta_average_l0 norm_method train_index test_index"""


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return planted_recording(tmp_path_factory.mktemp("planted") / "rec")


def dense(rec, layer):
    return np.asarray(rec.hidden(f"blocks.{layer}.hook_resid_post"), dtype=np.float64)


def pooled(rec, rows, pool):
    parts = [rows[rec.row_slice(item)] for item in range(rec.n_items)]
    return np.stack([part[-1] if pool == "final" else getattr(part, pool)(axis=0) for part in parts])


def to_dense(rec, slug):
    columns = rec.columns(slug)
    found = np.zeros((rec.n_rows, columns.n_features))
    for f in range(columns.n_features):
        rows, values = columns.feature(f)
        found[rows, f] = values
    return found


@pytest.mark.parametrize("pool", ["final", "max", "mean"])
@pytest.mark.parametrize("chunk", [3, 4096])
def test_hidden_states_are_pooled_and_laid_side_by_side(rec, tmp_path, pool, chunk, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_ROWS", chunk)
    made = prepare_probe(
        rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers="0,2", pool=pool, normalize="none"
    )
    expected = np.concatenate([pooled(rec, dense(rec, layer), pool) for layer in (0, 2)], axis=1)
    np.testing.assert_allclose(made.X, expected, rtol=1e-6)
    np.testing.assert_array_equal(made.y, rec.items["label"].to_numpy())


def test_the_contract_s_keys_stand_in_the_file_without_pickle(rec, tmp_path):
    prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers="0-1")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert set(CONTRACT.split()) <= set(found)
    assert {"norm_mean", "norm_std"} <= set(found)
    assert str(found["meta_strategy"]) == "hidden-to-concept"
    assert str(found["meta_input_source"]) == "hidden"
    assert found["meta_input_layers"].tolist() == [0, 1]
    assert found["meta_input_dims"].tolist() == [WIDTH, WIDTH]
    assert int(found["meta_n_samples"]) == rec.n_items
    assert found["X"].dtype == np.float32
    assert all(array.dtype != object for array in found.values())


def test_a_feature_target_names_the_feature(rec, tmp_path):
    made = prepare_probe(
        rec, tmp_path / "x.npz", strategy="hidden-to-feature", target_layer=1, target_feature=3, layers=0
    )
    assert int(made.arrays["meta_target_layer"]) == 1
    assert int(made.arrays["meta_target_feature"]) == 3
    assert float(made.arrays["meta_average_l0"]) == rec.sae("layer_1").average_l0
    assert made.arrays["meta_input_layers"].tolist() == [0]
    np.testing.assert_allclose(made.y, to_dense(rec, "layer_1")[rec.final_rows, 3], rtol=1e-6)


def test_a_feature_is_read_from_its_own_layer_by_default(rec, tmp_path):
    made = prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-feature", target_layer=1, target_feature=3)
    assert made.arrays["meta_input_layers"].tolist() == [1]


@pytest.mark.parametrize("pool", ["final", "max", "mean"])
def test_the_target_is_pooled_as_the_input_is(rec, tmp_path, pool):
    made = prepare_probe(
        rec, tmp_path / "x.npz", strategy="embedding-to-feature", target_layer=2, target_feature=5, pool=pool
    )
    np.testing.assert_allclose(made.y, pooled(rec, to_dense(rec, "layer_2"), pool)[:, 5], rtol=1e-5)
    assert str(made.arrays["meta_input_source"]) == "embed"


def test_all_rows_are_samples_split_by_item(rec, tmp_path):
    made = prepare_probe(
        rec, tmp_path / "x.npz", strategy="hidden-to-feature", target_layer=1, target_feature=3, rows="all"
    )
    assert len(made.y) == rec.n_rows
    np.testing.assert_array_equal(made.items, rec.item_of_row)
    assert not np.intersect1d(made.items[made.train_index], made.items[made.test_index]).size
    np.testing.assert_allclose(made.raw(), dense(rec, 1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.y, to_dense(rec, "layer_1")[:, 3], rtol=1e-6)


@pytest.mark.parametrize("method", ["standardize", "minmax"])
def test_scalers_see_training_items_only(rec, tmp_path, method):
    made = prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=1, normalize=method)
    train = np.asarray(made.X[made.train_index], dtype=np.float64)
    if method == "standardize":
        np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)
    else:
        np.testing.assert_allclose([train.min(axis=0), train.max(axis=0)], [[0] * WIDTH, [1] * WIDTH], atol=1e-6)
    # Other test items change nothing of what the training items become.
    before = made.raw()[made.train_index]
    altered = np.array(rec.hidden("blocks.1.hook_resid_post"))
    altered[rec.final_rows[made.test_index]] += 1000
    other = write_synthetic_recording(
        tmp_path / "other",
        {},
        rec.items["label"].to_list(),
        rec.items["n_rows"].to_list(),
        hidden={"blocks.1.hook_resid_post": altered},
        groups=rec.items["group"].to_list(),
        hidden_rows="all",
    )
    moved = prepare_probe(other, tmp_path / "y.npz", strategy="hidden-to-concept", layers=1, normalize=method)
    np.testing.assert_array_equal(moved.X[moved.train_index], made.X[made.train_index])
    np.testing.assert_allclose(before, dense(rec, 1)[rec.final_rows[made.train_index]], rtol=1e-5, atol=1e-5)


def test_equal_options_give_equal_bytes(rec, tmp_path):
    for name in ("a", "b"):
        prepare_probe(rec, tmp_path / f"{name}.npz", strategy="feature-to-concept", k=4)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_features_are_chosen_by_each_fold_on_its_own_items(rec, tmp_path):
    made = prepare_probe(
        rec, tmp_path / "x.npz", strategy="feature-to-concept", k=2, sae="layer_1", pool="max", normalize="none"
    )
    scores = pooled(rec, to_dense(rec, "layer_1"), "max")
    features = made.arrays["meta_input_features"]
    np.testing.assert_allclose(made.X, scores[:, features], rtol=1e-6)
    folds = made.folds
    assert folds is not None
    assert len(folds) == 5
    for number, members in [(None, made.train_index), *((i, made.train_index[f.train]) for i, f in enumerate(folds))]:
        with np.errstate(invalid="ignore"):
            r = np.array([np.corrcoef(scores[members, f], made.grades[members])[0, 1] for f in range(30)])
        best = np.argsort(-np.abs(np.nan_to_num(r)))[:2]
        assert set(features[made.columns(number)]) == set(best)
    assert 3 in features[made.columns()]


@pytest.mark.parametrize("pool", ["final", "max", "mean"])
def test_sparse_item_scores_equal_the_dense_ones(tmp_path, pool):
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 5, size=25)
    acts = rng.normal(size=(lengths.sum(), 7)) * (rng.random((lengths.sum(), 7)) < 0.4)
    acts[:, 5] = 0
    acts[:, 6] = -np.abs(acts[:, 6]) - 0.5
    rec = write_synthetic_recording(tmp_path / "r", {"s": acts}, (np.arange(25) % 4).tolist(), lengths.tolist())
    scores = sources.item_scores(rec, rec.columns("s"), pool)
    found = np.zeros((25, 7))
    found[scores.item, scores.feature] = scores.value
    expected = pooled(rec, acts, pool)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    members = rng.random(25) < 0.7
    grades = rec.items["label"].to_numpy()
    r = sources.correlations(scores, grades, members)
    for f in range(7):
        if (expected[members, f] != 0).sum() < 3 or np.ptp(expected[members, f]) == 0:
            assert r[f] == 0
        else:
            assert r[f] == pytest.approx(np.corrcoef(expected[members, f], grades[members])[0, 1], abs=1e-6)


def test_the_hook_is_asked_for_where_there_are_several(tmp_path):
    states = np.random.default_rng(0).normal(size=(40, 4))
    hidden = {f"blocks.0.{hook}": states for hook in ("hook_mlp_out", "attn.hook_z")}
    rec = write_synthetic_recording(tmp_path / "r", {}, [0, 1, 2, 3] * 10, hidden=hidden)
    with pytest.raises(InputError, match=r"Layer 0 was recorded at attn.hook_z, hook_mlp_out; choose one with --hook"):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=0)
    with pytest.raises(InputError, match=r"No hidden states of 'hook_q' were recorded; recorded: attn.hook_z, "):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=0, hook="hook_q")
    made = prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=0, hook="attn.hook_z")
    assert made.arrays["meta_input_sites"].tolist() == ["blocks.0.attn.hook_z"]


REFUSED = [
    (
        {"strategy": "hidden-to-concept", "layers": "1,7"},
        r"^No hidden states of layer 7 were recorded; recorded: 0-2\.",
    ),
    ({"strategy": "hidden-to-concept"}, r"^hidden-to-concept needs --layer or --layers; recorded: 0-2\."),
    (
        {"strategy": "hidden-to-concepts", "layers": 1},
        r"^Unknown strategy 'hidden-to-concepts'; nearest: hidden-to-concept",
    ),
    ({"strategy": "hidden-to-feature"}, r"^hidden-to-feature needs the feature to predict; give --target-layer"),
    (
        {"strategy": "hidden-to-feature", "target_layer": 9, "target_feature": 1},
        r"^No SAEs of layer 9 were recorded; recorded: 0-2",
    ),
    (
        {"strategy": "hidden-to-feature", "target_layer": 1, "target_feature": 30},
        r"^layer_1 has features 0-29, and feature 30 was",
    ),
    (
        {"strategy": "hidden-to-feature", "target_feature": 1},
        r"^There are 3 SAEs at the recording: layer_0, layer_1, layer_2; choose",
    ),
    (
        {"strategy": "hidden-to-feature", "target_layer": 0, "sae": "layer_1", "target_feature": 1},
        r"^layer_1 stands at layer 1, and layer 0",
    ),
    (
        {"strategy": "hidden-to-concept", "layers": 1, "target_feature": 3},
        r"predicts the concept; leave out --target-layer",
    ),
    (
        {"strategy": "embedding-to-feature", "layers": 1, "target_feature": 3, "target_layer": 1},
        r"leave --layer and --layers out",
    ),
    (
        {"strategy": "hidden-to-concept", "layers": 1, "test_split": 0},
        r"^The test split must lie between 0 and 1, and 0 was given",
    ),
    ({"strategy": "hidden-to-concept", "layers": 1, "normalize": "z"}, r"^Unknown normalization 'z'; nearest"),
    ({"strategy": "hidden-to-concept", "layers": 1, "pool": "sum"}, r"^Unknown pooling 'sum'; nearest"),
    ({"strategy": "hidden-to-concept", "layers": 1, "rows": "all"}, r"^--rows all is for a feature's activation"),
    (
        {"strategy": "hidden-to-feature", "target_layer": 1, "target_feature": 3, "rows": "all", "pool": "max"},
        r"pools nothing; leave --pool max out",
    ),
    ({"strategy": "feature-to-concept", "k": 0}, r"^--k is the number of features to choose, at least 1, and 0"),
    ({"strategy": "feature-to-concept", "layers": 5}, r"^No SAEs of layer 5 were recorded; recorded: 0-2"),
    ({"strategy": "feature-to-concept", "cv_folds": 200}, r"training items or groups for 200 folds"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused(rec, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        prepare_probe(rec, tmp_path / "x.npz", **options)
    assert not list(tmp_path.iterdir())


def test_final_rows_only_cannot_be_pooled(tmp_path):
    rec = planted_recording(tmp_path / "r", n_items=40, hidden_rows="final", keep="final")
    with pytest.raises(InputError, match=r"--pool mean needs the hidden states of all rows, .* --hidden final"):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=1, pool="mean")
    with pytest.raises(InputError, match=r"--pool max needs the features of all rows, .* --keep final; record again"):
        prepare_probe(rec, tmp_path / "x.npz", strategy="feature-to-concept", pool="max")
    made = prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-feature", target_layer=1, target_feature=3)
    assert len(made.y) == 40


def test_one_class_only(tmp_path):
    rec = write_synthetic_recording(tmp_path / "r", {}, [3] * 20, hidden={"blocks.0.hook_resid_post": np.ones((20, 3))})
    with pytest.raises(InputError, match=r"^Every item of the training part has grade 3; a probe needs at least two"):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers=0)


def test_a_feature_that_never_fires(tmp_path):
    rec = write_synthetic_recording(
        tmp_path / "r", {"s": np.zeros((80, 2))}, [0, 1] * 10, hidden={"blocks.0.hook_resid_post": np.ones((20, 3))}
    )
    with pytest.raises(InputError, match=r"^Feature 1 of s has the same activation \(0\) on every training sample"):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-feature", target_layer=0, target_feature=1)


def test_nan_in_the_hidden_states_is_placed(tmp_path):
    states = np.random.default_rng(0).normal(size=(40, 4))
    bad = states.copy()
    bad[17, 2] = np.nan
    hidden = {"blocks.0.hook_resid_post": states, "blocks.1.hook_resid_post": bad}
    rec = write_synthetic_recording(tmp_path / "r", {}, [0, 1, 2, 3] * 10, hidden=hidden)
    with pytest.raises(
        InputError, match=r"^Sample 17 has NaN or infinity at blocks.1.hook_resid_post, column 2; record again"
    ):
        prepare_probe(rec, tmp_path / "x.npz", strategy="hidden-to-concept", layers="0-1")
    assert not (tmp_path / "x.npz").exists()


@pytest.fixture
def made(rec, tmp_path):
    return prepare_probe(rec, tmp_path / "good.npz", strategy="hidden-to-concept", layers=1)


def rewritten(made, path, **changes):
    np.savez(path, **({"X": made.X} | made.arrays | changes))
    return path


def test_somebody_else_s_npz(tmp_path):
    np.savez(tmp_path / "theirs.npz", X=np.ones((3, 2)), y=np.arange(3))
    with pytest.raises(
        InputError, match=r"is not a probe data set of conceptatlas: it lacks meta_format.*; make one with `"
    ):
        ProbeDataset.open(tmp_path / "theirs.npz")


def test_pickled_objects_are_never_loaded(made, tmp_path):
    path = rewritten(made, tmp_path / "bad.npz", y=np.array([{}] * len(made.y), dtype=object))
    with pytest.raises(InputError, match="is damaged or holds pickled objects"):
        ProbeDataset.open(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^There is no file .*nothing\.npz; check the path"):
        ProbeDataset.open(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"cannot be read as an .npz file"):
        ProbeDataset.open(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(InputError, match=r"is a single array and not an .npz file"):
        ProbeDataset.open(tmp_path / "one.npy")


def test_damage_is_found(made, tmp_path):
    X = np.array(made.X)
    X[7, 4] = np.inf
    with pytest.raises(InputError, match=r"holds NaN or infinity in X, the first at sample 7, column 4; "):
        ProbeDataset.open(rewritten(made, tmp_path / "a.npz", X=X))
    with pytest.raises(InputError, match="train_index and test_index do not part its samples"):
        ProbeDataset.open(rewritten(made, tmp_path / "b.npz", test_index=made.test_index[:-1]))
    torn = made.groups.copy()
    torn[made.test_index[0]] = torn[made.train_index[0]]
    with pytest.raises(InputError, match="a group stands on both sides of its split"):
        ProbeDataset.open(rewritten(made, tmp_path / "c.npz", meta_groups=torn))
    with pytest.raises(InputError, match="norm_mean is missing or not of"):
        _ = ProbeDataset.open(rewritten(made, tmp_path / "d.npz", norm_mean=np.ones(3))).scaler
    with pytest.raises(InputError, match="has version 99 of the data set format"):
        ProbeDataset.open(rewritten(made, tmp_path / "e.npz", meta_version=np.array(99)))
    data = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot be read as an .npz file"):
        ProbeDataset.open(tmp_path / "cut.npz")


def test_a_compressed_copy_is_read_too(made, tmp_path):
    np.savez_compressed(tmp_path / "small.npz", X=made.X, **made.arrays)
    np.testing.assert_array_equal(ProbeDataset.open(tmp_path / "small.npz").X, made.X)


def test_the_file_wants_a_folder_and_a_suffix(rec, tmp_path):
    with pytest.raises(InputError, match=r"A probe data set is an .npz file, and .*x\.csv was given"):
        prepare_probe(rec, tmp_path / "x.csv", strategy="hidden-to-concept", layers=1)
    (tmp_path / "rec.npz").symlink_to(rec.path / "manifest.json")
    with pytest.raises(InputError, match=r"rec\.npz is a part of the artefact in "):
        prepare_probe(rec, tmp_path / "rec.npz", strategy="hidden-to-concept", layers=1)
    prepare_probe(rec, tmp_path / "none" / "x.npz", strategy="hidden-to-concept", layers=1)
