"""Ridge regression onto the principal components of the targets: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from neuroreel.core import checks
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import check_alphas, check_features, check_targets, solve_ridge_cv


@dataclass(frozen=True)
class ComponentRidgeFit:
    """A fitted ridge onto principal components.

    Attributes
    ----------
    coef : array of shape (features, components)
    intercept : array of shape (components,)
    components : array of shape (components, targets)
        Orthonormal rows, the largest variance first.
    mean : array of shape (targets,)
    alpha : float
        The penalty that was chosen.
    explained : array of shape (alphas, most components)
        Share of the targets' variance that held-out rows have explained, by penalty and number of components.
    """

    coef: np.ndarray
    intercept: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    alpha: float
    explained: np.ndarray


def solve_component_ridge(
    x: np.ndarray,
    y: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray,
    most_components: int = 256,
    folds: int | np.ndarray = 5,
    groups: np.ndarray | None = None,
    device: str = "cpu",
) -> ComponentRidgeFit:
    """Fit a kernel ridge of the targets' principal components; penalty and number of components by cross-validation.

    Components are uncorrelated and orthonormal, so the squared error over all targets of the first c of them is the
    total variance less what each of the c gained. All (penalty, c) are therefore scored by one fit of all components,
    and the pair with the least held-out error is taken: semantic decoding of Wen et al. 2018, Cereb. Cortex 28:4136.
    The components are those of all training rows.

    Parameters
    ----------
    x : array of shape (rows, features)
    y : array of shape (rows, targets)
    alphas : array of shape (alphas,)
        Penalties to choose from, all > 0.
    most_components : int
        Largest number of components.
    folds, groups : as in `neuroreel.fit.ridge.solve_ridge_cv`.
    device : {"cpu", "cuda"}

    Returns
    -------
    ComponentRidgeFit

    Raises
    ------
    DataError, ConfigError
        As in `solve_ridge_cv`, and if the targets are constant.
    """
    x = check_features(x)
    y = checks.finite("y", np.asarray(check_targets(y, len(x))))
    values = check_alphas(alphas)
    mean = y.mean(0, dtype=np.float64)
    scores, components = _principal_components(y - mean, check_whole("most_components", most_components, 1))
    both = {"folds": folds, "groups": groups, "form": "dual", "device": device}
    fit = solve_ridge_cv(x.astype(np.float64), scores, alphas=values, **both)  # type: ignore[arg-type]
    variance = (scores * scores).mean(0)
    explained = np.cumsum(variance + fit.cv_scores, axis=1) / ((y - mean) ** 2).sum(1).mean()  # cv_scores is -MSE
    best, last = np.unravel_index(np.argmax(explained), explained.shape)
    kept = slice(0, int(last) + 1)
    fit = solve_ridge_cv(x.astype(np.float64), scores[:, kept], alphas=values[[best]], **both)  # type: ignore[arg-type]
    assert fit.coef is not None
    return ComponentRidgeFit(fit.coef, fit.intercept, components[kept], mean, float(values[best]), explained)


def _principal_components(centred: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (rows, components) and components (components, targets) of centred targets, signs fixed."""
    left, sizes, right = scipy.linalg.svd(centred, full_matrices=False)
    rank = int((sizes > sizes[0] * max(centred.shape) * np.finfo(float).eps).sum())
    checks.require(rank > 0, "y", "must vary over the rows", "constant targets")
    count = min(most, rank)
    sign = np.sign(right[np.arange(count), np.abs(right[:count]).argmax(1)])
    return left[:, :count] * (sizes[:count] * sign), right[:count] * sign[:, None]
