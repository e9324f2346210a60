"""``export``: everything in the dense file, against the recording."""

from __future__ import annotations

import sys
import zipfile

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.recording import export, record
from conceptatlas.recording import exporter as exporter_module
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording
from tests.recording.standins import MadeSAE

KEYS = {
    "activations", "fragments", "original_sentences", "concept_strength_labels", "sentence_indices", "token_positions",
    "is_final_token", "fragment_lengths", "layer", "average_l0", "num_features", "group", "split_hash", "hidden_states",
    "embeddings",
}  # fmt: skip


def test_npz_holds_what_was_recorded(gemma, concept, saes, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter_module, "_BLOCK_BYTES", 2000)
    rec = record(concept, gemma, saes, tmp_path / "rec", shard_rows=16)
    paths = export(rec, tmp_path / "npz")
    assert [path.name.split("_l0_")[0] for path in paths] == ["layer_0", "layer_2", "layer_0"]
    assert paths[2].name == "layer_0_l0_71_activations.npz"
    for sae, path in zip(rec.saes, paths, strict=True):
        with np.load(path, allow_pickle=False) as found:
            assert set(found.files) == KEYS
            assert np.array_equal(found["activations"], rec.columns(sae.slug).to_dense(rec.n_rows))
            assert found["activations"].dtype == np.float32
            assert np.array_equal(found["hidden_states"], rec.hidden(sae.site))
            assert np.array_equal(found["embeddings"], rec.hidden("embed"))
            assert (int(found["layer"]), float(found["average_l0"])) == (sae.layer, sae.average_l0)
            assert int(found["num_features"]) == sae.d_sae
            texts = concept.texts
            for row, item in enumerate(found["sentence_indices"]):
                assert found["original_sentences"][row] == texts[item]
                assert texts[item].startswith(found["fragments"][row])
                assert found["concept_strength_labels"][row] == concept.labels[item]
                assert found["group"][row] == concept.items["group"][int(item)]
            final = found["is_final_token"]
            assert found["fragments"][final].tolist() == texts
            assert found["fragment_lengths"][final].tolist() == [len(text.split()) for text in texts]
            assert found["token_positions"][:3].tolist() == [0, 1, 2]
            assert np.array_equal(found["split_hash"][final], concept.items["split_hash"].to_numpy())


def test_final_rows_only(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec", keep="final", hidden="none")
    path = export(rec, tmp_path / "npz")[0]
    with np.load(path) as found:
        assert set(found.files) == KEYS - {"hidden_states", "embeddings"}
        assert found["fragments"].tolist() == concept.texts
        dense = rec.columns("low").to_dense(rec.n_rows)
        assert np.array_equal(found["activations"], dense[rec.final_rows])


def test_names_that_would_collide(gemma, concept, tmp_path):
    saes = [MadeSAE(f"s{i}", "blocks.0.hook_resid_post", 0, seed=i, average_l0=12.5) for i in range(2)]
    rec = record(concept, gemma, saes, tmp_path / "rec")
    names = [path.name for path in export(rec, tmp_path / "npz")]
    assert names == ["layer_0_l0_12.5__s0_activations.npz", "layer_0_l0_12.5__s1_activations.npz"]


def test_exports_of_one_recording_are_identical(tmp_path):
    rec = write_synthetic_recording(tmp_path / "rec", {"a": np.eye(8)}, [0, 3])
    first, second = export(rec, tmp_path / "x")[0], export(rec, tmp_path / "y")[0]
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None


def test_unknown_format(tmp_path):
    rec = write_synthetic_recording(tmp_path / "rec", {"a": np.eye(8)}, [0, 3])
    with pytest.raises(InputError, match="Unknown format 'hdf'; nearest: anndata"):
        export(rec, tmp_path / "x", format="hdf")


def test_anndata_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    rec = write_synthetic_recording(tmp_path / "rec", {"a": np.eye(8)}, [0, 3])
    with pytest.raises(InputError, match=r"pip install 'conceptatlas\[anndata\]'"):
        export(rec, tmp_path / "x", format="anndata")


def test_command(tmp_path):
    write_synthetic_recording(tmp_path / "rec", {"a": np.eye(8)}, [0, 3])
    outcome = invoke("export", tmp_path / "rec", "--out", tmp_path / "npz")
    assert outcome.code == 0
    assert "layer_0_l0_1_activations.npz" in outcome.stdout
    (tmp_path / "file").write_text("")
    outcome = invoke("export", tmp_path / "rec", "--out", tmp_path / "file")
    assert outcome.code == 2
    assert "a folder is needed" in outcome.stderr
