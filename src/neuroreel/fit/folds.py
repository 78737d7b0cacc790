"""Folds over groups: every run, clip or subject falls whole into one fold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError


def assign_folds(n: int, n_folds: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the fold of every row, with no group split between folds.

    Parameters
    ----------
    n : int
        Number of rows (TRs or stimuli).
    n_folds : int
        Number of folds, 2 or more.
    groups : array of shape (n,), optional
        Run, clip or subject of every row. The largest groups are dealt out first, each to the fold that is
        smallest so far. Without groups the folds are unshuffled blocks of rows, as in scikit-learn's `KFold`.

    Returns
    -------
    array of shape (n,)
        Fold of every row, from 0 to n_folds - 1.

    Raises
    ------
    DataError
        If there are fewer groups than folds, or as many groups as rows are not given.
    """
    checks.require(int(n_folds) == n_folds and n_folds >= 2, "folds", "must be 2 or more", n_folds, error=ConfigError)
    n_folds = int(n_folds)
    if groups is None:
        checks.require(n >= n_folds, "rows", f"must be as many as the folds ({n_folds}) or more", f"{n} rows")
        return (np.repeat(np.arange(n_folds), n // n_folds + (np.arange(n_folds) < n % n_folds))).astype(np.intp)
    groups = np.asarray(groups)
    checks.dimensions("groups", groups, ("rows",))
    checks.same_length("groups", len(groups), "rows", n)
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    checks.require(
        len(names) >= n_folds, "groups", f"must be as many as the folds ({n_folds}) or more", f"{len(names)} groups"
    )
    fold_of_group = np.empty(len(names), dtype=np.intp)
    filled = np.zeros(n_folds, dtype=np.intp)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of_group[group] = np.argmin(filled)
        filled[fold_of_group[group]] += sizes[group]
    return fold_of_group[codes]


def check_folds(n: int, folds: int | np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the fold of every row, from a number of folds or from given labels.

    Labels are integers; a row labelled -1 is in every training set and never validated. Given labels are checked
    against the groups: one that lies in two folds is an error.
    """
    if np.ndim(folds) == 0:
        return assign_folds(n, int(np.asarray(folds)), groups)
    labels = np.asarray(folds)
    checks.dimensions("folds", labels, ("rows",))
    checks.same_length("folds", len(labels), "rows", n)
    checks.require(labels.dtype.kind in "iu", "folds", "must be integers", f"dtype {labels.dtype}")
    labels = labels.astype(np.intp)
    checks.require(bool((labels >= -1).all()), "folds", "must be -1 (never validated) or more", labels.min())
    n_folds = len(np.unique(labels[labels >= 0]))
    least = 1 if (labels < 0).any() else 2
    checks.require(n_folds >= least, "folds", f"must name {least} or more folds", n_folds)
    if groups is not None:
        groups = np.asarray(groups)
        checks.same_length("groups", len(groups), "rows", n)
        for name in np.unique(groups):
            held = np.unique(labels[groups == name])
            checks.require(len(held) == 1, f"group {name!s}", "must lie in one fold", f"folds {held.tolist()}")
    return labels


def iterate_folds(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training rows and the validation rows of every fold, in the order of the labels."""
    for fold in np.unique(labels[labels >= 0]):
        yield np.flatnonzero(labels != fold), np.flatnonzero(labels == fold)
