"""Can the true clip be told from all other test clips by its reconstruction? In pixel, feature or latent space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from neuroreel.core.checks import dimensions, require
from neuroreel.metrics.nway import share_of_draws
from neuroreel.metrics.pixel import check_clips, correlation_matrix


def similarity_matrix(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of every predicted clip (rows) with every true clip (columns), array (n, n).

    Parameters
    ----------
    predicted, truth : clips (n, frames, height, width, 3) uint8, or feature vectors (n, units).

    Returns
    -------
    array (n, n). A constant truth is a column of NaN, no candidate. A constant prediction is a row of 0, which ties
    with everything and so scores chance.
    """
    if truth.ndim == 2:
        matrix = correlation_matrix(predicted, truth)
    else:
        check_clips(predicted, truth)
        matrix = correlation_matrix(predicted.reshape(len(predicted), -1), truth.reshape(len(truth), -1))
    return _square(matrix)


def pairwise_pairs(similarity: np.ndarray) -> np.ndarray:
    """Return, for each prediction (rows), the share of other clips ranked below each clip (columns), array (n, n).

    Ties count one half. Clips whose similarity is NaN are left out.
    """
    known = _known(similarity)
    ranks = rankdata(similarity, axis=1, nan_policy="omit")
    return (ranks - 1) / np.maximum(known - 1, 1)


def top_pairs(similarity: np.ndarray, top: int) -> np.ndarray:
    """Return, for each prediction (rows), whether each clip (columns) is among its `top` most similar, array (n, n).

    1 or 0; where a tie reaches over the border, the probability under random order of the tied.
    """
    require(top >= 1, "top", "must be >= 1", top)
    _known(similarity)
    first = rankdata(-similarity, method="min", axis=1, nan_policy="omit")
    last = rankdata(-similarity, method="max", axis=1, nan_policy="omit")
    return np.clip((top + 1 - first) / (last - first + 1), 0, 1)


def identify_pairwise(similarity: np.ndarray) -> np.ndarray:
    """Return for each clip the share of other clips ranked below the true one, array (n,); chance is .5."""
    return np.diagonal(pairwise_pairs(similarity)).copy()


def identify_top(similarity: np.ndarray, top: int) -> np.ndarray:
    """Return for each clip whether it is among the `top` most similar to its prediction, array (n,); chance top / n."""
    return np.diagonal(top_pairs(similarity, top)).copy()


def identification_curve(similarity: np.ndarray, candidates: Sequence[int], *, top: int = 1) -> np.ndarray:
    """Return the exact accuracy of each clip against the number of candidates it is to be found among.

    Parameters
    ----------
    similarity : array (n, n), predictions by true clips, the true one on the diagonal.
    candidates : numbers of candidates, the true one included, from 2 to n.
    top : success if the true one is among so many.

    Returns
    -------
    array (sizes, n): the share of all draws of candidates that succeed (hypergeometric, nothing is drawn). Chance is
    top / candidates. NaN where the truth is constant or fewer candidates are left.

    Raises
    ------
    DataError : a number of candidates is below 2 or above n.
    """
    _known(similarity)
    own = np.diagonal(similarity)[:, None]
    better = (similarity > own).sum(axis=1)
    tied = (similarity == own).sum(axis=1) - 1
    others = (~np.isnan(similarity)).sum(axis=1) - 1
    curve = np.full((len(candidates), len(similarity)), np.nan)
    for row, size in enumerate(candidates):
        require(2 <= size <= len(similarity), "candidates", f"must be from 2 to the {len(similarity)} clips", size)
        for left in np.unique(others[others >= size - 1]):
            chosen = (others == left) & ~np.isnan(own[:, 0])
            curve[row, chosen] = share_of_draws(better[chosen], tied[chosen], int(left), size - 1, top=top)
    return curve


def _square(similarity: np.ndarray) -> np.ndarray:
    """Return the matrix if it holds as many predictions as true clips and at least two of them."""
    dimensions("similarity", similarity, ("predicted", "truth"))
    rows, columns = similarity.shape
    require(rows == columns, "similarity", "must have as many predictions as true clips", f"shape {similarity.shape}")
    require(rows >= 2, "similarity", "must have at least 2 clips to tell apart", rows)
    return similarity


def _known(similarity: np.ndarray) -> np.ndarray:
    """Return how many candidates each prediction has, array (n, 1)."""
    return (~np.isnan(_square(similarity))).sum(axis=1, keepdims=True)
