"""What a worker needs of a cluster, and how many of them it has room for. Plain arithmetic on what Ray says of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conceptatlas.base.errors import InputError


@dataclass(frozen=True)
class Needs:
    """What one worker holds as long as it lives."""

    cpus: int
    gpus: int

    def options(self) -> dict[str, int]:
        """Return them as Ray takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus} GPUs"


def worker_needs(device: str, threads: int) -> Needs:
    """Return what a worker needs: a GPU of its own, or as many cores as this process uses threads."""
    return Needs(cpus=1, gpus=1) if device == "cuda" else Needs(cpus=threads, gpus=0)


def workers_device(asked: str, nodes: Sequence[Mapping[str, Any]]) -> str:
    """Return the kind of device that workers use: ``auto`` is CUDA where a node has a GPU, else the CPU.

    Args:
        asked: ``auto``, ``cpu``, ``cuda`` or ``mps``; the number in ``cuda:1`` is Ray's to choose.
        nodes: ``ray.nodes()``.
    """
    if asked != "auto":
        return asked.split(":")[0]
    return "cuda" if any(resources.get("GPU", 0) >= 1 for resources in _alive(nodes)) else "cpu"


def room_for(needs: Needs, nodes: Sequence[Mapping[str, Any]]) -> int:
    """Return how many workers fit on the nodes; one never stands on two.

    Raises:
        InputError: None fits.
    """
    wanted = {name: count for name, count in (("CPU", needs.cpus), ("GPU", needs.gpus)) if count}
    alive = _alive(nodes)
    room = sum(min(int(resources.get(name, 0) // count) for name, count in wanted.items()) for resources in alive)
    if room < 1:
        found = "; ".join(
            f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs" for resources in alive
        )
        raise InputError(
            f"A worker needs {needs} on one node, and the nodes of the Ray cluster have {found or 'nothing'}; enlarge it."
        )
    return room


def _alive(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [node["Resources"] for node in nodes if node["Alive"]]
