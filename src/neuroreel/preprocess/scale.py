"""Scaling per voxel: z-score with the moments of the training data, and percent signal change of one run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from neuroreel.core.checks import finite, require, same_length
from neuroreel.core.errors import NeuroreelWarning
from neuroreel.core.types import Bold


@dataclass(frozen=True, eq=False)
class Scaler:
    """A z-score per voxel with moments learnt from training data alone.

    Attributes
    ----------
    mean, std : (voxels,) float64; std is 1 where the voxel is constant.
    constant : (voxels,) bool, voxels that never change in training; they become 0.
    """

    mean: np.ndarray
    std: np.ndarray
    constant: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray | Sequence[np.ndarray], *, ddof: int = 0) -> Self:
        """Return the scaler of training data.

        Parameters
        ----------
        train : (..., voxels) or several such arrays (one a run), all of them training data, finite.
        ddof : the variance is the sum of squares over (samples - ddof): 0 or 1.

        Raises
        ------
        DataError : no more samples than ddof, NaN or infinity, or runs with different voxel counts.

        Warns
        -----
        NeuroreelWarning : the number of constant voxels, which can't be scaled and become 0.
        """
        runs = [train] if isinstance(train, np.ndarray) else list(train)
        require(len(runs) > 0, "train", "must hold at least one run", 0)
        flat = [finite("train", run).reshape(-1, run.shape[-1]) for run in runs]
        voxels = flat[0].shape[1]
        for run in flat[1:]:
            same_length("voxels of a run", run.shape[1], "those of the first", voxels)
        count = sum(len(run) for run in flat)
        require(ddof in (0, 1), "ddof", "must be 0 or 1", ddof)
        require(count > ddof, "train", f"must have more than {ddof} samples", count)
        mean = np.sum([run.sum(axis=0, dtype=np.float64) for run in flat], axis=0) / count
        square = np.sum([_squares(run, mean) for run in flat], axis=0)
        highest = np.max([run.max(axis=0) for run in flat if len(run)], axis=0)
        lowest = np.min([run.min(axis=0) for run in flat if len(run)], axis=0)
        std = np.sqrt(square / (count - ddof))
        constant = (highest == lowest) | (std == 0)
        if constant.any():
            text = f"{np.count_nonzero(constant)} of {voxels} voxels are constant in training and become 0"
            warnings.warn(text, NeuroreelWarning, stacklevel=2)
        return cls(mean, np.where(constant, 1.0, std), constant)

    def transform(self, data: np.ndarray) -> np.ndarray:
        """Return the z-score of (..., voxels) as float32; constant voxels are 0."""
        same_length("voxels", data.shape[-1], "those of the scaler", self.mean.size)
        out = np.empty(data.shape, dtype=np.float32)
        np.subtract(data, self.mean, out=out, casting="same_kind")
        out /= self.std.astype(np.float32)
        out[..., self.constant] = 0
        return out

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Return what `transform` was given, (..., voxels) float32; constant voxels get their training value."""
        same_length("voxels", scaled.shape[-1], "those of the scaler", self.mean.size)
        kept = np.where(self.constant, 0.0, self.std)
        return (scaled * kept + self.mean).astype(np.float32)


def zscore_run(bold: Bold, *, ddof: int = 0) -> Bold:
    """Return one run with each voxel's own mean at 0 and variance at 1, float32; constant voxels are 0 and said.

    Each run is scaled by itself, as Wen et al. 2018 do, so that nothing passes from one run to another.
    """
    return replace(bold, data=Scaler.fit(bold.data, ddof=ddof).transform(bold.data))


def percent_signal_change(bold: Bold) -> Bold:
    """Return one run as percent of each voxel's own mean, 100 (x - mean) / mean, float32.

    Raises
    ------
    DataError : NaN or infinite voxels, or no voxel with a mean above 0 (as after a detrend without `keep_mean`).

    Warns
    -----
    NeuroreelWarning : the number of voxels whose mean is not above 0, which become 0.
    """
    where = f"sub-{bold.subject} run {bold.run}"
    mean = finite("bold", bold.data, where).mean(axis=0, dtype=np.float64)
    usable = mean > 1e-6 * np.abs(bold.data).max(axis=0, initial=0)
    rule = "must have voxels with a mean above 0 for percent signal change"
    require(bool(usable.any()), "bold", rule, f"0 of {usable.size}", where)
    if not usable.all():
        text = f"{np.count_nonzero(~usable)} of {usable.size} voxels have no mean above 0 and become 0 ({where})"
        warnings.warn(text, NeuroreelWarning, stacklevel=2)
    change = 100 * (bold.data / np.where(usable, mean, 1.0) - 1)
    return replace(bold, data=np.where(usable, change, 0.0).astype(np.float32))


def _squares(run: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the sum of squares about a mean per voxel, (voxels,) float64, a stretch of samples at a time."""
    total = np.zeros(mean.size)
    for start in range(0, len(run), 256):
        total += np.sum((run[start : start + 256] - mean) ** 2, axis=0)
    return total
