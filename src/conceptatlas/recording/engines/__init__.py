"""Who runs the shards: this process, or a cluster. Every engine runs the same shard function on the same plan."""

from __future__ import annotations

from collections.abc import Callable

from conceptatlas.base.errors import unknown_name
from conceptatlas.recording.engines.local import run_local
from conceptatlas.recording.engines.ray import run_ray
from conceptatlas.recording.engines.types import EngineRun

Engine = Callable[[EngineRun], None]

ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}


def engine_named(name: str) -> Engine:
    """Return an engine by name.

    Raises:
        InputError: There is no such engine.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return ENGINES[name]
