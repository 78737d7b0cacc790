"""A brain of few dimensions: volumes projected to the first principal components of the training volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from neuroreel.core.checks import dimensions, finite, require, same_length

LEAST = 1e-10
"""Share of the first component's variance below which a component is rounding."""


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of training volumes.

    Attributes
    ----------
    mean : (voxels,) float64, of the training volumes.
    axes : (components, voxels) float64, of length 1, those with the most variance first.
    variances : (components,) float64, of the training volumes along each.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray) -> Self:
        """Return the components of training volumes (trs, voxels), as many as there are dimensions in them.

        Raises
        ------
        DataError : fewer than two volumes, none that differs, or values that aren't finite.
        """
        finite("train", dimensions("train", train, ("trs", "voxels")))
        require(len(train) > 1, "train", "must hold 2 volumes or more", len(train))
        mean = train.mean(0, dtype=np.float64)
        x = train - mean
        tall = len(x) >= x.shape[1]
        gram = x.T @ x if tall else x @ x.T
        variances, axes = np.linalg.eigh(gram / len(x))
        variances, axes = variances[::-1], axes[:, ::-1]
        known = variances > LEAST * max(variances[0], 0.0)
        require(bool(variances[0] > 0), "train", "must hold volumes that differ", "none")
        axes = axes[:, known] if tall else x.T @ axes[:, known]
        return cls(mean, (axes / np.linalg.norm(axes, axis=0)).T, variances[known])

    def __len__(self) -> int:
        return len(self.axes)

    def keep(self, data: np.ndarray, count: int) -> np.ndarray:
        """Return volumes (..., voxels) of which only the first `count` components are left, in voxels as before.

        Every volume then has `count` dimensions, whatever the number of its voxels.
        """
        require(1 <= count <= len(self), "components", f"must lie within 1..{len(self)}", count)
        same_length("voxels", data.shape[-1], "those of the components", len(self.mean))
        axes = self.axes[:count]
        return np.asarray(self.mean + ((data - self.mean) @ axes.T) @ axes, dtype=data.dtype)
