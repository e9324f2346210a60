"""What is kept of a forward pass over a shard."""

from __future__ import annotations

import torch

from conceptatlas.recording import check, record, shard
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
