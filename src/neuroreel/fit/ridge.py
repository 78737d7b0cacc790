"""Ridge regression with an alpha for every target, chosen by cross-validation: arrays in, arrays out.

The mathematics is in `neuroreel.fit.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.fit.engine import SCORERS, Array, Targets, choose_ops, decompose, score_block, solve_block
from neuroreel.fit.folds import check_folds, check_whole

FORMS = ("auto", "primal", "dual")
PRECISIONS = ("auto", "float32", "float64")


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge.

    Attributes
    ----------
    coef : array of shape (features, targets) or None
        Weights; None where only the dual ones were asked for.
    dual_coef : array of shape (rows, targets) or None
        Dual weights, with coef = (x_train - x_mean)' dual_coef; None in the primal form.
    intercept : array of shape (targets,)
    x_mean : array of shape (features,)
        Mean of the training features; zeros without an intercept.
    alpha : array of shape (targets,)
        The penalty that was chosen.
    cv_score : array of shape (targets,)
        Mean over folds at that alpha: minus the MSE, R2 or the correlation. Higher is better.
    cv_scores : array of shape (alphas, targets)
        The same for every alpha.
    form : str
        "primal" or "dual".
    precision : str
        "float32" or "float64", in which the targets were worked on.
    """

    coef: np.ndarray | None
    dual_coef: np.ndarray | None
    intercept: np.ndarray
    x_mean: np.ndarray
    alpha: np.ndarray
    cv_score: np.ndarray
    cv_scores: np.ndarray
    form: str
    precision: str


def check_alphas(alphas: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """Return the alphas as a float64 array if all are > 0, else raise DataError."""
    values = np.atleast_1d(np.asarray(alphas))
    checks.dimensions("alphas", values, ("alphas",))
    checks.require(values.size > 0, "alphas", "must hold one value or more", "none")
    checks.require(values.dtype.kind in "iuf", "alphas", "must be numbers", f"dtype {values.dtype}")
    checks.require(bool((np.isfinite(values) & (values > 0)).all()), "alphas", "must be > 0", values.min())
    return values.astype(np.float64)


def check_features(x: np.ndarray, name: str = "x") -> np.ndarray:
    """Return the features (rows, features) as an array of finite numbers, else raise DataError."""
    x = np.asarray(x)
    checks.dimensions(name, x, ("rows", "features"))
    checks.require(x.dtype.kind in "biuf", name, "must be numbers", f"dtype {x.dtype}")
    checks.require(x.shape[1] > 0, name, "must have one feature or more", f"shape {x.shape}")
    checks.require(x.shape[0] >= 2, name, "must have 2 rows or more", f"{x.shape[0]} rows")
    return checks.finite(name, x)


def check_targets(y: np.ndarray, rows: int, name: str = "x") -> np.ndarray:
    """Return the targets (rows, targets), unread if they are an array on disk; raise DataError if they don't fit x."""
    y = y if hasattr(y, "dtype") and hasattr(y, "ndim") else np.asarray(y)
    checks.dimensions("y", y, ("rows", "targets"))
    checks.require(y.dtype.kind in "biuf", "y", "must be numbers", f"dtype {y.dtype}")
    checks.same_length("y", y.shape[0], f"{name} rows", rows)
    checks.require(y.shape[1] > 0, "y", "must have one target or more", f"shape {y.shape}")
    return y


def choose_form(form: str, n: int, p: int) -> str:
    """Return "primal" or "dual"; "auto" takes the primal form where rows > features."""
    checks.one_of("form", form, FORMS)
    return ("primal" if n > p else "dual") if form == "auto" else form


def solve_ridge_cv(
    x: np.ndarray,
    y: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray,
    folds: int | np.ndarray = 5,
    groups: np.ndarray | None = None,
    score: str = "mse",
    fit_intercept: bool = True,
    form: str = "auto",
    precision: str = "auto",
    block: int = 512,
    device: str = "cpu",
    dual_only: bool = False,
    out: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
) -> RidgeFit:
    """Fit a ridge with an alpha for every target, chosen by cross-validation over groups.

    Parameters
    ----------
    x : array of shape (rows, features)
    y : array of shape (rows, targets)
        May be a memory map or another array on disk: it is read in blocks of columns.
    alphas : array of shape (alphas,)
        Penalties to choose from, all > 0. On a tie the first one wins.
    folds : int or array of shape (rows,)
        Number of folds, or the fold of every row (-1: never validated).
    groups : array of shape (rows,), optional
        Runs or clips that must not be split between folds.
    score : {"mse", "r2", "correlation"}
        What is averaged over folds; "mse" is minus the mean squared error, as in himalaya.
    fit_intercept : bool
        Fit an unpenalised intercept, in every fold its own.
    form : {"auto", "primal", "dual"}
        "auto" takes the primal form where rows > features.
    precision : {"auto", "float32", "float64"}
        "auto" follows x, and goes from float32 to float64 where the smallest alpha is too small for float32.
    block : int
        Targets at a time.
    device : {"cpu", "cuda"}
    dual_only : bool
        In the dual form, return no primal weights: for many more features than rows.
    out : array of shape (features or rows, targets), optional
        Where to write the weights, for example a memory map.
    held_out : array of shape (rows, targets), optional
        Where to write what the fit without a row's fold predicts for it, at the chosen alpha; NaN where a row is never
        validated.

    Returns
    -------
    RidgeFit

    Raises
    ------
    DataError, ConfigError
        If an input has NaN, a wrong shape, an alpha <= 0, fewer groups than folds or an unknown option.
    """
    values = check_alphas(alphas)
    x = check_features(x)
    y = check_targets(y, len(x))
    checks.one_of("score", score, SCORERS)
    checks.one_of("precision", precision, PRECISIONS)
    block = check_whole("block", block, 1)
    form = choose_form(form, *x.shape)
    no_dual = form == "primal" and dual_only
    checks.require(not no_dual, "dual_only", "must go with the dual form", repr(form), error=ConfigError)
    labels = check_folds(len(x), folds, groups)
    ops = choose_ops(device)
    n_targets = y.shape[1]
    shape = (len(x) if dual_only else x.shape[1], n_targets)
    if out is None:
        out = np.empty(shape, dtype=np.result_type(x.dtype, np.float32))
    checks.require(out.shape == shape, "out", f"must have shape {shape}", out.shape)
    checks.require(out.dtype.kind == "f", "out", "must be of floats", f"dtype {out.dtype}")
    if held_out is not None:
        checks.require(held_out.shape == y.shape, "held_out", f"must have shape {y.shape}", held_out.shape)

    model = decompose(
        x, labels, values, form=form, fit_intercept=fit_intercept, precision=precision, score=score, ops=ops
    )
    dual = np.empty((len(x), n_targets), dtype=out.dtype) if form == "dual" and not dual_only else None
    cv_scores = np.empty((len(values), n_targets))
    alpha, intercept = np.empty(n_targets), np.empty(n_targets)
    targets = Targets(y, model.order, fit_intercept, model.dtype)
    mean_row: Array = None if model.x is None else model.x @ ops.put(model.x_mean, model.dtype)

    def fit_block(start: int) -> None:
        columns = slice(start, min(start + block, n_targets))
        centred, y_mean = targets.read(columns)
        part = ops.put(centred, model.dtype)
        rotated = part @ model.q  # (block, rank)
        errors = None
        if held_out is not None:
            errors = ops.empty(len(values) * len(part) * len(x), model.dtype).reshape(len(values), len(part), len(x))
        cv_scores[:, columns] = ops.take(score_block(model, part, rotated, score, errors))
        best = np.argmax(cv_scores[:, columns], axis=0)
        alpha[columns] = values[best]
        if held_out is not None:
            predicted = centred + y_mean[:, None] - ops.take(errors)[best, np.arange(len(best))]
            predicted[:, labels[model.order] < 0] = np.nan
            held_out[model.order, columns] = predicted.T
        primal, weights = solve_block(model, rotated, ops.put(alpha[columns], model.dtype))
        if model.x is not None:  # the dual form
            rows = out if dual is None else dual
            rows[model.order, columns] = ops.take(weights)
            intercept[columns] = y_mean - ops.take(mean_row @ weights)
        if not dual_only:
            out[:, columns] = ops.take(primal if model.x is None else model.x.T @ weights)
            intercept[columns] = y_mean - model.x_mean @ out[:, columns]

    ops.spread(fit_block, range(0, n_targets, block))
    return RidgeFit(
        coef=None if dual_only else out,
        dual_coef=out if dual_only else dual,
        intercept=intercept,
        x_mean=model.x_mean,
        alpha=alpha,
        cv_score=cv_scores.max(0),
        cv_scores=cv_scores,
        form=form,
        precision=model.dtype.name,
    )


def predict_ridge(fit: RidgeFit, x: np.ndarray, x_train: np.ndarray | None = None) -> np.ndarray:
    """Return the predictions (rows, targets) for features (rows, features).

    Parameters
    ----------
    fit : RidgeFit
    x : array of shape (rows, features)
    x_train : array of shape (training rows, features), optional
        Needed where only dual weights were kept.

    Raises
    ------
    DataError
        If x has another number of features than the fit, or x_train is missing.
    """
    x = np.asarray(x)
    checks.dimensions("x", x, ("rows", "features"))
    checks.same_length("x", x.shape[1], "the fit's features", len(fit.x_mean))
    if fit.coef is not None:
        return np.asarray(x @ fit.coef) + fit.intercept.astype(fit.coef.dtype)
    checks.require(x_train is not None, "x_train", "must be given with dual weights", None)
    assert x_train is not None and fit.dual_coef is not None
    weights = fit.dual_coef
    return (x @ (x_train - fit.x_mean).T.astype(weights.dtype)) @ weights + fit.intercept.astype(weights.dtype)
