"""What is kept of a forward pass over a shard."""

from __future__ import annotations

import threading

import pytest
import torch

from conceptatlas.concepts import build_concept
from conceptatlas.recording import check, record, shard
from conceptatlas.recording.forward import shard_states
from conceptatlas.recording.plan import batches, make_plan
from conceptatlas.subjects import Site
from tests.recording.standins import MadeSAE

READ, WRITTEN = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"


class Transcoder(MadeSAE):
    """Writes elsewhere than it reads."""

    site_out = WRITTEN


def test_of_the_site_that_a_transcoder_writes_to_only_the_checked_rows_are_kept(gemma, concept, tmp_path, monkeypatch):
    seen = []
    forward = shard.shard_states
    monkeypatch.setattr(check, "CHECK_ROWS", 7)
    monkeypatch.setattr(
        shard, "shard_states", lambda *given, **options: seen.append(forward(*given, **options)) or seen[-1]
    )
    record(concept, gemma, [Transcoder("t", READ, 1)], tmp_path / "t", hidden="none", shard_rows=20)
    record(concept, gemma, [MadeSAE("o", WRITTEN, 1)], tmp_path / "o", hidden="none", shard_rows=20)
    shards = len(seen) // 2
    first, whole = seen[0], seen[shards][WRITTEN]
    assert shards > 1
    assert len(first[READ]) == len(whole) > 7
    torch.testing.assert_close(first[WRITTEN], whole[:7])
    assert all(set(states) == {READ} for states in seen[1:shards])


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_batches_side_by_side_leave_every_row_in_its_place(gemma, monkeypatch):
    texts = [" ".join(["she", "lied", "to", "him"][: 1 + i % 4] * (1 + i % 3)) for i in range(40)]
    concept = build_concept("many", texts, [i % 4 for i in range(40)])
    plan = make_plan(
        concept, gemma.tokenize(texts), fragments="token", shard_rows=10_000, token_texts=gemma.token_texts
    )
    sites = [Site("hook_resid_post", layer) for layer in range(3)]
    seen = set()
    check_batch = gemma._check_batch
    monkeypatch.setattr(gemma, "_check_batch", lambda *given: seen.add(threading.get_ident()) or check_batch(*given))
    found = shard_states(plan, gemma, sites, 0, 24)
    assert len(batches([len(ids) for ids in plan.token_ids], 24)) > 10
    assert len(seen) == 2, "two threads took part"
    seen.clear()
    monkeypatch.setattr(gemma, "runs_side_by_side", lambda _sites: False)
    alone = shard_states(plan, gemma, sites, 0, 24)
    assert seen == {threading.get_ident()}
    assert found.keys() == alone.keys()
    for name, states in alone.items():
        torch.testing.assert_close(found[name], states, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_a_text_longer_than_a_batch_runs_alone(gemma, monkeypatch):
    """Two of the longest at a time would take twice the memory."""
    texts = ["she lied " * 12, "no", "he did"]
    concept = build_concept("long", texts, [0, 1, 2])
    plan = make_plan(concept, gemma.tokenize(texts), fragments="token", shard_rows=100, token_texts=gemma.token_texts)
    seen = set()
    check_batch = gemma._check_batch
    monkeypatch.setattr(gemma, "_check_batch", lambda *given: seen.add(threading.get_ident()) or check_batch(*given))
    shard_states(plan, gemma, [Site("hook_resid_post", 1)], 0, 8)
    assert seen == {threading.get_ident()}
