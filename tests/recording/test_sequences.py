"""SAEs that are encoded in whole sequences, through their own ``encode``."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conceptatlas.recording import record
from tests.recording.standins import MadeSAE


class RunningSAE:
    """Features of the mean of all tokens so far: what an SAE does in which rows depend on those before them."""

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.cfg = SimpleNamespace(d_sae=d_sae, normalize_activations="none")
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.weights = torch.randn(d_in, d_sae, generator=torch.Generator().manual_seed(0))

    def turn_off_forward_pass_hook_z_reshaping(self) -> None:
        pass

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"weights": self.weights}

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return (mean @ self.weights - 4.0).relu()


@dataclass
class RunningSource(MadeSAE):
    is_row_wise: bool = False
    architecture: str = "temporal"

    def load(self, device: Any = "cpu", dtype: str = "float32") -> RunningSAE:
        return RunningSAE(self.d_in, self.d_sae)

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        raise AssertionError("it has no encoder of its own")


@pytest.mark.parametrize("keep", ["all", "final"])
@pytest.mark.parametrize("features", [None, [5, 2]])
def test_whole_sequences_special_tokens_included(gemma, concept, saes, tmp_path, keep, features):
    source = RunningSource("running", "blocks.1.hook_resid_post", 1, d_sae=20)
    rec = record(concept, gemma, [saes[0], source], tmp_path / "rec", keep=keep, features=features, shard_rows=20)
    tokens = gemma.tokenize(concept.texts)
    expected = np.zeros((rec.n_rows, 20), np.float32)
    sae = source.load()
    from conceptatlas.subjects import Site

    for item, ids in enumerate(tokens.token_ids):
        x = gemma.hidden_states([ids], [Site.parse(source.site)])[source.site]
        found = sae.encode(x[None])[0].numpy()[tokens.rows[item]]
        if keep == "final":
            found[:-1] = 0
        expected[rec.row_slice(item)] = found
    if features is not None:
        expected[:, [f for f in range(20) if f not in features]] = 0
    assert (expected != 0).any()
    np.testing.assert_allclose(rec.columns("running").to_dense(rec.n_rows), expected, atol=1e-4)
    assert rec.columns("low").nnz > 0
    whole = np.zeros((rec.n_rows, 20), np.float32)
    for item, ids in enumerate(tokens.token_ids):
        x = gemma.hidden_states([ids], [Site.parse(source.site)])[source.site]
        whole[rec.row_slice(item)] = sae.encode(x[None])[0].numpy()[tokens.rows[item]]
    first = whole[: rec.sae("running").rows_checked]
    assert rec.sae("running").l0 == pytest.approx((first != 0).sum(axis=1).mean(), abs=0.1)
    assert rec.sae("running").average_l0 == round(rec.sae("running").l0, 1)
    assert rec.sae("running").l0_measured
    assert rec.sae("running").status == "not judged"
