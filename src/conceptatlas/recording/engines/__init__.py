"""Who runs the shards: this process, or a cluster. Every engine runs the same shard function on the same plan."""

from __future__ import annotations

from conceptatlas.base.errors import unknown_name
from conceptatlas.recording.engines.local import open_local
from conceptatlas.recording.engines.ray import open_ray
from conceptatlas.recording.engines.types import OpenEngine

ENGINES: dict[str, OpenEngine] = {"local": open_local, "ray": open_ray}


def engine_named(name: str) -> OpenEngine:
    """Return what opens an engine, by the engine's name.

    Raises:
        InputError: There is no such engine.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    return ENGINES[name]
