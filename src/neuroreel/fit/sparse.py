"""Sparse linear regression by automatic relevance determination, for many targets at once: arrays in, arrays out.

Every target y (rows,) has its own features X (rows, k) and the model

    y ~ N(Xw, s),   w_j ~ N(0, s A_j),

with the noise variance s and the relevances A found by variational Bayes (Sato 2001, Neural Comput. 13; Yamashita et
al. 2008, NeuroImage 42; the update of A is MacKay's 1992, Neural Comput. 4, with a square root that damps it). From
A = 1 / (mean variance of the features), one iteration is

    C = (X'X + diag(1/A))^-1,   w = C X'y,   s = (y'y - w'X'y) / rows,   G_j = (X'X C)_jj              (1)
    A_j <- sqrt(A_j w_j^2 / (s G_j))                                                                   (2)
    features with A_j <= prune max(A) leave for good                                                   (3)

for `n_iter` iterations, or until no A moves by more than `tolerance` (checked after `min_iter` iterations). What the
published loop inverts anew 2,000 times for every target is mostly standing still, so that is not what is done here:

* In the scaled form B = I + diag(A)^1/2 X'X diag(A)^1/2 = LL' all of (1) follows from L^-1: with v = B^-1 A^1/2 X'y and
  H = I - B^-1, w = A^1/2 v, G_j = H_jj, and (2) reads log A_j += f_j, f_j = log(v_j^2 / (s G_j)) / 2. Where there are
  fewer rows than features, H and v follow from the rows' matrix I + X diag(A) X' instead.
* f has a Jacobian in closed form, J_jk = df_j/dlog A_k = -H_jk v_k/v_j + H_jk^2 / 2G_j + v_k^2 / (2 rows s), so that
  2^l iterations of the linearised map are l squarings of I + J. The jump is checked against f where it lands: one that
  missed by more than `jump_error` is taken back and made shorter, and one that hit makes the next longer.
* Targets go through all this in batches, features that were pruned leave the matrices, and the X'X of all features is
  computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.fit.engine import DEVICES
from neuroreel.fit.folds import check_whole
from neuroreel.fit.ridge import check_features, check_targets

if TYPE_CHECKING:
    from torch import Tensor

_MIN_GAIN = 1e-15  # least gain and least share of the noise variance, as published
_SHARED_GRAM = 8192  # most features for which X'X is held for all features at once
_FIRST_JUMP = 0.05  # largest change of log A, weighted by the gain, from which jumps are tried
_GAIN_FLOOR = 1e-4  # least weight of a feature in the error of a jump
_MOST_GROWTH = 0.7  # largest growth of a log A in one jump
_LEAST = 1e-300
_SHORTEST = 2  # the shortest jump makes 2^2 iterations
_SMALL_TRIANGLE = 64


@dataclass(frozen=True)
class SparseFit:
    """A fitted sparse regression.

    Attributes
    ----------
    coef : array of shape (targets, k)
        Weights of the features in `chosen`; 0 where a feature was pruned.
    bias : array of shape (targets,)
    chosen : array of shape (targets, k)
        The features of every target.
    noise : array of shape (targets,)
        The noise variance s.
    n_iter : array of shape (targets,)
        Iterations that were made or jumped over.
    solved : array of shape (targets,)
        Linear systems that were solved for that.
    """

    coef: np.ndarray
    bias: np.ndarray
    chosen: np.ndarray
    noise: np.ndarray
    n_iter: np.ndarray
    solved: np.ndarray


@dataclass(frozen=True)
class _Rules:
    n_iter: int
    prune: float
    tolerance: float
    min_iter: int
    jump_error: float


def solve_sparse(
    x: np.ndarray,
    y: np.ndarray,
    *,
    chosen: np.ndarray | None = None,
    n_iter: int = 2000,
    prune: float = 1e-10,
    tolerance: float = 1e-10,
    min_iter: int = 100,
    jump_error: float = 3e-3,
    batch: int | None = None,
    workers: int | None = None,
    device: str = "cpu",
) -> SparseFit:
    """Fit a sparse regression of every target on its own features and a bias column.

    Parameters
    ----------
    x : array of shape (rows, features)
        Brought to a common scale by the caller: the rule of pruning isn't free of it.
    y : array of shape (rows, targets)
    chosen : array of shape (targets, k), optional
        The features of every target, as from `neuroreel.fit.selection.top_features`; all by default.
    n_iter : int
        Iterations of equations (1)-(3).
    prune : float
        Share of the largest relevance at which a feature is pruned, from 0 to below 1.
    tolerance : float
        Largest change of a relevance at which a target counts as converged; 0 makes every iteration.
    min_iter : int
        Iterations before that is checked.
    jump_error : float
        Largest error of the log relevances, each weighted by its gain, at the end of a jump; 0 makes no jumps.
    batch : int, optional
        Targets at a time; by default 4 on the CPU, 128 on CUDA.
    workers : int, optional
        Threads, each with its own batch; by default as many as torch uses, and 1 on CUDA.
    device : {"cpu", "cuda"}

    Returns
    -------
    SparseFit

    Raises
    ------
    DataError, ConfigError
        If an input has NaN, a wrong shape, features that don't exist or a setting out of its range.
    """
    import torch

    x = check_features(x)
    y = checks.finite("y", np.asarray(check_targets(y, len(x))))
    chosen = check_chosen(chosen, x.shape[1], y.shape[1])
    n_iter, min_iter = check_whole("n_iter", n_iter, 1), check_whole("min_iter", min_iter, 0)
    checks.require(0 <= prune < 1, "prune", "must be from 0 to below 1", prune, error=ConfigError)
    checks.require(tolerance >= 0, "tolerance", "must be >= 0", tolerance, error=ConfigError)
    checks.require(jump_error >= 0, "jump_error", "must be >= 0", jump_error, error=ConfigError)
    checks.one_of("device", device, DEVICES)
    there = device != "cuda" or torch.cuda.is_available()
    checks.require(there, "device", "must be one that torch can use", repr(device), error=ConfigError)
    on_cpu = device == "cpu"
    batch = check_whole("batch", (4 if on_cpu else 128) if batch is None else batch, 1)
    workers = check_whole("workers", (torch.get_num_threads() if on_cpu else 1) if workers is None else workers, 1)
    rules = _Rules(n_iter, prune, tolerance, min_iter, jump_error)

    columns = np.concatenate([x, np.ones((len(x), 1))], 1, dtype=np.float64)
    features = torch.tensor(columns, device=device)
    gram = features.T @ features if columns.shape[1] <= _SHARED_GRAM else None
    variance = torch.tensor(columns.var(0), device=device)
    index = np.concatenate([chosen, np.full((len(chosen), 1), x.shape[1])], 1)
    n_targets, k = chosen.shape
    weights = np.zeros((n_targets, k + 1))
    noise, made, solved = np.zeros(n_targets), np.zeros(n_targets, np.intp), np.zeros(n_targets, np.intp)
    varies = np.flatnonzero(np.any(y != 0, axis=0))  # a target of zeros has weights of zero and no noise

    def run(rows: np.ndarray) -> None:
        targets = torch.tensor(y[:, rows].T.astype(np.float64), device=device)
        there = torch.tensor(index[rows], device=device)
        result = _fit_batch(features, gram, variance, targets, there, rules)
        weights[rows], noise[rows], made[rows], solved[rows] = result

    blocks = [varies[start : start + batch] for start in range(0, len(varies), batch)]
    _run_all(run, blocks, workers)
    return SparseFit(weights[:, :-1], weights[:, -1], chosen, noise, made, solved)


def check_chosen(chosen: np.ndarray | None, n_features: int, n_targets: int) -> np.ndarray:
    """Return the features (targets, k) of every target if they exist and differ, else raise DataError."""
    if chosen is None:
        return np.tile(np.arange(n_features), (n_targets, 1))
    chosen = np.asarray(chosen)
    checks.dimensions("chosen", chosen, ("targets", "features"))
    checks.same_length("chosen", len(chosen), "targets", n_targets)
    checks.require(chosen.dtype.kind in "iu", "chosen", "must be integers", f"dtype {chosen.dtype}")
    checks.require(chosen.shape[1] > 0, "chosen", "must name one feature or more of every target", "none")
    inside = bool((chosen >= 0).all() and (chosen < n_features).all())
    span = f"{chosen.min()}..{chosen.max()}"
    checks.require(inside, "chosen", f"must lie within 0..{n_features - 1}", span)
    in_order = np.sort(chosen, axis=1)
    twice = int((in_order[:, 1:] == in_order[:, :-1]).any(axis=1).sum())
    checks.require(twice == 0, "chosen", "must name no feature twice", f"{twice} targets with a repeated one")
    return chosen


def _run_all(run: Callable[[np.ndarray], None], blocks: list[np.ndarray], workers: int) -> None:
    """Run the blocks on threads of one core each; what torch was set to stays."""
    import torch

    if workers == 1 or len(blocks) < 2:
        for block in blocks:
            run(block)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(run, blocks))
    finally:
        torch.set_num_threads(threads)


def _invert_factor(matrix: Tensor) -> Tensor:
    """Return the inverse of the lower Cholesky factor of matrices (batch, n, n), mostly by matrix products."""
    import torch

    n = matrix.shape[-1]
    if n <= _SMALL_TRIANGLE:
        lower = torch.linalg.cholesky_ex(matrix)[0]
        eye = torch.eye(n, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
        return torch.linalg.solve_triangular(lower, eye, upper=False)
    half = -(-n // 16) * 8
    first = _invert_factor(matrix[..., :half, :half])
    below = matrix[..., half:, :half] @ first.mT
    second = _invert_factor(torch.baddbmm(matrix[..., half:, half:], below, below.mT, alpha=-1))
    out = torch.zeros_like(matrix)
    out[..., :half, :half] = first
    out[..., half:, half:] = second
    out[..., half:, :half] = -(second @ below) @ first
    return out


class _Batch:
    """Targets that go through the iterations together, each at its own pace.

    Tensors have one row for every target that isn't done; a pruned or padded feature has log A = -inf. `level` is the
    binary logarithm of the iterations that the next jump makes.
    """

    def __init__(
        self,
        features: Tensor,
        gram: Tensor | None,
        variance: Tensor,
        targets: Tensor,
        index: Tensor,
    ) -> None:
        import torch

        self.torch = torch
        self.features = features
        self.targets = targets
        self.n_rows = features.shape[0]
        self.index = index  # (targets, n), columns of the features
        self.place = torch.arange(index.shape[1], device=index.device).expand_as(index)  # of each in the result
        mean_variance = variance[index].mean(1, keepdim=True)
        self.log_a = (-torch.log(mean_variance.clamp_min(_MIN_GAIN))).expand(index.shape).clone()
        self.total = (targets * targets).sum(1)  # y'y
        self.initial_noise = targets.var(1, correction=0)
        self.product = (targets @ features).gather(1, index)  # X'y
        self.unit = torch.arange(len(targets), device=index.device)
        self.step = torch.zeros(len(targets), dtype=torch.long, device=index.device)
        self.level = torch.zeros_like(self.step)
        self.solved = torch.zeros_like(self.step)
        self.wait = torch.zeros_like(self.step)  # iterations before the next try to jump
        self.jumped = torch.zeros_like(self.step, dtype=torch.bool)
        self.log_a_before, self.step_before = self.log_a, self.step
        self.expected = torch.zeros_like(self.log_a)
        self.gain_before = torch.ones_like(self.log_a)
        self.gram: Tensor | None = None
        self.local: Tensor | None = None
        if self.n_rows < index.shape[1]:
            self.local = features.T[index].mT.contiguous()  # (targets, rows, n)
        elif gram is None:
            local = features.T[index]
            self.gram = local @ local.mT
        else:
            self.gram = gram[index[:, :, None], index[:, None, :]]

    def take(self, keep: Tensor) -> None:
        """Keep these targets only."""
        per_target = (
            "targets index place log_a total initial_noise product unit step level solved wait jumped log_a_before "
            "step_before expected gain_before"
        )
        for name in per_target.split():
            setattr(self, name, getattr(self, name)[keep])
        self.gram = None if self.gram is None else self.gram[keep]
        self.local = None if self.local is None else self.local[keep]

    def compact(self) -> None:
        """Drop the features that every target has pruned, if they are a twentieth or more."""
        torch = self.torch
        alive = torch.isfinite(self.log_a) | (torch.isfinite(self.log_a_before) & self.jumped[:, None])
        width = max(1, int(alive.sum(1).max()))
        if width > 0.95 * self.log_a.shape[1]:
            return
        order = torch.argsort((~alive).to(torch.int8), dim=1, stable=True)[:, :width]
        for name in ("index", "place", "log_a", "product", "log_a_before", "expected", "gain_before"):
            setattr(self, name, getattr(self, name).gather(1, order))
        if self.gram is not None:
            rows = torch.arange(len(order), device=order.device)[:, None, None]
            self.gram = self.gram[rows, order[:, :, None], order[:, None, :]]
        elif width <= self.n_rows:  # few enough for the features' side
            local = self.features.T[self.index]
            self.gram, self.local = local @ local.mT, None
        elif self.local is not None:
            self.local = self.local.gather(2, order[:, None, :].expand(-1, self.n_rows, -1))

    def posterior(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return v (targets, n), G (targets, n), s (targets,) and a matrix T with H = I - T'T, or T'T by the rows."""
        torch = self.torch
        root = torch.exp(self.log_a / 2)  # 0 where pruned
        if self.gram is not None:
            scaled = self.gram * root[:, :, None] * root[:, None, :]
            scaled.diagonal(dim1=1, dim2=2).add_(1.0)
            factor = _invert_factor(scaled)
            half = factor @ (root * self.product)[:, :, None]  # (targets, n, 1)
            value = (factor.mT @ half).squeeze(2)
            gain = 1 - (factor * factor).sum(1)
            noise = (self.total - (half * half).sum((1, 2))) / self.n_rows
            return value, gain, noise, factor
        assert self.local is not None
        scaled = self.local * root[:, None, :]
        inner = scaled @ scaled.mT
        inner.diagonal(dim1=1, dim2=2).add_(1.0)
        factor = _invert_factor(inner)
        sides = factor @ scaled  # (targets, rows, n)
        half = factor @ self.targets[:, :, None]
        value = (sides.mT @ half).squeeze(2)
        return value, (sides * sides).sum(1), (half * half).sum((1, 2)) / self.n_rows, sides

    def judge(self, change: Tensor, gain: Tensor, rules: _Rules) -> Tensor:
        """Take back the jumps that missed, set the length of the next ones and return who may go on, (targets,) bool.

        What the linear map leaves out grows with the square of the way, so that about a third of what is missing at the
        end, an iteration, was missed in all.
        """
        torch = self.torch
        weight = torch.maximum(gain, self.gain_before).clamp_min(_GAIN_FLOOR)
        alive = torch.isfinite(self.log_a)
        missed = torch.where(alive, (change - self.expected).abs() * weight, 0.0).amax(1) * 2.0**self.level / 3
        back = self.jumped & ~(missed <= rules.jump_error)
        self.log_a = torch.where(back[:, None], self.log_a_before, self.log_a)
        self.step = torch.where(back, self.step_before, self.step)
        still = torch.where(alive, change.abs() * gain, 0.0).amax(1) < _FIRST_JUMP
        self.wait = torch.where(back & (self.level <= _SHORTEST), 4, (self.wait - 1).clamp_min(0))
        longer = (self.jumped & (missed < rules.jump_error / 6)).long() + (
            self.jumped & (missed < rules.jump_error / 40)
        )
        level = torch.where(back, self.level - 1, self.level + longer)
        level = torch.where(~self.jumped & still, level.clamp_min(_SHORTEST), level)
        level = torch.where((level < _SHORTEST) | (self.wait > 0), 0, level) if rules.jump_error else level * 0
        left = (rules.n_iter - 1 - self.step).clamp_min(1)
        self.level = torch.minimum(level, torch.log2(left.double()).long())
        return ~back

    def advance(
        self, going: Tensor, change: Tensor, parts: tuple[Tensor, Tensor, Tensor, Tensor], rules: _Rules
    ) -> None:
        """Make one iteration of the targets that are going, or as many as their level says."""
        torch = self.torch
        self.log_a_before, self.step_before, self.gain_before = self.log_a, self.step, parts[1]
        move, expected, reached = change.clone(), torch.zeros_like(change), torch.zeros_like(self.level)
        leap = torch.nonzero(going & (self.level > 0)).squeeze(1)
        if len(leap):
            relevance = torch.exp(self.log_a)
            power = self.iteration(leap, *parts)
            covered, ahead = change[leap], (power @ change[leap, :, None]).squeeze(2)
            power = power.to(torch.float32)  # what it loses is far below what the linear map leaves out
            for level in range(int(self.level[leap].max())):
                further = self.level[leap] > level
                leap, power, covered, ahead = leap[further], power[further], covered[further], ahead[further]
                power = power @ power if level else power
                pair = (power @ torch.stack([covered, ahead], 2).to(power.dtype)).to(covered.dtype)  # (leap, n, 2)
                covered, ahead = covered + pair[:, :, 0], pair[:, :, 1]
                late = self.step[leap] + 2 ** (level + 1) > rules.min_iter
                stands = (relevance[leap] * torch.expm1(ahead)).abs().amax(1) < rules.tolerance
                finite = torch.isfinite(covered + ahead).all(1)
                sound = finite & (covered.amax(1) < _MOST_GROWTH) & ~(late & stands)
                leap, power, covered, ahead = leap[sound], power[sound], covered[sound], ahead[sound]
                if not len(leap):
                    break
                move[leap], expected[leap], reached[leap] = covered, ahead, level + 1
        self.jumped, self.expected = reached > 0, expected
        self.level = torch.where(going, reached, self.level)
        self.log_a = torch.where(going[:, None], self.log_a + move, self.log_a)
        self.step = torch.where(going, self.step + 2**reached, self.step)
        self.log_a = torch.where(self.kept(self.log_a, rules), self.log_a, -torch.inf)

    def kept(self, log_a: Tensor, rules: _Rules) -> Tensor:
        """Return which features equation (3) leaves, (targets, n) bool."""
        least = math.log(rules.prune) if rules.prune > 0 else -math.inf
        return self.torch.isfinite(log_a) & (log_a - log_a.amax(1, keepdim=True) > least)

    def iteration(self, rows: Tensor, value: Tensor, gain: Tensor, noise: Tensor, factor: Tensor) -> Tensor:
        """Return I + J of these targets, the derivative of one iteration in log A, (rows, n, n)."""
        torch = self.torch
        alive, value, gain, noise = torch.isfinite(self.log_a[rows]), value[rows], gain[rows], noise[rows]
        factor = factor[rows]
        hat = factor.mT @ factor
        if self.gram is not None:
            hat.neg_().diagonal(dim1=1, dim2=2).add_(1.0)
        pull = torch.where(alive, 1 / value, 0.0)
        power = hat * (hat / (2 * gain[:, :, None]) - pull[:, :, None] * value[:, None, :])
        power += (value * value / (2 * self.n_rows * noise[:, None]))[:, None, :]
        power *= alive[:, :, None]
        power *= alive[:, None, :]
        power.diagonal(dim1=1, dim2=2).add_(1.0)
        return power


def _fit_batch(
    features: Tensor, gram: Tensor | None, variance: Tensor, targets: Tensor, index: Tensor, rules: _Rules
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights (targets, k + 1), noise, iterations and systems solved (targets,) of some targets."""
    import torch

    state = _Batch(features, gram, variance, targets, index)
    weights = torch.zeros(index.shape, dtype=features.dtype, device=features.device)
    noises, made, solved = weights.new_zeros(len(index)), torch.zeros_like(state.step), torch.zeros_like(state.step)
    while len(state.unit):
        value, gain, noise, factor = state.posterior()
        state.solved = state.solved + 1
        alive = torch.isfinite(state.log_a)
        gain, noise = gain.clamp_min(_MIN_GAIN), torch.maximum(noise, _MIN_GAIN * state.initial_noise)
        change = torch.log((value * value).clamp_min(_LEAST) / (noise[:, None] * gain)) / 2  # f, equation (2)
        change = torch.where(alive, change, 0.0)
        going = state.judge(change, gain, rules)
        kept = state.kept(state.log_a + change, rules)
        moved = (torch.exp(state.log_a) * torch.expm1(change)).abs().amax(1)
        stands = (state.step > rules.min_iter) & (moved < rules.tolerance) & (kept == alive).all(1)
        done = going & (stands | (state.step >= rules.n_iter - 1))
        if bool(done.any()):
            found = torch.where(kept, torch.exp(state.log_a / 2) * value, 0.0)[done]
            rows = state.unit[done]
            weights[rows] = weights[rows].scatter(1, state.place[done], found)
            noises[rows], made[rows], solved[rows] = noise[done], state.step[done] + 1, state.solved[done]
            rest = ~done
            state.take(rest)
            going, change, value, gain, noise, factor = (a[rest] for a in (going, change, value, gain, noise, factor))
        if len(state.unit):
            state.advance(going, change, (value, gain, noise, factor), rules)
            state.compact()
    return weights.cpu().numpy(), noises.cpu().numpy(), made.cpu().numpy(), solved.cpu().numpy()
