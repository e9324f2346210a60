"""Hidden states pooled over each item's rows: kept beside the final ones, equal to what all rows give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conceptatlas.base.errors import InputError
from conceptatlas.recording import Recording, record, verify
from conceptatlas.recording.forward import pool_items

DATA = Path(__file__).parent.parent / "data"


def test_pool_items_is_a_loop_over_items():
    generator = torch.Generator().manual_seed(0)
    lengths = np.array([1, 4, 2, 9])
    for dtype in (torch.float32, torch.bfloat16):
        states = torch.randn(16, 5, generator=generator).to(dtype)
        found, at = pool_items(states, lengths), 0
        for item, length in enumerate(lengths):
            rows = states[at : at + length].float().numpy()
            at += int(length)
            np.testing.assert_allclose(found["mean"][item], rows.mean(axis=0), rtol=1e-6)
            np.testing.assert_array_equal(found["max"][item], rows.max(axis=0))
        assert found["mean"].dtype == found["max"].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu():
    lengths = np.random.default_rng(0).integers(1, 40, 300)
    for dtype in (torch.float32, torch.bfloat16):
        states = torch.randn(int(lengths.sum()), 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        cpu, gpu = pool_items(states, lengths), pool_items(states.cuda(), lengths)
        torch.testing.assert_close(gpu["mean"].cpu(), cpu["mean"])
        torch.testing.assert_close(gpu["max"].cpu(), cpu["max"], rtol=0, atol=0)


@pytest.mark.parametrize("shard_rows", [None, 16])
def test_the_default_keeps_what_all_rows_would_give(gemma, concept, saes, tmp_path, shard_rows):
    everything = record(concept, gemma, saes, tmp_path / "all", hidden="all")
    rec = record(concept, gemma, saes, tmp_path / "final", shard_rows=shard_rows)
    assert verify(rec) == []
    assert rec.hidden_sites == everything.hidden_sites
    for site in rec.hidden_sites:
        for how in ("mean", "max"):
            assert rec.keeps_pooled(site, how)
            np.testing.assert_allclose(
                rec.hidden_pooled(site, how), everything.hidden_pooled(site, how), atol=2e-4, rtol=1e-4
            )
        rows = everything.hidden(site)
        slow = np.stack([rows[everything.row_slice(i)].mean(axis=0) for i in range(rec.n_items)])
        np.testing.assert_allclose(everything.hidden_pooled(site, "mean"), slow, rtol=1e-5, atol=1e-6)
    assert not (everything.path / "pooled").exists()


@pytest.mark.parametrize("options", [{"hidden": "none"}, {"keep": "final"}])
def test_nothing_is_pooled_where_no_ranking_could_use_it(gemma, concept, saes, tmp_path, options):
    rec = record(concept, gemma, saes, tmp_path / "rec", **options)
    assert not (rec.path / "pooled").exists()
    assert not rec.keeps_pooled("blocks.0.hook_resid_post", "mean")
    with pytest.raises(InputError, match=r"does not hold the mean of the hidden states.*record again"):
        rec.hidden_pooled("blocks.0.hook_resid_post", "mean")


def test_a_recording_of_version_1_has_none_and_stays_readable():
    rec = Recording.open(DATA / "recording_v1")
    assert verify(rec) == []
    assert not any(rec.keeps_pooled(site, how) for site in rec.hidden_sites for how in ("mean", "max"))


def test_damage_is_named(gemma, concept, saes, tmp_path):
    rec = record(concept, gemma, saes, tmp_path / "rec")
    path = rec.path / "pooled" / "max" / "embed.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert [problem.file for problem in verify(rec)] == ["pooled/max/embed.npy"]
