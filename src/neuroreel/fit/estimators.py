"""Scikit-learn estimators over the ridge solvers: they store, call and predict, and nothing else.

What X and y may be is checked by scikit-learn, in its words; the settings are checked by the solvers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuroreel.core import checks
from neuroreel.fit.banded import solve_banded_ridge_cv
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import solve_ridge_cv

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)


class _Linear(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """What both estimators share: the check of what comes in, and the prediction."""

    coef_: np.ndarray
    intercept_: np.ndarray | float

    def _check(self, X: object, y: object) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return the features, the targets (rows, targets), and whether these came without that axis."""
        x, targets = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        checks.require(not scipy.sparse.issparse(targets), "y", "must be dense", "a sparse matrix")
        return x, targets.reshape(len(targets), -1), targets.ndim == 1

    def predict(self, X: object) -> np.ndarray:
        """Return the predictions (rows,) or (rows, targets), as y was, for features (rows, features)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(x @ self.coef_.T + self.intercept_)


class RidgeCV(_Linear):
    """Ridge regression with an alpha for every target, chosen by cross-validation: see `solve_ridge_cv`.

    Parameters
    ----------
    alphas : array of shape (alphas,)
        Penalties to choose from, all > 0.
    folds : int or array of shape (rows,)
        Number of folds, or the fold of every row (-1: never validated).
    scoring : {"mse", "r2", "correlation"}
        What chooses the alpha: `score` of `solve_ridge_cv`. The method `score` is R2, as for any regressor.
    fit_intercept, form, precision, block, device
        As in `solve_ridge_cv`.

    Attributes
    ----------
    coef_ : array of shape (features,) or (targets, features)
    intercept_, alpha_, cv_score_ : float or array of shape (targets,)
        Intercept, chosen alpha and its mean score over folds.
    cv_scores_ : array of shape (alphas,) or (alphas, targets)
        Mean score over folds of every alpha.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> RidgeCV(alphas=[0.01, 1.0]).fit(x, x @ [1.0, 2.0, 3.0]).alpha_
    0.01
    """

    def __init__(
        self,
        alphas: Sequence[float] | np.ndarray = ALPHAS,
        *,
        folds: int | np.ndarray = 5,
        scoring: str = "mse",
        fit_intercept: bool = True,
        form: str = "auto",
        precision: str = "auto",
        block: int = 512,
        device: str = "cpu",
    ) -> None:
        self.alphas = alphas
        self.folds = folds
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.form = form
        self.precision = precision
        self.block = block
        self.device = device

    def fit(self, X: object, y: object, groups: np.ndarray | None = None) -> Self:
        """Choose the alphas and fit to all rows.

        Parameters
        ----------
        X : array of shape (rows, features)
        y : array of shape (rows,) or (rows, targets)
        groups : array of shape (rows,), optional
            Runs or clips that must not be split between folds.

        Raises
        ------
        ValueError
            If X or y are not what scikit-learn takes.
        DataError, ConfigError
            As in `solve_ridge_cv`.
        """
        x, targets, flat = self._check(X, y)
        fit = solve_ridge_cv(
            x,
            targets,
            alphas=self.alphas,
            folds=self.folds,
            groups=groups,
            score=self.scoring,
            fit_intercept=self.fit_intercept,
            form=self.form,
            precision=self.precision,
            block=self.block,
            device=self.device,
        )
        assert fit.coef is not None
        first = 0 if flat else slice(None)
        self.coef_ = fit.coef.T[first]
        self.intercept_ = fit.intercept.astype(fit.coef.dtype)[first]
        self.alpha_, self.cv_score_, self.cv_scores_ = fit.alpha[first], fit.cv_score[first], fit.cv_scores[:, first]
        return self


class BandedRidgeCV(_Linear):
    """Ridge regression whose bands of features have penalties of their own: see `solve_banded_ridge_cv`.

    Parameters
    ----------
    alphas : array of shape (alphas,)
        Penalties to choose from, all > 0.
    widths : sequence of int, optional
        Features of every band, in the order of the columns of X; without them X is one band.
    n_candidates, seed
        How many band weights to try, and the seed from which they are drawn.
    candidates : array of shape (candidates, bands), optional
        Band weights to try in place of drawn ones.
    scoring : {"mse", "r2", "correlation"}
        What chooses alpha and band weights: `score` of `solve_banded_ridge_cv`.
    folds, fit_intercept, form, precision, block, device
        As in `solve_banded_ridge_cv`.

    Attributes
    ----------
    coef_ : array of shape (features,) or (targets, features)
    intercept_, alpha_, cv_score_ : float or array of shape (targets,)
        Intercept, chosen alpha and its mean score over folds.
    band_weights_ : array of shape (bands,) or (bands, targets)
        Weights that sum to 1; band i is penalised by alpha / weight.
    n_features_in_ : int
    """

    def __init__(
        self,
        alphas: Sequence[float] | np.ndarray = ALPHAS,
        *,
        widths: Sequence[int] | None = None,
        n_candidates: int = 30,
        candidates: np.ndarray | None = None,
        seed: int = 0,
        folds: int | np.ndarray = 5,
        scoring: str = "mse",
        fit_intercept: bool = True,
        form: str = "auto",
        precision: str = "auto",
        block: int = 512,
        device: str = "cpu",
    ) -> None:
        self.alphas = alphas
        self.widths = widths
        self.n_candidates = n_candidates
        self.candidates = candidates
        self.seed = seed
        self.folds = folds
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.form = form
        self.precision = precision
        self.block = block
        self.device = device

    def fit(self, X: object, y: object, groups: np.ndarray | None = None) -> Self:
        """Choose the alphas and the band weights, and fit to all rows.

        Parameters
        ----------
        X : array of shape (rows, features)
        y : array of shape (rows,) or (rows, targets)
        groups : array of shape (rows,), optional
            Runs or clips that must not be split between folds.

        Raises
        ------
        ValueError
            If X or y are not what scikit-learn takes.
        DataError, ConfigError
            If the widths don't add up to the features, or as in `solve_banded_ridge_cv`.
        """
        x, targets, flat = self._check(X, y)
        widths = [x.shape[1]] if self.widths is None else [check_whole("widths", width, 1) for width in self.widths]
        checks.require(sum(widths) == x.shape[1], "widths", f"must add up to {x.shape[1]} features", sum(widths))
        fit = solve_banded_ridge_cv(
            np.split(x, np.cumsum(widths)[:-1], axis=1),
            targets,
            alphas=self.alphas,
            folds=self.folds,
            groups=groups,
            n_candidates=self.n_candidates,
            candidates=self.candidates,
            seed=self.seed,
            score=self.scoring,
            fit_intercept=self.fit_intercept,
            form=self.form,
            precision=self.precision,
            block=self.block,
            device=self.device,
        )
        first = 0 if flat else slice(None)
        coef = np.concatenate(fit.coef)
        self.coef_ = coef.T[first]
        self.intercept_ = fit.intercept.astype(coef.dtype)[first]
        self.alpha_, self.cv_score_, self.band_weights_ = (
            fit.alpha[first],
            fit.cv_score[first],
            fit.band_weights[:, first],
        )
        return self
