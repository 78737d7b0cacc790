"""Banded ridge regression: every band of features with a penalty of its own, found by random search.

As in Dupré la Tour, Eickenberg, Nunez-Elizalde & Gallant 2022, NeuroImage 264: a candidate is a set of band weights,
and each target takes the candidate and the alpha that predict its validation rows best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroreel.core import checks
from neuroreel.fit.engine import SCORERS, Decomposition, Targets, choose_ops, decompose, score_block, solve_block
from neuroreel.fit.folds import check_folds, check_whole
from neuroreel.fit.ridge import PRECISIONS, check_alphas, check_features, check_targets, choose_form


@dataclass(frozen=True)
class BandedRidgeFit:
    """A fitted banded ridge.

    Attributes
    ----------
    coef : tuple of arrays of shape (features of the band, targets)
    intercept, alpha, cv_score : arrays of shape (targets,)
    band_weights : array of shape (bands, targets)
        Weights that sum to 1; band i is penalised by alpha / band_weights[i].
    candidate : array of shape (targets,)
        Row of `candidates` that won.
    candidates : array of shape (candidates, bands)
    """

    coef: tuple[np.ndarray, ...]
    intercept: np.ndarray
    alpha: np.ndarray
    cv_score: np.ndarray
    band_weights: np.ndarray
    candidate: np.ndarray
    candidates: np.ndarray


def draw_band_weights(n_bands: int, n_candidates: int, seed: int) -> np.ndarray:
    """Return band weights (candidates, bands), each row summing to 1.

    The first one is even; then each band alone, as far as there is room; the rest come from Dirichlet distributions
    with concentration 0.1 (few bands) and 1 (all alike) in turn, as in Dupré la Tour et al. 2022. A single band has
    one candidate.
    """
    n_candidates = check_whole("n_candidates", n_candidates, 1)
    if n_bands == 1:
        return np.ones((1, 1))
    rng = np.random.default_rng(seed)
    rows = [np.full(n_bands, 1.0 / n_bands), *np.eye(n_bands)]
    while len(rows) < n_candidates:
        rows.append(rng.dirichlet(np.full(n_bands, (0.1, 1.0)[len(rows) % 2])))
    return np.asarray(rows[:n_candidates])


def _check_candidates(candidates: np.ndarray, n_bands: int) -> np.ndarray:
    candidates = np.asarray(candidates, dtype=np.float64)
    checks.dimensions("candidates", candidates, ("candidates", "bands"))
    checks.require(len(candidates) > 0, "candidates", "must hold one row or more", f"shape {candidates.shape}")
    checks.same_length("candidates' bands", candidates.shape[1], "bands", n_bands)
    good = bool(np.isfinite(candidates).all() and (candidates >= 0).all() and (candidates.sum(1) > 0).all())
    checks.require(good, "candidates", "must be >= 0 with a sum > 0", candidates.min())
    return candidates / candidates.sum(1, keepdims=True)


def solve_banded_ridge_cv(
    bands: Sequence[np.ndarray],
    y: np.ndarray,
    *,
    alphas: Sequence[float] | np.ndarray,
    folds: int | np.ndarray = 5,
    groups: np.ndarray | None = None,
    n_candidates: int = 30,
    candidates: np.ndarray | None = None,
    seed: int = 0,
    score: str = "mse",
    fit_intercept: bool = True,
    form: str = "auto",
    precision: str = "auto",
    block: int = 512,
    device: str = "cpu",
) -> BandedRidgeFit:
    """Fit a ridge whose bands of features have penalties of their own, by random search over band weights.

    Every candidate scales band i by the square root of its weight; each target takes the candidate and the alpha
    with the best score, the first one on a tie.

    Parameters
    ----------
    bands : list of arrays of shape (rows, features of the band)
    y : array of shape (rows, targets)
    n_candidates : int
        Band weights to try, drawn by `draw_band_weights` from `seed`.
    candidates : array of shape (candidates, bands), optional
        Band weights to try in place of drawn ones, >= 0.
    alphas, folds, groups, score, fit_intercept, form, precision, block, device
        As in `solve_ridge_cv`.

    Returns
    -------
    BandedRidgeFit

    Raises
    ------
    DataError, ConfigError
        As in `solve_ridge_cv`.
    """
    checks.require(len(bands) > 0, "bands", "must hold one array or more", len(bands))
    bands = [check_features(band, f"bands[{index}]") for index, band in enumerate(bands)]
    for index, band in enumerate(bands):
        y = check_targets(y, len(band), f"bands[{index}]")
    values = check_alphas(alphas)
    checks.one_of("score", score, SCORERS)
    checks.one_of("precision", precision, PRECISIONS)
    block = check_whole("block", block, 1)
    if candidates is None:
        candidates = draw_band_weights(len(bands), n_candidates, seed)
    candidates = _check_candidates(candidates, len(bands))
    x = np.concatenate(bands, axis=1)
    band_of = np.repeat(np.arange(len(bands)), [band.shape[1] for band in bands])
    form = choose_form(form, *x.shape)
    labels = check_folds(len(x), folds, groups)
    ops = choose_ops(device)

    def decompose_candidate(weights: np.ndarray) -> Decomposition:
        scaled = x * np.sqrt(weights[band_of]).astype(np.result_type(x.dtype, np.float32))
        return decompose(
            scaled, labels, values, form=form, fit_intercept=fit_intercept, precision=precision, score=score, ops=ops
        )

    n_targets = y.shape[1]
    best = np.full(n_targets, -np.inf)
    alpha = np.full(n_targets, values[0])
    winner = np.zeros(n_targets, dtype=np.intp)

    def try_candidate(index: int) -> None:
        model = decompose_candidate(candidates[index])
        targets = Targets(y, model.order, fit_intercept, model.dtype)

        def score_columns(start: int) -> None:
            columns = slice(start, min(start + block, n_targets))
            part = ops.put(targets.read(columns)[0], model.dtype)
            scores = ops.take(score_block(model, part, part @ model.q, score))
            top = scores.max(0)
            won = np.flatnonzero(top > best[columns])
            best[start + won] = top[won]
            alpha[start + won] = values[np.argmax(scores, axis=0)[won]]
            winner[start + won] = index

        ops.spread(score_columns, range(0, n_targets, block))

    for index in range(len(candidates)):
        try_candidate(index)
    coef = np.empty((x.shape[1], n_targets), dtype=np.result_type(x.dtype, np.float32))
    intercept = np.empty(n_targets)

    def fit_winners(index: int) -> None:
        model = decompose_candidate(candidates[index])
        targets = Targets(y, model.order, fit_intercept, model.dtype)
        scale = np.sqrt(candidates[index][band_of])
        chosen = np.flatnonzero(winner == index)

        def fit_columns(start: int) -> None:
            picked = chosen[start : start + block]
            centred, y_mean = targets.read(picked)
            rotated = ops.put(centred, model.dtype) @ model.q
            primal, dual = solve_block(model, rotated, ops.put(alpha[picked], model.dtype))
            scaled_coef = ops.take(primal if model.x is None else model.x.T @ dual)
            coef[:, picked] = scale[:, None] * scaled_coef
            intercept[picked] = y_mean - model.x_mean @ scaled_coef

        ops.spread(fit_columns, range(0, len(chosen), block))

    for index in np.unique(winner):
        fit_winners(index)
    return BandedRidgeFit(
        coef=tuple(np.split(coef, np.cumsum([band.shape[1] for band in bands])[:-1], axis=0)),
        intercept=intercept,
        alpha=alpha,
        cv_score=best,
        band_weights=candidates[winner].T,
        candidate=winner,
        candidates=candidates,
    )


def predict_banded_ridge(fit: BandedRidgeFit, bands: Sequence[np.ndarray]) -> np.ndarray:
    """Return the predictions (rows, targets) for the bands (rows, features of the band), in the order of the fit.

    Raises
    ------
    DataError
        If the bands are not as many, or not as wide, as those of the fit.
    """
    checks.same_length("bands", len(bands), "the fit's bands", len(fit.coef))
    arrays = [np.asarray(band) for band in bands]
    for index, (band, coef) in enumerate(zip(arrays, fit.coef, strict=True)):
        checks.dimensions(f"bands[{index}]", band, ("rows", "features"))
        checks.same_length(f"bands[{index}]", band.shape[1], "the fit's features", len(coef))
        checks.same_length(f"bands[{index}]", len(band), "bands[0] rows", len(arrays[0]))
    parts = [band @ coef for band, coef in zip(arrays, fit.coef, strict=True)]
    return np.sum(parts, axis=0) + fit.intercept.astype(fit.coef[0].dtype)
