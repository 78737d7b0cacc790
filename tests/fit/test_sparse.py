import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.fit.selection import Scaling, top_features
from neuroreel.fit.sparse import solve_sparse


def planted(rows=240, features=60, targets=5, noise=0.5, seed=0):
    rng = generator(seed, "sparse")
    x = rng.standard_normal((rows, features)) + 0.5 * rng.standard_normal((rows, 1))
    weights = np.zeros((features, targets))
    for target in range(targets):
        weights[rng.permutation(features)[:4], target] = rng.choice([-1, 1], 4) * rng.uniform(0.5, 1.5, 4)
    x = Scaling.of(x).apply(x)
    return x, x @ weights + noise * rng.standard_normal((rows, targets)), weights


def reference(x, y, n_iter=2000, prune=1e-10, tolerance=1e-10):
    """Equations (1)-(3) one target at a time, with the inverse written out and no pruned column left."""
    weights, alive, a = np.zeros(x.shape[1]), np.arange(x.shape[1]), np.full(x.shape[1], 1 / x.var(0).mean())
    for i in range(n_iter):
        part = x[:, alive]
        c = np.linalg.inv(part.T @ part + np.diag(1 / a))
        w = c @ part.T @ y
        gain = np.diag(part.T @ part @ c)
        new = np.sqrt(a * w**2 / ((y @ y - w @ part.T @ y) / len(y) * gain))
        kept = new > prune * new.max()
        if i > 100 and kept.all() and np.abs(new - a).max() < tolerance:
            break
        alive, a, w = alive[kept], new[kept], w[kept]
    weights[alive] = w
    return weights


def test_the_planted_features_are_found_and_the_others_pruned():
    x, y, weights = planted()
    fit = solve_sparse(x, y)
    np.testing.assert_allclose(fit.coef.T[weights != 0], weights[weights != 0], atol=0.15)
    assert np.abs(fit.coef.T[weights == 0]).max() < 0.15
    assert np.mean(fit.coef.T[weights == 0] == 0) > 0.6
    np.testing.assert_allclose(fit.noise, 0.25, rtol=0.3)


@pytest.mark.parametrize(
    ("noise", "settings", "atol"), [(0.3, {}, 1e-5), (3.0, {}, 1e-5), (3.0, {"jump_error": 1e-4}, 1e-6)]
)
def test_weights_are_those_of_the_loop_over_targets(noise, settings, atol):
    x, y, _ = planted(noise=noise)
    fit = solve_sparse(x, y, **settings)
    for target in range(y.shape[1]):
        expected = reference(np.c_[x, np.ones(len(x))], y[:, target])
        np.testing.assert_allclose(np.r_[fit.coef[target], fit.bias[target]], expected, atol=atol)


def test_without_jumps_every_iteration_is_made_and_agrees_to_rounding_error():
    x, y, _ = planted(noise=3.0, targets=2)
    fit = solve_sparse(x, y, n_iter=150, tolerance=0, jump_error=0)
    assert fit.n_iter.tolist() == fit.solved.tolist() == [150, 150]
    expected = [reference(np.c_[x, np.ones(len(x))], column, 150, tolerance=0) for column in y.T]
    np.testing.assert_allclose(np.c_[fit.coef, fit.bias], expected, atol=1e-10)


def test_jumps_save_most_of_the_systems():
    x, y, _ = planted(noise=3.0)
    fit = solve_sparse(x, y, tolerance=0)
    assert fit.n_iter.tolist() == [2000] * 5
    assert fit.solved.max() < 400


@pytest.mark.parametrize("rows", [25, 50])
def test_fewer_rows_than_features_give_the_weights_of_the_loop(rows):
    x, y, _ = planted(rows=rows, noise=1.0, targets=3)
    fit = solve_sparse(x, y, n_iter=60, jump_error=0)
    expected = [reference(np.c_[x, np.ones(rows)], column, 60) for column in y.T]
    np.testing.assert_allclose(np.c_[fit.coef, fit.bias], expected, atol=1e-6)


def test_every_target_has_its_own_features_and_batches_change_nothing():
    x, y, _ = planted(targets=7)
    chosen = top_features(x, y, 20)
    fit = solve_sparse(x, y, chosen=chosen, batch=3, workers=2)
    for target in range(7):
        alone = solve_sparse(x[:, chosen[target]], y[:, [target]])
        np.testing.assert_allclose(fit.coef[target], alone.coef[0], atol=1e-9)


def test_a_constant_target_and_a_constant_feature_have_no_weight():
    x, y, _ = planted()
    x[:, 3], y[:, 1] = 0, 0
    fit = solve_sparse(x, y)
    assert not fit.coef[:, 3].any()
    assert not fit.coef[1].any()
    assert np.isfinite(fit.coef).all()


def test_a_target_without_noise_is_fitted_exactly():
    x, y, weights = planted(noise=0.0)
    np.testing.assert_allclose(solve_sparse(x, y, n_iter=200).coef, weights.T, atol=1e-5)


def test_bad_input_is_one_sentence():
    x, y, _ = planted()
    with pytest.raises(DataError, match=r"chosen must lie within 0\.\.59, got 0\.\.60"):
        solve_sparse(x, y[:, :1], chosen=np.array([[0, 60]]))
    with pytest.raises(DataError, match="chosen must name no feature twice, got 1 targets with a repeated one"):
        solve_sparse(x, y[:, :1], chosen=np.array([[4, 4]]))
    with pytest.raises(DataError, match="chosen must have as many entries as targets"):
        solve_sparse(x, y, chosen=np.array([[0, 1]]))
    with pytest.raises(ConfigError, match=r"prune must be from 0 to below 1, got 1\.5"):
        solve_sparse(x, y, prune=1.5)
    y[0, 0] = np.nan
    with pytest.raises(DataError, match="y must be finite, got 1 of 1200 values"):
        solve_sparse(x, y)
