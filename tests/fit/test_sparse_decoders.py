"""The ridge on chosen features, the L1 descent and the ridge onto principal components."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Lasso, Ridge

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.fit.component_ridge import solve_component_ridge
from neuroreel.fit.lasso import LassoSchedule, solve_lasso
from neuroreel.fit.selection import Scaling, top_features
from neuroreel.fit.top_ridge import solve_top_ridge


def planted(rows=300, features=40, targets=6, noise=0.5, seed=1):
    rng = generator(seed, "decoders")
    x = rng.standard_normal((rows, features)) + 0.4 * rng.standard_normal((rows, 1))
    weights = rng.standard_normal((features, targets)) * (rng.random((features, targets)) < 0.15)
    x = Scaling.of(x).apply(x)
    return x, x @ weights + noise * rng.standard_normal((rows, targets)) + 3, weights


def test_ridge_on_chosen_features_is_sklearns_of_every_target():
    x, y, _ = planted()
    chosen = top_features(x, y, 10)
    coef, bias = solve_top_ridge(x + 2, y, alpha=7.0, chosen=chosen, block=4)
    for target in range(y.shape[1]):
        expected = Ridge(alpha=7.0).fit(x[:, chosen[target]] + 2, y[:, target])
        np.testing.assert_allclose(coef[target], expected.coef_, atol=1e-9)
        np.testing.assert_allclose(bias[target], expected.intercept_, atol=1e-9)


@pytest.mark.parametrize("rows", [300, 20])
def test_penalised_bias_is_the_formula_of_fastl2lir(rows):
    x, y, _ = planted(rows=rows)
    chosen = top_features(x, y, 12)
    coef, bias = solve_top_ridge(x, y, alpha=50.0, chosen=chosen, bias="penalised")
    for target in range(y.shape[1]):
        columns = np.c_[x[:, chosen[target]], np.ones(rows)]
        expected = columns.T @ np.linalg.solve(columns @ columns.T + 50.0 * np.eye(rows), y[:, target])
        np.testing.assert_allclose(np.r_[coef[target], bias[target]], expected, atol=1e-9)


def test_penalised_bias_agrees_with_fastl2lir_itself():
    fastl2lir = pytest.importorskip("fastl2lir")
    x, y, _ = planted()
    theirs = fastl2lir.FastL2LiR()
    theirs.fit(x, y, alpha=100.0)
    coef, bias = solve_top_ridge(x, y, alpha=100.0, bias="penalised")
    np.testing.assert_allclose(coef.T, theirs.W, atol=1e-9)
    np.testing.assert_allclose(bias, theirs.b[0], atol=1e-9)


def test_l1_without_dropout_is_sklearns_lasso():
    x, y, _ = planted()
    schedule = LassoSchedule(penalty=0.1, epochs=400, batch=300, step=0.02, step_decay=1.0, dropout=0.0)
    coef, bias = solve_lasso(x, y, schedule=schedule)
    expected = Lasso(alpha=0.1, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(coef.T, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(bias, expected.intercept_, atol=1e-4)
    assert np.mean((coef.T == 0) == (expected.coef_ == 0)) > 0.99


def test_the_published_schedule_finds_planted_weights():
    x, y, weights = planted(rows=3000)
    coef, _ = solve_lasso(x, y)
    assert np.corrcoef(coef.ravel(), weights.ravel())[0, 1] > 0.95
    assert np.abs(coef[weights == 0]).mean() < 0.05 * np.abs(weights[weights != 0]).mean()


def test_the_schedule_is_the_published_one():
    at = LassoSchedule().at
    assert at(0) == (5e-4, 0.5)
    np.testing.assert_allclose(at(10), (5e-4 * 0.96**10, 0.7))
    np.testing.assert_allclose(at(49), (1e-4, 0.9))


def test_blocks_of_targets_and_the_same_seed_give_the_same_l1_weights():
    x, y, _ = planted()
    whole, _ = solve_lasso(x, y, seed=3)
    parts, _ = solve_lasso(x, y, seed=3, block=2)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert np.abs(solve_lasso(x, y, seed=4)[0] - whole).max() > 1e-6


def test_a_step_that_diverges_is_one_sentence():
    x, y, _ = planted()
    with pytest.raises(DataError, match=r"step must be small enough to converge, got 50\.0"):
        solve_lasso(x, y, schedule=LassoSchedule(step=50.0, least_step=50.0))
    with pytest.raises(ConfigError, match=r"dropout must be from 0 to below 1, got 1\.0"):
        LassoSchedule(dropout=1.0)


def low_rank(rows=120, features=200, targets=50, rank=3):
    rng = generator(2, "components")
    x = rng.standard_normal((rows, features))
    hidden = x[:, :rank] * [3.0, 2.0, 1.0]
    y = hidden @ np.linalg.qr(rng.standard_normal((targets, rank)))[0].T * 4
    return x, y + 0.2 * rng.standard_normal((rows, targets)) + 5, np.repeat(np.arange(12), rows // 12)


def test_component_ridge_keeps_what_can_be_predicted_and_drops_the_noise():
    x, y, groups = low_rank()
    fit = solve_component_ridge(x, y, alphas=[1.0, 30.0, 1000.0], groups=groups, folds=6)
    assert 1 <= len(fit.components) <= 8
    assert fit.explained.shape == (3, 50)
    assert fit.explained.max() > 0.15
    axes = PCA(len(fit.components)).fit(y).components_
    np.testing.assert_allclose(np.abs((axes * fit.components).sum(1)), 1, atol=1e-6)


def test_component_ridge_is_the_dual_ridge_written_out():
    x, y, groups = low_rank()
    fit = solve_component_ridge(x, y, alphas=[30.0], groups=groups, folds=6)
    centred, scores = x - x.mean(0), (y - y.mean(0)) @ fit.components.T
    dual = np.linalg.solve(centred @ centred.T + 30.0 * np.eye(len(x)), scores)
    np.testing.assert_allclose(fit.coef, centred.T @ dual, atol=1e-8)


def test_explained_variance_is_that_of_refits_without_the_fold():
    x, y, groups = low_rank()
    labels = groups % 4
    fit = solve_component_ridge(x, y, alphas=[30.0], folds=labels, most_components=4)
    axes, left_out = PCA(4).fit(y).components_, []
    for fold in range(4):
        train, test = labels != fold, labels == fold
        model = Ridge(alpha=30.0).fit(x[train], (y[train] - y.mean(0)) @ axes.T)
        error = y[test] - y.mean(0) - model.predict(x[test]) @ axes
        left_out.append((error**2).sum(1).mean())
    total = ((y - y.mean(0)) ** 2).sum(1).mean()
    np.testing.assert_allclose(fit.explained[0, -1], 1 - np.mean(left_out) / total, atol=1e-8)


def test_constant_targets_have_no_components():
    x, y, _ = low_rank()
    with pytest.raises(DataError, match="y must vary over the rows, got constant targets"):
        solve_component_ridge(x, np.full_like(y, 2.0), alphas=[1.0])
