"""Repeats: runs of one stimulus, their average and the noise ceiling that they show.

All ceilings come from the covariances between repeats, computed once per voxel: every split into halves, and the signal
power, are sums over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np

from neuroreel.core.checks import dimensions, finite, require, same_length
from neuroreel.core.seeds import generator
from neuroreel.core.types import Run

VOXELS_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Averaged:
    """The mean over the repeats of one stimulus.

    Attributes
    ----------
    run : the mean BOLD (float32) with what was shown; its confounds are empty, its name is `mean of` the runs'.
    of : names of the runs that were averaged.
    """

    run: Run
    of: tuple[str, ...]


def group_repeats(runs: Sequence[Run]) -> tuple[tuple[Run, ...], ...]:
    """Return the runs grouped by stimulus and start, in order of appearance; one without a named stimulus stands alone.

    Raises
    ------
    DataError : two repeats differ in subject, TR, number of volumes or voxels.
    """
    groups: dict[object, list[Run]] = {}
    for index, run in enumerate(runs):
        shown = (run.stimulus, round(run.bold.start_s, 3))
        groups.setdefault(shown if run.stimulus else index, []).append(run)
    for repeats in groups.values():
        for run in repeats[1:]:
            _same_clock(repeats[0], run)
    return tuple(tuple(repeats) for repeats in groups.values())


def average_repeats(runs: Sequence[Run]) -> tuple[Averaged, ...]:
    """Return one mean run per stimulus; hand it the runs of one side of the split only.

    Raises
    ------
    DataError : as `group_repeats`, or NaN or infinite voxels.
    """
    averaged = []
    for repeats in group_repeats(runs):
        first = repeats[0].bold
        total = np.zeros(first.data.shape)
        for run in repeats:
            total += finite("bold", run.bold.data, f"sub-{first.subject} run {run.bold.run}")
        names = tuple(run.bold.run for run in repeats)
        name = names[0] if len(names) == 1 else f"mean of {', '.join(names)}"
        mean = replace(first, data=(total / len(repeats)).astype(np.float32), run=name)
        averaged.append(Averaged(replace(repeats[0], bold=mean, confounds={}), names))
    return tuple(averaged)


def stack_repeats(runs: Sequence[Run]) -> np.ndarray:
    """Return the BOLD of the repeats of one stimulus, (repeats, trs, voxels) float32."""
    groups = group_repeats(runs)
    shown = ", ".join(str(group[0].stimulus) for group in groups)
    require(len(groups) == 1, "repeats", "must be runs of one stimulus", shown or "none")
    return np.stack([run.bold.data for run in groups[0]])


def split_half_ceiling(repeats: np.ndarray, *, of: int | None = None, splits: int = 200, seed: int = 0) -> np.ndarray:
    """Return the noise ceiling by split halves: the correlation of a perfect model with the mean of `of` repeats.

    The correlation r of the means of two halves (m repeats each), averaged over splits, becomes by Spearman-Brown the
    reliability of the mean of n: rho = (n/m) r / (1 + (n/m - 1) r). The ceiling is sqrt(rho), since a perfect model
    has no noise of its own. An odd number of repeats leaves one out of each split, another one each time.

    Parameters
    ----------
    repeats : (repeats, trs, voxels), 2 repeats or more of one stimulus; noise is independent between repeats.
    of : number of repeats in the mean that is predicted; None for all that are given. More than given extrapolates.
    splits : all splits if there are no more than this, else as many random ones.
    seed : of the random splits.

    Returns
    -------
    array (voxels,) float64 in 0..1: 0 where the halves don't agree at all, NaN where a repeat is constant.
    Source: Spearman 1910 and Brown 1910, British Journal of Psychology 3(3).
    """
    count = _repeats(repeats)
    wanted = _wanted(of, count)
    require(splits >= 1, "splits", "must be 1 or more", splits)
    half = count // 2
    pairs = list(_halves(count, splits, seed))
    ceiling = np.empty(repeats.shape[2])
    for block, covariance in _covariances(repeats):
        total = np.zeros(covariance.shape[2])
        for left, right in pairs:
            between = covariance[np.ix_(left, right)].sum(axis=(0, 1))
            within = [covariance[np.ix_(side, side)].sum(axis=(0, 1)) for side in (left, right)]
            with np.errstate(divide="ignore", invalid="ignore"):
                total += between / np.sqrt(within[0] * within[1])
        r = np.clip(total / len(pairs), 0, 1)
        ratio = wanted / half
        ceiling[block] = np.sqrt(ratio * r / (1 + (ratio - 1) * r))
    ceiling[_any_constant(repeats)] = np.nan
    return ceiling


def signal_power(repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the power of the signal and of the noise of one repeat, per voxel.

    The signal's power is the mean covariance between repeats, which equals (N P(mean) - mean P) / (N - 1); the noise's
    is the mean variance of a repeat less that. Both are unbiased, so the signal's may come out below 0.

    Parameters
    ----------
    repeats : (repeats, trs, voxels), 2 repeats or more of one stimulus; noise is independent between repeats.

    Returns
    -------
    signal, noise : (voxels,) float64, in the data's unit squared.
    Source: Sahani and Linden 2003, NIPS 15, equation 1.
    """
    count = _repeats(repeats)
    signal, noise = np.empty(repeats.shape[2]), np.empty(repeats.shape[2])
    for block, covariance in _covariances(repeats):
        own = np.einsum("iiv->v", covariance)
        signal[block] = (covariance.sum(axis=(0, 1)) - own) / (count * (count - 1))
        noise[block] = own / count - signal[block]
    return signal, noise


def signal_power_ceiling(repeats: np.ndarray, *, of: int | None = None) -> np.ndarray:
    """Return the noise ceiling by signal power: the correlation of a perfect model with the mean of `of` repeats.

    sqrt(S / (S + N / of)) with the powers S and N of `signal_power`: CCmax of Schoppe et al. 2016, Frontiers in
    Computational Neuroscience 10:10, when `of` is the number of repeats given.

    Parameters
    ----------
    repeats : as in `signal_power`.
    of : number of repeats in the mean that is predicted; None for all that are given. More than given extrapolates.

    Returns
    -------
    array (voxels,) float64 in 0..1: 0 where there is no signal, NaN where a repeat is constant.
    """
    wanted = _wanted(of, _repeats(repeats))
    signal, noise = signal_power(repeats)
    heard = np.maximum(signal, 0)
    total = heard + np.maximum(noise, 0) / wanted
    ceiling = np.sqrt(np.divide(heard, total, out=np.zeros_like(heard), where=total > 0))
    ceiling[_any_constant(repeats)] = np.nan
    return ceiling


def normalised_correlation(predicted: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Return the correlation of a prediction with the signal alone: CCnorm = cov(x, mean) / sqrt(var(x) S).

    Parameters
    ----------
    predicted : (trs, voxels).
    repeats : (repeats, trs, voxels) of the same stimulus.

    Returns
    -------
    array (voxels,) float64; not clipped, NaN where the prediction is constant or no signal power is left.
    Source: Schoppe et al. 2016, Frontiers in Computational Neuroscience 10:10.
    """
    _repeats(repeats)
    shape = repeats.shape[1:]
    require(predicted.shape == shape, "predicted", f"must have the shape {shape} of a repeat", predicted.shape)
    signal, _ = signal_power(repeats)
    x = finite("predicted", predicted).astype(np.float64)
    x -= x.mean(axis=0)
    mean = repeats.mean(axis=0, dtype=np.float64)
    known = (np.ptp(predicted, axis=0) > 0) & (signal > 0) & ~_any_constant(repeats)
    size = np.sqrt(np.where(known, x.var(axis=0, ddof=1) * signal, 1.0))
    return np.where(known, np.sum(x * mean, axis=0) / (len(x) - 1) / size, np.nan)


def _halves(count: int, splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield every split of the repeats into two halves of count // 2, or `splits` random ones if there are more."""
    half = count // 2
    every = comb(count, half) * comb(count - half, half) // 2
    if every <= splits:
        for left in combinations(range(count), half):
            rest = [repeat for repeat in range(count) if repeat not in left]
            for right in combinations(rest, half):
                if left < right:
                    yield np.array(left), np.array(right)
        return
    rng = generator(seed, "split-half")
    for _ in range(splits):
        order = rng.permutation(count)
        yield order[:half], order[half : 2 * half]


def _covariances(repeats: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of voxels with the covariances over time between repeats, (repeats, repeats, block) float64."""
    for start in range(0, repeats.shape[2], VOXELS_AT_ONCE):
        block = slice(start, start + VOXELS_AT_ONCE)
        data = repeats[:, :, block].astype(np.float64)
        data -= data.mean(axis=1, keepdims=True)
        by_voxel = data.transpose(2, 0, 1)  # (block, repeats, trs)
        yield block, (by_voxel @ by_voxel.transpose(0, 2, 1)).transpose(1, 2, 0) / (data.shape[1] - 1)


def _repeats(repeats: np.ndarray) -> int:
    """Return the number of repeats of a (repeats, trs, voxels) array that a ceiling can be made of."""
    finite("repeats", dimensions("repeats", repeats, ("repeats", "trs", "voxels")))
    require(len(repeats) >= 2, "repeats", "must be 2 or more for a noise ceiling", len(repeats))
    require(repeats.shape[1] >= 3, "volumes", "must be 3 or more for a noise ceiling", repeats.shape[1])
    return len(repeats)


def _wanted(of: int | None, count: int) -> int:
    """Return the number of repeats in the mean that is predicted."""
    require(of is None or of >= 1, "of", "must be 1 repeat or more", of)
    return count if of is None else of


def _any_constant(repeats: np.ndarray) -> np.ndarray:
    """Return the voxels (voxels,) bool that are constant in any repeat."""
    return (np.ptp(repeats, axis=1) == 0).any(axis=0)


def _same_clock(first: Run, other: Run) -> None:
    """Raise DataError unless two repeats can be averaged volume by volume."""
    a, b = first.bold, other.bold
    name, source = f"run {b.run}", f"repeat of {a.run}, stimulus {first.stimulus}"
    require(a.subject == b.subject, f"subject of {name}", f"must be {a.subject}", b.subject, source)
    require(abs(a.tr_s - b.tr_s) < 1e-4 * a.tr_s, f"tr_s of {name}", f"must be {a.tr_s:g}", b.tr_s, source)
    require(a.n_trs == b.n_trs, f"volumes of {name}", f"must be {a.n_trs}", b.n_trs, source)
    same_length(f"voxels of {name}", b.space.size, f"voxels of run {a.run}", a.space.size, source)
