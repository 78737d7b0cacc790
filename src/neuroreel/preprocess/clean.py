"""Cleaning of one run at a time: polynomial detrend, high-pass and confound regression, jointly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from neuroreel.core.checks import dimensions, finite, require, same_length
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.types import Bold

VOXELS_AT_ONCE = 4096
BUTTERWORTH_MIN_TRS = 19  # scipy pads 18 volumes at both ends for nilearn's filter of order 5
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "motion-6": MOTION,
    "motion-12": tuple(name + end for end in ("", "_derivative1") for name in MOTION),
    "motion-24": tuple(name + end for end in ("", "_derivative1", "_power2", "_derivative1_power2") for name in MOTION),
    "wm-csf": ("white_matter", "csf"),
    "global-signal": ("global_signal",),
}


class CleanConfig(Config):
    """What is taken out of each run.

    Attributes
    ----------
    detrend_order : order of the polynomial taken out; 0 takes out the mean only.
    high_pass_hz, high_pass_s : cut-off of the high-pass as a frequency or as a period; at most one of them.
    filter : how the high-pass works: by `cosine` regressors (as fMRIPrep and SPM), or as a `butterworth` filter.
    confounds : names of strategies (`motion-6`, `motion-12`, `motion-24`, `wm-csf`, `global-signal`, `acompcor-N`,
        `cosine`) or of single columns.
    keep_mean : add each voxel's mean back at the end, so that percent signal change can still be computed.
    """

    detrend_order: int = Field(default=4, ge=0)
    high_pass_hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    high_pass_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    filter: Literal["cosine", "butterworth"] = "cosine"
    confounds: tuple[str, ...] = ()
    keep_mean: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.high_pass_hz is not None and self.high_pass_s is not None:
            raise ValueError("the high-pass must be given as high_pass_hz or as high_pass_s, not both")
        if self.cutoff_hz is not None and "cosine" in self.confounds:
            raise ValueError("the high-pass must come from the cosine confounds or from a cut-off, not both")
        return self

    @property
    def cutoff_hz(self) -> float | None:
        """Cut-off of the high-pass in Hz, or None."""
        return 1 / self.high_pass_s if self.high_pass_s is not None else self.high_pass_hz


@dataclass(frozen=True)
class Confounds:
    """Confounds chosen for one run.

    Attributes
    ----------
    data : (trs, columns) float64, finite.
    names : the columns' names.
    filled : number of leading NaN that were filled.
    """

    data: np.ndarray
    names: tuple[str, ...]
    filled: int


def polynomials(n_trs: int, order: int) -> np.ndarray:
    """Return the discrete Legendre polynomials of order 0 to `order` over a run, (trs, order + 1), orthonormal.

    Each is made from the one before it, times time, and then freed of all earlier ones, which stays exact at any order
    (where a Vandermonde matrix does not). Source: Brubeck, Nakatsukasa and Trefethen 2021, SIAM Review 63(2).
    """
    require(0 <= order < n_trs, "detrend_order", f"must be 0 to {n_trs - 1} in a run of {n_trs} volumes", order)
    time = np.linspace(-1, 1, n_trs) if n_trs > 1 else np.zeros(1)
    basis = np.empty((n_trs, order + 1))
    basis[:, 0] = 1 / np.sqrt(n_trs)
    for degree in range(1, order + 1):
        column = time * basis[:, degree - 1]
        column -= basis[:, :degree] @ (basis[:, :degree].T @ column)
        basis[:, degree] = column / np.linalg.norm(column)
    return basis


def detrend(data: np.ndarray, order: int) -> np.ndarray:
    """Return one run (trs, voxels) without its least-squares polynomial; floats keep their type.

    Parameters
    ----------
    data : (trs, voxels), finite; never written to.
    order : 0 takes out the mean, 1 a line, and so on.
    """
    finite("bold", dimensions("bold", data, ("trs", "voxels")))
    basis = polynomials(len(data), order)
    out = np.empty(data.shape, data.dtype if np.issubdtype(data.dtype, np.floating) else np.float64)
    for block in _blocks(data.shape[1]):
        out[:, block] = _without(basis, data[:, block].astype(np.float64))
    out[:, _constant(data)] = 0
    return out


def choose_confounds(columns: Mapping[str, np.ndarray], strategies: Sequence[str]) -> Confounds:
    """Return the confounds of some strategies, from the columns that fMRIPrep writes.

    Parameters
    ----------
    columns : (trs,) by fMRIPrep's column name.
    strategies : names of strategies (see `CleanConfig.confounds`) or of single columns; a column is taken once.

    Returns
    -------
    Confounds
        NaN at the start of a column, as derivatives have it, is filled with the first value that is there; this is
        counted and said in a NeuroreelWarning.

    Raises
    ------
    DataError : a column is missing, or has NaN elsewhere; the message names it.
    ConfigError : a strategy is neither known nor a column.
    """
    names = tuple(dict.fromkeys(name for strategy in strategies for name in _columns_of(strategy, columns)))
    lengths = {name: len(columns[name]) for name in names}
    require(len(set(lengths.values())) <= 1, "confounds", "must have one length", lengths)
    data = np.zeros((next(iter(lengths.values()), 0), len(names)))
    filled: dict[str, int] = {}
    for column, name in enumerate(names):
        values = np.array(columns[name], dtype=np.float64)
        known = np.flatnonzero(~np.isnan(values))
        require(known.size > 0, f"confound {name}", "must hold numbers", f"{values.size} NaN")
        if known[0] > 0:
            filled[name] = int(known[0])
            values[: known[0]] = values[known[0]]
        data[:, column] = finite(f"confound {name}", values)
    if filled:
        text = f"{sum(filled.values())} leading NaN of the confounds {', '.join(filled)} filled with the next value"
        warnings.warn(text, NeuroreelWarning, stacklevel=2)
    return Confounds(data, names, sum(filled.values()))


def clean_run(bold: Bold, config: CleanConfig, confounds: Mapping[str, np.ndarray] | None = None) -> Bold:
    """Return one run without drift, slow frequencies and confounds; nothing outside the run is looked at.

    Polynomial, cosines and confounds are regressed out jointly, and a Butterworth filter acts on the confounds too, so
    that no step brings back what another took out (Lindquist et al. 2019, Human Brain Mapping 40(8)).
    The regression and the filter are nilearn's.

    Parameters
    ----------
    bold : one run; its array is never written to.
    config : what to take out.
    confounds : (trs,) by column name, as fMRIPrep writes them; read only if the config names some.

    Returns
    -------
    Bold
        float32; constant voxels are 0, or their value with `keep_mean`.

    Raises
    ------
    DataError
        NaN or infinite voxels, a confound that is missing or of another length, or nothing left after the regression.
    ConfigError
        The cut-off is at or above the run's Nyquist frequency.
    """
    from nilearn.signal import butterworth, clean

    where = f"sub-{bold.subject} run {bold.run}"
    finite("bold", bold.data, where)
    trend = polynomials(bold.n_trs, config.detrend_order)
    regressors = _regressors(bold, config, confounds, trend, where)
    filtering = config.cutoff_hz is not None and config.filter == "butterworth"
    pass_high = partial(butterworth, sampling_rate=1 / bold.tr_s, high_pass=config.cutoff_hz, copy=True)
    if filtering and regressors is not None:
        regressors = pass_high(regressors)
    constant = _constant(bold.data)
    out = np.zeros(bold.data.shape, dtype=np.float32)
    for block in _blocks(bold.space.size):
        values = bold.data[:, block].astype(np.float64)
        mean = values.mean(axis=0) if config.keep_mean else 0.0
        values = _without(trend, values)
        if filtering:
            values = pass_high(values)
        cleaned = clean(values, confounds=regressors, detrend=False, standardize=None, filter=False, t_r=bold.tr_s)
        cleaned[:, constant[block]] = 0
        out[:, block] = cleaned + mean
    return replace(bold, data=out)


def _regressors(
    bold: Bold,
    config: CleanConfig,
    confounds: Mapping[str, np.ndarray] | None,
    trend: np.ndarray,
    where: str,
) -> np.ndarray | None:
    """Return what is regressed out beside the trend and without it, (trs, columns) or None."""
    parts = []
    if config.confounds:
        require(bool(confounds), "confounds", f"must be there for {', '.join(config.confounds)}", "none", where)
        chosen = choose_confounds(confounds or {}, config.confounds)
        same_length("confounds", len(chosen.data), "volumes", bold.n_trs, where)
        parts.append(chosen.data)
    if config.cutoff_hz is not None:
        nyquist = 0.5 / bold.tr_s
        rule = f"must be under the Nyquist frequency {nyquist:g} Hz"
        require(config.cutoff_hz < nyquist, "high-pass", rule, f"{config.cutoff_hz:g} Hz", where, ConfigError)
        if config.filter == "cosine":
            parts.append(_cosines(bold, config.cutoff_hz, where))
        else:
            rule = f"must be {BUTTERWORTH_MIN_TRS} or more for a Butterworth filter"
            require(bold.n_trs >= BUTTERWORTH_MIN_TRS, "volumes", rule, bold.n_trs, where)
    raw = np.concatenate(parts, axis=1) if parts else np.empty((bold.n_trs, 0))
    rest = _without(trend, raw)
    # A confound that the polynomial explains whole is only rounding error now, which nilearn would blow up to size 1.
    rest = rest[:, np.linalg.norm(rest, axis=0) > 1e-9 * np.linalg.norm(raw, axis=0)]
    taken = trend.shape[1] + rest.shape[1]
    rule = f"must leave something of {bold.n_trs} volumes"
    require(taken < bold.n_trs, "polynomial, cosines and confounds", rule, f"{taken} regressors", where)
    return rest if rest.shape[1] else None


def _cosines(bold: Bold, cutoff_hz: float, where: str) -> np.ndarray:
    """Return nilearn's cosine regressors under the cut-off, without the constant, (trs, columns)."""
    from nilearn.glm.first_level.design_matrix import create_cosine_drift

    require(bold.n_trs > 1, "volumes", "must be 2 or more for a high-pass", bold.n_trs, where)
    drift = create_cosine_drift(cutoff_hz, np.arange(bold.n_trs) * bold.tr_s)[:, :-1]
    if drift.shape[1] == 0:
        text = f"the high-pass at {cutoff_hz:g} Hz takes out nothing of {bold.n_trs * bold.tr_s:g} s ({where})"
        warnings.warn(text, NeuroreelWarning, stacklevel=4)
    return drift


def _columns_of(strategy: str, columns: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return the column names that a strategy stands for."""
    count = strategy.removeprefix("acompcor-")
    if strategy == "cosine":
        names = tuple(sorted(name for name in columns if name.startswith("cosine")))
        require(len(names) > 0, "confounds", "must have columns cosine00, cosine01 and so on", "none")
        return names
    if count != strategy and count.isdigit():
        wanted = int(count)
        names = tuple(sorted(name for name in columns if name.startswith("a_comp_cor_"))[:wanted])
        require(0 < wanted <= len(names), "a_comp_cor columns", f"must be {max(wanted, 1)} or more", len(names))
        return names
    names = STRATEGIES.get(strategy, (strategy,))
    if strategy not in STRATEGIES and strategy not in columns:
        known = ", ".join((*STRATEGIES, "acompcor-N", "cosine"))
        raise ConfigError(f"a confound must be a column or one of {known}, got {strategy!r}")
    missing = [name for name in names if name not in columns]
    if missing:
        raise DataError(f"confounds for {strategy} must have the column {missing[0]}, got {', '.join(columns)}")
    return names


def _without(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return float64 columns without their part in the span of an orthonormal basis."""
    return values - basis @ (basis.T @ values)


def _constant(data: np.ndarray) -> np.ndarray:
    """Return which voxels never change, (voxels,) bool."""
    return np.ptp(data, axis=0) == 0


def _blocks(voxels: int) -> list[slice]:
    """Return slices over the voxels, to bound the memory in use."""
    return [slice(start, start + VOXELS_AT_ONCE) for start in range(0, voxels, VOXELS_AT_ONCE)]
