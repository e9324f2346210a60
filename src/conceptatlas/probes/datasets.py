"""``probe prepare``: from a recording to a data set file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.progress import progress_bar
from conceptatlas.base.writing import may_replace
from conceptatlas.probes.dataset_file import ProbeDataset, write_dataset
from conceptatlas.probes.feature_datasets import write_feature_dataset
from conceptatlas.probes.layers import as_layers, format_layers
from conceptatlas.probes.preparing import (
    Arrays,
    PrepareOptions,
    Samples,
    common_keys,
    read_samples,
    require_grades,
    target_keys,
)
from conceptatlas.probes.scaling import ColumnStats, Scaler, find_normalization
from conceptatlas.probes.sources import (
    F32,
    InputSite,
    Rows,
    check_samples,
    embed_site,
    feature_target,
    find_pool,
    find_sae,
    hidden_layers,
    pick_sites,
    sample_chunks,
)
from conceptatlas.probes.splits import TEST_SHARE
from conceptatlas.probes.strategies import find_strategy
from conceptatlas.recording import RecordedSAE, Recording


def prepare_probe(
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    strategy: str,
    layers: str | int | Iterable[int] | None = None,
    target_layer: int | None = None,
    target_feature: int | None = None,
    sae: str | None = None,
    k: int = 10,
    normalize: str = "standardize",
    pool: str = "final",
    rows: Rows = "items",
    hook: str | None = None,
    test_split: float = TEST_SHARE,
    cv_folds: int = 5,
    seed: int = 0,
    holdout_by: str | None = None,
) -> ProbeDataset:
    """Prepare a data set for a probe, split by group and scaled on its training samples.

    Args:
        rec: A recording, or its folder.
        out: The ``.npz`` to write.
        strategy: ``embedding-to-feature``, ``hidden-to-feature``, ``hidden-to-concept`` or ``feature-to-concept``.
        layers: Input layers (``"0-2,10,15-17"``, 12, [0, 1]); by default the target's layer for a feature, and all
            recorded SAEs for ``feature-to-concept``.
        target_layer: Layer of the SAE of the feature to predict.
        target_feature: Index of that feature in its SAE.
        sae: The SAE (slug, sae_id or release/sae_id), where a layer has several; for ``feature-to-concept`` the one
            to choose from.
        k: How many features ``feature-to-concept`` chooses, by their absolute correlation with the grade on the
            training items. Each fold of the cross-validation chooses its own on its own training items.
        normalize: ``standardize``, ``minmax`` or ``none``.
        pool: ``final``, ``max`` or ``mean`` over an item's rows, inputs and activations alike.
        rows: ``all`` makes every row a sample (split by item and group all the same).
        hook: Which hook to read where a layer was recorded at several.
        test_split: Share of groups that test, strictly between 0 and 1; the data's ``split`` column wins.
        cv_folds: Folds that ``feature-to-concept`` fixes in the file.
        seed: Of these folds.
        holdout_by: Test on whole values of this column of the data, as ``rank(..., holdout_by=...)`` holds them out.

    Returns:
        The data set, its ``X`` memory-mapped.

    Raises:
        InputError: Something was not recorded, is constant, or contradicts something else.
    """
    recording = rec if isinstance(rec, Recording) else Recording.open(Path(rec))
    options = PrepareOptions(
        strategy=find_strategy(strategy),
        layers=None if layers is None else as_layers(layers),
        target_layer=target_layer,
        target_feature=target_feature,
        sae=sae,
        k=k,
        normalize=find_normalization(normalize),
        pool=find_pool(pool),
        rows=rows,
        hook=hook,
        test_split=test_split,
        cv_folds=cv_folds,
        seed=seed,
        holdout_by=holdout_by,
    )
    path = Path(out)
    if path.suffix != ".npz":
        raise InputError(f"A probe data set is an .npz file, and {path} was given; name it {path}.npz.")
    may_replace(path, (".npz",), [recording.path])
    check_samples(recording, options.strategy, pool=options.pool, rows=options.rows)
    if options.strategy.source == "features":
        write_feature_dataset(recording, path, options)
    else:
        _write_states(recording, path, options)
    return ProbeDataset.open(path)


def read_target(rec: Recording, options: PrepareOptions) -> tuple[Samples, RecordedSAE | None, npt.NDArray[Any]]:
    """Return the samples, the SAE of the feature to predict (None: the concept is predicted), and the targets.

    Raises:
        InputError: The targets of the training samples are all the same, or the feature was not recorded.
    """
    samples = read_samples(rec, rows=options.rows, test_split=options.test_split, holdout_by=options.holdout_by)
    target: RecordedSAE | None = None
    if options.strategy.target == "feature":
        assert options.target_feature is not None  # PrepareOptions has checked
        target = find_sae(rec, layer=options.target_layer, sae=options.sae)
        y: npt.NDArray[Any] = feature_target(rec, target, options.target_feature, pool=options.pool, rows=options.rows)
        if np.ptp(y[samples.train]) == 0:
            raise InputError(
                f"Feature {options.target_feature} of {target.slug} has the same activation ({y[samples.train][0]:g}) "
                "on every training sample, so there is nothing to predict; choose another feature or another --pool."
            )
    else:
        require_grades(samples.grades[samples.train], where="of the training part")
        y = samples.grades
    return samples, target, y


def _write_states(rec: Recording, path: Path, options: PrepareOptions) -> None:
    """Write a data set whose inputs are embeddings or hidden states."""
    samples, target, y = read_target(rec, options)
    sites = _input_sites(rec, options, target)
    walk = sample_chunks(rec, sites, pool=options.pool, rows=options.rows)
    dims = [rec.hidden(site.site).shape[1] for site in sites]
    in_train = np.zeros(len(samples.item), dtype=bool)
    in_train[samples.train] = True
    names = [(site.site, dim) for site, dim in zip(sites, dims, strict=True)]
    stats = ColumnStats(sum(dims))
    with progress_bar("Preparing", total=2 * len(y)) as bar:

        def chunks() -> Iterator[F32]:
            for chunk in walk():
                yield chunk
                bar.advance(len(chunk))

        at = 0
        for chunk in chunks():
            _require_finite(chunk, at, names)
            stats.add(chunk[in_train[at : at + len(chunk)]])
            at += len(chunk)
        scaler = Scaler.fitted(options.normalize, stats)
        arrays = state_keys(rec, options, samples, y, sites, target) | scaler.keys()
        scaled = (np.asarray(scaler.apply(chunk), dtype=np.float32) for chunk in chunks())
        write_dataset(path, scaled, (len(y), sum(dims)), arrays)


def state_keys(
    rec: Recording,
    options: PrepareOptions,
    samples: Samples,
    y: npt.NDArray[Any],
    sites: list[InputSite],
    target: RecordedSAE | None,
) -> Arrays:
    """Return every key of a data set of embeddings or hidden states but ``X`` and the scaler's."""
    return common_keys(rec, options, samples, y) | {
        "meta_input_layers": np.array([site.layer for site in sites], dtype=np.int64),
        "meta_input_dims": np.array([rec.hidden(site.site).shape[1] for site in sites], dtype=np.int64),
        "meta_input_sites": np.array([site.site for site in sites]),
        **target_keys(target, options.target_feature),
    }


def _input_sites(rec: Recording, options: PrepareOptions, target: RecordedSAE | None) -> list[InputSite]:
    if options.strategy.source == "embed":
        return [embed_site(rec)]
    if options.layers is not None:
        return pick_sites(rec, options.layers, hook=options.hook)
    if target is not None:
        return pick_sites(rec, [target.layer], hook=options.hook)
    recorded = format_layers(hidden_layers(rec, hook=options.hook)) or "none"
    raise InputError(f"{options.strategy.name} needs --layer or --layers; recorded: {recorded}.")


def _require_finite(chunk: F32, start: int, names: list[tuple[str, int]]) -> None:
    bad = ~np.isfinite(chunk)
    if bad.any():
        row, column = (int(each) for each in np.argwhere(bad)[0])
        for name, dim in names:
            if column < dim:
                raise InputError(
                    f"Sample {start + row} has NaN or infinity at {name}, column {column}; record again (a float32 "
                    "--dtype avoids overflow), or leave that item out."
                )
            column -= dim
