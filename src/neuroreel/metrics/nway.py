"""N-way accuracies, exactly: the share of all draws of distractors that succeed, without drawing any."""

from __future__ import annotations

from math import comb

import numpy as np
from scipy.special import gammaln
from scipy.stats import hypergeom

from neuroreel.core.checks import dimensions, finite, require, same_length

COMPAT_ACCEPTED = 3


def share_of_draws(
    better: np.ndarray, tied: np.ndarray, others: int, drawn: int, *, top: int = 1, accepted: np.ndarray | None = None
) -> np.ndarray:
    """Return the share of all draws of distractors in which the true answer is among the `top` best.

    Parameters
    ----------
    better, tied : arrays (n,): how many of the other candidates score above the true one, and how many the same.
    others : number of other candidates.
    drawn : how many of them are drawn, without replacement.
    top : the true one has to be among so many.
    accepted : array (n,): how many accepted answers share the best score; 1 unless given.

    Returns
    -------
    array (n,). With a = better, N = drawn + 1 and no ties this is C(others - a, N - 1) / C(others, N - 1) for
    `top=1`, and the hypergeometric tail P(fewer than `top` better ones are drawn) above. Ties are broken at random.
    """
    require(1 <= drawn <= others, "drawn", f"must be from 1 to the {others} other candidates", drawn)
    require(top >= 1, "top", "must be >= 1", top)
    share = np.array(hypergeom.cdf(top - 1, others, np.arange(others + 1), drawn))
    share[: min(top, others + 1)] = 1.0
    winners = np.ones(len(better), dtype=int) if accepted is None else accepted
    cases = np.stack([better, tied, winners], axis=1).astype(int)
    unique, inverse = np.unique(cases, axis=0, return_inverse=True)
    values = [float(share[a : a + t + 1] @ _ahead(t, s)) for a, t, s in unique.tolist()]
    return np.array(values)[inverse.reshape(-1)]


def nway(predicted: np.ndarray, truth: np.ndarray, n_way: int, *, top: int = 1, accepted: int = 1) -> np.ndarray:
    """Return the exact n-way accuracy of each clip: a classifier's answers on the prediction and on the truth.

    Parameters
    ----------
    predicted, truth : probabilities (n, classes) of the reconstruction and of the true clip.
    n_way : number of candidates, the true one and n_way - 1 distractors.
    top : success if a true class is among so many of the candidates.
    accepted : how many of the classes that lead on the truth count as true (k0). They are never distractors.

    Returns
    -------
    array (n,), the share of all draws of distractors that succeed.

    Raises
    ------
    DataError : the arrays differ in shape or hold NaN, or there are too few classes for `n_way`.
    """
    for name, array in (("predicted", predicted), ("truth", truth)):
        finite(name, dimensions(name, array, ("n", "classes")))
    require(predicted.shape == truth.shape, "predicted", f"must have the truth's shape {truth.shape}", predicted.shape)
    others = truth.shape[1] - accepted
    require(accepted >= 1, "accepted", "must be >= 1", accepted)
    rule = f"must be from 2 to {others + 1}, what {truth.shape[1]} classes with {accepted} accepted leave"
    require(2 <= n_way <= others + 1, "n_way", rule, n_way)
    leading = np.argsort(-truth, axis=1, kind="stable")[:, :accepted]
    own = np.take_along_axis(predicted, leading, axis=1)
    best = own.max(axis=1, keepdims=True)
    winners = (own == best).sum(axis=1)
    # the accepted classes never score above the best of them, so they only have to leave the ties
    better = (predicted > best).sum(axis=1)
    tied = (predicted == best).sum(axis=1) - winners
    return share_of_draws(better, tied, others, n_way - 1, top=top, accepted=winners)


def nway_top1(probabilities_predicted: np.ndarray, probabilities_truth: np.ndarray, n_way: int) -> np.ndarray:
    """Return the exact n-way top-1 accuracy with one true class, the truth's best, array (n,); chance is 1 / n_way."""
    return nway(probabilities_predicted, probabilities_truth, n_way)


def nway_top3_compat(probabilities_predicted: np.ndarray, probabilities_truth: np.ndarray, n_way: int) -> np.ndarray:
    """Return what released code calls n-way top-1, where any of the truth's three best classes counts, array (n,).

    Chance is 3 / (n_way + 2): 75.0 % for 2-way, 5.77 % for 50-way. Only here to compare with published numbers.
    """
    return nway(probabilities_predicted, probabilities_truth, n_way, accepted=COMPAT_ACCEPTED)


def nway_chance(n_way: int, *, top: int = 1, accepted: int = 1) -> float:
    """Return the chance of an n-way accuracy: that one of the accepted classes is among the `top` of a random order."""
    return 1 - comb(n_way - 1, top) / comb(n_way - 1 + accepted, top)


def category_accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return 1 where the predicted label is the true one, else 0; NaN for clips without a true label.

    Parameters
    ----------
    predicted, truth : labels (n,), text or whole numbers; None, NaN and "" mean that there is no label.

    Returns
    -------
    array (n,) float64.
    """
    guess, labels = (np.asarray(array, dtype=object) for array in (predicted, truth))
    for name, array in (("predicted", guess), ("truth", labels)):
        dimensions(name, array, ("n",))
    same_length("predicted", len(guess), "truth", len(labels))
    missing = np.array([label is None or label == "" or label != label for label in labels], dtype=bool)
    return np.where(missing, np.nan, (guess == labels).astype(np.float64))


def _ahead(tied: int, winners: int) -> np.ndarray:
    """Return the probability that 0, 1, ... `tied` losers precede the first winner in a random order of the tied."""
    losers_after = tied - np.arange(tied + 1)
    # orders of the rest over all orders, the first winner standing behind exactly so many losers
    log = _log_comb(losers_after + winners - 1, winners - 1) - _log_comb(np.array(tied + winners), winners)
    return np.exp(log)


def _log_comb(n: np.ndarray, k: int) -> np.ndarray:
    """Return log C(n, k)."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
