"""Recording on a GPU: the features that a CPU finds, the same bytes each time, and encoders that stay loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conceptatlas.recording import job, record
from conceptatlas.subjects import load_subject
from tests.recording.standins import MadeSAE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module")
def on_gpu(gemma_path):
    return load_subject(str(gemma_path), device="cuda", dtype="float32")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@pytest.mark.parametrize("sae_dtype", ["float32", "mixed"])
@pytest.mark.parametrize("keep", ["all", "final"])
def test_the_features_of_a_cpu(gemma, on_gpu, concept, saes, tmp_path, keep, sae_dtype):
    here = record(concept, gemma, saes, tmp_path / "cpu", keep=keep, shard_rows=16)
    there = record(concept, on_gpu, saes, tmp_path / "gpu", keep=keep, shard_rows=16, sae_dtype=sae_dtype)
    for sae in saes:
        expected, found = (rec.columns(sae.slug).to_dense(rec.n_rows) for rec in (here, there))
        both = (expected != 0) & (found != 0)
        assert both.sum() >= 0.99 * max((expected != 0).sum(), (found != 0).sum())
        np.testing.assert_allclose(found[both], expected[both], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("keep", ["all", "top"])
@pytest.mark.parametrize("sae_dtype", ["float32", "mixed"])
def test_same_bytes_each_time(on_gpu, concept, saes, tmp_path, keep, sae_dtype):
    for name in ("one", "two"):
        record(concept, on_gpu, saes, tmp_path / name, keep=keep, shard_rows=16, sae_dtype=sae_dtype)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_encoders_stay_loaded_while_they_fit(on_gpu, concept, tmp_path, monkeypatch, room):
    monkeypatch.setattr(job, "reserve_bytes", lambda _job: torch.cuda.mem_get_info()[0] - room)
    sae = MadeSAE("low", "blocks.0.hook_resid_post", 0, seed=1, threshold=0.5)
    rec = record(concept, on_gpu, [sae], tmp_path / "rec", shard_rows=16)
    shards = len(rec.manifest.plan.shards)
    assert shards > 1
    decoders = 1  # made from an encoder that is loaded for it
    assert len(sae.loads) - decoders == (1 if room else shards)
