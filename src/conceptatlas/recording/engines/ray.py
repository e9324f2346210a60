"""Shards as Ray tasks, on one machine or many.

A task runs the same shard function on the same plan and writes the same pieces as the local engine, so the recording is
the same byte for byte (same kind of device, same libraries). Every node must see the recording's folder under the same
path (a shared file system), and the model and SAEs where they were found here. A task whose worker dies is run again;
what it had finished is not done twice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from conceptatlas.base.errors import ConceptAtlasError, InputError, WorkError
from conceptatlas.base.memory import give_back_memory
from conceptatlas.recording.encode import resident_bytes
from conceptatlas.recording.engines.types import EngineRun
from conceptatlas.recording.fold import fold_shard
from conceptatlas.recording.job import Job
from conceptatlas.recording.shard import EncoderCache, Loaders, run_shard

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject

# A worker that dies this many times on one shard is not bad luck.
_RETRIES = 5

# What a worker process keeps between its tasks: the model and the SAEs of the job it works on.
_WORKER: OrderedDict[str, Loaders] = OrderedDict()


def run_ray(run: EngineRun) -> None:
    """Run what is left of every shard on a Ray cluster.

    Raises:
        InputError: The package ray is missing, or the cluster cannot be reached.
        WorkError: A shard failed again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "The engine ray needs the package ray; install it with: pip install 'conceptatlas[ray]'."
        ) from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=run.address, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"There is no Ray cluster at {run.address}: {error}; check --ray-address.") from error
    try:
        _run_all(ray, run)
    finally:
        if started:
            ray.shutdown()


def _run_all(ray: Any, run: EngineRun) -> None:
    """Keep as many shards under way as the cluster has room for, and a few more; fold in the order of the shards."""
    import torch

    job, subject = run.job, run.subject
    threads = torch.get_num_threads()
    uses_gpu = subject.device.type == "cuda"
    resources = {"num_cpus": 1, "num_gpus": 1} if uses_gpu else {"num_cpus": threads}
    task = ray.remote(max_retries=_RETRIES, **resources)(_shard_task)
    shared = ray.put(job)
    model = (subject.location, subject.device.type, str(subject.dtype).removeprefix("torch."))
    slots = ray.cluster_resources().get("GPU" if uses_gpu else "CPU", 1) / (1 if uses_gpu else threads)
    if slots < 1:
        raise InputError(f"A shard needs {resources}, and the Ray cluster has {ray.cluster_resources()}; enlarge it.")
    waiting = [shard for shard in range(len(job.plan.shards)) if not job.is_done(shard)]
    under_way: dict[Any, int] = {}
    unfolded = 0
    while waiting or under_way:
        while waiting and len(under_way) < 2 * int(slots):
            shard = waiting.pop(0)
            under_way[task.remote(shared, model, threads, shard)] = shard
        ready, _ = ray.wait(list(under_way), num_returns=1)
        shard = under_way.pop(ready[0])
        _result(ray, ready[0], shard)
        for source in job.sources:
            run.tick(source.slug)
        busy = {*under_way.values(), *waiting}
        while unfolded < len(job.plan.shards) and unfolded not in busy:
            fold_shard(job, unfolded)
            unfolded += 1
    for shard in range(unfolded, len(job.plan.shards)):
        fold_shard(job, shard)


def _result(ray: Any, reference: Any, shard: int) -> None:
    """Raise what a shard's task raised, as it was raised there."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ConceptAtlasError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise WorkError(
            f"Shard {shard} failed {_RETRIES + 1} times ({type(error).__name__}); look into the workers' memory, and run "
            "the same command again to go on."
        ) from error


def _shard_task(job: Job, model: tuple[str, str, str], threads: int, shard: int) -> None:
    """Run one shard in a worker process."""
    import torch

    torch.set_num_threads(threads)  # the number of threads decides how sums are split, and so the last bit
    run_shard(job, shard, _loaders(job, model), lambda _: None)
    give_back_memory()


def _loaders(job: Job, model: tuple[str, str, str]) -> Loaders:
    key = str(job.work.path)
    if key not in _WORKER:
        _WORKER.clear()
        loaded: list[LanguageSubject] = []

        def subject() -> LanguageSubject:
            if not loaded:
                from conceptatlas.subjects import load_subject

                location, device, dtype = model
                loaded.append(load_subject(location, device=device, dtype=dtype))
            return loaded[0]

        _WORKER[key] = Loaders(subject, EncoderCache(job, model[1], limit_bytes=resident_bytes(model[1], job)))
    return _WORKER[key]
