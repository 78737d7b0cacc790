"""Ridge regression with an alpha for every target, chosen by cross-validation: arrays in, arrays out.

One eigendecomposition serves all folds, all alphas and all targets. With the hat matrix H(alpha) of the fit to all
rows, the validation error of the rows b of a fold under the model that is fitted without them is exactly

    e_b = (I - H_bb)^-1 (y - H y)_b

(the block form of the PRESS statistic: Cook & Weisberg 1982, Residuals and Influence in Regression, 2.2; for
whole folds An, Liu & Venkatesh 2007, Pattern Recognition 40). The intercept is one more, unpenalised column, so
that H = 11'/n + the hat matrix of the centred features, and every fold has its own intercept without its own centring.

Two forms, with the rows already centred and sorted by fold:

    primal (n > p)   X'X = U s U',  Q = XU,  I - H = I - 11'/n - Q diag(1 / (s + alpha)) Q'
    dual   (p >= n)  XX' = Q s Q',           I - H = Q diag(alpha / (s + alpha)) Q',  Q without the direction of 1

The columns of weights for 15 alphas are close to dependent, so only a few of them (an interpolative decomposition,
Cheng et al. 2005, SIAM J. Sci. Comput. 26) go through the large matrix product, and the rest are mixed from those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.fit.folds import check_folds

SCORES = ("mse", "r2", "correlation")
FORMS = ("auto", "primal", "dual")
PRECISIONS = ("auto", "float32", "float64")
DEVICES = ("cpu", "cuda")
_MAX_CONDITION_FLOAT32 = 5e5  # of the regularised Gram matrix; beyond it float32 loses the small eigenvalues
_MAX_FOLD_CONDITION_FLOAT32 = 1e3  # of (I - H)_bb; beyond it the step from residual to fold error loses digits

Array = Any  # a numpy array or a torch tensor


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge.

    Attributes
    ----------
    coef : array of shape (features, targets) or None
        Weights; None where only the dual ones were asked for.
    dual_coef : array of shape (rows, targets) or None
        Dual weights, with coef = x_train' dual_coef; None in the primal form.
    intercept : array of shape (targets,)
    alpha : array of shape (targets,)
        The penalty that was chosen.
    cv_score : array of shape (targets,)
        Mean over folds at that alpha: minus the MSE, R2 or the correlation. Higher is better.
    cv_scores : array of shape (alphas, targets)
        The same for every alpha.
    form : str
        "primal" or "dual".
    precision : str
        "float32" or "float64", as it was computed.
    """

    coef: np.ndarray | None
    dual_coef: np.ndarray | None
    intercept: np.ndarray
    alpha: np.ndarray
    cv_score: np.ndarray
    cv_scores: np.ndarray
    form: str
    precision: str


@dataclass(frozen=True)
class BandedRidgeFit:
    """A fitted banded ridge.

    Attributes
    ----------
    coef : list of arrays of shape (features of the band, targets)
    intercept, alpha, cv_score : arrays of shape (targets,)
    band_weights : array of shape (bands, targets)
        Weights that sum to 1; band i is penalised by alpha / band_weights[i].
    candidate : array of shape (targets,)
        Row of `candidates` that won.
    candidates : array of shape (candidates, bands)
    """

    coef: list[np.ndarray]
    intercept: np.ndarray
    alpha: np.ndarray
    cv_score: np.ndarray
    band_weights: np.ndarray
    candidate: np.ndarray
    candidates: np.ndarray


# ---------------------------------------------------------------------------------------------------------------------
# What differs between numpy and torch


class _NumpyOps:
    """The few operations that are not spelt alike, by numpy and scipy."""

    def put(self, array: np.ndarray, dtype: np.dtype) -> Array:
        return np.ascontiguousarray(array, dtype=dtype)

    def take(self, array: Array) -> np.ndarray:
        return array

    def eigh(self, gram: Array) -> tuple[Array, Array]:
        return scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)

    def inverse(self, matrix: Array, dtype: np.dtype) -> Array:
        return np.linalg.inv(np.asarray(matrix, dtype=np.float64)).astype(dtype)

    def extremes(self, matrix: Array) -> tuple[float, float]:
        values = np.linalg.eigvalsh(np.asarray(matrix, dtype=np.float64))
        return float(values[0]), float(values[-1])


class _TorchOps:
    """The same by torch on a device."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        checks.require(
            device != "cuda" or torch.cuda.is_available(),
            "device",
            "must be one that torch can use",
            repr(device),
            error=ConfigError,
        )
        self.device = device

    def put(self, array: np.ndarray, dtype: np.dtype) -> Array:
        return self.torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(self.device)

    def take(self, array: Array) -> np.ndarray:
        return array.cpu().numpy()

    def eigh(self, gram: Array) -> tuple[Array, Array]:
        return self.torch.linalg.eigh(gram)

    def inverse(self, matrix: Array, dtype: np.dtype) -> Array:
        return self.torch.linalg.inv(matrix.double()).to(getattr(self.torch, np.dtype(dtype).name))

    def extremes(self, matrix: Array) -> tuple[float, float]:
        values = self.torch.linalg.eigvalsh(matrix.double())
        return float(values[0]), float(values[-1])


_Ops = _NumpyOps | _TorchOps


def _ops(device: str) -> _Ops:
    checks.one_of("device", device, DEVICES)
    return _NumpyOps() if device == "cpu" else _TorchOps(device)


# ---------------------------------------------------------------------------------------------------------------------
# The decomposition, the folds, the scores


@dataclass(frozen=True)
class _Rotation:
    """The eigendecomposition of the centred features: see the head of the module."""

    form: str
    q: Array  # (rows, rank)
    s: Array  # (rank,)
    u: Array | None  # (features, rank) in the primal form
    s_host: np.ndarray


@dataclass(frozen=True)
class _Folds:
    """What the folds need besides the rotation, for every alpha and once for all targets."""

    rows: list[slice]
    inverses: list[Array]  # (alphas, rows of the fold, rows of the fold)
    weights: Array  # (kept alphas, rank)
    mix: Array  # (alphas, kept alphas)


def _without_constant(gram: Array, ops: _Ops) -> tuple[Array, Array]:
    """Decompose a centred kernel and leave out the direction of the constant, even where it has equals.

    The constant has eigenvalue 0; it is lifted above the others, so that it is the last eigenvector and all the
    others are orthogonal to it.
    """
    n = gram.shape[0]
    vector = gram @ gram[:, n // 2]
    top = 0.0
    for _ in range(20):
        length = float((vector * vector).sum()) ** 0.5
        if length == 0.0:
            break
        vector = gram @ (vector / length)
        top = float((vector * vector).sum()) ** 0.5
    lift = 2.0 * max(top, float(abs(gram).max()), np.finfo(np.float32).tiny * n)
    s, q = ops.eigh(gram + lift / n)
    return s[:-1], q[:, :-1]


def _rotate(x: Array, gram: Array, form: str, intercept: bool, ops: _Ops) -> _Rotation:
    """Decompose the Gram matrix (primal) or the kernel (dual) of the centred rows."""
    if form == "primal":
        s, u = ops.eigh(gram)
        q = x @ u
    else:
        s, q = _without_constant(gram, ops) if intercept else ops.eigh(gram)
        u = None
    s = s.clip(0)
    return _Rotation(form, q, s, u, ops.take(s).astype(np.float64))


def _skeleton(weights: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Choose columns of (rank, alphas) weights and the mix of them that gives every column within the tolerance."""
    pivots = scipy.linalg.qr(weights, mode="r", pivoting=True)[1]
    for count in range(1, weights.shape[1]):
        kept = np.sort(pivots[:count])
        mix = np.linalg.lstsq(weights[:, kept], weights, rcond=None)[0]
        if np.abs(weights[:, kept] @ mix - weights).max() <= tolerance:
            return kept, mix.T
    return np.arange(weights.shape[1]), np.eye(weights.shape[1])


def _prepare_folds(
    rotation: _Rotation, labels: np.ndarray, alphas: np.ndarray, intercept: bool, dtype: np.dtype, ops: _Ops
) -> _Folds | None:
    """Invert (I - H)_bb for every fold and alpha; None if float32 is too coarse for these."""
    s = rotation.s_host[:, None]
    single = dtype == np.float32
    primal = rotation.form == "primal"
    if single and (s.min() + alphas.min()) * _MAX_CONDITION_FLOAT32 < s.max() + alphas.min():
        return None
    # primal: what matters is s / (s + alpha); dual: the weights relative to the largest of the same alpha
    scaled = s / (s + alphas) if primal else (s.min() + alphas) / (s + alphas)
    kept, mix = _skeleton(scaled, 1e-6 if single else 1e-13)
    full = 1.0 / (s + alphas) if primal else alphas / (s + alphas)
    if not primal:
        size = alphas / (s.min() + alphas)  # undo the scale
        mix = mix * size[:, None] / size[kept]
    weights = ops.put(full.T, dtype)
    n = rotation.q.shape[0]
    rows, inverses = [], []
    for fold in np.unique(labels[labels >= 0]):
        held = np.flatnonzero(labels == fold)
        part = slice(int(held[0]), int(held[-1]) + 1)  # the rows are sorted by fold
        q = rotation.q[part]
        inverse = ops.put(np.empty((len(alphas), len(held), len(held))), dtype)
        constant = ops.put(np.eye(len(held)) - (1.0 / n if intercept else 0.0), dtype) if primal else 0.0
        for index in np.argsort(alphas, kind="stable"):
            block = (q * weights[int(index)]) @ q.T
            block = constant - block if primal else block
            if index == np.argmin(alphas) and single:
                low, high = ops.extremes(block)
                if not low * _MAX_FOLD_CONDITION_FLOAT32 > high:
                    return None
            try:
                inverse[int(index)] = ops.inverse(block, dtype)
            except (np.linalg.LinAlgError, RuntimeError) as error:
                text = checks.sentence("alphas", "must be larger: a fold has no unique fit", alphas[index])
                raise DataError(text) from error
        rows.append(part)
        inverses.append(inverse)
    return _Folds(rows, inverses, ops.put(full.T[kept], dtype), ops.put(mix, dtype))


def _ratio(above: Array, below: Array) -> Array:
    """Divide, and give 0 where nothing can be divided by: a constant target has no R2 and no correlation."""
    flat = below <= 0
    return (above / (below + flat)) * ~flat


def _minus_mse(error: Array, truth: Array) -> Array:
    """Return minus the mean squared error, (alphas, targets) of errors (alphas, rows, targets)."""
    return -(error * error).sum(1) / truth.shape[0]


def _r2(error: Array, truth: Array) -> Array:
    """Return 1 - error / variance within the validation rows."""
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    return _ratio(spread - (error * error).sum(1), spread + 0 * error[:, 0])


def _correlation(error: Array, truth: Array) -> Array:
    """Return the correlation of prediction and truth within the validation rows."""
    predicted = truth - error
    predicted = predicted - predicted.mean(1)[:, None]
    truth = truth - truth.mean(0)
    return _ratio((predicted * truth).sum(1), ((predicted**2).sum(1) * (truth**2).sum(0)) ** 0.5)


_SCORERS: dict[str, Callable[[Array, Array], Array]] = {"mse": _minus_mse, "r2": _r2, "correlation": _correlation}


def _score_block(rotation: _Rotation, folds: _Folds, y: Array, rotated: Array, score: str) -> Array:
    """Return the scores (alphas, targets) of a block of centred targets, a mean over folds."""
    # (kept, rank, targets) -> (kept, rows, targets)
    fitted = rotation.q @ (folds.weights[:, :, None] * rotated)
    total: Array = 0.0
    for rows, inverse in zip(folds.rows, folds.inverses, strict=True):
        truth = y[rows]
        part = fitted[:, rows]
        residual = (folds.mix @ part.reshape(part.shape[0], -1)).reshape(-1, *truth.shape)
        if rotation.form == "primal":
            residual = truth - residual
        total = total + _SCORERS[score](inverse @ residual, truth)
    return total / len(folds.rows)


# ---------------------------------------------------------------------------------------------------------------------
# Inputs


def _check_alphas(alphas: Sequence[float] | np.ndarray | float) -> np.ndarray:
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    checks.dimensions("alphas", values, ("alphas",))
    checks.require(values.size > 0, "alphas", "must hold one value or more", "none")
    checks.require(bool((np.isfinite(values) & (values > 0)).all()), "alphas", "must be > 0", values.min())
    return values


def _check_xy(x: np.ndarray, y: np.ndarray, name: str = "x") -> None:
    checks.dimensions(name, x, ("rows", "features"))
    checks.dimensions("y", y, ("rows", "targets"))
    checks.same_length("y", y.shape[0], f"{name} rows", x.shape[0])
    checks.require(x.shape[1] > 0, name, "must have one feature or more", f"shape {x.shape}")
    checks.require(x.shape[0] >= 2, name, "must have 2 rows or more", f"{x.shape[0]} rows")
    checks.finite(name, x)


def _choose_precision(precision: str, x: np.ndarray) -> np.dtype:
    checks.one_of("precision", precision, PRECISIONS)
    if precision == "auto":
        return np.dtype(np.float32 if x.dtype in (np.float32, np.float16) else np.float64)
    return np.dtype(precision)


def _choose_form(form: str, n: int, p: int) -> str:
    checks.one_of("form", form, FORMS)
    return ("primal" if n > p else "dual") if form == "auto" else form


def _check_block(block: int) -> int:
    checks.require(int(block) == block and block >= 1, "block", "must be 1 or more", block, error=ConfigError)
    return int(block)


def _gram(x: Array, form: str) -> Array:
    return x.T @ x if form == "primal" else x @ x.T


class _Targets:
    """Blocks of columns of the targets, centred and sorted, read as they are needed."""

    def __init__(self, y: np.ndarray, order: np.ndarray, intercept: bool, dtype: np.dtype) -> None:
        self.y, self.intercept, self.dtype = y, intercept, dtype
        self.order = None if np.array_equal(order, np.arange(len(order))) else order

    def read(self, columns: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred columns (rows, block) and their means."""
        values = np.array(self.y[:, columns], dtype=self.dtype)
        checks.finite("y", values)
        mean = np.zeros(values.shape[1], dtype=np.float64)
        if self.intercept:
            mean = values.mean(0, dtype=np.float64)
            values -= mean.astype(self.dtype)
        return (values if self.order is None else values[self.order]), mean


def _center(x: np.ndarray, order: np.ndarray, intercept: bool, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(0, dtype=np.float64) if intercept else np.zeros(x.shape[1])
    return np.subtract(x[order], mean, dtype=np.float64).astype(dtype) if intercept else x[order].astype(dtype), mean


# ---------------------------------------------------------------------------------------------------------------------
# Solvers


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
) -> RidgeFit:
    """Fit a ridge with an alpha for every target, chosen by cross-validation over groups.

    Parameters
    ----------
    x : array of shape (rows, features)
    y : array of shape (rows, targets)
        May be a memory map: it is read in blocks of columns.
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

    Returns
    -------
    RidgeFit

    Raises
    ------
    DataError, ConfigError
        If an input has NaN, a wrong shape, an alpha <= 0, fewer groups than folds or an unknown option.
    """
    values = _check_alphas(alphas)
    _check_xy(x, y)
    checks.one_of("score", score, SCORES)
    block = _check_block(block)
    form = _choose_form(form, *x.shape)
    checks.require(
        form == "dual" or not dual_only, "dual_only", "must go with the dual form", repr(form), error=ConfigError
    )
    labels = check_folds(len(x), folds, groups)
    dtype = _choose_precision(precision, x)
    ops = _ops(device)
    order = np.argsort(labels, kind="stable")
    prepared = None
    while prepared is None:
        centred, x_mean = _center(x, order, fit_intercept, dtype)
        features = ops.put(centred, dtype)
        del centred
        rotation = _rotate(features, _gram(features, form), form, fit_intercept, ops)
        prepared = _prepare_folds(rotation, labels[order], values, fit_intercept, dtype, ops)
        if prepared is None and precision == "float32":
            rule = "must be larger for float32, or precision 'float64'"
            raise DataError(checks.sentence("alphas", rule, values.min()))
        if prepared is None:
            dtype = np.dtype(np.float64)

    n_targets = y.shape[1]
    kept_dtype = _choose_precision("auto", x)
    shape = (len(x) if dual_only else x.shape[1], n_targets)
    if out is None:
        out = np.empty(shape, dtype=kept_dtype)
    checks.require(out.shape == shape, "out", f"must have shape {shape}", out.shape)
    dual = np.empty((len(x), n_targets), dtype=kept_dtype) if form == "dual" and not dual_only else None
    cv_scores = np.empty((len(values), n_targets))
    alpha, intercept = np.empty(n_targets), np.empty(n_targets)
    targets = _Targets(y, order, fit_intercept, dtype)
    # in the dual form without weights: x_mean' X' dual
    mean_row = ops.put(np.asarray(x_mean)[None] @ x[order].T, dtype) if dual_only else None
    for start in range(0, n_targets, block):
        columns = slice(start, min(start + block, n_targets))
        centred_y, y_mean = targets.read(columns)
        part = ops.put(centred_y, dtype)
        rotated = rotation.q.T @ part  # (rank, block)
        cv_scores[:, columns] = ops.take(_score_block(rotation, prepared, part, rotated, score))
        alpha[columns] = values[np.argmax(cv_scores[:, columns], axis=0)]
        shrunk = rotated / (rotation.s[:, None] + ops.put(alpha[columns], dtype))
        if rotation.u is not None:
            out[:, columns] = ops.take(rotation.u @ shrunk)
        else:
            weights = rotation.q @ shrunk
            unsorted = dual if dual is not None else out
            unsorted[order, columns] = ops.take(weights)
            if mean_row is not None:
                intercept[columns] = y_mean - ops.take(mean_row @ weights)[0]
            else:
                out[:, columns] = ops.take(features.T @ weights)
        if mean_row is None:
            intercept[columns] = y_mean - x_mean @ out[:, columns]
    best = np.take_along_axis(cv_scores, np.argmax(cv_scores, axis=0)[None], axis=0)[0]
    return RidgeFit(
        coef=None if dual_only else out,
        dual_coef=out if dual_only else dual,
        intercept=intercept,
        alpha=alpha,
        cv_score=best,
        cv_scores=cv_scores,
        form=form,
        precision=dtype.name,
    )


def predict_ridge(fit: RidgeFit, x: np.ndarray, x_train: np.ndarray | None = None) -> np.ndarray:
    """Return the predictions (rows, targets); `x_train` is needed where only dual weights were kept."""
    if fit.coef is not None:
        return x @ fit.coef + fit.intercept
    checks.require(x_train is not None, "x_train", "must be given with dual weights", None)
    assert x_train is not None and fit.dual_coef is not None
    return (x @ x_train.T) @ fit.dual_coef + fit.intercept


def draw_band_weights(n_bands: int, n_candidates: int, seed: int) -> np.ndarray:
    """Return band weights (candidates, bands), each row summing to 1.

    The first one is even; then each band alone, as far as there is room; the rest come from Dirichlet distributions
    with concentration 0.1 (few bands) and 1 (all alike) in turn, as in Dupré la Tour et al. 2022, NeuroImage 264.
    """
    checks.require(n_candidates >= 1, "n_candidates", "must be 1 or more", n_candidates, error=ConfigError)
    rng = np.random.default_rng(seed)
    rows = [np.full(n_bands, 1.0 / n_bands), *(np.eye(n_bands) if n_bands > 1 else [])]
    while len(rows) < n_candidates:
        rows.append(rng.dirichlet(np.full(n_bands, (0.1, 1.0)[len(rows) % 2])))
    return np.asarray(rows[:n_candidates])


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
    with the best score.

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
    for index, band in enumerate(bands):
        _check_xy(band, y, f"bands[{index}]")
    values = _check_alphas(alphas)
    checks.one_of("score", score, SCORES)
    block = _check_block(block)
    if candidates is None:
        candidates = draw_band_weights(len(bands), n_candidates, seed)
    candidates = np.asarray(candidates, dtype=np.float64)
    checks.dimensions("candidates", candidates, ("candidates", "bands"))
    checks.same_length("candidates' bands", candidates.shape[1], "bands", len(bands))
    even = bool(np.isfinite(candidates).all() and (candidates >= 0).all() and (candidates.sum(1) > 0).all())
    checks.require(even, "candidates", "must be >= 0 with a sum > 0", candidates.min())
    candidates = candidates / candidates.sum(1, keepdims=True)

    x = np.concatenate([np.asarray(band) for band in bands], axis=1)
    band_of = np.repeat(np.arange(len(bands)), [band.shape[1] for band in bands])
    form = _choose_form(form, *x.shape)
    labels = check_folds(len(x), folds, groups)
    order = np.argsort(labels, kind="stable")
    ops = _ops(device)
    kept_dtype = _choose_precision("auto", x)
    first_dtype = _choose_precision(precision, x)

    def rotate(weights: np.ndarray, dtype: np.dtype) -> tuple[_Rotation, Array, np.ndarray]:
        centred, x_mean = _center(x, order, fit_intercept, dtype)
        centred *= np.sqrt(weights[band_of]).astype(dtype)
        features = ops.put(centred, dtype)
        return _rotate(features, _gram(features, form), form, fit_intercept, ops), features, x_mean

    n_targets = y.shape[1]
    best = np.full(n_targets, -np.inf)
    alpha = np.full(n_targets, values[0])
    winner = np.zeros(n_targets, dtype=np.intp)
    dtypes = []
    for index, weights in enumerate(candidates):
        dtype = first_dtype
        rotation = rotate(weights, dtype)[0]
        prepared = _prepare_folds(rotation, labels[order], values, fit_intercept, dtype, ops)
        if prepared is None:
            dtype = np.dtype(np.float64)
            rotation = rotate(weights, dtype)[0]
            prepared = _prepare_folds(rotation, labels[order], values, fit_intercept, dtype, ops)
        assert prepared is not None
        dtypes.append(dtype)
        targets = _Targets(y, order, fit_intercept, dtype)
        for start in range(0, n_targets, block):
            columns = slice(start, min(start + block, n_targets))
            part = ops.put(targets.read(columns)[0], dtype)
            scores = ops.take(_score_block(rotation, prepared, part, rotation.q.T @ part, score))
            top = scores.max(0)
            won = np.flatnonzero(top > best[columns])
            best[start + won] = top[won]
            alpha[start + won] = values[np.argmax(scores, axis=0)[won]]
            winner[start + won] = index

    coef = np.empty((x.shape[1], n_targets), dtype=kept_dtype)
    intercept = np.empty(n_targets)
    for index in np.unique(winner):
        rotation, features, x_mean = rotate(candidates[index], dtypes[index])
        targets = _Targets(y, order, fit_intercept, dtypes[index])
        scale = np.sqrt(candidates[index][band_of])[:, None]
        chosen = np.flatnonzero(winner == index)
        for start in range(0, len(chosen), block):
            picked = chosen[start : start + block]
            centred_y, y_mean = targets.read(picked)
            rotated = rotation.q.T @ ops.put(centred_y, dtypes[index])
            shrunk = rotated / (rotation.s[:, None] + ops.put(alpha[picked], dtypes[index]))
            scaled = rotation.u @ shrunk if rotation.u is not None else features.T @ (rotation.q @ shrunk)
            coef[:, picked] = scale * ops.take(scaled)
            intercept[picked] = y_mean - x_mean @ coef[:, picked]
    return BandedRidgeFit(
        coef=np.split(coef, np.cumsum([band.shape[1] for band in bands])[:-1], axis=0),
        intercept=intercept,
        alpha=alpha,
        cv_score=best,
        band_weights=candidates[winner].T,
        candidate=winner,
        candidates=candidates,
    )
