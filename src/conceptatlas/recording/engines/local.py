"""All shards in this process, one after the other."""

from __future__ import annotations

from conceptatlas.base.memory import give_back_memory
from conceptatlas.recording.encode import resident_bytes
from conceptatlas.recording.engines.types import EngineRun
from conceptatlas.recording.fold import fold_shard
from conceptatlas.recording.shard import EncoderCache, Loaders, run_shard


def run_local(run: EngineRun) -> None:
    """Run what is left of every shard."""
    device = str(run.subject.device)
    limit = resident_bytes(device, run.job) if len(run.job.plan.shards) > 1 else 0
    loaders = Loaders(lambda: run.subject, EncoderCache(run.job, device, limit_bytes=limit))
    for shard in range(len(run.job.plan.shards)):
        run_shard(run.job, shard, loaders, run.tick)
        fold_shard(run.job, shard)
        if shard + 1 < len(run.job.plan.shards):
            give_back_memory()
