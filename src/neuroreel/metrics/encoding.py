"""How well a model of the brain predicts each voxel: correlation and R2, against the noise ceiling, corrected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from neuroreel.core.checks import dimensions, finite, require
from neuroreel.core.stats import fdr
from neuroreel.metrics.inference import block_permutation

VOXELS_AT_ONCE = 1024


def voxel_correlation(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Pearson's r over time of each voxel.

    Parameters
    ----------
    predicted, truth : BOLD (trs, voxels).

    Returns
    -------
    array (voxels,) float64; NaN where the measured voxel is constant, 0 where only the prediction is.
    """
    values = np.full(_voxels(predicted, truth), np.nan)
    for block in _blocks(values.size):
        a, b = predicted[:, block].astype(np.float64), truth[:, block].astype(np.float64)
        flat_a, flat_b = np.ptp(a, axis=0) == 0, np.ptp(b, axis=0) == 0
        a -= a.mean(axis=0)
        b -= b.mean(axis=0)
        length = np.sqrt(np.sum(a * a, axis=0) * np.sum(b * b, axis=0))
        r = np.divide(np.sum(a * b, axis=0), length, out=np.zeros_like(length), where=(length > 0) & ~flat_a)
        values[block] = np.where(flat_b, np.nan, np.clip(r, -1, 1))
    return values


def voxel_r2(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return R2 = 1 - SS_res / SS_tot over time of each voxel, without any rescaling of the prediction.

    Parameters
    ----------
    predicted, truth : BOLD (trs, voxels).

    Returns
    -------
    array (voxels,) float64, at most 1 and below 0 where the voxel's own mean does better; NaN where the measured voxel
    is constant.
    """
    values = np.full(_voxels(predicted, truth), np.nan)
    for block in _blocks(values.size):
        a, b = predicted[:, block].astype(np.float64), truth[:, block].astype(np.float64)
        total = np.sum((b - b.mean(axis=0)) ** 2, axis=0)
        varies = (np.ptp(b, axis=0) > 0) & (total > 0)
        rest = np.sum((b - a) ** 2, axis=0)
        values[block] = 1 - np.divide(rest, total, out=np.full_like(total, np.nan), where=varies)
    return values


def over_ceiling(values: np.ndarray, ceiling: np.ndarray, *, floor: float = 0.1) -> np.ndarray:
    """Return the values divided by each voxel's noise ceiling.

    Parameters
    ----------
    values : array (voxels,), a correlation or an R2.
    ceiling : array (voxels,), the highest value that a perfect model can have, in the same unit as `values`.
    floor : voxels with a ceiling under it become NaN: what can't be predicted can't be scored.

    Returns
    -------
    array (voxels,). Not clipped: the ceiling is an estimate, and some voxels come out above 1.
    """
    dimensions("values", values, ("voxels",))
    require(ceiling.shape == values.shape, "ceiling", f"must have the values' shape {values.shape}", ceiling.shape)
    require(floor > 0, "floor", "must be > 0", floor)
    ratio = np.full(values.shape, np.nan)
    return np.divide(values, ceiling, out=ratio, where=ceiling >= floor)


@dataclass(frozen=True, eq=False)
class VoxelScores:
    """How well a model of the brain predicts each voxel.

    Parameters
    ----------
    correlation, r2 : arrays (voxels,), NaN where the measured voxel is constant.
    correlation_over_ceiling, r2_over_ceiling : the same divided by the noise ceiling, NaN where that is too low; None
        where nobody measured it.
    p : arrays (voxels,), of the correlation, from a permutation of blocks of volumes.
    significant : array (voxels,) bool, p corrected for the false discovery rate.
    """

    correlation: np.ndarray
    r2: np.ndarray
    correlation_over_ceiling: np.ndarray | None
    r2_over_ceiling: np.ndarray | None
    p: np.ndarray
    significant: np.ndarray


def score_voxels(
    predicted: np.ndarray,
    truth: np.ndarray,
    blocks: np.ndarray,
    *,
    ceiling: np.ndarray | None = None,
    q: float = 0.05,
    seed: int = 0,
    n: int = 1000,
) -> VoxelScores:
    """Score an encoding model on each voxel.

    Parameters
    ----------
    predicted, truth : BOLD (trs, voxels).
    blocks : array (trs,), the segment of each volume; as long as the signal stays correlated with itself, e.g. 20 s.
    ceiling : array (voxels,), the highest correlation that a perfect model can have, from repeats; R2 is held to its
        square.
    q : false discovery rate.
    seed, n : of the permutations.
    """
    correlation, r2 = voxel_correlation(predicted, truth), voxel_r2(predicted, truth)
    p = np.full(correlation.shape, np.nan)
    for block in _blocks(p.size):
        a, b = (_unit_columns(side[:, block]) for side in (predicted, truth))
        test = block_permutation(partial(_products, a, b), blocks, seed=seed, n=n)
        p[block] = np.where(np.isnan(correlation[block]), np.nan, test.p)
    over = None if ceiling is None else over_ceiling(correlation, ceiling)
    r2_over = None if ceiling is None else over_ceiling(r2, np.maximum(ceiling, 0) ** 2, floor=0.01)
    return VoxelScores(correlation, r2, over, r2_over, p, fdr(p, q))


def _unit_columns(bold: np.ndarray) -> np.ndarray:
    """Return the columns with mean 0 and length 1, float32; constant ones are 0."""
    centred = bold - bold.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=0)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0).astype(np.float32)


def _products(a: np.ndarray, b: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the correlation of unit columns with the rows of one side in another order."""
    return np.einsum("tv,tv->v", a, b[order])


def _voxels(predicted: np.ndarray, truth: np.ndarray) -> int:
    """Return the number of voxels of two BOLD arrays of one shape."""
    for name, bold in (("predicted", predicted), ("truth", truth)):
        finite(name, dimensions(name, bold, ("trs", "voxels")))
    require(predicted.shape == truth.shape, "predicted", f"must have the truth's shape {truth.shape}", predicted.shape)
    require(len(truth) >= 2, "truth", "must have at least 2 volumes", len(truth))
    return truth.shape[1]


def _blocks(voxels: int) -> list[slice]:
    """Return slices over the voxels, to bound the memory in use."""
    return [slice(start, start + VOXELS_AT_ONCE) for start in range(0, voxels, VOXELS_AT_ONCE)]
