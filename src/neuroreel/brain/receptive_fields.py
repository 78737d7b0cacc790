"""Feature-weighted receptive fields: each voxel sees all maps of a network through one Gaussian, and weighs the maps.

Source: St-Yves & Naselaris 2018, NeuroImage 180:188, "The feature-weighted receptive field". Where and what are apart:
r(t) = sum_k w_k int g(x, y) phi_k(x, y, t) dx dy, the field g from a grid. Ours: the weights by ridge in closed form
(theirs by gradient descent), which is one decomposition for all voxels of a field, and what has no place (motion
energy, fully connected layers) beside the maps where that predicts held-out volumes better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import scipy.linalg
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.fit.folds import assign_folds
from neuroreel.fit.ridge import RidgeFit, solve_ridge_cv

Pooled = Callable[[int], np.ndarray]
"""Gives the features of a field by its number, (trs, channels)."""

STILL = 1e-3  # channels whose SD is below this share of the largest are not blown up to the size of the others


class ReceptiveFieldConfig(Config):
    """Settings of a `ReceptiveFieldModel`.

    Attributes
    ----------
    lambdas : penalties to choose from for each voxel; the penalty on the squared weights is lambda times the volumes,
        for features of which a volume has the mean square 1.
    folds : folds of the cross-validation, as in `EncodingConfig`.
    screen_lambda : the penalty with which fields are compared.
    screen_folds : of five folds of the screening, how many are held out in turn.
    candidates : fields of each voxel that the cross-validation over all penalties decides between.
    beside : sets of spaces without a place, by name, of which each voxel takes the one that predicts best; an empty set
        is the maps alone.
    beside_share : share of the features' mean square that such a set has.
    """

    lambdas: tuple[float, ...] = Field(default=tuple(10.0 ** (step / 2) for step in range(-8, 1)), min_length=1)
    folds: int = Field(default=9, ge=2)
    screen_lambda: float = Field(default=3e-3, gt=0)
    screen_folds: int = Field(default=3, ge=1, le=5)
    candidates: int = Field(default=1, ge=1)
    beside: tuple[tuple[str, ...], ...] = Field(default=((),), min_length=1)
    beside_share: float = Field(default=0.3, gt=0, lt=1)


class ReceptiveFieldModel:
    """One field, one haemodynamic response and one set beside the maps for each voxel, and a ridge on them.

    Attributes
    ----------
    field_ : (voxels,) number of the field.
    response_, beside_ : (voxels,) numbers of the response and of the set beside the maps.
    coef_ : (channels and units of all spaces beside, voxels) float32, for features as they come; 0 outside the set.
    intercept_, lambda_ : (voxels,).
    cv_r_ : (voxels,) correlation with held-out volumes, the mean over folds. The field was chosen on the same volumes.
    held_out_ : (trs, voxels) float32, what the fit without a volume's fold predicts for it; not saved.
    """

    field_: np.ndarray
    response_: np.ndarray
    beside_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    lambda_: np.ndarray
    cv_r_: np.ndarray
    held_out_: np.ndarray

    def __init__(self, config: ReceptiveFieldConfig | None = None) -> None:
        self.config = config or ReceptiveFieldConfig()

    def fit(
        self,
        pooled: Sequence[Pooled],
        n_fields: int,
        bold: np.ndarray,
        segments: np.ndarray,
        beside: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> Self:
        """Choose every voxel's field on held-out volumes, then response, set beside and penalty; refit on all volumes.

        Parameters
        ----------
        pooled : for each haemodynamic response the features by field. Fields are compared under the first.
        n_fields : number of fields.
        bold : (trs, voxels) of all training segments.
        segments : (trs,) the segment of each volume.
        beside : for each response the spaces without a place by name, (trs, units).

        Raises
        ------
        DataError
            If shapes don't fit, values aren't finite, or there are fewer volumes than folds.
        ConfigError
            If a set names a space that isn't there.
        """
        checks.require(len(pooled) > 0, "responses", "must be 1 or more", 0)
        checks.require(n_fields > 0, "fields", "must be 1 or more", n_fields)
        checks.finite("bold", checks.dimensions("bold", bold, ("trs", "voxels")))
        checks.same_length("segments", len(segments), "volumes", len(bold))
        beside = beside or [{} for _ in pooled]
        checks.same_length("spaces beside the maps", len(beside), "responses", len(pooled))
        for name in (name for group in self.config.beside for name in group):
            checks.one_of("space beside the maps", name, beside[0])
        scores = self._screen(pooled[0], n_fields, bold, segments)
        best = np.argsort(-scores, axis=0, kind="stable")[: self.config.candidates]  # (candidates, voxels)
        voxels = bold.shape[1]
        self.field_, self.response_, self.beside_ = (np.zeros(voxels, dtype=np.int64) for _ in range(3))
        self.intercept_, self.lambda_ = np.zeros(voxels), np.zeros(voxels)
        self.cv_r_ = np.full(voxels, -np.inf)
        self.held_out_ = np.zeros(bold.shape, dtype=np.float32)
        channels = pooled[0](0).shape[1]
        wide = channels + sum(values.shape[1] for values in beside[0].values())
        self.coef_ = np.zeros((wide, voxels), dtype=np.float32)
        for field in np.unique(best):
            rows = np.flatnonzero((best == field).any(axis=0))
            for response, source in enumerate(pooled):
                maps = self._features(source, field, len(bold))
                for number in range(len(self.config.beside)):
                    self._try(rows, (int(field), response, number), maps, beside[response], bold, segments)
        return self

    def _features(self, source: Pooled, field: int, volumes: int) -> np.ndarray:
        maps = checks.dimensions("pooled features", source(int(field)), ("trs", "channels"))
        checks.same_length("pooled features", len(maps), "volumes", volumes)
        return checks.finite("pooled features", maps)

    def _screen(self, source: Pooled, n_fields: int, bold: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """Return how well every field predicts held-out volumes at one penalty, (fields, voxels)."""
        whole = len(np.unique(segments)) >= 5
        labels = assign_folds(len(bold), 5, np.asarray(segments) if whole else None)
        y = (bold - bold.mean(axis=0)).astype(np.float32)
        scores = np.zeros((n_fields, bold.shape[1]))
        for field in range(n_fields):
            x = _scaled(self._features(source, field, len(bold)))[0].astype(np.float32)
            gram, products = x.T @ x, x.T @ y
            for fold in range(self.config.screen_folds):
                out = labels == fold
                held, truth = x[out], y[out]
                count = len(x) - len(held)
                x_mean, y_mean = -held.sum(axis=0) / count, -truth.sum(axis=0) / count  # x and y have mean 0 in all
                own = gram - held.T @ held - count * np.outer(x_mean, x_mean)
                own[np.diag_indices_from(own)] += self.config.screen_lambda * count
                target = products - held.T @ truth - count * np.outer(x_mean, y_mean)
                weights = scipy.linalg.solve(own, target, assume_a="pos", overwrite_a=True, check_finite=False)
                scores[field] += _correlation(held @ weights, truth) / self.config.screen_folds
        return scores

    def _try(
        self,
        voxels: np.ndarray,
        choice: tuple[int, int, int],
        maps: np.ndarray,
        beside: Mapping[str, np.ndarray],
        bold: np.ndarray,
        segments: np.ndarray,
    ) -> None:
        """Fit voxels by a field, a response and a set beside, and keep those that are predicted better than before."""
        x, rows, factors, centre = self._joined(maps, beside, self.config.beside[choice[2]])
        held_out = np.empty((len(bold), len(voxels)), dtype=np.float32)
        fit = self._solve(x, np.ascontiguousarray(bold[:, voxels]), segments, held_out)
        assert fit.coef is not None
        better = np.flatnonzero(fit.cv_score > self.cv_r_[voxels])
        won, coef = voxels[better], fit.coef[:, better] * factors[:, None]
        self.coef_[:, won] = 0.0
        self.coef_[np.ix_(rows, won)] = coef
        self.intercept_[won] = fit.intercept[better] - centre @ coef
        self.lambda_[won], self.cv_r_[won] = fit.alpha[better] / len(bold), fit.cv_score[better]
        self.held_out_[:, won] = held_out[:, better]
        self.field_[won], self.response_[won], self.beside_[won] = choice

    def _joined(
        self, maps: np.ndarray, beside: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the features of maps and a set (trs, features), their rows in `coef_`, factors and what is taken off.

        Each is (features,): a feature is (its value - what is taken off) * its factor.
        """
        share = self.config.beside_share if names else 0.0
        x, centre, scale = _scaled(maps)
        total = sum(float(np.var(beside[name], axis=0, dtype=np.float64).sum()) for name in names)
        size = np.sqrt(share / total) if total > 0 else 0.0
        parts, factors = [x * np.sqrt(1 - share)], [scale * np.sqrt(1 - share)]
        rows, start = [np.arange(maps.shape[1])], maps.shape[1]
        for name, values in beside.items():
            if name in names:
                parts.append(values * size)
                factors.append(np.full(values.shape[1], size))
                rows.append(np.arange(start, start + values.shape[1]))
            start += values.shape[1]
        whole = np.concatenate(factors)
        return (
            np.concatenate(parts, axis=1),
            np.concatenate(rows),
            whole,
            np.append(centre, np.zeros(len(whole) - len(centre))),
        )

    def _solve(self, x: np.ndarray, bold: np.ndarray, segments: np.ndarray, held_out: np.ndarray) -> RidgeFit:
        whole = len(np.unique(segments)) >= self.config.folds
        return solve_ridge_cv(
            x,
            bold,
            alphas=np.array(self.config.lambdas) * len(x),
            folds=self.config.folds,
            groups=np.asarray(segments) if whole else None,
            score="correlation",
            held_out=held_out,
        )

    def predict(self, pooled: Sequence[Pooled], beside: Sequence[Mapping[str, np.ndarray]] = ()) -> np.ndarray:
        """Return the predicted BOLD (trs, voxels) float32 of features as `fit` takes them."""
        checks.require(hasattr(self, "coef_"), "receptive fields", "must be fitted before they predict", "no weights")
        beside = beside or [{} for _ in pooled]
        checks.same_length("spaces beside the maps", len(beside), "responses", len(pooled))
        checks.require(
            len(pooled) > self.response_.max(), "responses", f"must be {self.response_.max() + 1} or more", len(pooled)
        )
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for response, source in enumerate(pooled):
            for field in np.unique(self.field_[self.response_ == response]):
                voxels = np.flatnonzero((self.response_ == response) & (self.field_ == field))
                x = np.concatenate([source(int(field)), *beside[response].values()], axis=1)
                checks.same_length("features", x.shape[1], "the fit's features", len(self.coef_))
                parts.append((voxels, x @ self.coef_[:, voxels] + self.intercept_[voxels]))
        out = np.empty((len(parts[0][1]), len(self.field_)), dtype=np.float32)
        for voxels, values in parts:
            out[:, voxels] = values
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt by name, for saving."""
        names = ("field", "response", "beside", "coef", "intercept", "lambda", "cv_r")
        return {name: getattr(self, f"{name}_") for name in names}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take back what `arrays` returned."""
        for name, values in arrays.items():
            setattr(self, f"{name}_", values)
        return self


def _scaled(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return channels (trs, channels) centred, alike in SD, a volume's mean square 1; their means and factors."""
    mean, sd = maps.mean(axis=0, dtype=np.float64), maps.std(axis=0, dtype=np.float64)
    if not sd.max() > 0:
        return np.zeros(maps.shape), mean, np.zeros(len(sd))
    scale = 1 / (sd + STILL * sd.max())
    scale /= np.sqrt(((sd * scale) ** 2).sum())
    return (maps - mean) * scale, mean, scale


def _correlation(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the correlation of every column, (voxels,); 0 where one is constant."""
    a, b = predicted - predicted.mean(axis=0), truth - truth.mean(axis=0)
    below = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), below, out=np.zeros(below.shape), where=below > 0)
