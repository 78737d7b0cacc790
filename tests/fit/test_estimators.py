from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.fit.banded import solve_banded_ridge_cv
from neuroreel.fit.estimators import ALPHAS, BandedRidgeCV, RidgeCV
from neuroreel.fit.ridge import solve_ridge_cv


def make(v: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "estimators")
    x = rng.normal(size=(80, 10)) + 1
    return x, x @ rng.normal(size=(10, v)) + rng.normal(size=(80, v))


@parametrize_with_checks([RidgeCV(), RidgeCV(form="dual"), BandedRidgeCV(n_candidates=3)])
def test_scikit_learns_own_checks_hold(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_ridge_learns_what_its_solver_does() -> None:
    x, y = make()
    model = RidgeCV(alphas=[0.1, 10.0], folds=4, scoring="r2").fit(x, y)
    fit = solve_ridge_cv(x, y, alphas=[0.1, 10.0], folds=4, score="r2")
    assert fit.coef is not None
    assert np.array_equal(model.coef_, fit.coef.T) and np.array_equal(model.alpha_, fit.alpha)
    assert np.array_equal(model.cv_scores_, fit.cv_scores) and model.cv_score_.shape == (3,)
    np.testing.assert_allclose(model.predict(x), x @ fit.coef + fit.intercept, rtol=1e-12)


def test_banded_ridge_cuts_the_features_by_its_widths() -> None:
    x, y = make()
    model = BandedRidgeCV(widths=[3, 7], n_candidates=6, seed=2).fit(x, y)
    fit = solve_banded_ridge_cv([x[:, :3], x[:, 3:]], y, alphas=model.alphas, n_candidates=6, seed=2)
    assert np.array_equal(model.coef_, np.concatenate(fit.coef).T)
    assert np.array_equal(model.band_weights_, fit.band_weights) and model.band_weights_.shape == (2, 3)


@pytest.mark.parametrize("model", [RidgeCV(), BandedRidgeCV(n_candidates=2)])
def test_one_target_without_an_axis_is_answered_without_it(model: Any) -> None:
    x, y = make()
    flat, wide = clone(model).fit(x, y[:, 0]), clone(model).fit(x, y[:, :1])
    assert flat.predict(x).shape == (80,) and wide.predict(x).shape == (80, 1)
    assert flat.coef_.shape == (10,) and np.ndim(flat.alpha_) == 0
    np.testing.assert_allclose(flat.predict(x), wide.predict(x)[:, 0], rtol=1e-12)


def test_in_a_pipeline_and_cross_validation_it_scores_as_scikit_learns_ridge() -> None:
    x, y = make(v=1)
    theirs = linear_model.RidgeCV(ALPHAS, cv=5, scoring="neg_mean_squared_error")
    scores = [
        cross_val_score(make_pipeline(StandardScaler(), model), x, y[:, 0], cv=4) for model in (RidgeCV(), theirs)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-6)


def test_groups_are_not_split() -> None:
    x, y = make()
    groups = np.tile(np.arange(5), 16)
    model = RidgeCV(folds=5).fit(x, y, groups=groups)
    assert np.array_equal(model.cv_scores_, RidgeCV(folds=groups).fit(x, y).cv_scores_)


def test_float32_stays_float32() -> None:
    x, y = make()
    model = RidgeCV().fit(x.astype(np.float32), y.astype(np.float32))
    assert model.coef_.dtype == np.float32 and model.predict(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (RidgeCV(alphas=[-1.0]), DataError, "alphas must be > 0, got -1.0"),
        (RidgeCV(scoring="mae"), ConfigError, "score must be one of correlation, mse, r2, got 'mae'"),
        (RidgeCV(folds=1), ConfigError, "folds must be a whole number of 2 or more, got 1"),
        (BandedRidgeCV(widths=[3, 3]), DataError, "widths must add up to 10 features, got 6"),
        (BandedRidgeCV(widths=[0, 10]), ConfigError, "widths must be a whole number of 1 or more, got 0"),
    ],
)
def test_bad_settings_are_one_sentence(model: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        model.fit(*make())


def test_sparse_targets_are_refused() -> None:
    x, y = make()
    with pytest.raises(DataError, match=r"^y must be dense, got a sparse matrix$"):
        RidgeCV().fit(x, scipy.sparse.csr_array(y))
