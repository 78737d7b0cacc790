"""Does a generator say the same thing of the same brain? Several samples of a trial, and trials of similar brains.

Source of the claim: Chen et al. 2023, CVPR, arXiv 2211.06956, section 5 (samples of one scan share what they show) and
supplement (scans of similar activity give similar pictures). Here both have a chance and a p-value.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import rankdata

from neuroreel.core.checks import dimensions, finite, require, same_length
from neuroreel.core.seeds import generator
from neuroreel.metrics.inference import Permutation, block_members, block_orders, block_permutation
from neuroreel.metrics.pixel import unit_rows


@dataclass(frozen=True)
class Consistency:
    """How alike the samples of a generator are, within a trial and between trials of similar brain activity.

    Parameters
    ----------
    trials, samples : how many trials there were, and samples of each.
    within : mean cosine between the embeddings of two samples of one trial; NaN with one sample a trial.
    between : mean cosine between samples of trials from different blocks.
    within_chance, within_p : mean of `within` over samples given to other trials, and how often that reached `within`.
    brain_rho : Spearman's correlation, over pairs of trials from different blocks, between the similarity of their
        brains and the similarity of their samples.
    brain_chance, brain_p : mean of `brain_rho` over trials whose brains were swapped, and how often that reached it.
    """

    trials: int
    samples: int
    within: float
    between: float
    within_chance: float
    within_p: float
    brain_rho: float
    brain_chance: float
    brain_p: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain numbers, ready for JSON: NaN becomes None."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def generation_consistency(
    embeddings: np.ndarray, brain: np.ndarray, blocks: np.ndarray, *, seed: int, n: int = 2000
) -> Consistency:
    """Measure whether samples of one trial, and of trials of similar brain activity, are alike in what they show.

    Parameters
    ----------
    embeddings : array (trials, samples, dim), of what was generated, by an image-text network.
    brain : array (trials, voxels), what it was generated from.
    blocks : array (trials,), the scene, run or picture of each trial. Pairs within a block are left out on the side of
        `between` and of the brain, where what is shown and when are alike too, and only whole blocks are permuted.
    seed : seed of the permutations.
    n : number of permutations.

    Returns
    -------
    Consistency, both tests one-sided. The second is Mantel's (1967, Cancer Research 27(2), 209-220) with rank
    correlation, permuted by whole blocks.

    Raises
    ------
    DataError : the arrays differ in trials or hold NaN, a trial's brain is constant, or there are fewer than 3 blocks.
    """
    finite("embeddings", dimensions("embeddings", embeddings, ("trials", "samples", "dim")))
    finite("brain", dimensions("brain", brain, ("trials", "voxels")))
    labels = np.asarray(blocks)
    same_length("brain", len(brain), "embeddings", len(embeddings))
    same_length("blocks", len(labels), "embeddings", len(embeddings))
    require(n >= 1, "n", "must be >= 1", n)
    kinds = len(block_members(labels))
    require(kinds >= 3, "blocks", "must be at least 3, to have pairs to swap", kinds)
    constant = int((np.ptp(brain, axis=1) == 0).sum())
    require(constant == 0, "brain", "must vary over the voxels of every trial", f"{constant} constant trials")

    length = np.linalg.norm(embeddings, axis=2, keepdims=True)
    unit = np.divide(embeddings, length, out=np.zeros(embeddings.shape), where=length > 0)
    mean = unit.mean(axis=1)
    pictures = mean @ mean.T  # the mean cosine over all pairs of samples of two trials
    apart = labels[:, None] != labels
    same = _within(unit, labels, seed, n)
    mantel = _mantel(_brain_similarity(brain), pictures, labels, seed, n)
    return Consistency(
        trials=len(unit),
        samples=unit.shape[1],
        within=float(same.observed),
        between=float(pictures[apart].mean()),
        within_chance=float(same.null.mean()),
        within_p=float(same.p),
        brain_rho=float(mantel.observed),
        brain_chance=float(mantel.null.mean()),
        brain_p=float(mantel.p),
    )


def _brain_similarity(brain: np.ndarray) -> np.ndarray:
    """Return Pearson's r over voxels between the brains of all trials, array (trials, trials)."""
    rows = unit_rows(brain)
    return rows @ rows.T


def _within(unit: np.ndarray, blocks: np.ndarray, seed: int, n: int) -> Permutation:
    """Test the mean cosine between samples of one trial against samples that other trials, by whole blocks, gave."""
    samples = unit.shape[1]
    if samples < 2:
        return Permutation(np.array(np.nan), np.full(n, np.nan), np.array(np.nan))
    own = np.square(unit).sum(axis=2).sum(axis=1).mean()  # a sample with itself: 1, or 0 where there is nothing

    def alike(together: np.ndarray) -> float:
        # |sum of s vectors|^2 holds every ordered pair and every vector with itself
        return float((np.square(together).sum(axis=1).mean() - own) / (samples * (samples - 1)))

    observed = alike(unit.sum(axis=1))
    rng = generator(seed, "consistency-within")
    orders = [block_orders(blocks, n, rng) for _ in range(samples - 1)]
    null = np.empty(n)
    for draw in range(n):
        null[draw] = alike(unit[:, 0] + sum(unit[orders[s][draw], s + 1] for s in range(samples - 1)))
    at_least = (null >= observed - 1e-12).sum()
    return Permutation(np.array(observed), null, np.array((1 + at_least) / (1 + n)))


def _mantel(brains: np.ndarray, pictures: np.ndarray, blocks: np.ndarray, seed: int, n: int) -> Permutation:
    """Test the rank correlation of two similarities over pairs of trials from different blocks."""
    one, other = np.triu_indices(len(blocks), 1)
    ranks = [_ranks(matrix, blocks) for matrix in (brains, pictures)]

    def correlation(order: np.ndarray) -> float:
        a, b = ranks[0][one, other], ranks[1][order[one], order[other]]
        known = ~(np.isnan(a) | np.isnan(b))
        a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
        size = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / size) if size > 0 else 0.0

    return block_permutation(correlation, blocks, seed=seed, n=n)


def _ranks(similarity: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the ranks of the similarities of trials from different blocks, symmetric; NaN within a block."""
    apart = blocks[:, None] != blocks
    ranks = np.full(similarity.shape, np.nan)
    above = np.triu(apart)
    ranks[above] = rankdata(np.round(similarity[above], 12))
    return np.where(np.isnan(ranks), ranks.T, ranks)
