"""The Ray engine: two workers on this machine write what the local engine writes, also when one is killed."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.recording import record
from conceptatlas.subjects import load_subject
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


@dataclass
class MeetingSAE(MadeSAE):
    """Waits, in the process that loads it, until a second process loads it; each leaves its number in ``place``."""

    place: str = ""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        if self.place:
            Path(self.place, str(os.getpid())).touch()
            patience = time.monotonic() + 120
            while len(list(Path(self.place).iterdir())) < 2 and time.monotonic() < patience:
                time.sleep(0.05)
        return super().load_encoder(device, dtype)


class MurderousSAE(MadeSAE):
    """Kills every worker that loads it."""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        os.kill(os.getpid(), 9)


class LostSAE(MadeSAE):
    """Cannot be loaded."""

    def load_encoder(self, device: Any = "cpu", dtype: Any = None) -> Any:
        raise InputError("the weights of 'lost' are gone")


@pytest.fixture(scope="module")
def cluster():
    import ray

    # Ray takes our word for the GPU; torch finds none.
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
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


@pytest.mark.slow
def test_two_workers_that_know_nothing_of_the_run_before(gemma, concept, tmp_path, cluster):
    def saes(seed, place=""):
        return [MeetingSAE("same-slug", "blocks.0.hook_resid_post", 0, seed=seed, threshold=0.5, place=str(place))]

    place = tmp_path / "place"
    place.mkdir()
    out = tmp_path / "ray"
    record(concept, gemma, saes(1, place), out, shard_rows=16, engine="ray")
    assert len(list(place.iterdir())) == 2
    before = contents(out)
    shutil.rmtree(out)
    record(concept, gemma, saes(2), out, shard_rows=16, engine="ray")
    record(concept, gemma, saes(2), tmp_path / "local", shard_rows=16)
    assert contents(out) == contents(tmp_path / "local") != before


@pytest.mark.slow
def test_a_worker_need_not_stand_in_the_same_folder(gemma_path, concept, saes, tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(gemma_path.parent)
    out = os.path.relpath(tmp_path / "rec")
    recording = record(concept, gemma_path.name, saes, out, device="cpu", hidden="none", engine="ray")
    assert len(recording.saes) == 3


@pytest.mark.slow
def test_another_revision_on_a_worker_is_refused(gemma_path, concept, saes, tmp_path, cluster):
    subject = load_subject(str(gemma_path), device="cpu")
    subject.revision = "sha256:planned"
    with pytest.raises(
        InputError, match=r"worker on .* with revision sha256:\w+, .* planned with sha256:planned; give all"
    ):
        record(concept, subject, saes, tmp_path / "rec", engine="ray")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU must be made up")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_the_gpus_are_the_workers(gemma_path, concept, saes, tmp_path, cluster, device):
    out = tmp_path / "rec"
    with pytest.raises(InputError, match=r"The worker on .* cannot load the model: The device 'cuda' was asked for"):
        record(concept, str(gemma_path), saes, out, device=device, engine="ray")
    assert json.loads((out / ".work" / "plan.json").read_text())["resolved"]["device"] == "cuda"
    if device == "auto":
        with pytest.raises(InputError, match="was begun with device cuda, and now it is cpu"):
            record(concept, str(gemma_path), saes, out, device=device)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker(gemma, concept, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr("conceptatlas.recording.engines.ray._RETRIES", 1)
    with pytest.raises(WorkError, match=r"Shard 0 failed 2 times \(ActorDiedError\); look into the workers' memory"):
        record(concept, gemma, [MurderousSAE("bad", "blocks.0.hook_resid_post", 0)], tmp_path / "rec", engine="ray")


@pytest.mark.slow
def test_a_cluster_that_is_too_small(gemma, concept, saes, tmp_path, cluster):
    torch.set_num_threads(4)
    with pytest.raises(
        InputError, match=r"A worker needs 4 CPUs and 0 GPUs on one node, .* have 2 CPUs and 1 GPUs; enlarge"
    ):
        record(concept, gemma, saes, tmp_path / "rec", engine="ray")


def test_ray_is_an_extra(gemma, concept, saes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'conceptatlas\[ray\]'"):
        record(concept, gemma, saes, tmp_path / "rec", engine="ray")
