"""Encoding: every voxel as a linear function of features at its volumes, and which layer of a network it resembles.

Source: Wen et al. 2018, Cereb. Cortex 28:4136, "Voxel-wise encoding models" and "Mapping hierarchical representations".
Groups of feature spaces to choose from are ours, in the manner of banded ridge (Dupré la Tour et al. 2022, NeuroImage
264) with a handful of candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.fit.ridge import RidgeFit, predict_ridge, solve_ridge_cv


class EncodingConfig(Config):
    """Settings of an `EncodingModel`.

    Attributes
    ----------
    lambdas : penalties to choose from for each voxel; the penalty on the squared weights is lambda times the volumes.
    folds : folds of the cross-validation. Segments stay whole where there are as many as folds or more; else a fold is
        a stretch of time.
    groups : sets of feature spaces, by name, of which each voxel takes the one that predicts held-out volumes best;
        within a group every space has the same variance. Empty: one model of all spaces as they are (the paper's).
    """

    lambdas: tuple[float, ...] = Field(default=tuple(10.0 ** (step / 2) for step in range(-10, 3)), min_length=1)
    folds: int = Field(default=9, ge=2)
    groups: tuple[tuple[str, ...], ...] = ()


class EncodingModel:
    """Voxelwise ridge f(w) = |x - Yw - b|^2 + lambda T |w|^2, lambda by cross-validation for each voxel.

    Attributes
    ----------
    coef_ : (features, voxels) float32; 0 for the spaces outside a voxel's group.
    intercept_ : (voxels,)
    lambda_ : (voxels,), what was chosen; within a group, for features of which a volume has the mean square 1.
    cv_r_ : (voxels,) correlation with held-out volumes, the mean over folds.
    group_ : (voxels,) number of the group that was chosen; 0 without groups.
    held_out_ : (trs, voxels) float32, what the fit without a volume's fold predicts for it; where `fit` was asked for
        it, and not saved.
    """

    coef_: np.ndarray
    intercept_: np.ndarray
    lambda_: np.ndarray
    cv_r_: np.ndarray
    group_: np.ndarray
    held_out_: np.ndarray

    def __init__(self, config: EncodingConfig | None = None) -> None:
        self.config = config or EncodingConfig()

    def fit(
        self,
        features: np.ndarray | Mapping[str, np.ndarray],
        bold: np.ndarray,
        segments: np.ndarray,
        *,
        device: str = "cpu",
        held_out: bool = False,
    ) -> Self:
        """Fit to features (trs, features) and BOLD (trs, voxels) of all training segments, refitted on all of them.

        Parameters
        ----------
        features : one array, or one for each named space; `predict` takes them side by side in this order.
        segments : (trs,) the segment of each volume.
        held_out : keep the predictions of held-out volumes.

        Raises
        ------
        DataError
            If shapes don't fit, values aren't finite, or there are fewer volumes than folds.
        ConfigError
            If a group names a space that isn't there.
        """
        spaces = dict(features) if isinstance(features, Mapping) else {"features": features}
        for name in (name for group in self.config.groups for name in group):
            checks.one_of("space of a group", name, spaces)
        volumes = len(next(iter(spaces.values())))
        checks.same_length("segments", len(segments), "volumes", volumes)
        groups = self.config.groups or (tuple(spaces),)
        scales = {name: _scale(values) if self.config.groups else 1.0 for name, values in spaces.items()}
        starts = dict(zip(spaces, np.cumsum([0, *(values.shape[1] for values in spaces.values())]), strict=False))
        self.coef_ = np.zeros((sum(values.shape[1] for values in spaces.values()), bold.shape[1]), dtype=np.float32)
        self.intercept_, self.lambda_ = np.zeros(bold.shape[1]), np.zeros(bold.shape[1])
        self.cv_r_, self.group_ = np.full(bold.shape[1], -np.inf), np.zeros(bold.shape[1], dtype=np.int64)
        if held_out:
            self.held_out_ = np.zeros(bold.shape, dtype=np.float32)
        kept = np.empty(bold.shape, dtype=np.float32) if held_out else None
        for number, group in enumerate(groups):
            share = 1 / np.sqrt(len(group)) if self.config.groups else 1.0
            joined = np.concatenate([spaces[name] * (share * scales[name]) for name in group], axis=1)
            fit = self._solve(joined, bold, segments, device, kept)
            assert fit.coef is not None
            better = np.flatnonzero((fit.cv_score > self.cv_r_) | (number == 0))
            if kept is not None:
                self.held_out_[:, better] = kept[:, better]
            self.coef_[:, better] = 0.0
            row = 0
            for name in group:
                wide = spaces[name].shape[1]
                weights = fit.coef[row : row + wide, better] * (share * scales[name])
                self.coef_[starts[name] : starts[name] + wide, better] = weights
                row += wide
            self.intercept_[better], self.lambda_[better] = fit.intercept[better], fit.alpha[better] / volumes
            self.cv_r_[better], self.group_[better] = fit.cv_score[better], number
        return self

    def _solve(
        self, features: np.ndarray, bold: np.ndarray, segments: np.ndarray, device: str, held_out: np.ndarray | None
    ) -> RidgeFit:
        whole = len(np.unique(segments)) >= self.config.folds
        return solve_ridge_cv(
            features,
            bold,
            alphas=np.array(self.config.lambdas) * len(features),
            folds=self.config.folds,
            groups=np.asarray(segments) if whole else None,
            score="correlation",
            device=device,
            held_out=held_out,
        )

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the predicted BOLD (trs, voxels) float32 of features (trs, features)."""
        checks.require(hasattr(self, "coef_"), "encoding model", "must be fitted before it predicts", "no weights")
        nothing = np.empty(0)
        fit = RidgeFit(
            self.coef_, None, self.intercept_, np.zeros(len(self.coef_)), nothing, nothing, nothing, "primal", ""
        )
        return predict_ridge(fit, features).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt by name, for saving."""
        return {name: getattr(self, f"{name}_") for name in ("coef", "intercept", "lambda", "cv_r", "group")}

    def restore(self, arrays: dict[str, np.ndarray]) -> Self:
        """Take back what `arrays` returned."""
        for name, values in arrays.items():
            setattr(self, f"{name}_", values)
        return self


def best_unit_correlation(units: Iterable[np.ndarray], bold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's best correlation with any unit of a layer, and the number of that unit.

    Parameters
    ----------
    units : blocks (trs, some units) that together are a layer, at the volumes.
    bold : (trs, voxels)

    Returns
    -------
    r : (voxels,) float64; 0 where nothing varies.
    unit : (voxels,) int.
    """
    data = _unit_length(checks.finite("bold", checks.dimensions("bold", bold, ("trs", "voxels"))))
    best = np.full(data.shape[1], -np.inf)
    unit = np.zeros(data.shape[1], dtype=np.int64)
    start = 0
    for block in units:
        checks.same_length("volumes of a layer", len(block), "the BOLD", len(data))
        r = _unit_length(checks.dimensions("units", block, ("trs", "units"))).T @ data  # (units, voxels)
        place = r.argmax(axis=0)
        highest = r[place, np.arange(r.shape[1])]
        better = highest > best
        best[better], unit[better] = highest[better], place[better] + start
        start += block.shape[1]
    checks.require(start > 0, "units", "must be 1 or more", 0)
    return best, unit


def stack_weights(held_out: np.ndarray, bold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each voxel trusts each of several models: least squares on held-out volumes, weights >= 0.

    Parameters
    ----------
    held_out : (models, trs, voxels), predictions of volumes that the models weren't fitted to.
    bold : (trs, voxels)

    Returns
    -------
    weights : (models, voxels) float64; intercept : (voxels,). The stacked prediction is the weighted sum and it.

    Source: Breiman 1996, Machine Learning 24:49, "Stacked regressions".
    """
    checks.finite("held_out", checks.dimensions("held_out", held_out, ("models", "trs", "voxels")))
    checks.same_length("predicted volumes", held_out.shape[1], "the BOLD", len(bold))
    checks.same_length("predicted voxels", held_out.shape[2], "the BOLD", bold.shape[1])
    means, mean = held_out.mean(axis=1, dtype=np.float64), bold.mean(axis=0, dtype=np.float64)
    weights = np.zeros(means.shape)
    for voxel in range(bold.shape[1]):
        design = held_out[:, :, voxel].T - means[:, voxel]
        q, r = np.linalg.qr(design)
        weights[:, voxel] = nnls(r, q.T @ (bold[:, voxel] - mean[voxel]))[0]
    return weights, mean - (weights * means).sum(axis=0)


def layer_index(correlations: np.ndarray) -> np.ndarray:
    """Return the number of each voxel's best layer from 1, (voxels,) int, of correlations (layers, voxels)."""
    return np.argmax(checks.dimensions("correlations", correlations, ("layers", "voxels")), axis=0) + 1


def _scale(values: np.ndarray) -> float:
    """Return what brings the mean square of a volume's centred features to 1; 1 where nothing varies."""
    total = float(np.var(values, axis=0, dtype=np.float64).sum())
    return 1 / np.sqrt(total) if total > 0 else 1.0


def _unit_length(columns: np.ndarray) -> np.ndarray:
    """Return the columns with mean 0 and length 1, float32; constant ones are 0."""
    centred = columns - columns.mean(axis=0, dtype=np.float64)
    length = np.sqrt((centred * centred).sum(axis=0))
    tiny = 1e-9 * np.sqrt(len(columns)) * np.maximum(np.abs(columns).max(axis=0), 1e-30)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > tiny).astype(np.float32)
