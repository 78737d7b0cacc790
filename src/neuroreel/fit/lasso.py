"""Linear regression with L1 by stochastic gradient descent, all targets at once: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.fit.engine import DEVICES
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import check_features, check_targets


@dataclass(frozen=True)
class LassoSchedule:
    """How the descent goes, epoch by epoch; the defaults are those of Wen et al. 2018, Cereb. Cortex 28:4136.

    Attributes
    ----------
    penalty : lambda of 1/2 mean (y - Xw - b)^2 + lambda sum |w|.
    epochs, batch : passes over the rows, and rows a step.
    step, step_decay, least_step : the step size of the first epoch, its factor an epoch, and where it stops to shrink.
    momentum, last_momentum, momentum_epochs : momentum rises linearly from the first to the last in so many epochs.
    dropout : share of the features set to 0 in every step; the rest grow by 1 / (1 - dropout).
    """

    penalty: float = 0.05
    epochs: int = 50
    batch: int = 100
    step: float = 5e-4
    step_decay: float = 0.96
    least_step: float = 1e-4
    momentum: float = 0.5
    last_momentum: float = 0.9
    momentum_epochs: int = 20
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("momentum_epochs", 1)):
            check_whole(name, getattr(self, name), least)
        for name in ("step", "step_decay", "least_step"):
            value = getattr(self, name)
            checks.require(value > 0, name, "must be > 0", value, error=ConfigError)
        checks.require(self.penalty >= 0, "penalty", "must be >= 0", self.penalty, error=ConfigError)
        for name in ("momentum", "last_momentum", "dropout"):
            value = getattr(self, name)
            checks.require(0 <= value < 1, name, "must be from 0 to below 1", value, error=ConfigError)

    def at(self, epoch: int) -> tuple[float, float]:
        """Return step size and momentum of an epoch, counted from 0."""
        step = max(self.step * self.step_decay**epoch, min(self.step, self.least_step))
        share = min(1.0, epoch / self.momentum_epochs)
        return step, self.momentum + share * (self.last_momentum - self.momentum)


def solve_lasso(
    x: np.ndarray,
    y: np.ndarray,
    *,
    schedule: LassoSchedule | None = None,
    seed: int = 0,
    block: int = 8192,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear regression with an L1 penalty for every target.

    A step moves the weights along the gradient of the squared error with momentum m, and then towards 0 by
    step lambda / (1 - m), never past it (a proximal step): weights are exactly 0 where the penalty outweighs the
    data, and what stands still is the Lasso's optimum.

    Parameters
    ----------
    x : array of shape (rows, features)
        Standardised by the caller; it is centred here.
    y : array of shape (rows, targets)
        May be an array on disk: it is read in blocks of columns.
    schedule : LassoSchedule, optional
    seed : int
        Of the order of the rows and of the dropout; they are the same for all targets.
    block : int
        Targets at a time; the answer doesn't depend on it.
    device : {"cpu", "cuda"}
    progress : function of (steps done, steps in all), optional

    Returns
    -------
    coef : array of shape (features, targets), float32
    bias : array of shape (targets,), float32

    Raises
    ------
    DataError, ConfigError
        If an input has NaN or a wrong shape, a setting is out of its range, or the descent diverges.
    """
    import torch

    schedule = schedule or LassoSchedule()
    x = check_features(x)
    y = check_targets(y, len(x))
    block = check_whole("block", block, 1)
    checks.one_of("device", device, DEVICES)
    there = device != "cuda" or torch.cuda.is_available()
    checks.require(there, "device", "must be one that torch can use", repr(device), error=ConfigError)
    n, n_features = x.shape
    x_mean = x.mean(0, dtype=np.float64)
    features = torch.tensor(x - x_mean, dtype=torch.float32, device=device)
    coef, bias = np.empty((n_features, y.shape[1]), np.float32), np.empty(y.shape[1], np.float32)
    blocks = -(-y.shape[1] // block)
    for number in range(blocks):
        columns = slice(number * block, (number + 1) * block)
        part = checks.finite("y", np.asarray(y[:, columns])).astype(np.float64)
        y_mean = part.mean(0)
        targets = torch.tensor(part - y_mean, dtype=torch.float32, device=device)
        weights = torch.zeros((n_features, targets.shape[1]), device=device)
        velocity, level = torch.zeros_like(weights), torch.zeros(targets.shape[1], device=device)
        level_velocity = torch.zeros_like(level)
        for epoch in range(schedule.epochs):
            step, momentum = schedule.at(epoch)
            rng = generator(seed, "lasso", epoch)
            order = torch.tensor(rng.permutation(n), device=device)
            for rows in order.split(schedule.batch):
                seen = features[rows]
                if schedule.dropout:
                    kept = rng.random(seen.shape, dtype=np.float32) >= schedule.dropout
                    seen = seen * torch.tensor(kept, device=device) / (1 - schedule.dropout)
                error = seen @ weights + level - targets[rows]
                velocity.mul_(momentum).addmm_(seen.T, error, alpha=-step / len(rows))
                level_velocity.mul_(momentum).sub_(error.mean(0), alpha=step)
                weights = torch.nn.functional.softshrink(weights + velocity, step * schedule.penalty / (1 - momentum))
                level += level_velocity
            if progress is not None:
                progress(number * schedule.epochs + epoch + 1, blocks * schedule.epochs)
        found = weights.cpu().numpy()
        checks.require(
            bool(np.isfinite(found).all()), "step", "must be small enough to converge", schedule.step, error=DataError
        )
        coef[:, columns] = found
        bias[columns] = y_mean + level.cpu().numpy() - x_mean @ found
    return coef, bias
