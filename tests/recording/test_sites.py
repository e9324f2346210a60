"""SAEs that read elsewhere than the residual stream: what is recorded is SAELens's ``encode`` of the captured states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conceptatlas.recording import record, verify
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import Site, load_subject
from tests.helpers.tiny_models import tiny_model
from tests.helpers.tiny_saes import write_saelens

PLAIN = [
    "attn.hook_z", "hook_attn_out", "hook_mlp_in", "mlp.hook_in", "hook_mlp_out", "ln2.hook_normalized",
    "hook_resid_mid",
]  # fmt: skip
BRIDGED = ["mlp.hook_post", "attn.hook_q"]


@pytest.fixture(scope="module")
def subjects(models):
    return {family: load_subject(str(tiny_model(family, models)), device="cpu") for family in ("gemma2", "gpt2")}


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
@pytest.mark.parametrize("hooks", [PLAIN, BRIDGED], ids=["plain", "bridged"])
def test_an_sae_of_any_site(subjects, concept, tmp_path, family, hooks):
    subject = subjects[family]
    widths = subject.widths([Site(hook, 1) for hook in hooks])
    for number, (hook, width) in enumerate(zip(hooks, widths.values(), strict=True)):
        write_saelens(tmp_path / "saes" / hook, d_in=width, d_sae=48, hook=f"blocks.1.{hook}", seed=number)
    rec = record(concept, subject, str(tmp_path / "saes"), tmp_path / "rec", hidden="all", shard_rows=20)
    assert len(rec.manifest.plan.shards) > 2
    assert {sae.site for sae in rec.saes} == {f"blocks.1.{hook}" for hook in hooks}
    tokens = subject.tokenize(concept.texts)
    for source in resolve_saes([str(tmp_path / "saes")]):
        sae = source.load()
        sae.turn_off_forward_pass_hook_z_reshaping()
        site = Site.parse(source.site)
        parts = [
            subject.hidden_states([ids], [site], [mask])[str(site)]
            for ids, mask in zip(tokens.token_ids, tokens.rows, strict=True)
        ]
        states = torch.cat(parts)
        np.testing.assert_allclose(rec.hidden(str(site)), states.numpy(), atol=2e-4, rtol=1e-4)
        with torch.no_grad():
            expected = sae.encode(states).numpy()
        found = rec.columns(source.slug).to_dense(rec.n_rows)
        assert (expected != 0).sum() > rec.n_rows
        differs = (found != 0) != (expected != 0)
        distance = np.abs(found + expected - sae.threshold.detach().numpy())
        assert (distance[differs] < 1e-3).all()
        np.testing.assert_allclose(np.where(differs, 0, found), np.where(differs, 0, expected), atol=1e-3)
    assert verify(rec) == []


def test_sites_of_another_width_than_the_sae(subjects, concept, tmp_path):
    from conceptatlas.base.errors import InputError

    write_saelens(tmp_path / "sae", d_in=40, hook="blocks.1.attn.hook_z")
    with pytest.raises(
        InputError, match=r"takes rows of width 40, and blocks\.1\.attn\.hook_z of this model has width 32"
    ):
        record(concept, subjects["gemma2"], str(tmp_path / "sae"), tmp_path / "rec")
