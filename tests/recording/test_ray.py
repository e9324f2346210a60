"""The Ray engine: two workers on this machine write what the local engine writes, also when one is killed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.recording import record
from tests.recording.standins import MadeSAE


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@dataclass
class DeadlySAE(MadeSAE):
    """Kills the worker that loads it, once."""

    marker: str = ""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        if self.marker and not Path(self.marker).exists():
            Path(self.marker).write_text("died")
            os.kill(os.getpid(), 9)
        return super().load_encoder(device, dtype)


class LostSAE(MadeSAE):
    """Cannot be loaded."""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        raise InputError("the weights of 'lost' are gone")


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["all", "top"])
def test_same_bytes_with_a_worker_killed(gemma, concept, tmp_path, cluster, keep):
    def saes(marker):
        return [
            MadeSAE("low", "blocks.0.hook_resid_post", 0, seed=1, threshold=0.5),
            DeadlySAE("high", "blocks.2.hook_resid_post", 2, seed=2, threshold=2.0, marker=marker),
        ]

    marker = tmp_path / "marker"
    record(concept, gemma, saes(""), tmp_path / "local", keep=keep, shard_rows=16)
    record(concept, gemma, saes(str(marker)), tmp_path / "ray", keep=keep, shard_rows=16, engine="ray")
    assert marker.read_text() == "died"
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


@pytest.mark.slow
def test_an_error_in_a_worker_comes_back_as_it_was(gemma, concept, tmp_path, cluster):
    with pytest.raises(InputError, match="the weights of 'lost' are gone"):
        record(concept, gemma, [LostSAE("lost", "blocks.0.hook_resid_post", 0)], tmp_path / "rec", engine="ray")


def test_ray_is_an_extra(gemma, concept, saes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'conceptatlas\[ray\]'"):
        record(concept, gemma, saes, tmp_path / "rec", engine="ray")
