"""Factors that voxels share: what is linear in masked modelling, in closed form for every mask.

A window's z-scored voxels are taken as x = W f + e, with f of unit variance and e of a variance of its own, psi, for
each voxel (factor analysis). Then for any visible voxels v the best answer for the others m is

    f^ = (I + W_v' psi_v^-1 W_v)^-1 W_v' psi_v^-1 x_v,     x_m^ = W_m f^                                     (1)

(Rubin & Thayer 1982, Psychometrika 47:69-76, who also give the steps of expectation and maximisation used here). The
weights have a normal prior, so that weak factors count for less than they seem to. How many factors there are and how
strong the prior is are chosen by what they predict of volumes that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from neuroreel.brain.stream import Moments, StreamRun, principal_axes
from neuroreel.core.seeds import generator

ENOUGH = 8192  # windows that factors are found in
ROWS = 256  # windows that are in memory at a time
ROUNDS, FEWER_ROUNDS = 20, 8  # of expectation and maximisation; the fewer where only the number is chosen
LEAST_NOISE = 0.02  # of a voxel's variance
PRIORS = (0.0, 0.025, 0.05, 0.1, 0.2)  # added to each factor's variance where weights are found
HELD_OUT = 0.25  # last share of every run
SCORED = 512  # held-out windows

Chunks = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Factors:
    """Weights (trs, voxels, factors) and variance of what is each voxel's own (trs, voxels), of z-scored windows."""

    weights: np.ndarray
    noise: np.ndarray

    def fill_in(self, windows: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        """Return the hidden voxels of windows (n, trs, voxels) from the visible ones, (n, trs, hidden); equation (1).

        Parameters
        ----------
        hidden : (voxels,) bool, the same in all volumes.
        """
        count = self.weights.shape[2]
        seen = self.weights[:, ~hidden].reshape(-1, count)
        weighed = seen / self.noise[:, ~hidden].reshape(-1, 1)
        x = windows[:, :, ~hidden].reshape(len(windows), -1)
        found = np.linalg.solve(np.eye(count) + seen.T @ weighed, (x @ weighed).T)  # (factors, n)
        return np.asarray(np.einsum("fn,tvf->ntv", found, self.weights[:, hidden]), dtype=np.float32)


def find_factors(
    runs: Sequence[StreamRun], moments: Moments, trs: int, most: int, hidden: np.ndarray, *, seed: int = 0
) -> Factors:
    """Return the factors of all windows of `trs` volumes of some runs of one subject, z-scored by its moments.

    The number is `most`, or a half of that, a quarter and so on: the one that recovers hidden voxels best in the last
    quarter of every run when it is fitted to what comes before; then the prior is chosen likewise.

    Parameters
    ----------
    runs : of which as many are taken, in an order drawn anew, as hold 8192 windows.
    most : factors.
    hidden : (masks, voxels) bool, masks to choose the number by.
    """
    taken, windows = [], 0
    for number in generator(seed, "factors").permutation(len(runs)):
        if windows < ENOUGH and runs[number].trs >= trs:
            taken.append(runs[number])
            windows += runs[number].trs - trs + 1
    size = trs * len(moments.mean)
    fitted = _cut(taken, moments, trs, 0.0, 1 - HELD_OUT)
    most = max(1, min(most, size - 1, int(windows * (1 - HELD_OUT)) // 2))
    held = np.concatenate(list(_cut(taken, moments, trs, 1 - HELD_OUT, 1.0)()))
    held = held[:: -(-len(held) // SCORED)].reshape(-1, trs, len(moments.mean))
    axes, variances = principal_axes(fitted, size, most, seed=seed)

    def error(count: int, prior: float) -> float:
        first = axes[:, :count] * np.sqrt(variances[:count])
        tried = _expect_and_maximise(fitted, first, trs, prior, FEWER_ROUNDS)
        apart = [held[:, :, mask] - tried.fill_in(held, mask) for mask in hidden]
        return sum(float((each**2).sum(dtype=np.float64)) for each in apart)

    count = min(_halvings(most), key=lambda each: error(each, PRIORS[1]))
    prior = min(PRIORS, key=lambda each: error(count, each))
    every = _cut(taken, moments, trs, 0.0, 1.0)
    axes, variances = principal_axes(every, size, count, seed=seed)
    return _expect_and_maximise(every, axes * np.sqrt(variances), trs, prior, ROUNDS)


def _halvings(most: int) -> list[int]:
    """Return a number, its half and so on down to 1, the smallest first."""
    return [] if most < 1 else [*_halvings(most // 2), most]


def _cut(runs: Sequence[StreamRun], moments: Moments, trs: int, start: float, stop: float) -> Chunks:
    """Return what gives the z-scored windows of a share of every run in parts, (n, trs x voxels)."""

    def chunks() -> Iterator[np.ndarray]:
        for run in runs:
            data = moments.apply(run.read())
            first, last = (round(share * len(data)) for share in (start, stop))
            data = data[first:last]  # cut first, so that no window lies on both sides
            for at in range(0, len(data) - trs + 1, ROWS):
                rows = range(at, min(at + ROWS, len(data) - trs + 1))
                yield np.stack([data[row : row + trs] for row in rows]).reshape(len(rows), -1)

    return chunks


def _expect_and_maximise(chunks: Chunks, weights: np.ndarray, trs: int, prior: float, rounds: int) -> Factors:
    """Return the factors that so many rounds make of first weights (trs x voxels, factors)."""
    count = weights.shape[1]
    power, windows = np.zeros(len(weights)), 0
    for part in chunks():
        power += (part.astype(np.float64) ** 2).sum(0)
        windows += len(part)
    power /= windows
    noise = np.maximum(power - (weights.astype(np.float64) ** 2).sum(1), LEAST_NOISE)
    for _ in range(rounds):
        weighed = weights / noise[:, None]
        spread = np.linalg.inv(np.eye(count) + weights.T @ weighed)  # what the windows leave open of the factors
        project = np.asarray(weighed @ spread, dtype=np.float32)  # (trs x voxels, factors)
        product, scores = np.zeros_like(project), np.zeros((count, count))
        for part in chunks():
            found = part @ project
            product += part.T @ found / windows
            scores += found.T @ found / windows
        scores += spread
        weights = product @ np.linalg.inv(scores + prior * np.eye(count))
        noise = power - 2 * (weights * product).sum(1) + ((weights @ scores) * weights).sum(1)
        noise = np.maximum(noise, LEAST_NOISE)
    return Factors(weights.reshape(trs, -1, count).astype(np.float32), noise.reshape(trs, -1).astype(np.float32))
