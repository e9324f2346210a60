"""``probe sweep``: one probe per layer, beside its control on shuffled targets.

The layers are independent, so they are fitted in worker processes, one BLAS thread each; every worker reads its own
layer from the memory-mapped recording. The number of workers changes nothing in the results.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from conceptatlas.base.artefact import open_sealed
from conceptatlas.base.errors import InputError
from conceptatlas.base.files import atomic_file, write_json, write_parquet
from conceptatlas.base.kinds import SWEEP
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing
from conceptatlas.probes.config import ProbeConfig, load_config
from conceptatlas.probes.dataset_file import ProbeDataset
from conceptatlas.probes.datasets import read_target, state_keys
from conceptatlas.probes.layers import as_layers
from conceptatlas.probes.models import build_pipeline
from conceptatlas.probes.plots import emergence_figure
from conceptatlas.probes.preparing import PrepareOptions
from conceptatlas.probes.scaling import find_normalization
from conceptatlas.probes.sources import (
    InputSite,
    Rows,
    check_samples,
    embed_site,
    find_pool,
    hidden_layers,
    pick_sites,
    sample_chunks,
)
from conceptatlas.probes.splits import TEST_SHARE
from conceptatlas.probes.strategies import find_strategy
from conceptatlas.probes.training import fit_and_judge
from conceptatlas.recording import EMBED_SITE, Recording

TABLE_FILE = "sweep.parquet"
JSON_FILE = SWEEP.marker
PLOT_FILE = "emergence.png"
FORMAT = "conceptatlas.probe-sweep"
VERSION = 1

# Below so many input values, starting workers costs more than they save.
_WORTH_WORKERS = 20_000_000

COLUMNS = (
    "layer",
    "site",
    "metric",
    "cv_mean",
    "cv_std",
    "test",
    "test_low",
    "test_high",
    "train",
    "shuffled_mean",
    "shuffled_low",
    "shuffled_high",
)


@dataclass(frozen=True)
class Sweep:
    """Probes by layer.

    Attributes:
        table: One row per site in the order of the layers (``embed`` is layer -1): ``COLUMNS``, then every test figure
            with its interval (``{figure}``, ``{figure}_low``, ``{figure}_high``).
        facts: Strategy, concept, subject, model, metric, counts, the level of always saying the commonest class
            (``majority``; None for a regression), and ``best_layer`` (chosen by cross-validation, never by the test).
        path: The folder, or None when nothing was written.
    """

    table: pl.DataFrame
    facts: dict[str, Any]
    path: Path | None = None

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Sweep:
        """Read a sweep from its folder.

        Raises:
            InputError: There is none, or it was not finished.
            WorkError: A file of it is damaged.
        """
        sealed = open_sealed(SWEEP, Path(path))
        facts = sealed.json(JSON_FILE)
        facts.pop("layers")
        return Sweep(pl.read_parquet(sealed.file(TABLE_FILE), glob=False), facts, sealed.folder)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best layer by cross-validation."""
        return self.table.row(self.facts["best_row"], named=True)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def sweep_probes(
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    strategy: str = "hidden-to-concept",
    layers: str | int | Iterable[int] | None = None,
    target_layer: int | None = None,
    target_feature: int | None = None,
    sae: str | None = None,
    model: str | None = None,
    config: ProbeConfig | str | os.PathLike[str] | None = None,
    normalize: str = "standardize",
    pool: str = "final",
    rows: Rows = "items",
    hook: str | None = None,
    test_split: float = TEST_SHARE,
    workers: int | None = None,
    holdout_by: str | None = None,
) -> Sweep:
    """Train one probe per layer (the embedding too, where it was recorded), all on one split, and their controls.

    Args:
        rec: A recording, or its folder.
        out: Folder for ``sweep.parquet``, ``sweep.json``, ``emergence.png`` and ``run.json``; None writes nothing.
        strategy: ``hidden-to-concept`` or ``hidden-to-feature``.
        layers: Which; all recorded ones and the embedding when None.
        target_layer: As for ``prepare_probe``.
        target_feature: As for ``prepare_probe``.
        sae: As for ``prepare_probe``.
        model: ``logistic``, ``random_forest`` or ``svm``.
        config: A configuration or its file.
        normalize: ``standardize``, ``minmax`` or ``none``.
        pool: ``final``, ``max`` or ``mean``.
        rows: ``items`` or ``all``.
        hook: Which hook of a layer, where several were recorded.
        test_split: Share of groups that test.
        workers: Processes; by default one per core where that pays.
        holdout_by: As for ``prepare_probe``.

    Raises:
        InputError: A layer was not recorded, the strategy has no layers, or the data do not serve.
    """
    recording = rec if isinstance(rec, Recording) else Recording.open(Path(rec))
    asked = find_strategy(strategy)
    if asked.source != "hidden":
        raise InputError(f"{asked.name} has no layers to sweep; use hidden-to-concept or hidden-to-feature.")
    given = _given(config)
    if model is not None:
        given = given.model_copy(update={"model_type": model})
    options = PrepareOptions(
        strategy=asked,
        layers=None if layers is None else as_layers(layers),
        target_layer=target_layer,
        target_feature=target_feature,
        sae=sae,
        k=1,
        normalize=find_normalization(normalize),
        pool=find_pool(pool),
        rows=rows,
        hook=hook,
        test_split=test_split,
        cv_folds=given.training.cv_folds,
        seed=given.training.random_state,
        holdout_by=holdout_by,
    )
    check_samples(recording, asked, pool=options.pool, rows=rows)
    samples, _, _ = read_target(recording, options)
    sites = _sites(recording, options)
    # Wrong settings are told before any worker starts.
    task = asked.task if given.task == "auto" else given.task
    build_pipeline(given.model_type, task, options.normalize, given.hyperparams, seed=0)
    size = len(samples.item) * sum(recording.hidden(site.site).shape[1] for site in sites)
    n_workers = workers or (min(os.cpu_count() or 1, len(sites)) if size > _WORTH_WORKERS else 1)

    def swept() -> Sweep:
        results = _all_layers(recording, sites, options, given, n_workers)
        return _assemble(recording, sites, options, given, results)

    if out is None:
        return swept()
    with writing(SWEEP, out, {"recording": recording.path}) as folder:
        sweep = swept()
        write_sweep(sweep, folder)
    return replace(sweep, path=Path(out))


def _given(config: ProbeConfig | str | os.PathLike[str] | None) -> ProbeConfig:
    if isinstance(config, ProbeConfig):
        return config
    return ProbeConfig() if config is None else load_config(Path(config))


def _sites(rec: Recording, options: PrepareOptions) -> list[InputSite]:
    if options.layers is not None:
        return pick_sites(rec, options.layers, hook=options.hook)
    sites = list(hidden_layers(rec, hook=options.hook).values())
    if not sites:
        raise InputError(f"{rec.path} holds no hidden states; record again with --hidden final or --hidden all.")
    return [embed_site(rec), *sites] if EMBED_SITE in rec.hidden_sites else sites


def _all_layers(
    rec: Recording, sites: list[InputSite], options: PrepareOptions, config: ProbeConfig, workers: int
) -> list[dict[str, Any]]:
    from joblib import Parallel, delayed

    jobs = (delayed(layer_results)(str(rec.path), site, options, config) for site in sites)
    done = []
    with progress_bar("Probing layers", total=len(sites)) as bar:
        for result in Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)(jobs):
            done.append(result)
            bar.advance()
    return done


def layer_results(path: str, site: InputSite, options: PrepareOptions, config: ProbeConfig) -> dict[str, Any]:
    """Return the results of the probe of one site; runs in a worker process."""
    rec = Recording.open(path)
    samples, target, y = read_target(rec, options)
    chunks = list(sample_chunks(rec, [site], pool=options.pool, rows=options.rows)())
    arrays = state_keys(rec, options, samples, y, [site], target)
    data = ProbeDataset.unscaled(f"{path} at {site.site}", np.concatenate(chunks), arrays, options.normalize)
    return fit_and_judge(data, config, quiet=True).results


def _assemble(
    rec: Recording,
    sites: list[InputSite],
    options: PrepareOptions,
    config: ProbeConfig,
    results: list[dict[str, Any]],
) -> Sweep:
    rows = [_row(site, each) for site, each in zip(sites, results, strict=True)]
    best = int(np.argmax([row["cv_mean"] for row in rows]))
    first = results[0]
    task = first["task"]
    notes = [f"{site.site}: {note}" for site, each in zip(sites, results, strict=True) for note in each["notes"]]
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "strategy": options.strategy.name,
        "task": task,
        "metric": first["cv_metric"],
        "model_type": config.model_type,
        "config": config.model_dump(),
        "concept": rec.manifest.concept.name,
        "subject": rec.manifest.subject.id,
        "target_sae": first["metadata"]["target_sae"],
        "target_feature": first["metadata"]["target_feature"],
        "pool": options.pool,
        "rows": options.rows,
        "normalize": options.normalize,
        "test_split": options.test_split,
        "holdout_by": options.holdout_by,
        "n_samples_train": first["n_samples_train"],
        "n_samples_test": first["n_samples_test"],
        "n_groups_train": first["metadata"]["n_groups_train"],
        "n_groups_test": first["metadata"]["n_groups_test"],
        "majority": first["controls"].get("majority_accuracy"),
        "best_row": best,
        "best_layer": rows[best]["layer"],
        "notes": notes,
    }
    return Sweep(pl.DataFrame(rows, infer_schema_length=None), facts)


def _row(site: InputSite, results: dict[str, Any]) -> dict[str, Any]:
    metric = results["cv_metric"]
    shuffled = results["controls"]["shuffled"]["scores"]
    low, high = results["intervals"].get(f"test_{metric}") or (None, None)
    row = {
        "layer": site.layer,
        "site": site.site,
        "metric": metric,
        "cv_mean": results["cv_mean"],
        "cv_std": results["cv_std"],
        "test": results[f"test_{metric}"],
        "test_low": low,
        "test_high": high,
        "train": results[f"train_{metric}"],
        "shuffled_mean": float(np.mean(shuffled)) if shuffled else None,
        "shuffled_low": min(shuffled, default=None),
        "shuffled_high": max(shuffled, default=None),
    }
    for key, bounds in results["intervals"].items():
        name = key.removeprefix("test_")
        row |= {
            name: results[key],
            f"{name}_low": None if bounds is None else bounds[0],
            f"{name}_high": None if bounds is None else bounds[1],
        }
    return row


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write table, facts and curve into an empty folder."""
    write_parquet(folder / TABLE_FILE, sweep.table)
    write_json(folder / JSON_FILE, sweep.facts | {"layers": sweep.table.to_dicts()})
    figure = emergence_figure(sweep.table, sweep.facts)
    with atomic_file(folder / PLOT_FILE) as handle:
        figure.savefig(handle, format="png", dpi=150, metadata={"Software": None})
    write_run(folder, command="probe sweep", options={key: sweep.facts[key] for key in ("strategy", "config", "pool")})
