"""Standardising columns, and choosing for every target the features that correlate with it most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroreel.core import checks
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import check_features, check_targets

_TIE_DECIMALS = 10  # correlations that agree to this are a tie, whatever the order of summation


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of every column, (columns,); a constant column has the deviation 1."""

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, ddof: int = 1) -> Scaling:
        """Return the scaling of an array (rows, columns).

        A column whose deviation is no more than rounding error of its size is constant.
        """
        mean, sd = array.mean(0, dtype=np.float64), array.std(0, ddof=ddof, dtype=np.float64)
        rounding = 8 * np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).eps
        constant = sd <= rounding * np.abs(array).max(0)
        return cls(mean, np.where(constant, 1.0, sd))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return the array (rows, columns) with mean 0 and deviation 1, float64."""
        return (array - self.mean) / self.sd

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Return the array (rows, columns) in the units it had."""
        return array * self.sd + self.mean


def top_features(x: np.ndarray, y: np.ndarray, count: int, *, block: int = 1024) -> np.ndarray:
    """Return for every target the features with the largest absolute Pearson correlation.

    Parameters
    ----------
    x : array of shape (rows, features)
    y : array of shape (rows, targets)
    count : int
        Features per target; all of them where there are fewer. A tie goes to the feature that comes first, and a
        constant feature or target correlates 0 with everything.
    block : int
        Targets at a time.

    Returns
    -------
    array of shape (targets, count), int
        In ascending order of the features.

    Raises
    ------
    DataError, ConfigError
        If an input has NaN or a wrong shape, or count is not a whole number of 1 or more.
    """
    x = check_features(x)
    y = check_targets(y, len(x))
    count, block = min(check_whole("count", count, 1), x.shape[1]), check_whole("block", block, 1)
    scaled = Scaling.of(x).apply(x)
    chosen = np.empty((y.shape[1], count), dtype=np.intp)
    for start in range(0, y.shape[1], block):
        part = checks.finite("y", np.asarray(y[:, start : start + block]))
        r = np.abs(Scaling.of(part).apply(part).T @ scaled) / (len(x) - 1)  # (block, features)
        r = np.round(r, _TIE_DECIMALS)
        least = np.partition(r, -count, axis=1)[:, -count, None]
        above, level = r > least, r == least
        room = count - above.sum(1, keepdims=True)
        taken = above | (level & (np.cumsum(level, axis=1) <= room))
        chosen[start : start + len(r)] = np.nonzero(taken)[1].reshape(len(r), count)
    return chosen


def spread_weights(coef: np.ndarray, chosen: np.ndarray, n_features: int) -> np.ndarray:
    """Return weights (features, targets) from those of the chosen features (targets, k), 0 elsewhere."""
    dense = np.zeros((len(coef), n_features), dtype=coef.dtype)
    np.put_along_axis(dense, chosen, coef, axis=1)
    return dense.T
