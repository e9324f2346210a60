"""Data sets whose inputs are the few features that go best with the grade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.progress import progress_bar
from conceptatlas.probes.dataset_file import write_dataset
from conceptatlas.probes.layers import require_recorded
from conceptatlas.probes.preparing import PrepareOptions, common_keys, read_samples, require_grades, target_keys
from conceptatlas.probes.scaling import ColumnStats, Scaler
from conceptatlas.probes.sources import (
    CHUNK_ROWS,
    ItemScores,
    correlations,
    find_sae,
    item_scores,
)
from conceptatlas.probes.splits import cross_validation_folds
from conceptatlas.recording import RecordedSAE, Recording

Pick = tuple[int, int]


def write_feature_dataset(rec: Recording, path: Path, options: PrepareOptions) -> None:
    """Write a data set whose inputs are the features that correlate most with the grade on the training items.

    Each fold of the cross-validation chooses its own, or its validation items would have had a say in the choice; the
    columns are the union, and ``meta_chosen_columns`` [1 + folds, D] says who chose what (row 0: all training items).
    """
    samples = read_samples(rec, rows="items", test_split=options.test_split, holdout_by=options.holdout_by)
    require_grades(samples.grades[samples.train], where="of the training part")
    saes = _searched_saes(rec, options)
    folds = cross_validation_folds(
        samples.grades[samples.train], samples.groups[samples.train], n_folds=options.cv_folds, seed=options.seed
    )
    members = np.zeros((1 + len(folds), rec.n_items), dtype=bool)
    members[0, samples.train] = True
    fold_of = np.zeros(len(samples.train), dtype=np.int8)
    for number, fold in enumerate(folds):
        members[1 + number, samples.train[fold.train]] = True
        fold_of[fold.validation] = number
    picks, dense = _choose(rec, saes, members, samples.grades, options)
    chosen = np.stack([[pick in pick_set for pick in dense] for pick_set in picks]).astype(bool)
    columns = np.stack(list(dense.values()), axis=1).astype(np.float32)
    stats = ColumnStats(columns.shape[1])
    stats.add(columns[samples.train])
    scaler = Scaler.fitted(options.normalize, stats)
    layers = np.array([saes[s].layer for s, _ in dense], dtype=np.int64)
    searched, counts = np.unique(layers, return_counts=True)
    arrays = common_keys(rec, options, samples, samples.grades) | {
        "meta_input_layers": searched,
        "meta_input_dims": counts,
        "meta_input_sites": np.array(sorted({saes[s].site for s, _ in dense})),
        "meta_input_saes": np.array([saes[s].slug for s, _ in dense]),
        "meta_input_features": np.array([feature for _, feature in dense], dtype=np.int64),
        "meta_chosen_columns": chosen,
        "meta_fold_of": fold_of,
        "meta_fold_seed": np.array(options.seed),
        "meta_k": np.array(options.k),
        **target_keys(None, None),
        **scaler.keys(),
    }
    scaled = np.asarray(scaler.apply(columns), dtype=np.float32)
    pieces = (scaled[start : start + CHUNK_ROWS] for start in range(0, len(scaled), CHUNK_ROWS))
    write_dataset(path, pieces, columns.shape, arrays)


def _searched_saes(rec: Recording, options: PrepareOptions) -> list[RecordedSAE]:
    if options.sae is not None:
        return [find_sae(rec, layer=None, sae=options.sae)]
    if options.layers is None:
        saes = rec.saes
    else:
        require_recorded(options.layers, {sae.layer for sae in rec.saes}, what="SAEs")
        saes = [sae for sae in rec.saes if sae.layer in options.layers]
    if not saes:
        raise InputError(f"{rec.path} holds no SAE; record again with --saes.")
    return saes


def _choose(
    rec: Recording,
    saes: list[RecordedSAE],
    members: npt.NDArray[np.bool_],
    grades: npt.NDArray[np.int64],
    options: PrepareOptions,
) -> tuple[list[set[Pick]], dict[Pick, npt.NDArray[np.float64]]]:
    """Return, for each row of ``members``, its k best (SAE, feature), and the dense scores [N] of all these."""
    best: list[list[tuple[float, int, int]]] = [[] for _ in members]
    scores: list[ItemScores] = []
    with progress_bar("Choosing features", total=len(saes)) as bar:
        for s, sae in enumerate(saes):
            scores.append(item_scores(rec, rec.columns(sae.slug), options.pool))
            for row, member in enumerate(members):
                strength = np.abs(correlations(scores[-1], grades, member))
                top = np.argsort(-strength, kind="stable")[: options.k]
                best[row] += [(-float(strength[f]), s, int(f)) for f in top if strength[f] > 0]
                best[row] = sorted(best[row])[: options.k]
            bar.advance()
    if not all(best):
        raise InputError(
            f"No feature of {', '.join(sae.slug for sae in saes)} is active on three training items of every fold; "
            "try --pool max."
        )
    picks = [{(s, f) for _, s, f in row} for row in best]
    dense: dict[Pick, npt.NDArray[np.float64]] = {}
    for s, f in sorted(set().union(*picks)):
        span = slice(*np.searchsorted(scores[s].feature, [f, f + 1]))
        column = np.zeros(rec.n_items)
        column[scores[s].item[span]] = scores[s].value[span]
        dense[s, f] = column
    return picks, dense
