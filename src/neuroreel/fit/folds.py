"""Folds over groups: every run, clip or subject falls whole into one fold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError


def check_whole(name: str, value: object, least: int) -> int:
    """Return the value if it is a whole number of `least` or more, else raise ConfigError."""
    number = np.asarray(value)
    whole = number.ndim == 0 and number.dtype.kind in "iuf" and bool(number >= least) and float(number).is_integer()
    checks.require(whole, name, f"must be a whole number of {least} or more", value, error=ConfigError)
    return int(number)


def _check_groups(groups: object, n: int) -> np.ndarray:
    names = np.asarray(groups)
    checks.dimensions("groups", names, ("rows",))
    checks.same_length("groups", len(names), "rows", n)
    if names.dtype.kind == "f":
        checks.finite("groups", names)
    return names.astype(str) if names.dtype.kind == "O" else names


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
    ConfigError
        If n_folds is not a whole number of 2 or more.
    DataError
        If there are fewer rows or groups than folds, or not one group a row.
    """
    n_folds = check_whole("folds", n_folds, 2)
    if groups is None:
        checks.require(n >= n_folds, "rows", f"must be as many as the folds ({n_folds}) or more", f"{n} rows")
        sizes = n // n_folds + (np.arange(n_folds) < n % n_folds)
        return np.repeat(np.arange(n_folds, dtype=np.intp), sizes)
    names, codes, sizes = np.unique(_check_groups(groups, n), return_inverse=True, return_counts=True)
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

    Parameters
    ----------
    n : int
        Number of rows.
    folds : int or array of shape (n,)
        Number of folds, or the fold of every row: a row labelled -1 is in every training set, never validated.
    groups : array of shape (n,), optional
        What must not be split: folds are made of whole groups, and given labels are checked against them.

    Returns
    -------
    array of shape (n,)

    Raises
    ------
    DataError, ConfigError
        As in `assign_folds`; if labels are not integers of -1 or more, or a group lies in two folds.
    """
    if np.ndim(folds) == 0:
        return assign_folds(n, folds, groups)  # type: ignore[arg-type]
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
        rows = _check_groups(groups, n)
        for name in np.unique(rows):
            held = np.unique(labels[rows == name])
            checks.require(len(held) == 1, f"group {name!s}", "must lie in one fold", f"folds {held.tolist()}")
    return labels


def iterate_folds(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training rows and the validation rows of every fold, in the order of the labels."""
    for fold in np.unique(labels[labels >= 0]):
        yield np.flatnonzero(labels != fold), np.flatnonzero(labels == fold)
