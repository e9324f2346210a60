"""What engines decide before they run: devices, room on a cluster, and that a worker has the model of the plan."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from transformers import Gemma2ForCausalLM

from conceptatlas.base.errors import InputError
from conceptatlas.recording.engines import types, worker
from conceptatlas.recording.engines.local import LocalEngine
from conceptatlas.recording.engines.room import Needs, room_for, worker_needs, workers_device
from conceptatlas.recording.engines.types import Devices
from conceptatlas.recording.engines.worker import ShardWorker, WorkerRun
from conceptatlas.recording.plan import BATCH_TOKENS
from conceptatlas.recording.prepare import prepare
from conceptatlas.recording.request import Request
from conceptatlas.recording.work import WorkFolder


def node(cpus, gpus=0, *, alive=True):
    return {"Alive": alive, "Resources": {"CPU": float(cpus), "memory": 1e9} | ({"GPU": float(gpus)} if gpus else {})}


@pytest.fixture
def prepared(gemma_path, concept, saes, tmp_path):
    """Return what prepares a job planned on the CPU for a kind of device that need not be here."""

    def made(device, dtype="auto", model=gemma_path):
        request = Request(model=str(model), saes=("made",), device=device, dtype=dtype, shard_rows=16)

        def devices_of(asked):
            return Devices(planner="cpu", shards=asked)

        return prepare(WorkFolder(tmp_path), concept, str(model), saes, request, devices_of, strict=False)

    return made


@pytest.fixture
def bfloat16_path(gemma_path, tmp_path):
    folder = tmp_path / "bfloat16"
    shutil.copytree(gemma_path, folder)
    Gemma2ForCausalLM.from_pretrained(gemma_path, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("asked", "nodes", "device"),
    [
        ("auto", [node(8), node(8, 4)], "cuda"),
        ("auto", [node(8), node(8, 4, alive=False)], "cpu"),
        ("auto", [node(8, 0.5)], "cpu"),
        ("cpu", [node(8, 4)], "cpu"),
        ("cuda", [node(8)], "cuda"),
        ("cuda:1", [node(8, 4)], "cuda"),
    ],
)
def test_the_device_is_the_clusters(asked, nodes, device):
    assert workers_device(asked, nodes) == device


def test_a_worker_takes_a_gpu_or_the_cores_of_its_threads():
    assert worker_needs("cuda", 6).options() == {"num_cpus": 1, "num_gpus": 1}
    assert worker_needs("cpu", 6).options() == {"num_cpus": 6, "num_gpus": 0}


@pytest.mark.parametrize(
    ("needs", "nodes", "room"),
    [
        (Needs(4, 0), [node(9), node(4), node(3)], 3),
        (Needs(1, 1), [node(16, 8), node(2, 4)], 10),
        (Needs(4, 0), [node(8), node(8, alive=False)], 2),
    ],
)
def test_room_is_counted_node_by_node(needs, nodes, room):
    assert room_for(needs, nodes) == room


@pytest.mark.parametrize(
    ("needs", "nodes", "message"),
    [
        (
            Needs(4, 0),
            [node(3), node(3)],
            "needs 4 CPUs and 0 GPUs on one node, .* have 3 CPUs and 0 GPUs; 3 CPUs and 0",
        ),
        (Needs(1, 1), [node(8)], "needs 1 CPUs and 1 GPUs on one node, .* have 8 CPUs and 0 GPUs; enlarge it"),
        (Needs(1, 1), [node(8, 1, alive=False)], "have nothing; enlarge it"),
    ],
)
def test_no_room_is_refused(needs, nodes, message):
    with pytest.raises(InputError, match=message):
        room_for(needs, nodes)


def test_the_local_engine_plans_where_it_computes():
    assert LocalEngine().devices("cpu") == Devices(planner="cpu", shards="cpu")


def test_planned_on_a_cpu_for_gpus(prepared, bfloat16_path):
    planned = prepared("cuda", model=bfloat16_path)
    assert planned.subject.device.type == "cpu"
    assert planned.job.options.device == planned.resolved()["device"] == planned.device_name == "cuda"
    assert planned.job.options.dtype == planned.info.dtype == "bfloat16"
    assert planned.job.batch_tokens == BATCH_TOKENS["cuda"]


def test_planned_on_a_cpu_for_cpus(prepared, bfloat16_path):
    planned = prepared("cpu", model=bfloat16_path)
    assert planned.job.options.device == planned.device_name == "cpu"
    assert planned.job.options.dtype == planned.info.dtype == "float32"
    assert prepared("cpu", "bfloat16").job.options.dtype == "bfloat16"


def worker_run(prepared, **changed):
    return WorkerRun(prepared.job, prepared.subject.location, prepared.info.model_copy(update=changed), threads=1)


def test_the_model_is_loaded_before_what_it_leaves_free_is_measured(prepared, monkeypatch):
    happened = []
    load = worker.load_planned
    monkeypatch.setattr(worker, "load_planned", lambda run: (happened.append("loaded"), load(run))[1])
    monkeypatch.setattr(types, "resident_bytes", lambda device, _job: (happened.append(f"measured {device}"), 0)[1])
    ShardWorker(worker_run(prepared("cpu"))).load()
    assert happened == ["loaded", "measured cpu"]


@pytest.mark.parametrize("changed", [{"revision": "other"}, {"attention": "other"}])
def test_a_worker_with_another_model_is_refused(prepared, changed):
    name = next(iter(changed))
    with pytest.raises(
        InputError, match=rf"The worker on .* loads gemma2\S* with {name} .*, and .* planned with other; give"
    ):
        worker.load_planned(worker_run(prepared("cpu"), **changed))


def test_a_worker_that_has_no_model_says_where(prepared, tmp_path):
    lost = replace(worker_run(prepared("cpu")), model=str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"The worker on .* cannot load the model: There is no model folder .*gone"):
        worker.load_planned(lost)
