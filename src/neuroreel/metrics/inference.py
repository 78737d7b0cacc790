"""Intervals and p-values that know that neighbouring clips are not independent: whole blocks are drawn and swapped.

A block is a scene, a segment or a run: what is correlated with itself and not with the rest. It is never a single clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from neuroreel.core.checks import dimensions, require, same_length
from neuroreel.core.seeds import generator

DRAWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Permutation:
    """The result of a permutation test.

    Parameters
    ----------
    observed : the statistic of the true pairs, a number or an array of them.
    null : the statistic of each permutation, permutations first.
    p : (1 + count of permutations at least as good) / (1 + permutations), of the shape of `observed`.
    """

    observed: np.ndarray
    null: np.ndarray
    p: np.ndarray


def block_bootstrap(
    values: np.ndarray, blocks: np.ndarray, *, seed: int, n: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a confidence interval of the mean, resampling whole blocks with replacement.

    Parameters
    ----------
    values : array (clips,); NaN where undefined, which is left out.
    blocks : array (clips,), the block of each clip.
    seed : seed of the draws.
    n : number of draws.
    confidence : e.g. .95.

    Returns
    -------
    (low, high). Percentiles of the means of the draws, taken wider than nominal by the factor that a t interval for so
    many blocks is wider than the percentiles of a bootstrap. Source: Hesterberg 2015, The American Statistician 69(4),
    section 5.1 (expanded percentile interval).

    Raises
    ------
    DataError : fewer than 2 blocks have a value.
    """
    dimensions("values", values, ("clips",))
    require(0 < confidence < 1, "confidence", "must lie between 0 and 1", confidence)
    require(n >= 1, "n", "must be >= 1", n)
    same_length("blocks", len(blocks), "values", len(values))
    known = ~np.isnan(values)
    members = block_members(np.asarray(blocks)[known], "blocks with a value")
    sums = np.array([values[known][own].sum() for own in members])
    sizes = np.array([own.size for own in members])
    count = len(members)
    weights = generator(seed, "block-bootstrap").multinomial(count, np.full(count, 1 / count), size=n)
    means = (weights @ sums) / (weights @ sizes)
    tail = norm.cdf(np.sqrt(count / (count - 1)) * t.ppf((1 - confidence) / 2, count - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def interval_of_mean(
    values: np.ndarray, blocks: np.ndarray, *, seed: int, n: int = 2000
) -> tuple[float | None, float | None]:
    """Return `block_bootstrap` at 95 %, or (None, None) where fewer than two blocks have a value."""
    if len(np.unique(np.asarray(blocks)[~np.isnan(values)])) < 2:
        return None, None
    return block_bootstrap(values, blocks, seed=seed, n=n)


def block_permutation(
    statistic: np.ndarray | Callable[[np.ndarray], float | np.ndarray],
    blocks: np.ndarray,
    *,
    seed: int,
    n: int = 2000,
    higher_is_better: bool = True,
) -> Permutation:
    """Test the true pairs against pairs shuffled by whole blocks.

    Parameters
    ----------
    statistic : matrix (clips, clips) of the metric of every prediction (rows) with every truth (columns), whose mean
        over the pairs is tested; or a function of the order of the truths (clips,), e.g.
        ``lambda order: voxel_correlation(predicted, truth[order])``, which returns a number or an array.
    blocks : array (clips,), the block of each clip.
    seed : seed of the permutations.
    n : number of permutations.
    higher_is_better : False for errors and distances.

    Returns
    -------
    Permutation, one-sided. Orders that happen to be the true one stay in, so few blocks give no small p.
    """
    require(n >= 1, "n", "must be >= 1", n)
    function = statistic if callable(statistic) else _mean_of_pairs(statistic, len(blocks))
    observed = np.asarray(function(np.arange(len(blocks))), dtype=np.float64)
    rng = generator(seed, "block-permutation")
    null = np.array([function(order) for order in block_orders(blocks, n, rng)], dtype=np.float64)
    sign = 1.0 if higher_is_better else -1.0
    margin = 1e-12 * np.maximum(1.0, np.abs(observed))
    # negated, so that a NaN on either side counts against the system
    at_least = ~(sign * null < sign * observed - margin)
    return Permutation(observed, null, (1 + at_least.sum(axis=0)) / (1 + n))


def shuffled_chance(
    metric: Callable[[np.ndarray, np.ndarray], np.ndarray] | np.ndarray,
    predicted: np.ndarray | None,
    truth: np.ndarray | None,
    blocks: np.ndarray,
    *,
    seed: int,
    n: int = 20,
) -> float:
    """Return the mean of a metric over pairs whose two sides come from different blocks.

    Parameters
    ----------
    metric : function (predicted, truth) -> (clips,), called for n block permutations; or the matrix (clips, clips) of
        every pair, of which the mean is then taken over all pairs across blocks, without drawing any.
    predicted, truth : what the function takes, clips first; None for a matrix.
    blocks : array (clips,), the block of each clip.
    seed, n : seed and number of the permutations.

    Returns
    -------
    The mean, NaN if the metric is undefined for every such pair.
    """
    labels = np.asarray(blocks)
    if not callable(metric):
        block_members(labels)
        across = np.where(labels[:, None] != labels[None], metric, np.nan)
        return defined_mean(across)
    if predicted is None or truth is None:
        require(False, "predicted and truth", "must be given for a metric that is a function", None)
        return float("nan")
    draws = []
    for order in block_orders(labels, n, generator(seed, "shuffled-chance")):
        # a block that fell on its own place holds true pairs, which are no chance
        draws.append(np.where(labels[order] != labels, metric(predicted, truth[order]), np.nan))
    return defined_mean(np.array(draws))


def block_orders(blocks: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n orders of the clips that move whole blocks, array (n, clips).

    Blocks of equal length are swapped whole. With unequal ones, the blocks are put one behind the other in a random
    order and cut again at the old borders, so that a block may come to lie across one: neighbours stay neighbours.
    """
    members = block_members(np.asarray(blocks))
    places = np.concatenate(members)
    orders = np.empty((n, places.size), dtype=np.intp)
    for row in orders:
        row[places] = np.concatenate([members[block] for block in rng.permutation(len(members))])
    return orders


def block_members(blocks: np.ndarray, name: str = "blocks") -> list[np.ndarray]:
    """Return the indices of each block, in order of appearance; DataError if there are fewer than two blocks."""
    dimensions("blocks", blocks, ("clips",))
    labels, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    require(len(labels) >= 2, name, "must be at least 2, to have something to swap or draw", len(labels))
    return [np.flatnonzero(inverse == label) for label in np.argsort(first)]


def _mean_of_pairs(pairs: np.ndarray, clips: int) -> Callable[[np.ndarray], float]:
    """Return the function that takes an order of the truths to the mean over its pairs."""
    require(pairs.shape == (clips, clips), "statistic", f"must be a matrix ({clips}, {clips})", f"shape {pairs.shape}")
    rows = np.arange(clips)
    return lambda order: defined_mean(pairs[rows, order])


def defined_mean(values: np.ndarray) -> float:
    """Return the mean over what is not NaN, or NaN if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
