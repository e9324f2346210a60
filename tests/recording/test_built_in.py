"""The built-in model end to end: what is recorded is what SAELens's own ``encode`` gives, sentence by sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conceptatlas.concepts import build_concept, load_concept
from conceptatlas.recording import record, verify
from conceptatlas.saes import resolve_saes
from conceptatlas.subjects import Site, load_subject


@pytest.fixture(scope="module")
def subject():
    return load_subject("organism", device="cpu")


@pytest.fixture(scope="module")
def concept():
    items = load_concept("builtin:dishonesty").items.head(60)
    return build_concept("some", items["text"].to_list(), items["label"].to_list(), groups=items["group"].to_list())


@pytest.fixture(scope="module")
def rec(subject, concept, tmp_path_factory):
    return record(concept, subject, "organism", tmp_path_factory.mktemp("organism") / "rec", shard_rows=1500)


def test_no_false_alarm(rec):
    assert len(rec.saes) == 8
    assert {sae.status for sae in rec.saes} == {"ok"}
    assert rec.manifest.warnings == []
    assert rec.manifest.subject.location == "organism"
    assert verify(rec) == []


def test_equals_saelens_sentence_by_sentence(rec, subject, concept):
    tokens = subject.tokenize(concept.texts)
    for source in resolve_saes(["organism"])[::3]:
        sae = source.load()
        found = rec.columns(source.slug).to_dense(rec.n_rows)
        flips = 0
        for item, ids in enumerate(tokens.token_ids):
            states = subject.hidden_states([ids], [Site.parse(source.site)], [tokens.rows[item]])[source.site]
            with torch.no_grad():
                expected = sae.encode(states).numpy()
            mine = found[rec.row_slice(item)]
            differs = (mine != 0) != (expected != 0)
            flips += int(differs.sum())
            assert np.abs(mine - expected)[~differs].max(initial=0) < 1e-3
        assert flips <= found.astype(bool).sum() / 5_000 + 2
