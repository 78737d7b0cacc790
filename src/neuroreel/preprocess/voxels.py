"""Choice of voxels: those that hold data, those of an ROI, those that answer twice the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from scipy.special import stdtr

from neuroreel.core.checks import dimensions, finite, one_of, require, same_length
from neuroreel.core.errors import ConfigError, NeuroreelWarning
from neuroreel.core.stats import bonferroni_adjust, fdr_adjust
from neuroreel.core.types import Bold, Space

CORRECTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"bonferroni": bonferroni_adjust, "fdr": fdr_adjust, "none": np.asarray}
)
VOXELS_AT_ONCE = 4096


def bad_voxels(data: np.ndarray) -> dict[str, np.ndarray]:
    """Return masks (voxels,) bool of what can't be used in a run (trs, voxels), by reason.

    `NaN` and `infinite`: somewhere in the run; `constant`: the same finite value throughout. Each voxel has one reason.
    """
    dimensions("bold", data, ("trs", "voxels"))
    nan = np.isnan(data).any(axis=0)
    infinite = np.isinf(data).any(axis=0) & ~nan
    constant = (data == data[:1]).all(axis=0) & ~nan & ~infinite
    return {"NaN": nan, "infinite": infinite, "constant": constant}


def mask_bad_voxels(runs: Sequence[Bold]) -> tuple[tuple[Bold, ...], np.ndarray]:
    """Return the runs of one subject without the voxels that are NaN, infinite or constant in any of them.

    Returns
    -------
    runs : Bolds of the voxels that are left, in the order given; the same arrays if all voxels are good.
    kept : (voxels,) bool.

    Raises
    ------
    DataError : all voxels are bad, or two runs have different voxel counts.

    Warns
    -----
    NeuroreelWarning : how many voxels were left out, by reason.
    """
    require(len(runs) > 0, "runs", "must be 1 or more", 0)
    first = runs[0]
    reasons: dict[str, np.ndarray] = {}
    for bold in runs:
        same_length(f"voxels of run {bold.run}", bold.space.size, f"voxels of run {first.run}", first.space.size)
        for reason, mask in bad_voxels(bold.data).items():
            earlier = reasons.get(reason, np.zeros(first.space.size, dtype=bool))
            reasons[reason] = earlier | mask
    bad = np.any(list(reasons.values()), axis=0)
    counts = {reason: int(np.count_nonzero(mask)) for reason, mask in reasons.items() if mask.any()}
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    require(not bad.all(), "voxels", "must hold at least one that varies and is finite", told, f"sub-{first.subject}")
    if not bad.any():
        return tuple(runs), ~bad
    text = f"{np.count_nonzero(bad)} of {bad.size} voxels left out: {told} (sub-{first.subject})"
    warnings.warn(text, NeuroreelWarning, stacklevel=2)
    return tuple(take_voxels(bold, ~bad) for bold in runs), ~bad


def take_voxels(bold: Bold, mask: np.ndarray) -> Bold:
    """Return a run with only the voxels where the mask (voxels,) is True; at least one has to be."""
    same_length("mask", len(mask), "voxels", bold.space.size)
    require(mask.dtype == bool, "mask", "must be bool", mask.dtype)
    require(bool(mask.any()), "mask", "must choose at least one voxel", 0, f"sub-{bold.subject} run {bold.run}")
    return replace(bold, data=bold.data[:, mask], space=bold.space.take(mask))


def select_roi(space: Space, expression: str) -> np.ndarray:
    """Return the voxels (voxels,) bool of an expression over the space's ROIs.

    Parameters
    ----------
    expression : names of ROIs with `+` (either), `-` (but not), `&` (both) and brackets. `&` binds before `+` and `-`,
        which are taken from left to right: `V1 + V2 - (LO & MT)`. A name that holds an operator itself wins over it.

    Raises
    ------
    ConfigError : an unknown ROI (the known ones are listed), or an expression that can't be read.
    DataError : no voxel is left.
    """
    mask = _Expression(space, expression).mask()
    require(bool(mask.any()), f"ROI {expression}", "must hold at least one voxel", 0)
    return mask


class _Expression:
    """A recursive descent through an ROI expression: sum = product {+|- product}, product = part {& part}."""

    def __init__(self, space: Space, text: str) -> None:
        self.space, self.text, self.place = space, text, 0
        self.names = sorted(space.rois, key=len, reverse=True)

    def mask(self) -> np.ndarray:
        mask = self._sum()
        if self._next():
            raise self._unreadable("must end or go on with +, - or &")
        return mask

    def _sum(self) -> np.ndarray:
        mask = self._product()
        while self._next() in ("+", "-"):
            operator = self._take()
            other = self._product()
            mask = mask | other if operator == "+" else mask & ~other
        return mask

    def _product(self) -> np.ndarray:
        mask = self._part()
        while self._next() == "&":
            self._take()
            mask = mask & self._part()
        return mask

    def _part(self) -> np.ndarray:
        if self._next() == "(":
            self._take()
            mask = self._sum()
            if self._next() != ")":
                raise self._unreadable("must close its bracket")
            self._take()
            return mask
        return np.asarray(self.space.rois[self._name()], dtype=bool)

    def _name(self) -> str:
        self._next()
        rest = self.text[self.place :]
        for name in self.names:
            after = rest[len(name) :].lstrip()[:1]
            if rest.startswith(name) and (after in ("", "+", "-", "&", "(", ")") or rest[len(name)].isspace()):
                self.place += len(name)
                return name
        end = next((place for place, letter in enumerate(rest) if letter in "+-&()"), len(rest))
        unknown = rest[:end].strip()
        if not unknown:
            raise self._unreadable("must have the name of an ROI")
        known = ", ".join(sorted(self.space.rois)) or "none, since the data has no ROIs"
        raise ConfigError(f"ROI must be one of {known}, got {unknown!r} ({self.text})")

    def _next(self) -> str:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1
        return self.text[self.place : self.place + 1]

    def _take(self) -> str:
        self.place += 1
        return self.text[self.place - 1]

    def _unreadable(self, rule: str) -> ConfigError:
        return ConfigError(f"ROI expression {rule} at character {self.place + 1}, got {self.text!r}")


@dataclass(frozen=True, eq=False)
class Reproducibility:
    """How much alike each voxel answers to two showings of the same stimuli.

    Attributes
    ----------
    r : (segments, voxels) correlation over time of the two repeats; NaN where one of them is constant.
    t : (voxels,) one-sample t of Fisher's z over segments.
    p : (voxels,) one-sided p-value, uncorrected; NaN where r is NaN in any segment.
    """

    r: np.ndarray
    t: np.ndarray
    p: np.ndarray

    @property
    def mean_r(self) -> np.ndarray:
        """Mean over segments by Fisher's z, (voxels,)."""
        return np.tanh(_fisher(self.r).mean(axis=0))

    def chosen(self, alpha: float = 0.05, correction: str = "bonferroni") -> np.ndarray:
        """Return the voxels (voxels,) bool that are significant at `alpha` after a correction.

        Parameters
        ----------
        alpha : level of the test, or of the false discovery rate.
        correction : `bonferroni`, `fdr` (Benjamini-Hochberg) or `none`; over the voxels that have a p-value.
        """
        require(0 < alpha < 1, "alpha", "must lie between 0 and 1", alpha, error=ConfigError)
        adjust = CORRECTIONS[one_of("correction", correction, CORRECTIONS)]
        return adjust(self.p) < alpha


def reproducibility(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Reproducibility:
    """Return how reproducible each voxel is over two repeats of several segments, all of them training data.

    Correlation of the two repeats per voxel and segment, Fisher's z, one-sample t over segments, one-sided.
    Source: Wen et al. 2018, Cerebral Cortex 28(12).

    Parameters
    ----------
    first, second : a BOLD array (trs, voxels) for each segment; the same segment at the same place in both.

    Raises
    ------
    DataError : fewer than 2 segments, or repeats whose shapes differ.
    """
    same_length("segments of repeat 2", len(second), "those of repeat 1", len(first))
    require(len(first) >= 2, "segments", "must be 2 or more for a t-test", len(first))
    r = np.stack([_correlation(a, b, segment) for segment, (a, b) in enumerate(zip(first, second, strict=True))])
    z = _fisher(r)
    count = len(z)
    error = z.std(axis=0, ddof=1) / np.sqrt(count)
    mean = z.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((error == 0) & (mean != 0), np.copysign(np.inf, mean), mean / error)
    p = np.where(np.isnan(mean), np.nan, np.where(np.isnan(t), 0.5, stdtr(count - 1, -t)))
    return Reproducibility(r, t, p)


def _fisher(r: np.ndarray) -> np.ndarray:
    """Return Fisher's z, finite also for r = 1."""
    return np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))


def _correlation(a: np.ndarray, b: np.ndarray, segment: int) -> np.ndarray:
    """Return Pearson's r over time per voxel, (voxels,) float64; NaN where a repeat is constant."""
    where = f"segment {segment + 1}"
    for name, data in (("repeat 1", a), ("repeat 2", b)):
        finite(name, dimensions(name, data, ("trs", "voxels"), where), where)
    require(a.shape == b.shape, "repeat 2", f"must have the shape {a.shape} of repeat 1", b.shape, where)
    require(len(a) >= 3, "volumes", "must be 3 or more for a correlation", len(a), where)
    r = np.full(a.shape[1], np.nan)
    for start in range(0, a.shape[1], VOXELS_AT_ONCE):
        block = slice(start, start + VOXELS_AT_ONCE)
        x, y = (data[:, block].astype(np.float64) for data in (a, b))
        constant = (np.ptp(x, axis=0) == 0) | (np.ptp(y, axis=0) == 0)
        x -= x.mean(axis=0)
        y -= y.mean(axis=0)
        length = np.sqrt(np.einsum("tv,tv->v", x, x) * np.einsum("tv,tv->v", y, y))
        known = ~constant & (length > 0)
        r[block] = np.divide(np.einsum("tv,tv->v", x, y), length, out=np.full(length.shape, np.nan), where=known)
    return r
