"""Time: haemodynamic responses, delays, lags, and which frame belongs to which volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import scipy.sparse
from scipy.special import gammaln, xlogy

from neuroreel.core.checks import dimensions, finite, positive, require, same_length
from neuroreel.core.clock import to_samples
from neuroreel.core.errors import ConfigError
from neuroreel.core.types import Bold, Features, Video

UNITS_AT_ONCE = 4096


@dataclass(frozen=True)
class DoubleGamma:
    """A haemodynamic response as the difference of two gamma densities, with the seven parameters of `spm_hrf.m`.

    h(t) = g(t - onset; delay / dispersion, dispersion) - g(t - onset; undershoot ...) / ratio, where g(t; k, s) is the
    gamma density of shape k and scale s.

    Attributes
    ----------
    delay_s : delay of the response; SPM's p(1).
    undershoot_delay_s : delay of the undershoot; p(2).
    dispersion_s, undershoot_dispersion_s : scale of each gamma density; p(3) and p(4).
    ratio : size of the response over that of the undershoot; p(5).
    onset_s : time at which the response begins, negative allowed; p(6).
    length_s : length of the kernel; p(7).
    """

    delay_s: float = 6.0
    undershoot_delay_s: float = 16.0
    dispersion_s: float = 1.0
    undershoot_dispersion_s: float = 1.0
    ratio: float = 6.0
    onset_s: float = 0.0
    length_s: float = 32.0

    def __post_init__(self) -> None:
        for name in ("delay_s", "undershoot_delay_s", "dispersion_s", "undershoot_dispersion_s", "ratio", "length_s"):
            positive(name, getattr(self, name))
        require(bool(np.isfinite(self.onset_s)), "onset_s", "must be finite", self.onset_s)

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """Return the response at times after an impulse, per second, in the times' shape; 0 before it begins."""
        since = np.asarray(time_s, dtype=np.float64) - self.onset_s
        response = _gamma(since, self.delay_s / self.dispersion_s, self.dispersion_s)
        undershoot_shape = self.undershoot_delay_s / self.undershoot_dispersion_s
        return response - _gamma(since, undershoot_shape, self.undershoot_dispersion_s) / self.ratio

    def kernel(self, step_s: float) -> np.ndarray:
        """Return the response at 0, step, 2 step ... length, (taps,) float64 with sum 1, as SPM samples it."""
        positive("step_s", step_s)
        taps = self.at(np.arange(int(self.length_s / step_s + 1e-6) + 1) * step_s)
        rule = "must leave a response whose sum is above 0"
        require(bool(taps.sum() > 0), "the HRF's parameters and step_s", rule, f"{taps.sum():g} at {step_s:g} s")
        return taps / taps.sum()


# Wen et al. 2018 name SPM's [5 16 1 1 6 0 32]; Glover's numbers (1999, NeuroImage 9) are the ones that nilearn has.
HRFS: Mapping[str, DoubleGamma] = MappingProxyType(
    {
        "spm": DoubleGamma(),
        "glover": DoubleGamma(6.0, 12.0, 0.9, 0.9, 1 / 0.48),
        "wen2018": DoubleGamma(delay_s=5.0),
    }
)


def hrf_by_name(name: str) -> DoubleGamma:
    """Return a named haemodynamic response; an unknown name is a ConfigError that lists the known ones."""
    require(name in HRFS, "hrf", f"must be one of {', '.join(sorted(HRFS))}", repr(name), error=ConfigError)
    return HRFS[name]


def volume_times(bold: Bold) -> np.ndarray:
    """Return the time at which each volume begins on the stimulus clock, (trs,) seconds."""
    return bold.start_s + bold.tr_s * np.arange(bold.n_trs)


@dataclass(frozen=True, eq=False)
class HrfSampling:
    """Convolution with a haemodynamic response and sampling at the volumes, as one sparse matrix.

    Attributes
    ----------
    weights : (volumes, times) sparse; a volume is `weights @ features`.
    whole : (volumes,) bool: the kernel lies within the stimulus. Elsewhere what came before the first frame, or after
        the last one, counts as 0.
    """

    weights: scipy.sparse.csr_array
    whole: np.ndarray

    @classmethod
    def of(
        cls,
        n_times: int,
        fps: float,
        times_s: np.ndarray,
        hrf: DoubleGamma,
        *,
        start_s: float = 0.0,
    ) -> HrfSampling:
        """Return the sampling of `n_times` frames at `fps` for volumes at `times_s`.

        Volume i is sum_k h(k / fps) x(f_i - k), where f_i is the frame nearest to its time (`core.clock.to_samples`).

        Parameters
        ----------
        n_times : number of frames.
        fps : frames per second.
        times_s : (volumes,) times on the stimulus clock (`volume_times`); an earlier or later time is a lag.
        hrf : the response.
        start_s : time of the first frame on the stimulus clock.
        """
        positive("fps", fps)
        require(n_times > 0, "features", "must have 1 time or more", n_times)
        kernel = hrf.kernel(1 / fps)
        now = _samples(dimensions("times_s", np.asarray(times_s, float), ("volumes",)) - start_s, 1 / fps)
        frames = now[:, None] - np.arange(kernel.size)  # (volumes, taps)
        inside = (frames >= 0) & (frames < n_times)
        volumes, taps = np.nonzero(inside)
        shape = (now.size, n_times)
        weights = scipy.sparse.coo_array((kernel[taps], (volumes, frames[inside])), shape=shape).tocsr()
        return cls(weights, np.asarray(inside.all(axis=1)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return features (times, units) at the volumes, (volumes, units) float32, a block of units at a time."""
        dimensions("features", features, ("times", "units"))
        same_length("features", len(features), "frames of the sampling", self.weights.shape[1])
        out = np.empty((self.weights.shape[0], features.shape[1]), dtype=np.float32)
        for start in range(0, features.shape[1], UNITS_AT_ONCE):
            block = slice(start, start + UNITS_AT_ONCE)
            out[:, block] = self.weights @ features[:, block].astype(np.float64)
        return out

    def stream(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        """Return what the call returns, from batches of consecutive frames (some times, units) that together are all.

        Only one batch is held at a time beside the result, so the features of a long movie never have to fit.

        Raises
        ------
        DataError : the batches hold more or fewer frames than the sampling, or differ in their units.
        """
        total = np.zeros((self.weights.shape[0], 0))
        columns = self.weights.tocsc()
        seen, expected = 0, self.weights.shape[1]
        for batch in batches:
            dimensions("features", batch, ("times", "units"))
            if seen == 0:
                total = np.zeros((self.weights.shape[0], batch.shape[1]))
            same_length("units of a batch", batch.shape[1], "those of the first", total.shape[1])
            stop = seen + len(batch)
            require(stop <= expected, "features", f"must have {expected} times", f"{stop} or more")
            total += columns[:, seen:stop] @ batch.astype(np.float64)
            seen = stop
        same_length("features", seen, "frames of the sampling", expected)
        return total.astype(np.float32)


def convolve(
    features: Features, hrf: DoubleGamma, times_s: np.ndarray, *, start_s: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return features convolved with a haemodynamic response and sampled at the volumes.

    Parameters
    ----------
    features : (times, units) at their own fps, the first at `start_s` on the stimulus clock.
    hrf : the response.
    times_s : (volumes,) times on the stimulus clock (`volume_times(bold)`).

    Returns
    -------
    values : (volumes, units) float32.
    whole : (volumes,) bool, where the whole kernel lies within the stimulus; elsewhere the rest of it met zeros.
    """
    sampling = HrfSampling.of(len(features.data), features.fps, times_s, hrf, start_s=start_s)
    return sampling(finite("features", features.data)), sampling.whole


def shift(data: np.ndarray, lag_s: float, step_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a time series moved so that row t holds what was measured `lag_s` after t.

    Parameters
    ----------
    data : (times, ...) one run.
    lag_s : seconds, rounded to whole steps by `core.clock.to_samples`; negative looks into the past (a control).
    step_s : seconds per row (a TR or 1 / fps).

    Returns
    -------
    moved : the data's shape, floating; NaN where the run has no such time.
    known : (times,) bool, False where it is NaN.
    """
    require(bool(np.isfinite(lag_s)), "lag_s", "must be finite", lag_s)
    return _gather(data, np.arange(len(data)) + to_samples(lag_s, step_s))


def fir_design(features: np.ndarray, delays_s: Sequence[float], tr_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite-impulse-response design: the features at each delay, side by side.

    Parameters
    ----------
    features : (trs, units) of one run, so that no delay reaches into another run.
    delays_s : seconds that the brain comes after the stimulus, each rounded to whole TRs; negative is a control.
    tr_s : seconds per volume.

    Returns
    -------
    design : (trs, delays * units) floating; columns [delay 0: all units, delay 1: all units, ...]. NaN where the
        stimulus has no such time: such rows are not to be fitted.
    known : (trs,) bool, True where every delay lies within the run.

    Raises
    ------
    ConfigError : no delays, or two that round to the same TR.
    """
    dimensions("features", features, ("trs", "units"))
    positive("tr_s", tr_s)
    require(len(delays_s) > 0, "delays_s", "must hold at least one delay", "none", error=ConfigError)
    steps = [to_samples(delay, tr_s) for delay in delays_s]
    rule = f"must round to different volumes of {tr_s:g} s"
    require(len(set(steps)) == len(steps), "delays_s", rule, list(delays_s), error=ConfigError)
    parts = [_gather(features, np.arange(len(features)) - step) for step in steps]
    return np.concatenate([part for part, _ in parts], axis=1), np.all([known for _, known in parts], axis=0)


def volume_of_frames(video: Video, bold: Bold, lag_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return for each frame the volume nearest to `lag_s` after its onset.

    Returns
    -------
    volume : (frames,) int; it may lie outside the run.
    inside : (frames,) bool, where the run has that volume.
    """
    onset = video.start_s + np.arange(video.shape[0]) / video.fps
    volume = _samples(onset + lag_s - bold.start_s, bold.tr_s)
    return volume, (volume >= 0) & (volume < bold.n_trs)


def frames_of_volumes(video: Video, bold: Bold, lag_s: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return for each volume the frames shown during the TR that began `lag_s` before it.

    Returns
    -------
    span : (trs, 2) int, first frame and the one after the last; it may lie outside the video.
    inside : (trs,) bool, where the video has all these frames and at least one.

    Notes
    -----
    Neighbouring volumes never share a frame and leave none out.
    """
    edges = bold.start_s + bold.tr_s * np.arange(bold.n_trs + 1) - lag_s - video.start_s
    frame = _samples(edges, 1 / video.fps)
    span = np.stack([frame[:-1], frame[1:]], axis=1)
    return span, (span[:, 0] >= 0) & (span[:, 1] <= video.shape[0]) & (span[:, 1] > span[:, 0])


def _gamma(time_s: np.ndarray, shape: float, scale: float) -> np.ndarray:
    """Return the gamma density at some times, 0 at and before 0 (also where it has a pole)."""
    x = np.maximum(time_s, 0) / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.exp(xlogy(shape - 1, x) - x - gammaln(shape)) / scale
    return np.where(time_s > 0, density, 0.0)


def _samples(seconds: np.ndarray, step_s: float) -> np.ndarray:
    """Return `to_samples` of every time, int64."""
    return np.array([to_samples(float(time), step_s) for time in seconds], dtype=np.int64)


def _gather(data: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the given rows, NaN where there is none, and which there are."""
    known = (rows >= 0) & (rows < len(data))
    kind = data.dtype if np.issubdtype(data.dtype, np.floating) else np.dtype(np.float64)
    out = np.full((len(rows), *data.shape[1:]), np.nan, dtype=kind)
    out[known] = data[rows[known]]
    return out, known
