"""Ridge regression of every target on its own features, in batches: arrays in, arrays out."""

from __future__ import annotations

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.fit.engine import DEVICES
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import check_alphas, check_features, check_targets
from neuroreel.fit.sparse import check_chosen

BIASES = ("free", "penalised")


def solve_top_ridge(
    x: np.ndarray,
    y: np.ndarray,
    *,
    alpha: float = 100.0,
    chosen: np.ndarray | None = None,
    bias: str = "free",
    block: int = 32,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a ridge of every target on its own features: ||y - Xw - b||^2 + alpha ||w||^2.

    Parameters
    ----------
    x : array of shape (rows, features)
    y : array of shape (rows, targets)
    alpha : float
        The penalty, > 0.
    chosen : array of shape (targets, k), optional
        The features of every target, as from `neuroreel.fit.selection.top_features`; all by default.
    bias : {"free", "penalised"}
        "penalised" adds alpha b^2 to what is minimised, the formula of PyPI's fastl2lir, whose bias is one more column.
    block : int
        Targets at a time.
    device : {"cpu", "cuda"}

    Returns
    -------
    coef : array of shape (targets, k)
    bias : array of shape (targets,)

    Raises
    ------
    DataError, ConfigError
        If an input has NaN, a wrong shape, features that don't exist, an alpha <= 0 or an unknown option.
    """
    import torch

    x = check_features(x)
    y = checks.finite("y", np.asarray(check_targets(y, len(x))))
    alpha = float(check_alphas(alpha)[0])
    checks.one_of("bias", bias, BIASES)
    checks.one_of("device", device, DEVICES)
    there = device != "cuda" or torch.cuda.is_available()
    checks.require(there, "device", "must be one that torch can use", repr(device), error=ConfigError)
    block = check_whole("block", block, 1)
    chosen = check_chosen(chosen, x.shape[1], y.shape[1])
    n_targets, k = chosen.shape
    whole = k == x.shape[1] and bool(np.all(chosen == np.arange(k)))
    penalised = bias == "penalised"
    x_mean, y_mean = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    if penalised:
        columns = np.concatenate([x, np.ones((len(x), 1))], 1, dtype=np.float64)
        index, right = np.concatenate([chosen, np.full((n_targets, 1), x.shape[1])], 1), y.astype(np.float64)
    else:
        columns, index, right = x - x_mean, chosen, y - y_mean
    features = torch.tensor(columns, device=device)
    gram = features.T @ features
    gram.diagonal().add_(alpha)
    product = (features.T @ torch.tensor(right, device=device)).T  # (targets, features)
    if whole:  # one matrix serves all targets
        weights = torch.cholesky_solve(product.T, torch.linalg.cholesky(gram)).T.cpu().numpy()
    else:
        weights = np.empty(index.shape)
        for start in range(0, n_targets, block):
            rows = torch.tensor(index[start : start + block], device=device)
            factor = torch.linalg.cholesky(gram[rows[:, :, None], rows[:, None, :]])
            part = product[start : start + block].gather(1, rows)[:, :, None]
            weights[start : start + block] = torch.cholesky_solve(part, factor).squeeze(2).cpu().numpy()
    if penalised:
        return weights[:, :k], weights[:, k]
    return weights, y_mean - (weights * x_mean[chosen]).sum(1)
