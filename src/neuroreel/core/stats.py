"""Corrections for many tests, shared by the choice of voxels and the scores of encoding models."""

from __future__ import annotations

import numpy as np

from neuroreel.core.checks import dimensions, require


def bonferroni_adjust(p: np.ndarray) -> np.ndarray:
    """Return p-values (tests,) times the number of tests, at most 1; NaN is no test and stays NaN."""
    _probabilities(p)
    return np.minimum(p * np.count_nonzero(~np.isnan(p)), 1.0)


def fdr_adjust(p: np.ndarray) -> np.ndarray:
    """Return p-values (tests,) adjusted for the false discovery rate; NaN is no test and stays NaN.

    Source: Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57(1), step-up procedure.
    """
    _probabilities(p)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    scaled = p[order] * (order.size / np.arange(1, order.size + 1))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def fdr(p: np.ndarray, q: float = 0.05) -> np.ndarray:
    """Return which tests are significant at a false discovery rate of q.

    Parameters
    ----------
    p : p-values (tests,), NaN where there was no test.
    q : expected share of false ones among those called significant.

    Returns
    -------
    array (tests,) bool. Source: Benjamini and Hochberg 1995, step-up procedure.
    """
    require(0 < q < 1, "q", "must lie between 0 and 1", q)
    return fdr_adjust(p) <= q


def _probabilities(p: np.ndarray) -> None:
    """Raise DataError unless p holds one probability, or NaN, per test."""
    dimensions("p", p, ("tests",))
    outside = int(np.count_nonzero((p < 0) | (p > 1)))
    require(outside == 0, "p", "must lie between 0 and 1", f"{outside} of {p.size} values outside")
