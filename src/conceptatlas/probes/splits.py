"""Which samples test a probe, and the folds of its training part. Groups are never torn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.holdout import holdout_of

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Fold:
    """One fold: positions within the training part.

    Attributes:
        train: What is fitted on, int64.
        validation: What is scored, int64.
    """

    train: Ints
    validation: Ints


def check_test_share(share: float) -> None:
    """Check the share of groups that test.

    Raises:
        InputError: It is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(
            f"The test split must lie between 0 and 1, and {share:g} was given: without test items nothing says how a "
            "probe does on what it has not seen; use --test-split 0.2."
        )


def probe_test_mask(items: pl.DataFrame, *, share: float = TEST_SHARE, by: str | None = None) -> Bools:
    """Return which of the recorded items test the probe, bool [N]: the ranking's own split with share ``share``.

    The split is nested, so with a share of up to 0.3 the test items are among the hold-out of a ranking that held out by
    the same column (or by group, as this does without ``by``).

    Raises:
        InputError: The share is not between 0 and 1, the column ``by`` cannot be held out by, or no item would be left on
            one side.
    """
    check_test_share(share)
    mask = holdout_of(items, share=share, by=by)
    n_test = int(mask.sum())
    if n_test in (0, len(mask)):
        side = "test" if n_test == 0 else "training"
        raise InputError(
            f"With the test split {share:g}, none of the {len(mask)} items is left for {side}; add items, or change "
            "--test-split or the data's split column."
        )
    return mask


def cross_validation_folds(
    strata_N: npt.NDArray[np.integer], groups_N: npt.NDArray[np.integer], *, n_folds: int, seed: int
) -> list[Fold]:
    """Return stratified folds that keep every group on one side (scikit-learn's ``StratifiedGroupKFold``).

    Args:
        strata_N: What to balance: class, grade, or active against inactive.
        groups_N: The group of each sample.
        n_folds: At least 2.
        seed: Of the shuffle; equal seeds give equal folds.

    Raises:
        InputError: There are fewer groups than folds, in all or of one stratum.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if n_folds < 2:
        raise InputError(f"Cross-validation needs at least 2 folds, and {n_folds} was given; set cv_folds to 5.")
    groups, dense = np.unique(groups_N, return_inverse=True)
    if len(groups) < n_folds:
        raise InputError(
            f"There are {len(groups)} training items or groups for {n_folds} folds; add items, or set cv_folds to at "
            f"most {len(groups)}."
        )
    for stratum in np.unique(strata_N):
        n = len(np.unique(dense[strata_N == stratum]))
        if n < n_folds:
            raise InputError(
                f"Class {stratum} has {n} training item{'s' if n != 1 else ''} or groups for {n_folds} folds; add "
                f"items of that class, or set cv_folds to at most {max(n, 2)}."
            )
    splitter = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    parts = splitter.split(np.zeros((len(strata_N), 1)), strata_N, dense)
    return [Fold(np.asarray(train), np.asarray(validation)) for train, validation in parts]
