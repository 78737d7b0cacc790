"""Names for what is decoded: predicted features held against the average features of many categories.

Source: Horikawa & Kamitani 2017, Nat. Commun. 8:15037 (Methods, "Identification analysis"; the prediction's correlation
with the true category must be above that with each of the others).
"""

from __future__ import annotations

import numpy as np

from neuroreel.core.checks import dimensions, finite, require, same_length
from neuroreel.metrics.encoding import voxel_correlation
from neuroreel.metrics.pixel import correlation_matrix


def category_similarity(predicted: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return Pearson's r of every predicted pattern with every category's.

    Parameters
    ----------
    predicted : (trials, units), finite.
    candidates : (categories, units); a category with a NaN, or whose pattern is constant, is no candidate.

    Returns
    -------
    array (trials, categories): NaN columns where there is no candidate. A constant prediction has 0 everywhere, which
    ties with everything and so scores chance.

    Raises
    ------
    DataError : the numbers of units differ.
    """
    finite("predicted", dimensions("predicted", predicted, ("trials", "units")))
    dimensions("candidates", candidates, ("categories", "units"))
    same_length("units of the candidates", candidates.shape[1], "predicted units", predicted.shape[1])
    known = np.isfinite(candidates).all(axis=1)
    similarity = np.full((len(predicted), len(candidates)), np.nan)
    if known.any():
        similarity[:, known] = correlation_matrix(predicted, candidates[known])
    return similarity


def identify_category(similarity: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return for each trial the share of other categories that are less similar than the true one; chance is .5.

    Parameters
    ----------
    similarity : (trials, categories), NaN where there is no candidate.
    true : (trials,) int, the column of the true category.

    Returns
    -------
    array (trials,): a tie counts one half, a NaN candidate is dropped and never counted as beaten. NaN where the true
    category is no candidate or there is no other.

    Raises
    ------
    DataError : a true category lies outside the columns.
    """
    dimensions("similarity", similarity, ("trials", "categories"))
    same_length("true categories", len(true), "trials", len(similarity))
    inside = bool(np.all((true >= 0) & (true < similarity.shape[1])))
    require(inside, "true categories", f"must lie within 0..{similarity.shape[1] - 1}", true.tolist()[:3])
    own = similarity[np.arange(len(true)), true][:, None]
    beaten = np.sum(similarity < own, axis=1) + (np.sum(similarity == own, axis=1) - 1) / 2
    others = np.sum(~np.isnan(similarity), axis=1) - 1
    scored = ~np.isnan(own[:, 0]) & (others > 0)
    return np.divide(beaten, others, out=np.full(len(true), np.nan), where=scored)


def profile_correlation(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return for each unit Pearson's r between its predicted and its true values over pictures, (units,).

    Parameters
    ----------
    predicted, truth : (pictures, units); the truth may be of the pictures or of their categories.

    Returns
    -------
    array (units,), NaN where the true unit is constant, 0 where only the prediction is.
    """
    return voxel_correlation(predicted, truth)
