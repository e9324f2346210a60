"""A recording of every format version stays readable. Never make these files anew: add a folder for a new version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conceptatlas.recording import Recording, export, verify

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def rec():
    return Recording.open(DATA / "recording_v1")


def test_version_1(rec):
    assert rec.manifest.version == 1
    assert verify(rec) == []
    assert [sae.slug for sae in rec.saes] == ["low", "high"]
    assert (rec.n_items, rec.n_rows) == (7, 54)
    assert rec.items["label"].to_list() == [3, 2, 1, 0, 0, 1, 2]
    assert rec.items["text"][2] == "Hi 🎉 you"
    assert rec.rows.columns == ["row", "item", "position", "token_id", "token", "fragment_end", "is_final", "sink"]
    assert rec.sae("low").average_l0 == 71.0
    assert rec.sae("low").neuronpedia_url(3) == "https://www.neuronpedia.org/tiny/0-res/3"
    assert {sae.slug: sae.nnz for sae in rec.saes} == {"low": 1194, "high": 606}
    assert rec.hidden_sites == ["embed", "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"]
    np.testing.assert_allclose(rec.columns("low").values[:3], [1.2582246, 1.0968037, 1.0400039], rtol=1e-6)
    assert len(rec.concept()) == 7


def test_version_1_is_exported(rec, tmp_path):
    names = [path.name for path in export(rec, tmp_path)]
    assert names[0] == "layer_0_l0_71_activations.npz"
