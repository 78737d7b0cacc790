from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from neuroreel.core.errors import ConfigError, DataError, NeuroreelError
from neuroreel.core.seeds import generator
from neuroreel.fit import engine, ridge
from neuroreel.fit.folds import assign_folds, iterate_folds
from neuroreel.fit.ridge import predict_ridge, solve_ridge_cv

ALPHAS = np.logspace(-1, 4, 8)
FORMS = [(60, 12), (40, 70), (40, 40)]


def make(n: int, p: int, v: int = 7, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(0, "ridge", n, p)
    x = rng.normal(size=(n, p)) * rng.uniform(0.3, 3, size=p) + rng.normal(size=p)
    y = x @ rng.normal(size=(p, v)) / np.sqrt(p) + rng.normal(size=(n, v)) * np.linspace(0.2, 6, v) + 5
    return x.astype(dtype), y.astype(dtype)


def held_out_score(score: str, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    if score == "r2":
        return r2_score(truth, predicted, multioutput="raw_values")
    if score == "correlation":
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, predicted.T, strict=True)])
    return -((truth - predicted) ** 2).mean(0)


def refit(
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    score: str = "mse",
    intercept: bool = True,
    alphas: np.ndarray = ALPHAS,
) -> np.ndarray:
    """Return the scores (alphas, targets) from one scikit-learn ridge a fold and an alpha."""
    scores = []
    for alpha in alphas:
        folds = []
        for train, held in iterate_folds(labels):
            model = Ridge(alpha=alpha, fit_intercept=intercept, solver="svd").fit(x[train], y[train])
            folds.append(held_out_score(score, y[held], model.predict(x[held])))
        scores.append(np.mean(folds, axis=0))
    return np.array(scores)


def layouts(n: int) -> Iterator[np.ndarray]:
    rng = generator(0, "layouts", n)
    yield assign_folds(n, 5)
    yield assign_folds(n, 3, np.repeat(np.arange(n // 4), 4))  # interleaved folds of groups
    uneven = np.full(n, 9)
    uneven[:3], uneven[3:11] = 2, 4
    yield rng.permutation(uneven)
    rest = assign_folds(n, 4) - 1  # a quarter is never validated
    yield rng.permutation(rest)


@pytest.mark.parametrize(("n", "p"), FORMS)
@pytest.mark.parametrize("intercept", [True, False])
def test_weights_solve_the_normal_equations(n: int, p: int, intercept: bool) -> None:
    x, y = make(n, p)
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, fit_intercept=intercept)
    mean_x, mean_y = (x.mean(0), y.mean(0)) if intercept else (0 * x[0], 0 * y[0])
    a, b = x - mean_x, y - mean_y
    for target, alpha in enumerate(fit.alpha):
        weights = scipy.linalg.solve(a.T @ a + alpha * np.eye(p), a.T @ b[:, target], assume_a="pos")
        np.testing.assert_allclose(fit.coef[:, target], weights, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(fit.intercept[target], mean_y[target] - mean_x @ weights, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("n", "p"), FORMS)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("layout", range(4))
def test_scores_are_those_of_a_refit_in_every_fold(n: int, p: int, intercept: bool, form: str, layout: int) -> None:
    x, y = make(n, p)
    labels = list(layouts(n))[layout]
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, folds=labels, form=form, fit_intercept=intercept)
    expected = refit(x, y, labels, intercept=intercept)
    np.testing.assert_allclose(fit.cv_scores, expected, rtol=1e-7)
    assert fit.form == form
    assert np.array_equal(fit.alpha, ALPHAS[expected.argmax(0)])
    np.testing.assert_allclose(fit.cv_score, expected.max(0), rtol=1e-7)


@pytest.mark.parametrize(("n", "p"), [(60, 4), (60, 12), (40, 70)])
@pytest.mark.parametrize("layout", range(4))
def test_held_out_predictions_are_those_of_a_refit_without_the_fold(n: int, p: int, layout: int) -> None:
    x, y = make(n, p)
    labels = list(layouts(n))[layout]
    held_out = np.zeros(y.shape)
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, folds=labels, held_out=held_out, block=3)
    for train, out in iterate_folds(labels):
        for target, alpha in enumerate(fit.alpha):
            again = Ridge(alpha).fit(x[train], y[train, target])
            np.testing.assert_allclose(held_out[out, target], again.predict(x[out]), rtol=1e-6, atol=1e-8)
    assert np.isnan(held_out[labels < 0]).all() and np.isfinite(held_out[labels >= 0]).all()
    with pytest.raises(DataError, match=r"^held_out must have shape "):
        solve_ridge_cv(x, y, alphas=ALPHAS, held_out=np.zeros((3, 3)))


@pytest.mark.parametrize(("n", "p"), [(60, 4), (60, 12), (40, 70)])
@pytest.mark.parametrize("score", ["mse", "r2", "correlation"])
def test_every_score_is_the_mean_over_folds_of_its_definition(n: int, p: int, score: str) -> None:
    x, y = make(n, p)
    labels = assign_folds(n, 4)
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, folds=labels, score=score)
    np.testing.assert_allclose(fit.cv_scores, refit(x, y, labels, score), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "p", "form"), [(350, 240, "primal"), (240, 300, "dual")])
@pytest.mark.parametrize("score", ["mse", "correlation"])
def test_eigenvalues_cut_into_ranges_score_as_refits_do(n: int, p: int, form: str, score: str) -> None:
    x, y = make(n, p)
    labels, alphas = assign_folds(n, 3), np.logspace(-1, 4, 24)
    model = engine.decompose(
        x, labels, alphas, form=form, fit_intercept=True, precision="float64", score=score, ops=engine.NumpyOps()
    )
    assert len(model.pieces) > 1 and model.mix.shape[0] == 24
    fit = solve_ridge_cv(x, y, alphas=alphas, folds=labels, score=score)
    assert fit.form == form
    np.testing.assert_allclose(fit.cv_scores, refit(x, y, labels, score, alphas=alphas), rtol=1e-7)


def test_leaving_one_row_out_agrees_with_scikit_learns_closed_form() -> None:
    from sklearn.linear_model import RidgeCV

    x, y = make(30, 10)
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, folds=30)
    theirs = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(x, y)
    assert np.array_equal(fit.alpha, theirs.alpha_)
    np.testing.assert_allclose(fit.cv_score, theirs.best_score_, rtol=1e-8)


def test_groups_give_the_scores_of_the_folds_they_make() -> None:
    x, y = make(60, 12)
    groups = np.tile(np.array(["run-1", "run-2", "run-3", "run-4"]), 15)
    by_groups = solve_ridge_cv(x, y, alphas=ALPHAS, folds=4, groups=groups)
    np.testing.assert_allclose(by_groups.cv_scores, refit(x, y, assign_folds(60, 4, groups)), rtol=1e-7)


@pytest.mark.parametrize(("n", "p"), [(120, 30), (60, 100)])
def test_himalaya_chooses_the_same_alphas_and_weights(n: int, p: int) -> None:
    himalaya = pytest.importorskip("himalaya.ridge", reason="himalaya is not installed: pip install neuroreel[bench]")
    x, y = make(n, p, v=40)
    labels = assign_folds(n, 4)
    split = list(iterate_folds(labels))
    settings = {"warn": False}
    theirs = himalaya.RidgeCV(alphas=ALPHAS, fit_intercept=True, cv=split, solver_params=settings).fit(x, y)
    ours = solve_ridge_cv(x, y, alphas=ALPHAS, folds=labels)
    np.testing.assert_allclose(ours.alpha, theirs.best_alphas_)
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.intercept, theirs.intercept_, rtol=1e-6)


@pytest.mark.parametrize(("n", "p"), [(90, 10), (90, 40), (50, 80)])
def test_blocks_of_targets_do_not_change_the_answer(n: int, p: int) -> None:
    x, y = make(n, p, v=11)
    whole = solve_ridge_cv(x, y, alphas=ALPHAS)
    for block in (1, 4, 11):
        parts = solve_ridge_cv(x, y, alphas=ALPHAS, block=block)
        assert np.array_equal(parts.alpha, whole.alpha)
        np.testing.assert_allclose(parts.cv_scores, whole.cv_scores, rtol=1e-10)
        np.testing.assert_allclose(parts.coef, whole.coef, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "p"), [(200, 20), (200, 150), (80, 160)])
def test_float32_agrees_with_float64(n: int, p: int) -> None:
    x, y = make(n, p, v=30)
    double = solve_ridge_cv(x, y, alphas=np.logspace(1, 4, 7))
    single = solve_ridge_cv(x.astype(np.float32), y.astype(np.float32), alphas=np.logspace(1, 4, 7))
    assert single.precision == "float32"
    assert single.coef is not None and single.coef.dtype == np.float32
    np.testing.assert_allclose(single.cv_scores, double.cv_scores, rtol=2e-4)
    assert np.mean(single.alpha == double.alpha) > 0.95
    same = single.alpha == double.alpha
    np.testing.assert_allclose(single.coef[:, same], double.coef[:, same], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("n", "p"), [(120, 60), (60, 120)])
@pytest.mark.parametrize("smallest", [1e-3, 1e-6])
def test_float32_features_with_a_tiny_alpha_still_give_the_right_scores(n: int, p: int, smallest: float) -> None:
    x, y = make(n, p)
    x = x @ np.diag(np.logspace(1, -2, p)) + 3
    x, y = x.astype(np.float32), y.astype(np.float32)
    alphas = smallest * np.logspace(0, 7, 8)
    single = solve_ridge_cv(x, y, alphas=alphas)
    double = solve_ridge_cv(x, y, alphas=alphas, precision="float64")
    np.testing.assert_allclose(single.cv_scores, double.cv_scores, rtol=5e-3)
    assert np.array_equal(single.alpha, double.alpha)


def test_alphas_too_small_for_float32_are_refused_only_where_float32_is_demanded() -> None:
    x, y = make(60, 12, dtype=np.float32)
    x = np.hstack([x, x])
    assert solve_ridge_cv(x, y, alphas=[1e-9, 1.0]).precision == "float64"
    with pytest.raises(DataError, match=r"^alphas must be larger for float32, or precision 'float64', got 1e-09$"):
        solve_ridge_cv(x, y, alphas=[1e-9, 1.0], precision="float32")


def test_targets_and_weights_may_be_memory_maps(tmp_path: Path) -> None:
    x, y = make(50, 20, v=30, dtype=np.float32)
    mapped: Any = np.memmap(tmp_path / "y", dtype=np.float32, mode="w+", shape=y.shape)
    mapped[:] = y
    mapped.flush()
    out: Any = np.memmap(tmp_path / "coef", dtype=np.float32, mode="w+", shape=(20, 30))
    read_only: Any = np.memmap(tmp_path / "y", dtype=np.float32, mode="r", shape=y.shape)
    fit = solve_ridge_cv(x, read_only, alphas=ALPHAS, block=7, out=out)
    assert fit.coef is out
    np.testing.assert_array_equal(out, solve_ridge_cv(x, y, alphas=ALPHAS, block=7).coef)


def test_the_callers_arrays_are_left_alone() -> None:
    x, y = make(50, 20)
    before = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    solve_ridge_cv(x, y, alphas=ALPHAS, form="primal")
    solve_ridge_cv(x, y, alphas=ALPHAS, form="dual")
    assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])


def test_dual_weights_alone_predict_the_same() -> None:
    x, y = make(30, 200)
    order = generator(0, "order").permutation(assign_folds(30, 3))
    full = solve_ridge_cv(x, y, alphas=ALPHAS, folds=order)
    dual = solve_ridge_cv(x, y, alphas=ALPHAS, folds=order, dual_only=True)
    assert dual.coef is None and dual.dual_coef is not None and dual.dual_coef.shape == y.shape
    np.testing.assert_allclose(x.T @ dual.dual_coef, full.coef, rtol=1e-7, atol=1e-10)
    new = make(30, 200)[0][:9] + 1
    np.testing.assert_allclose(predict_ridge(dual, new, x_train=x), predict_ridge(full, new), rtol=1e-8)


def test_prediction_is_checked() -> None:
    x, y = make(30, 200)
    dual = solve_ridge_cv(x, y, alphas=ALPHAS, dual_only=True)
    with pytest.raises(DataError, match=r"^x_train must be given with dual weights, got None$"):
        predict_ridge(dual, x)
    with pytest.raises(DataError, match=r"^x must have as many entries as the fit's features \(200\), got 3$"):
        predict_ridge(solve_ridge_cv(x, y, alphas=ALPHAS), x[:, :3])


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_features_that_repeat_and_stay_constant_do_no_harm(form: str) -> None:
    x, y = make(40, 10)
    x = np.hstack([x, x, np.ones((40, 3)), np.zeros((40, 2))])
    fit = solve_ridge_cv(x, y, alphas=ALPHAS, folds=4, form=form)
    np.testing.assert_allclose(fit.cv_scores, refit(x, y, assign_folds(40, 4)), rtol=1e-7)
    assert fit.coef is not None
    np.testing.assert_allclose(fit.coef[20:], 0, atol=1e-10)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_features_without_any_variance_predict_the_mean(form: str) -> None:
    y = make(40, 10)[1]
    fit = solve_ridge_cv(np.ones((40, 5)), y, alphas=ALPHAS, form=form)
    np.testing.assert_allclose(predict_ridge(fit, np.ones((2, 5))), np.tile(y.mean(0), (2, 1)), rtol=1e-10)


@pytest.mark.parametrize("score", ["r2", "correlation"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_target_that_is_constant_in_a_fold_scores_zero_there(score: str, dtype: type) -> None:
    x, y = make(60, 12, dtype=dtype)
    y[:20, 0] = 0.1  # the whole first fold
    y[:, 1] = 0.7
    fit = solve_ridge_cv(x, y, alphas=ALPHAS * 10, folds=3, score=score)
    assert np.array_equal(fit.cv_scores[:, 1], np.zeros(8))
    last_two = solve_ridge_cv(x, y, alphas=ALPHAS * 10, folds=assign_folds(60, 3) - 1, score=score)
    expected = last_two.cv_scores[:, 0] * 2 / 3  # folds 1 and 2 as before, fold 0 nothing
    np.testing.assert_allclose(fit.cv_scores[:, 0], expected, rtol=1e-3)


def test_one_alpha_and_one_target_are_enough() -> None:
    x, y = make(30, 5, v=1)
    fit = solve_ridge_cv(x, y, alphas=[3.0])
    assert fit.coef is not None and fit.coef.shape == (5, 1)
    np.testing.assert_allclose(fit.coef[:, 0], Ridge(alpha=3.0).fit(x, y[:, 0]).coef_, rtol=1e-8)


@pytest.mark.parametrize(("n", "p"), [(90, 10), (60, 40), (40, 70)])
@pytest.mark.parametrize("score", ["mse", "r2", "correlation"])
def test_torch_gives_the_same_as_numpy(n: int, p: int, score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = make(n, p)
    held_out = np.zeros((2, *y.shape))
    by_numpy = solve_ridge_cv(x, y, alphas=ALPHAS, score=score, held_out=held_out[0])
    asked: list[str] = []
    monkeypatch.setattr(ridge, "choose_ops", lambda device: asked.append(device) or engine.TorchOps("cpu"))
    by_torch = solve_ridge_cv(x, y, alphas=ALPHAS, score=score, held_out=held_out[1])
    assert asked == ["cpu"]  # where `solve_ridge_cv` looks for it
    np.testing.assert_allclose(held_out[1], held_out[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(by_torch.cv_scores, by_numpy.cv_scores, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(by_torch.coef, by_numpy.coef, rtol=1e-8, atol=1e-10)


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    x, y = make(30, 5)
    with pytest.raises(ConfigError, match=r"^device must be one that torch can use, got 'cuda'$"):
        solve_ridge_cv(x, y, alphas=ALPHAS, device="cuda")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"alphas": []}, "alphas must hold one value or more, got none"),
        ({"alphas": [1.0, 0.0]}, "alphas must be > 0, got 0.0"),
        ({"alphas": [1.0, np.nan]}, "alphas must be > 0, got nan"),
        ({"alphas": ["a"]}, "alphas must be numbers, got dtype <U1"),
        ({"score": "mae"}, "score must be one of correlation, mse, r2, got 'mae'"),
        ({"form": "both"}, "form must be one of auto, dual, primal, got 'both'"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got 'tpu'"),
        ({"precision": "half"}, "precision must be one of auto, float32, float64, got 'half'"),
        ({"block": 0}, "block must be a whole number of 1 or more, got 0"),
        ({"block": "all"}, "block must be a whole number of 1 or more, got all"),
        ({"dual_only": True}, "dual_only must go with the dual form, got 'primal'"),
        ({"out": np.zeros((2, 2))}, r"out must have shape \(12, 7\), got \(2, 2\)"),
        ({"out": np.zeros((12, 7), dtype=int)}, "out must be of floats, got dtype int64"),
        ({"x": np.zeros(60)}, r"x must have the axes \(rows, features\), got shape \(60,\)"),
        ({"y": np.zeros(60)}, r"y must have the axes \(rows, targets\), got shape \(60,\)"),
        ({"y": np.zeros((59, 7))}, r"y must have as many entries as x rows \(60\), got 59"),
        ({"x": np.full((60, 12), np.nan)}, "x must be finite, got 720 of 720 values NaN or infinite"),
        ({"y": np.full((60, 7), np.inf)}, "y must be finite, got 420 of 420 values NaN or infinite"),
        ({"x": np.full((60, 12), "a")}, "x must be numbers, got dtype <U1"),
        ({"y": np.full((60, 7), 1j)}, "y must be numbers, got dtype complex128"),
        ({"x": np.zeros((60, 0))}, r"x must have one feature or more, got shape \(60, 0\)"),
        ({"y": np.zeros((60, 0))}, r"y must have one target or more, got shape \(60, 0\)"),
        ({"folds": 61}, r"rows must be as many as the folds \(61\) or more, got 60 rows"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], text: str) -> None:
    x, y = make(60, 12)
    arguments: dict[str, Any] = {"x": x, "y": y, "alphas": ALPHAS} | change
    with pytest.raises(NeuroreelError, match=f"^{text}$"):
        solve_ridge_cv(arguments.pop("x"), arguments.pop("y"), **arguments)
