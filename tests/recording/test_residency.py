"""What stays on a GPU between shards, what must stay free for a shard, and that what was loaded has arrived."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from conceptatlas.recording import encode, shard
from conceptatlas.recording.engines.local import LocalEngine
from conceptatlas.recording.job import resident_bytes
from conceptatlas.recording.prepare import prepare
from conceptatlas.recording.request import Request
from conceptatlas.recording.shard import EncoderCache
from conceptatlas.recording.work import WorkFolder

GB = 1 << 30


@pytest.fixture
def job(gemma, concept, saes, tmp_path):
    request = Request(model="tiny", saes=("low", "high", "again"), hidden="none", shard_rows=20)
    return prepare(WorkFolder(tmp_path), concept, gemma, saes, request, LocalEngine().devices, strict=False).job


def test_what_a_shard_needs_stays_free(job, monkeypatch):
    """Two sites of width 32; at most 20 rows a shard, and one item more."""
    rows = max(last - first for first, last in (job.plan.row_range(i) for i in range(len(job.plan.shards))))
    assert job.states_bytes() == rows * 2 * 32 * 4
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GB, 80 * GB))
    small = resident_bytes("cuda:0", job)
    assert small == 72 * GB - job.states_bytes() - 7 * 4 * 32 * 96
    large = replace(job, row_bytes=job.row_bytes * GB // job.states_bytes() * 60)
    assert 11 * GB < resident_bytes("cuda:0", large) < 13 * GB, "60 GB of states leave so much less for encoders"
    assert resident_bytes("cuda:0", replace(large, row_bytes=large.row_bytes * 2)) == 0
    assert resident_bytes("cpu", large) == GB


def test_sequences_need_every_token(job, saes):
    tokens = [sum(len(ids) for ids in job.plan.token_ids[first:last]) for first, last in job.plan.shards]
    rows = [last - first for first, last in (job.plan.row_range(i) for i in range(len(job.plan.shards)))]
    whole = replace(job, sources=[replace(saes[0], is_row_wise=False), *saes[1:]])
    expected = max(256 * row + 128 * token for row, token in zip(rows, tokens, strict=True))
    assert whole.states_bytes() == expected > job.states_bytes()


def test_an_sae_is_loaded_in_a_stream_of_its_own_and_has_arrived(job, saes, monkeypatch):
    log = []

    class Stream:
        @contextmanager
        def work(self):
            log.append("[")
            yield
            log.append("]")

    class Event:
        def __init__(self, device):
            log.append("mark")

        def wait(self):
            log.append("wait")

    monkeypatch.setattr(shard, "stream_for", lambda use, device: Stream())
    monkeypatch.setattr(shard, "Event", Event)
    monkeypatch.setattr(shard, "load_sae", lambda *given: log.append("encoder") or encode.load_sae(*given))
    monkeypatch.setattr(shard, "with_decoder", lambda *given: log.append("decoder") or encode.with_decoder(*given))
    cache = EncoderCache(job, "cpu", limit_bytes=GB)
    assert cache.get(saes[0], 0).decoder is not None
    assert log == ["[", "encoder", "decoder", "mark", "wait", "]"]
    log.clear()
    assert cache.get(saes[0], 1).decoder is None
    assert log == ["[", "mark", "wait", "]"], "it stayed"
