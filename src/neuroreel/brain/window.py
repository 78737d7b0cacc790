"""Brain windows to targets by ridge, with everything that has a choice in it chosen by cross-validation inside train.

What is chosen: how many voxels (ranked anew in every fold) and the penalty. What every baseline and every linear
decoder of clips stands on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import scipy.linalg
from pydantic import Field
from safetensors.numpy import load_file, save_file

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.fit.folds import assign_folds, iterate_folds

Folds = list[tuple[np.ndarray, np.ndarray]]
Finish = Callable[[np.ndarray], np.ndarray]


def _as_it_is(predictions: np.ndarray) -> np.ndarray:
    return predictions


class WindowDecoderConfig(Config):
    """Choices of a `WindowDecoder`.

    Attributes
    ----------
    combine : "mean" averages the volumes of a window, "concat" gives each its own weights.
    standardise : divide each voxel by its SD over the training windows; else voxels are only centred, and those that
        respond more weigh more.
    keep : shares of the voxels to try, best ranked first. Rank is the squared correlation with the leading components
        of the targets, summed with the components' variance as weights.
    alphas : penalties to try, in units of the mean squared length of a training window.
    per_target : an alpha for every target, else one for all.
    folds : number of folds.
    piece : clips that stay together in a fold where there are fewer than three blocks a fold. Blocks are better where
        there are enough of them: neighbouring clips share the slow response, which flatters the smallest penalties.
    """

    combine: Literal["mean", "concat"] = "mean"
    standardise: bool = False
    keep: tuple[float, ...] = Field(default=(0.125, 0.25, 0.5, 1.0), min_length=1)
    alphas: tuple[float, ...] = Field(default=tuple(np.logspace(-3, 2, 6).round(6).tolist()), min_length=1)
    per_target: bool = False
    folds: int = Field(default=5, ge=2)
    piece: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class _FoldParts:
    """The rows held out, the kernel's eigenvalues, new rows and targets in its eigenvectors, the targets' mean."""

    held: np.ndarray
    s: np.ndarray
    cross: np.ndarray
    rotated: np.ndarray
    y_mean: np.ndarray


class WindowDecoder:
    """Ridge from brain windows (clips, trs, voxels) to targets (clips, targets).

    Attributes
    ----------
    held_out_ : array (clips, targets), each training clip predicted without its fold; not saved.
    keep_ : the share of voxels that won.
    finish_ : the number of the finish that won.
    alpha_ : array (targets,), the penalties that won.
    cv_r2_ : R2 over all targets of `held_out_`.
    """

    held_out_: np.ndarray
    keep_: float
    finish_: int
    alpha_: np.ndarray
    cv_r2_: float

    def __init__(self, config: WindowDecoderConfig | None = None) -> None:
        self.config = config or WindowDecoderConfig()

    def fit(
        self, brain: np.ndarray, targets: np.ndarray, blocks: np.ndarray, finishes: Sequence[Finish] = (_as_it_is,)
    ) -> Self:
        """Choose voxels, penalties and finish by cross-validation over whole blocks, then fit to all clips.

        Parameters
        ----------
        brain : array (clips, trs, voxels)
        targets : array (clips, targets)
        blocks : array (clips,), what must not be split between folds.
        finishes : what may be done to predictions (clips, targets), for example smoothing them. The number of the one
            that won is `finish_`; `predict` leaves it to the caller.

        Raises
        ------
        DataError
            If shapes don't fit, values aren't finite or there are fewer clips than folds.
        """
        checks.finite("brain", checks.dimensions("brain", brain, ("clips", "trs", "voxels")))
        checks.finite("targets", checks.dimensions("targets", targets, ("clips", "targets")))
        checks.same_length("targets", len(targets), "brain windows", len(brain))
        checks.same_length("blocks", len(blocks), "brain windows", len(brain))
        config = self.config
        targets = np.asarray(targets, dtype=np.float32)
        folds = self.folds(blocks)
        ranks = [_rank(brain[train], targets[train]) for train, _ in folds]
        alphas = np.asarray(config.alphas)
        lowest, chosen = np.inf, np.zeros(targets.shape[1], dtype=int)
        for keep in config.keep:
            parts = self._decompose(brain, targets, folds, ranks, keep)
            errors = np.empty((len(finishes), len(alphas), targets.shape[1]))
            for index, alpha in enumerate(alphas):
                predictions = _predict_held_out(parts, alpha, targets.shape)
                for number, finish in enumerate(finishes):
                    errors[number, index] = ((finish(predictions) - targets) ** 2).sum(0, dtype=np.float64)
            for number, error in enumerate(errors):
                best = error.argmin(0) if config.per_target else np.full(error.shape[1], error.sum(1).argmin())
                total = float(np.take_along_axis(error, best[None], 0).sum())
                if total < lowest:
                    lowest, chosen, self.keep_, self.finish_ = total, best, keep, number
        self.alpha_ = alphas[chosen]
        self.held_out_ = np.empty_like(targets)
        parts = self._decompose(brain, targets, folds, ranks, self.keep_)
        for index in np.unique(chosen):
            predictions = finishes[self.finish_](_predict_held_out(parts, alphas[index], targets.shape))
            self.held_out_[:, chosen == index] = predictions[:, chosen == index]
        spread = float(((targets - targets.mean(0)) ** 2).sum(dtype=np.float64))
        self.cv_r2_ = 1 - lowest / spread if spread > 0 else float("nan")
        self._solve(brain, targets)
        return self

    def again(self, brain: np.ndarray, targets: np.ndarray) -> WindowDecoder:
        """Return the decoder of other clips (clips, trs, voxels) with the voxels' share and penalties of this one."""
        other = WindowDecoder(self.config)
        other.keep_, other.finish_, other.alpha_, other.cv_r2_ = self.keep_, self.finish_, self.alpha_, self.cv_r2_
        other._solve(brain, np.asarray(targets, dtype=np.float32))
        return other

    def folds(self, blocks: np.ndarray) -> Folds:
        """Return the rows that are fitted to and those that are held out, of each fold of clips in blocks (clips,)."""
        return list(iterate_folds(self._labels(np.asarray(blocks))))

    def predict(self, brain: np.ndarray) -> np.ndarray:
        """Return the predictions (clips, targets), not finished, for brain windows (clips, trs, voxels)."""
        checks.dimensions("brain", brain, ("clips", "trs", "voxels"))
        checks.same_length("brain columns", brain.shape[2], "the fit's voxels", len(self._kept))
        x = (self._combine(brain[:, :, self._kept]) - self._mean) / self._scale
        return x @ self._weights + self._intercept

    def save(self, folder: Path, name: str = "decoder") -> None:
        """Write weights and config into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / f"{name}.json")
        arrays = {
            "kept": self._kept,
            "mean": self._mean,
            "scale": self._scale,
            "weights": self._weights,
            "intercept": self._intercept,
            "alpha": self.alpha_,
            "keep": np.array([self.keep_]),
            "cv_r2": np.array([self.cv_r2_]),
            "finish": np.array([self.finish_]),
        }
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / f"{name}.safetensors")

    @classmethod
    def load(cls, folder: Path, name: str = "decoder") -> Self:
        """Return the decoder that `save` wrote."""
        decoder = cls(WindowDecoderConfig.load(folder / f"{name}.json"))
        arrays = load_file(folder / f"{name}.safetensors")
        decoder._kept, decoder._mean, decoder._scale = arrays["kept"], arrays["mean"], arrays["scale"]
        decoder._weights, decoder._intercept = arrays["weights"], arrays["intercept"]
        decoder.alpha_, decoder.keep_ = arrays["alpha"], float(arrays["keep"][0])
        decoder.cv_r2_, decoder.finish_ = float(arrays["cv_r2"][0]), int(arrays["finish"][0])
        return decoder

    def voxel_weights(self) -> np.ndarray:
        """Return the length of each voxel's weights over targets and volumes, array (voxels,), 0 where left out."""
        length = np.zeros(len(self._kept))
        per_feature = np.sqrt((self._weights**2).sum(1))
        length[self._kept] = np.sqrt((per_feature.reshape(-1, int(self._kept.sum())) ** 2).sum(0))
        return length

    def _labels(self, blocks: np.ndarray) -> np.ndarray:
        """Return the fold of every clip: whole blocks, or pieces of the clips where blocks are few."""
        n_folds = self.config.folds
        if len(np.unique(blocks)) < 3 * n_folds:
            pieces = np.arange(len(blocks)) // self.config.piece
            checks.require(
                pieces[-1] + 1 >= n_folds, "clips", f"must fill {n_folds} folds or more", f"{len(blocks)} clips"
            )
            return pieces % n_folds
        return assign_folds(len(blocks), n_folds, blocks)

    def _combine(self, brain: np.ndarray) -> np.ndarray:
        """Return the features (clips, features) of brain windows (clips, trs, voxels)."""
        if self.config.combine == "mean":
            return np.asarray(brain.mean(1, dtype=np.float32))
        return np.asarray(brain.reshape(len(brain), -1), dtype=np.float32)

    def _scales(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and divisor of every feature; the rows then have a mean squared length of 1."""
        mean = x.mean(0)
        sd = x.std(0)
        scale = np.where(sd > 0, sd, np.float32(1)) if self.config.standardise else np.ones_like(sd)
        length = np.sqrt(np.sum((sd / scale) ** 2, dtype=np.float64))
        return mean, (scale * np.float32(length if length > 0 else 1.0)).astype(np.float32)

    def _decompose(
        self, brain: np.ndarray, targets: np.ndarray, folds: Folds, ranks: list[np.ndarray], keep: float
    ) -> list[_FoldParts]:
        """Return, for each fold, what leads from a penalty to its predictions from the best share of the voxels."""
        parts = []
        for (train, held), rank in zip(folds, ranks, strict=True):
            kept = _best(rank, keep)
            x, new = self._combine(brain[train][:, :, kept]), self._combine(brain[held][:, :, kept])
            mean, scale = self._scales(x)
            x, new = (x - mean) / scale, (new - mean) / scale
            y_mean = targets[train].mean(0)
            s, q = scipy.linalg.eigh(x @ x.T, driver="evd", check_finite=False)
            parts.append(_FoldParts(held, np.maximum(s, 0), (new @ x.T) @ q, q.T @ (targets[train] - y_mean), y_mean))
        return parts

    def _solve(self, brain: np.ndarray, targets: np.ndarray) -> None:
        self._kept = np.full(brain.shape[2], self.keep_ >= 1)
        if self.keep_ < 1:
            self._kept[_best(_rank(brain, targets), self.keep_)] = True
        x = self._combine(brain[:, :, self._kept])
        self._mean, self._scale = self._scales(x)
        x = (x - self._mean) / self._scale
        self._intercept = targets.mean(0)
        s, q = scipy.linalg.eigh(x @ x.T, driver="evd", check_finite=False)
        shrunk = (q.T @ (targets - self._intercept)) / (np.maximum(s, 0)[:, None] + self.alpha_ * len(x))
        self._weights = (x.T @ (q @ shrunk)).astype(np.float32)


def _predict_held_out(parts: list[_FoldParts], alpha: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return the predictions (clips, targets), each clip from the fold that it was left out of."""
    predictions = np.empty(shape, dtype=np.float32)
    for part in parts:
        weights = part.cross / (part.s + alpha * len(part.s)).astype(np.float32)
        predictions[part.held] = weights @ part.rotated + part.y_mean
    return predictions


def _rank(brain: np.ndarray, targets: np.ndarray, components: int = 20) -> np.ndarray:
    """Return how much each voxel's window mean says about the targets, array (voxels,)."""
    x = brain.mean(1)
    x = x - x.mean(0)
    y = targets - targets.mean(0)
    left, values, _ = np.linalg.svd(y, full_matrices=False)
    share = values[:components] ** 2
    spread = np.sqrt((x**2).sum(0))
    r = (left[:, :components].T @ x) / np.where(spread > 0, spread, 1.0)
    return share @ r**2


def _best(ranks: np.ndarray, keep: float) -> np.ndarray:
    """Return the columns of the best ranked share, in order."""
    count = min(len(ranks), max(1, round(keep * len(ranks))))
    return np.sort(np.argsort(-ranks, kind="stable")[:count])
