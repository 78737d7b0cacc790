"""The engine of the ridge solvers: one eigendecomposition serves all folds, all alphas and all targets.

With the hat matrix H(alpha) of the fit to all rows, the validation error of the rows b of a fold under the model
that is fitted without them is exactly

    e_b = (I - H_bb)^-1 (y - H y)_b                                                               (1)

(the block form of the PRESS statistic: Cook & Weisberg 1982, Residuals and Influence in Regression, 2.2; for
whole folds An, Liu & Venkatesh 2007, Pattern Recognition 40). The intercept is one more, unpenalised column, so
that H = 11'/n + the hat matrix of the centred features, and every fold has its own intercept without its own centring.

Two forms, with the rows already centred and sorted by fold:

    primal (n > p)   X'X = U s U',  Q = XU,  I - H = I - 11'/n - Q diag(1 / (s + alpha)) Q'
    dual   (p >= n)  XX' = Q s Q',           I - H = Q diag(alpha / (s + alpha)) Q',  Q without the direction of 1

Within a narrow range of eigenvalues the weights for all alphas are close to dependent: few of them (an interpolative
decomposition, Cheng et al. 2005, SIAM J. Sci. Comput. 26) go through the large matrix product, and the rest are mixed
from those. So the eigenvalues are cut into ranges as in the treecodes for such kernels, where that saves work.
A fold with far more rows than there are features takes the features' side instead: with the Gram matrix of its
training rows, which is diagonal but for the fold's own part,

    e_b = y_b - Q_b (diag(s + alpha) - Q_b' Q_b)^-1 (Q'y - Q_b' y_b)                              (2)

All that is done once is done in float64; what is done for every target is done in the precision asked for, if the
numbers allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.spread import evenly

DEVICES = ("cpu", "cuda")
_MAX_CONDITION_FLOAT32 = 1e8  # of the regularised Gram matrix; weights lose its square root of their digits
_MAX_FOLD_CONDITION_FLOAT32 = 1e3  # of (I - H)_bb; the step from residual to fold error loses as much
_MAX_SHRINKAGE_FLOAT32 = 1e4  # of the predictions, where these are what is scored and not the error
_MIXING = 64  # what mixing one more column costs, in columns of the large matrix product (measured)
_SAMPLED = 256  # eigenvalues of a range at which its weights are compared
_FEW_FEATURES = 2  # rows of a fold for each feature from which equation (2) is the cheaper one

Array = Any  # a numpy array or a torch tensor


class NumpyOps:
    """The few operations that numpy and torch don't spell alike, by numpy and scipy."""

    def put(self, array: np.ndarray, dtype: np.dtype) -> Array:
        """Return the array on the device."""
        return np.ascontiguousarray(array, dtype=dtype)

    def cast(self, array: Array, dtype: np.dtype) -> Array:
        """Return an array of the device in another precision."""
        return np.ascontiguousarray(array, dtype=dtype)

    def take(self, array: Array) -> np.ndarray:
        """Return an array of the device as a numpy array."""
        return array

    def eigh(self, gram: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors; the matrix is used up."""
        return scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)

    def add_gram(self, base: Array, root: Array, factor: float) -> Array:
        """Return base + factor * root @ root.T."""
        gram = root @ root.T
        gram *= factor
        gram += base
        return gram

    def inverse(self, matrix: Array) -> Array | None:
        """Return the inverse of a symmetric float64 matrix, or None where it is not positive definite."""
        factor, failed = scipy.linalg.lapack.dpotrf(matrix, lower=1)
        if failed:
            return None
        lower = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
        return np.tril(lower) + np.tril(lower, -1).T

    def extremes(self, matrix: Array) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of a symmetric matrix."""
        values = np.linalg.eigvalsh(matrix)
        return float(values[0]), float(values[-1])

    def empty(self, size: int, dtype: np.dtype) -> Array:
        """Return an array of the device to be written to."""
        return np.empty(size, dtype)

    def multiply(self, left: Array, right: Array, out: Array) -> None:
        """Write left @ right to `out`."""
        np.matmul(left, right, out=out)

    def spread(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return the work on every item, done by as many threads as the BLAS may have, each with a BLAS of one thread.

        So the small products and what is no product have all threads too, and none waits for another at every step.
        """
        items = list(items)
        pools = ThreadpoolController().select(user_api="blas")
        threads = min(max((pool["num_threads"] for pool in pools.info()), default=1), len(items))
        if threads <= 1:
            return [work(item) for item in items]
        with pools.limit(limits=1), ThreadPoolExecutor(threads) as executor:
            return list(executor.map(work, items))


class TorchOps:
    """The same by torch on a device."""

    def __init__(self, device: str) -> None:
        import torch

        there = device != "cuda" or torch.cuda.is_available()
        checks.require(there, "device", "must be one that torch can use", repr(device), error=ConfigError)
        self.torch = torch
        self.device = device

    def put(self, array: np.ndarray, dtype: np.dtype) -> Array:
        """Return the array on the device."""
        return self.torch.tensor(np.ascontiguousarray(array, dtype=dtype), device=self.device)

    def cast(self, array: Array, dtype: np.dtype) -> Array:
        """Return an array of the device in another precision."""
        return array.to(getattr(self.torch, np.dtype(dtype).name)).contiguous()

    def take(self, array: Array) -> np.ndarray:
        """Return an array of the device as a numpy array."""
        return array.cpu().numpy()

    def eigh(self, gram: Array) -> tuple[Array, Array]:
        """Return eigenvalues, ascending, and eigenvectors."""
        return self.torch.linalg.eigh(gram)

    def add_gram(self, base: Array, root: Array, factor: float) -> Array:
        """Return base + factor * root @ root.T."""
        return self.torch.addmm(base, root, root.T, alpha=factor)

    def inverse(self, matrix: Array) -> Array | None:
        """Return the inverse of a symmetric float64 matrix, or None where it is not positive definite."""
        factor, failed = self.torch.linalg.cholesky_ex(matrix)
        return None if int(failed) else self.torch.cholesky_inverse(factor)

    def extremes(self, matrix: Array) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of a symmetric matrix."""
        values = self.torch.linalg.eigvalsh(matrix)
        return float(values[0]), float(values[-1])

    def empty(self, size: int, dtype: np.dtype) -> Array:
        """Return an array of the device to be written to."""
        return self.torch.empty(size, dtype=getattr(self.torch, np.dtype(dtype).name), device=self.device)

    def multiply(self, left: Array, right: Array, out: Array) -> None:
        """Write left @ right to `out`."""
        self.torch.matmul(left, right, out=out)

    def spread(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return the work on every item, one after the other: torch has all threads within each."""
        return [work(item) for item in items]


Ops = NumpyOps | TorchOps


def choose_ops(device: str) -> Ops:
    """Return the operations for a device."""
    checks.one_of("device", device, DEVICES)
    return NumpyOps() if device == "cpu" else TorchOps(device)


# ---------------------------------------------------------------------------------------------------------------------
# What is done once for all targets


@dataclass(frozen=True)
class Fold:
    """One fold's validation rows and what leads from the fit to all rows to their error without them."""

    rows: slice
    inverses: Array  # (alphas, rows, rows) for equation (1); (alphas, columns, columns) for (2)
    basis: Array | None  # (rows, columns), the scaled Q_b with a column for the intercept, for equation (2)


@dataclass(frozen=True)
class Piece:
    """A range of eigenvalues and the few columns of weights from which those of all alphas are mixed there."""

    columns: slice
    weights: Array  # (kept alphas, columns)


@dataclass(frozen=True)
class Decomposition:
    """The decomposed features and the folds: see the head of the module.

    Attributes
    ----------
    form : "primal" or "dual"
    dtype : precision of what is done for every target
    order : array of shape (rows,), the rows sorted by fold
    x_mean : array of shape (features,)
    x : (rows, features), centred and sorted, or None in the primal form
    q : (rows, rank)
    s : (rank,)
    u : (features, rank), or None in the dual form
    folds : the folds
    pieces : the ranges of eigenvalues
    mix : (alphas, kept alphas of all pieces and 1)
        Leads from their products and the truth to the residual of the fit to all rows.
    scale : (rank,), of `Fold.basis`
    ops : the operations of the device
    """

    form: str
    dtype: np.dtype
    order: np.ndarray
    x_mean: np.ndarray
    x: Array | None
    q: Array
    s: Array
    u: Array | None
    folds: tuple[Fold, ...]
    pieces: tuple[Piece, ...]
    mix: Array
    scale: Array
    ops: Ops


def _without_constant(gram: Array, ops: Ops) -> tuple[Array, Array]:
    """Decompose a centred kernel and leave out the direction of the constant, even where it has equals.

    The constant has eigenvalue 0; it is lifted above the others (the trace is no less than any of them), so that it
    is the last eigenvector and all the others are orthogonal to it.
    """
    n = gram.shape[0]
    lift = 1.1 * max(float(gram.diagonal().sum()), float(np.finfo(np.float32).tiny))
    s, q = ops.eigh(gram + lift / n)
    return s[:-1], q[:, :-1]


def _skeleton(weights: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Choose columns of (eigenvalues, alphas) weights and the mix of them that gives every column, within tolerance.

    Returns the kept columns (kept,) and the mix (alphas, kept).
    """
    q, r, pivots = scipy.linalg.qr(weights, mode="economic", pivoting=True)
    count = 1
    while count < len(r) and np.abs(q[:, count:] @ r[count:, count:]).max() > tolerance:
        count += 1
    mix = np.empty((weights.shape[1], count))
    mix[pivots[:count]] = np.eye(count)
    mix[pivots[count:]] = np.linalg.lstsq(r[:count, :count], r[:count, count:], rcond=None)[0].T
    return pivots[:count], mix


Range = tuple[slice, np.ndarray, np.ndarray]  # columns, kept alphas, mix


def _cut(s: np.ndarray, shape: Callable[[np.ndarray], np.ndarray], tolerance: float, columns: slice) -> list[Range]:
    """Cut ascending eigenvalues into ranges where that saves work; `shape` gives weights (eigenvalues, alphas)."""

    def work(ranges: list[Range]) -> int:
        return sum(len(kept) * (part.stop - part.start + _MIXING) for part, kept, _ in ranges)

    size = columns.stop - columns.start
    picked = columns.start + evenly(size, _SAMPLED)
    whole: list[Range] = [(columns, *_skeleton(shape(s[picked]), tolerance))]
    if size <= _MIXING:
        return whole
    low, high = s[columns.start], s[columns.stop - 1]
    middle = columns.start + int(np.searchsorted(s[columns], np.sqrt(max(low, high * 1e-8) * high)))
    if not columns.start < middle < columns.stop:
        return whole
    halves = [*_cut(s, shape, tolerance, slice(columns.start, middle))]
    halves += _cut(s, shape, tolerance, slice(middle, columns.stop))
    return halves if work(halves) < work(whole) else whole


def _invert(matrix: Array, alpha: float, ops: Ops) -> Array:
    inverse = ops.inverse(matrix)
    if inverse is None:
        raise DataError(checks.sentence("alphas", "must be larger: a fold has no unique fit", alpha))
    return inverse


def _prepare_fold(
    q: Array, s: np.ndarray, alphas: np.ndarray, rows: slice, form: str, intercept: float, dtype: np.dtype, ops: Ops
) -> Fold | None:
    """Invert what a fold needs for every alpha, in float64; None if float32 is too coarse for it.

    `intercept` is 1 / n with an intercept and 0 without.
    """
    part = q[rows]
    m, rank = part.shape
    few = form == "primal" and m >= _FEW_FEATURES * (rank + 1)
    width, alphas_up = rank + 1 if few else m, np.argsort(alphas, kind="stable")
    inverses = ops.empty(len(alphas) * width * width, dtype).reshape(len(alphas), width, width)
    double = np.dtype(np.float64)
    if few:  # scaled so that the smallest alpha has the identity in place of diag(s + alpha)
        scale = np.append(1 / np.sqrt(s + alphas.min()), 1.0)
        basis = ops.put(np.full((m, width), np.sqrt(intercept)), double)
        basis[:, :rank] = part
        basis = basis * ops.put(scale, double)
        own = ops.add_gram(ops.put(np.zeros((width, width)), double), basis.T, -1.0)
    base = ops.put(np.eye(m) - intercept if form == "primal" else np.zeros((m, m)), double)
    for index in alphas_up:
        alpha = float(alphas[index])
        if few:
            size = np.append((s + alpha) / (s + alphas.min()), 1.0)
            block = ops.put(np.diag(size), double) + own
        else:
            weights = 1 / (s + alpha) if form == "primal" else alpha / (s + alpha)
            root = part * ops.put(np.sqrt(weights), double)
            block = ops.add_gram(base, root, -1.0 if form == "primal" else 1.0)
        if index == alphas_up[0] and dtype == np.float32:
            low, high = ops.extremes(block)
            if not low * _MAX_FOLD_CONDITION_FLOAT32 > high:
                return None
        inverses[int(index)] = ops.cast(_invert(block, alpha, ops), dtype)
    return Fold(rows, inverses, ops.cast(basis, dtype) if few else None)


def _decompose(
    x: np.ndarray,
    labels: np.ndarray,
    alphas: np.ndarray,
    form: str,
    fit_intercept: bool,
    dtype: np.dtype,
    shrinkage: float,
    ops: Ops,
) -> Decomposition | None:
    """Return the decomposition with products in `dtype`; None if float32 is too coarse for it."""
    double = np.dtype(np.float64)
    order = np.argsort(labels, kind="stable")
    x_mean = x.mean(0, dtype=double) if fit_intercept else np.zeros(x.shape[1])
    features = ops.put(np.subtract(x[order], x_mean, dtype=double), double)
    u = None
    if form == "primal":
        s, u = ops.eigh(features.T @ features)
        q = features @ u
    elif fit_intercept:
        s, q = _without_constant(features @ features.T, ops)
    else:
        s, q = ops.eigh(features @ features.T)
    s = np.maximum(ops.take(s), 0.0)
    smallest, largest = s.min() + alphas.min(), s.max() + alphas.min()
    single = dtype == np.float32
    if single and (smallest * _MAX_CONDITION_FLOAT32 < largest or s.max() * shrinkage + alphas.min() < alphas.max()):
        return None

    # Weights are compared relative to the largest of their alpha: in the primal form those of the predictions,
    # s / (s + alpha), in the dual form those of the residuals, alpha / (s + alpha).
    top, low = s.max() or 1.0, s.min()

    def shape(values: np.ndarray) -> np.ndarray:
        column = values[:, None]
        if form == "primal":
            return column / (column + alphas) * ((top + alphas) / top)
        return (low + alphas) / (column + alphas)

    ranges = _cut(s, shape, 1e-6 if single else 1e-13, slice(0, len(s)))
    pieces, mixes = [], []
    for columns, kept, mix in ranges:
        factor = (top + alphas) / top if form == "primal" else low + alphas
        pieces.append(Piece(columns, ops.put(factor[kept, None] / (s[columns] + alphas[kept, None]), dtype)))
        mixes.append(-mix / factor[:, None] if form == "primal" else mix * (alphas / factor)[:, None])
    mixes.append(np.full((len(alphas), 1), float(form == "primal")))

    sorted_labels = labels[order]

    def prepare(label: int) -> Fold | None:
        rows = slice(*np.searchsorted(sorted_labels, [label, label + 1]).tolist())
        return _prepare_fold(q, s, alphas, rows, form, 1 / len(x) if fit_intercept else 0.0, dtype, ops)

    folds = ops.spread(prepare, np.unique(labels[labels >= 0]))
    if any(fold is None for fold in folds):
        return None
    return Decomposition(
        form=form,
        dtype=dtype,
        order=order,
        x_mean=x_mean,
        x=ops.cast(features, dtype) if form == "dual" else None,
        q=ops.cast(q, dtype),
        s=ops.put(s, dtype),
        u=None if u is None else ops.cast(u, dtype),
        folds=tuple(folds),
        pieces=tuple(pieces),
        mix=ops.put(np.concatenate(mixes, axis=1), dtype),
        scale=ops.put(1 / np.sqrt(s + alphas.min()), dtype),
        ops=ops,
    )


def decompose(
    x: np.ndarray,
    labels: np.ndarray,
    alphas: np.ndarray,
    *,
    form: str,
    fit_intercept: bool,
    precision: str,
    score: str,
    ops: Ops,
) -> Decomposition:
    """Decompose the features and prepare the folds, once for all targets.

    Parameters
    ----------
    x : array of shape (rows, features)
    labels : array of shape (rows,)
        Fold of every row, -1 where it is never validated.
    alphas : array of shape (alphas,)
    form : {"primal", "dual"}
    fit_intercept : bool
    precision : {"auto", "float32", "float64"}
    score : {"mse", "r2", "correlation"}
        What will be asked for: a correlation needs more digits of predictions that are shrunk to almost nothing.
    ops : operations of a device

    Raises
    ------
    DataError
        If float32 is demanded and the smallest alpha too small for it, or a fold has no unique fit.
    """
    shrinkage = _MAX_SHRINKAGE_FLOAT32 if score == "correlation" else np.inf
    narrow = precision == "float32" or (precision == "auto" and x.dtype in (np.float16, np.float32))
    for dtype in [np.dtype(np.float32)] * narrow + [np.dtype(np.float64)] * (precision != "float32"):
        found = _decompose(x, labels, alphas, form, fit_intercept, dtype, shrinkage, ops)
        if found is not None:
            return found
    raise DataError(checks.sentence("alphas", "must be larger for float32, or precision 'float64'", alphas.min()))


# ---------------------------------------------------------------------------------------------------------------------
# What is done for every block of targets


class Targets:
    """Blocks of columns of the targets, centred and sorted by fold, read as they are needed."""

    def __init__(self, y: np.ndarray, order: np.ndarray, fit_intercept: bool, dtype: np.dtype) -> None:
        self.y, self.fit_intercept, self.dtype = y, fit_intercept, dtype
        self.order = None if np.array_equal(order, np.arange(len(order))) else order

    def read(self, columns: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centred targets (block, rows) and their means (block,)."""
        values = np.array(self.y[:, columns].T, dtype=self.dtype, order="C")
        checks.finite("y", values)
        mean = np.zeros(len(values))
        if self.fit_intercept:
            mean = values.mean(1, dtype=np.float64)
            np.subtract(values, mean[:, None], out=values, casting="same_kind")
        return (values if self.order is None else values[:, self.order]), mean


def _ratio(above: Array, below: Array, least: Array) -> Array:
    """Divide, and give 0 where what is below is nothing but rounding."""
    flat = below <= least
    return (above / (below + flat)) * ~flat


def _rounding(values: Array) -> Array:
    """Return what remains, by rounding, of the sum of squares of constant targets after their mean is taken off."""
    rows, bits = values.shape[-1], 23 if "32" in str(values.dtype) else 52
    return (values * values).sum(-1) * (rows * 2.0**-bits) ** 2


def _minus_mse(error: Array, truth: Array) -> Array:
    """Return minus the mean squared error, (alphas, targets) of errors (alphas, targets, rows)."""
    return -(error * error).sum(-1) / truth.shape[-1]


def _r2(error: Array, truth: Array) -> Array:
    """Return 1 - error / variance within the validation rows; 0 where the truth is constant."""
    spread = ((truth - truth.mean(-1)[:, None]) ** 2).sum(-1)
    return _ratio(spread - (error * error).sum(-1), spread, _rounding(truth))


def _correlation(error: Array, truth: Array) -> Array:
    """Return the correlation of prediction and truth within the validation rows; 0 where one is constant."""
    predicted = truth - error
    least = _rounding(predicted)
    predicted = predicted - predicted.mean(-1)[..., None]
    truth, least_truth = truth - truth.mean(-1)[:, None], _rounding(truth)
    above, below = (predicted * truth).sum(-1), (predicted**2).sum(-1)
    spread = (truth**2).sum(-1)
    flat = (below <= least) | (spread <= least_truth)
    return _ratio(above, (below * spread) ** 0.5 * ~flat, 0.0)


SCORERS: dict[str, Callable[[Array, Array], Array]] = {"mse": _minus_mse, "r2": _r2, "correlation": _correlation}


def score_block(model: Decomposition, y: Array, rotated: Array, score: str, errors: Array | None = None) -> Array:
    """Return the scores (alphas, targets), a mean over folds, of centred targets y (targets, rows) and y Q.

    The errors themselves are written to `errors` (alphas, targets, sorted rows), where it is given.
    """
    shrunk: list[Array] = []
    store: Array = None
    total: Array = 0.0
    for fold in model.folds:
        truth = y[:, fold.rows]
        if fold.basis is not None:  # equation (2)
            rest = -(truth @ fold.basis)
            rest[:, :-1] += model.scale * rotated
            error = truth - (rest @ fold.inverses) @ fold.basis.T
        else:  # equation (1)
            if not shrunk:  # (kept * targets, columns of the piece)
                shrunk = [
                    (piece.weights[:, None] * rotated[:, piece.columns]).reshape(-1, piece.weights.shape[1])
                    for piece in model.pieces
                ]
            size, products = truth.shape[0] * truth.shape[1], model.mix.shape[1]
            if store is None or len(store) < products * size:
                store = model.ops.empty(products * size, model.dtype)
            stack = store[: products * size].reshape(-1, truth.shape[1])  # (products * targets, rows)
            start = 0
            for piece, part in zip(model.pieces, shrunk, strict=True):
                model.ops.multiply(part, model.q[fold.rows, piece.columns].T, stack[start : start + len(part)])
                start += len(part)
            stack[start:] = truth
            residual = (model.mix @ stack.reshape(products, size)).reshape(-1, *truth.shape)
            error = residual @ fold.inverses
        if errors is not None:
            errors[:, :, fold.rows] = error
        total = total + SCORERS[score](error, truth)
    return total / len(model.folds)


def solve_block(model: Decomposition, rotated: Array, alpha: Array) -> tuple[Array | None, Array | None]:
    """Return primal (features, targets) and dual weights (sorted rows, targets) at each target's alpha.

    In the primal form there are no dual weights; in the dual form the primal ones are `x.T @ dual`, left to the caller.
    """
    shrunk = rotated / (model.s + alpha[:, None])
    return (None, model.q @ shrunk.T) if model.u is None else (model.u @ shrunk.T, None)
