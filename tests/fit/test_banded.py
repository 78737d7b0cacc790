from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neuroreel.core.errors import NeuroreelError
from neuroreel.core.seeds import generator
from neuroreel.fit.banded import draw_band_weights, predict_banded_ridge, solve_banded_ridge_cv
from neuroreel.fit.folds import assign_folds, iterate_folds
from neuroreel.fit.ridge import predict_ridge, solve_ridge_cv

ALPHAS = np.logspace(-1, 4, 6)


def make(n: int = 90, sizes: tuple[int, ...] = (8, 15), v: int = 6) -> tuple[list[np.ndarray], np.ndarray]:
    """Targets in turn from one band only, with noise."""
    rng = generator(0, "banded", n, *sizes)
    bands = [rng.normal(size=(n, size)) + 2 for size in sizes]
    columns = [bands[i % len(bands)] @ rng.normal(size=sizes[i % len(bands)]) for i in range(v)]
    return bands, np.stack(columns, axis=1) + rng.normal(size=(n, v))


@pytest.mark.parametrize("n", [90, 20])
def test_one_band_is_plain_ridge(n: int) -> None:
    bands, y = make(n)
    plain = solve_ridge_cv(bands[1], y, alphas=ALPHAS)
    banded = solve_banded_ridge_cv(bands[1:], y, alphas=ALPHAS)
    assert np.array_equal(banded.alpha, plain.alpha)
    np.testing.assert_allclose(banded.coef[0], plain.coef, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(banded.cv_score, plain.cv_score, rtol=1e-9)
    np.testing.assert_allclose(banded.intercept, plain.intercept, rtol=1e-9)


def test_the_bands_that_made_a_target_get_its_weight() -> None:
    bands, y = make(120, (20, 40), v=10)
    fit = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, folds=4, n_candidates=20)
    own = np.arange(10) % 2
    assert fit.band_weights[own, np.arange(10)].min() > 0.8
    np.testing.assert_allclose(fit.band_weights.sum(0), 1)


def test_planted_weights_between_bands_are_told_apart() -> None:
    rng = generator(3, "planted")
    bands = [rng.normal(size=(300, 100)), rng.normal(size=(300, 100))]
    shares = np.array([0.1, 0.5, 0.9])  # prior variance of the weights of band 0, the rest is band 1's
    y = np.concatenate(
        [
            bands[0] @ rng.normal(size=(100, 20)) * np.sqrt(a) + bands[1] @ rng.normal(size=(100, 20)) * np.sqrt(1 - a)
            for a in shares
        ],
        axis=1,
    ) + 4 * rng.normal(size=(300, 60))
    grid = np.linspace(0, 1, 11)
    fit = solve_banded_ridge_cv(bands, y, alphas=np.logspace(-1, 3, 9), candidates=np.stack([grid, 1 - grid], axis=1))
    found = fit.band_weights[0].reshape(3, 20).mean(1)
    np.testing.assert_allclose(found, shares, atol=0.1)


@pytest.mark.parametrize("n", [90, 20])
def test_a_candidate_is_the_ridge_of_features_scaled_by_the_root_of_its_weights(n: int) -> None:
    bands, y = make(n)
    fit = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, folds=4, candidates=np.array([[0.2, 0.8], [1.0, 3.0]]))
    for target in range(y.shape[1]):
        root = np.sqrt(fit.band_weights[:, target])
        x = np.hstack([bands[0] * root[0], bands[1] * root[1]])
        model = Ridge(alpha=fit.alpha[target], solver="svd").fit(x, y[:, target])
        coef = model.coef_ * np.repeat(root, [8, 15])
        np.testing.assert_allclose(np.concatenate([c[:, target] for c in fit.coef]), coef, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(fit.intercept[target], model.intercept_, rtol=1e-7)


def test_the_score_is_the_best_of_refits_over_candidates_and_alphas() -> None:
    bands, y = make(60)
    labels, candidates = assign_folds(60, 3), draw_band_weights(2, 5, seed=1)
    fit = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, folds=labels, candidates=candidates)
    best = np.full(y.shape[1], -np.inf)
    for weights in candidates:
        x = np.hstack([band * np.sqrt(weight) for band, weight in zip(bands, weights, strict=True)])
        for alpha in ALPHAS:
            errors = [
                -((y[held] - Ridge(alpha=alpha, solver="svd").fit(x[train], y[train]).predict(x[held])) ** 2).mean(0)
                for train, held in iterate_folds(labels)
            ]
            best = np.maximum(best, np.mean(errors, axis=0))
    np.testing.assert_allclose(fit.cv_score, best, rtol=1e-8)


def test_blocks_and_float32_do_not_change_the_answer() -> None:
    bands, y = make(90, (20, 30, 7), v=9)
    whole = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, n_candidates=8)
    parts = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, n_candidates=8, block=2)
    assert np.array_equal(whole.candidate, parts.candidate)
    np.testing.assert_allclose(parts.cv_score, whole.cv_score, rtol=1e-9)
    single = solve_banded_ridge_cv(
        [band.astype(np.float32) for band in bands], y.astype(np.float32), alphas=ALPHAS, n_candidates=8
    )
    assert single.coef[0].dtype == np.float32
    np.testing.assert_allclose(single.cv_score, whole.cv_score, rtol=1e-3)


def test_prediction_adds_the_bands_up() -> None:
    bands, y = make(40, (8, 60))
    even = solve_banded_ridge_cv(bands, y, alphas=ALPHAS, candidates=np.array([[1.0, 1.0]]))
    plain = solve_ridge_cv(np.hstack(bands), y, alphas=ALPHAS / 0.5)
    np.testing.assert_allclose(predict_banded_ridge(even, bands), predict_ridge(plain, np.hstack(bands)), rtol=1e-8)


def test_drawn_weights_sum_to_one_start_even_and_depend_on_the_seed() -> None:
    weights = draw_band_weights(3, 50, seed=4)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert np.array_equal(weights[0], np.full(3, 1 / 3)) and np.array_equal(weights[1:4], np.eye(3))
    assert np.array_equal(weights, draw_band_weights(3, 50, seed=4))
    assert not np.array_equal(weights, draw_band_weights(3, 50, seed=5))
    assert draw_band_weights(1, 30, seed=0).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bands": []}, "bands must hold one array or more, got 0"),
        ({"candidates": np.ones((2, 3))}, r"candidates' bands must have as many entries as bands \(2\), got 3"),
        ({"candidates": np.array([[0.0, 0.0]])}, "candidates must be >= 0 with a sum > 0, got 0.0"),
        ({"candidates": np.array([[2.0, -1.0]])}, "candidates must be >= 0 with a sum > 0, got -1.0"),
        ({"candidates": np.ones((0, 2))}, r"candidates must hold one row or more, got shape \(0, 2\)"),
        ({"n_candidates": 0}, "n_candidates must be a whole number of 1 or more, got 0"),
        ({"score": "mae"}, "score must be one of correlation, mse, r2, got 'mae'"),
        ({"bands": [np.zeros((90, 3)), np.zeros((80, 3))]}, r"y must have as many entries as bands\[1\] rows .*"),
        ({"precision": "float32", "alphas": [1e-9]}, "alphas must be larger for float32, or precision .*"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], text: str) -> None:
    bands, y = make()
    arguments: dict[str, Any] = {"bands": bands, "y": y, "alphas": ALPHAS} | change
    with pytest.raises(NeuroreelError, match=f"^{text}$"):
        solve_banded_ridge_cv(arguments.pop("bands"), arguments.pop("y"), **arguments)
