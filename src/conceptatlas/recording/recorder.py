"""``record``: from labelled items, a model and its SAEs to a recording on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conceptatlas.base.artefact import SEAL_FILE
from conceptatlas.base.console import note
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import ensure_folder, read_json, write_json
from conceptatlas.base.lock import LOCK_FILE, folder_lock
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.concepts import Concept, load_concept
from conceptatlas.concepts import group_near_duplicates as join_near
from conceptatlas.recording.manifest import MANIFEST_FILE, Hidden, Keep, read_manifest, seal_recording
from conceptatlas.recording.request import Request, check_same
from conceptatlas.recording.store import Recording
from conceptatlas.recording.work import WORK_FOLDER, WorkFolder

if TYPE_CHECKING:
    from conceptatlas.recording.engines.types import Engine
    from conceptatlas.recording.prepare import Prepared
    from conceptatlas.saes import SAESource
    from conceptatlas.subjects.language import LanguageSubject

ORGANISM = "organism"

# What may stand in a folder that is to become a recording.
_OURS = {WORK_FOLDER, LOCK_FILE, "features", "hidden", "pooled", "items.parquet", "rows.parquet", "run.json", SEAL_FILE}


def record(
    data: str | Path | Concept,
    model: str | os.PathLike[str] | LanguageSubject,
    saes: str | os.PathLike[str] | SAESource | Sequence[str | os.PathLike[str] | SAESource],
    out: str | os.PathLike[str],
    *,
    keep: Keep = "all",
    per_feature: int | None = None,
    hidden: Hidden = "final",
    hidden_sites: str | Sequence[str] = "saes",
    fragments: Literal["token", "word"] = "token",
    features: Iterable[int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sae_dtype: Literal["float32", "mixed"] = "float32",
    max_tokens: int | None = None,
    truncate: bool = False,
    engine: str = "local",
    ray_address: str | None = None,
    shard_rows: int | None = None,
    seed: int = 0,
    group_near_duplicates: bool = True,
    strict_check: bool = False,
    skip_bad_rows: bool = False,
) -> Recording:
    """Run the model once over the items and encode every SAE; resume where an earlier call stopped.

    Args:
        data: A CSV or JSONL of graded items, ``builtin:<trait>``, ``seeds:<trait>``, or a Concept.
        model: A hub id, a folder, ``organism``, or a loaded subject.
        saes: A release with an optional pattern, folders, ``organism``, resolved sources, or several of these.
        out: The recording's folder.
        keep: Features at all rows, at each item's final row only, or only each feature's strongest examples.
        per_feature: How many strongest examples (``keep="top"``).
        hidden: Hidden states of final rows [N, D] (and, with ``keep="all"``, their mean and maximum over each item's
            rows), of all rows [T, D], or of none.
        hidden_sites: ``saes`` (the SAEs' sites), ``all`` (every block's output), or names; ``embed`` is always added.
        fragments: Rows at every token, or at each word's last token.
        features: Encode and keep these columns only.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; with the engine ``ray`` it is the workers', and ``auto`` means GPUs
            where the cluster has one. A loaded subject keeps its own.
        dtype: The model's: ``auto`` (the checkpoint's on a GPU, float32 on a CPU), ``float32``, ``bfloat16`` or
            ``float16``.
        sae_dtype: ``float32``, or ``mixed`` (bfloat16 products, entries near the threshold again in float32).
        max_tokens: The longest item allowed, special tokens counted.
        truncate: Cut longer items (counted in the manifest) instead of refusing them.
        engine: ``local``, or ``ray``.
        ray_address: The Ray cluster's address.
        shard_rows: Rows of a shard; the default depends on the model's size only.
        seed: Of the samples that ``keep="top"`` draws.
        group_near_duplicates: Join groups that hold near-duplicates, whatever their labels, so that the split keeps them on
            one side; the manifest's warnings count them.
        strict_check: An SAE that reconstructs badly is an error, not a warning.
        skip_bad_rows: Drop and count bad rows of the data.

    Returns:
        The finished recording, opened.

    Raises:
        InputError: Bad data or options, an unknown model or SAE, an SAE of another width, other options or data than
            ``out`` was recorded with, another process at work on ``out``.
        WorkError: The disk is full, or (``strict_check``) an SAE does not fit.
    """
    concept = data if isinstance(data, Concept) else load_concept(data, skip_bad_rows=skip_bad_rows)
    given = _as_list(saes)
    request = Request(
        model=_model_name(model),
        saes=tuple(str(getattr(sae, "slug", sae)) for sae in given),
        keep=keep,
        per_feature=per_feature,
        hidden=hidden,
        hidden_sites=hidden_sites if isinstance(hidden_sites, str) else ",".join(hidden_sites),
        fragments=fragments,
        features=None if features is None else tuple(features),
        device=device,
        dtype=dtype,
        sae_dtype=sae_dtype,
        max_tokens=max_tokens,
        truncate=truncate,
        shard_rows=shard_rows,
        seed=seed,
        group_near_duplicates=group_near_duplicates,
    )
    folder = Path(out)
    asked = request.as_dict(concept.data_hash)
    if _is_finished(folder, asked):
        _tidy(folder)
        note(f"{folder} is recorded already, with the same data and options: nothing to do.")
        return _checked(Recording.open(folder), strict=strict_check)
    _refuse_foreign(ensure_folder(folder))
    with folder_lock(folder):
        if not _is_finished(folder, asked):
            _record(folder, concept, model, given, request, asked, engine, ray_address, strict=strict_check)
        WorkFolder(folder).remove()
    return _checked(Recording.open(folder), strict=strict_check)


def _model_name(model: Any) -> str:
    """Return what --model would be: what was given, or where a loaded subject came from."""
    if isinstance(model, str | os.PathLike):
        return str(model)
    return ORGANISM if model.id == ORGANISM else str(model.location)


def _as_list(saes: Any) -> list[Any]:
    many = isinstance(saes, Sequence) and not isinstance(saes, str)
    return [str(sae) if isinstance(sae, os.PathLike) else sae for sae in (saes if many else [saes])]


def _is_finished(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds this very recording, whole; what differs is an error."""
    if not (folder / MANIFEST_FILE).exists():
        return False
    check_same(folder, read_manifest(folder).request, asked)
    return True


def _tidy(folder: Path) -> None:
    """Clear what a run left that was killed after it had finished the recording."""
    work = WorkFolder(folder)
    if work.path.exists() or (folder / LOCK_FILE).exists():
        with suppress(InputError), folder_lock(folder):  # another process is about to do the same
            work.clean_partial()
            work.remove()


def _refuse_foreign(folder: Path) -> None:
    """Never write among somebody's other files."""
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OURS)
    foreign = [name for name in foreign if not name.startswith(".partial-")]
    begun = (folder / WORK_FOLDER).exists()
    if foreign and not begun:
        raise InputError(
            f"{folder} holds other files ({', '.join(foreign[:3])}) and no recording; choose a new or empty folder."
        )


def _record(
    folder: Path,
    concept: Concept,
    model: Any,
    saes: list[Any],
    request: Request,
    asked: dict[str, Any],
    engine: str,
    ray_address: str | None,
    *,
    strict: bool,
) -> None:
    """Do the work that is left, under the lock."""
    from conceptatlas.recording.engines import engine_named
    from conceptatlas.recording.finish import finish
    from conceptatlas.recording.prepare import prepare

    open_engine = engine_named(engine)
    work = WorkFolder(folder)
    if work.plan_path.exists():
        check_same(folder, read_json(work.plan_path)["request"], asked)
    started, begun = time.perf_counter(), time.time_ns()
    notes: list[str] = []
    if request.group_near_duplicates:
        concept, joined = join_near(concept)
        notes = joined.notes
    with open_engine(ray_address) as shards:
        prepared = prepare(work, concept, model, saes, request, shards.devices, strict=strict)
        prepared.warnings.extend(notes)
        loaded = time.perf_counter()
        _begin(work, prepared, asked)
        _run_shards(shards, prepared)
    manifest = finish(prepared, concept, asked)
    seconds = time.perf_counter() - loaded
    write_run(
        folder,
        command="record",
        options=asked | {"engine": engine},
        seconds=round(seconds, 3),
        loading_seconds=round(loaded - started, 3),
        rows_per_second=round(manifest.plan.n_rows / max(seconds, 1e-9), 1),
        device_name=prepared.device_name,
    )
    seal_recording(folder, manifest, since_ns=begun)


def _run_shards(engine: Engine, prepared: Prepared) -> None:
    """Run what is left of the shards under a progress bar."""
    from conceptatlas.recording.engines.types import EngineRun

    job = prepared.job
    total = len(job.plan.shards) * max(1, len(job.sources))
    with progress_bar("recording", total) as bar:

        def tick(slug: str) -> None:
            bar.describe(f"recording {slug}")
            bar.advance()

        bar.advance(total - sum(len(job.missing(shard)) for shard in range(len(job.plan.shards))))
        engine.run(EngineRun(job, prepared.subject, prepared.info, tick))
        bar.describe("joining")


def _begin(work: WorkFolder, prepared: Prepared, asked: dict[str, Any]) -> None:
    """Write down what is being done, or check that it is what was begun; clear what a killed run half wrote."""
    resolved = prepared.resolved()
    work.clean_partial()
    if work.plan_path.exists():
        before = read_json(work.plan_path)["resolved"]
        for key, value in resolved.items():
            if before.get(key) != value:
                raise InputError(
                    f"{work.recording} was begun with {key} {before.get(key)}, and now it is {value}; go on as it was "
                    "begun, or choose another folder."
                )
        return
    work.path.mkdir(exist_ok=True)
    write_json(work.plan_path, {"request": asked, "resolved": resolved})


def _checked(recording: Recording, *, strict: bool) -> Recording:
    """Say loudly what does not fit."""
    suspect = [sae for sae in recording.saes if sae.status == "suspect"]
    for sae in suspect:
        note(f"WARNING: {sae.message}")
    if suspect and strict:
        raise WorkError(f"{len(suspect)} of {len(recording.saes)} SAEs do not fit. {suspect[0].message}")
    return recording
