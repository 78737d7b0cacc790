"""From neural responses to BOLD: haemodynamics, noise of a planned level, drift, motion, physiology, rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.signal

from neuroreel.core.seeds import generator
from neuroreel.core.types import Bold
from neuroreel.preprocess.clean import MOTION, polynomials
from neuroreel.preprocess.timing import DoubleGamma
from neuroreel.simulate.cortex import AREAS, Cortex
from neuroreel.simulate.responses import RATE_HZ

CEILING_REPEATS = 10
"""Repeats in the mean that a vertex's noise ceiling is about."""

SECONDS_A_DEGREE = 150.0
"""Ceilings are those after a polynomial of order 1 + 1 for every 150 s (AFNI's rule) and head motion are taken out."""

SIGNAL_PERCENT = 0.5  # SD of the response to a movie, in percent of the baseline
BLIND_NOISE_PERCENT = 1.2
AR = 0.35
SHARED, PHYSIOLOGY = 0.25, 0.1  # shares of the noise's variance: common to vertices, aliased heart beat and breathing
NETWORKS = 10
DRIFT_PERCENT, MOTION_PERCENT = 0.8, 0.5
SLOWEST_S, FASTEST_S = 1200.0, 600.0  # periods of the drift
RADIANS_A_MM = 0.02  # a turn of the head that moves its surface by 1 mm (Power et al. 2012: at 50 mm)
SETTLE = 20  # volumes before the first that is kept
HRF_DELAYS_S = {"V1": 5.4, "V2": 5.5, "V3": 5.6, "V4": 5.8, "LO": 5.9, "MT": 5.6, "FFA": 6.1, "PPA": 6.1}
HRF_DELAY_SD_S = 0.35


@dataclass(frozen=True)
class Blood:
    """How one subject's vertices turn responses into BOLD.

    Attributes
    ----------
    cortex : the vertices.
    delays_s : (voxels,) delay of the haemodynamic response.
    kernels : (taps, voxels) responses to an impulse at `RATE_HZ`, each with sum 1.
    baseline : (voxels,) the scanner's units at rest.
    ar : (voxels,) autocorrelation of the noise at one TR.
    """

    cortex: Cortex
    delays_s: np.ndarray
    kernels: np.ndarray
    baseline: np.ndarray
    ar: np.ndarray
    seed: int

    @classmethod
    def of(cls, cortex: Cortex, *, seed: int = 0) -> Blood:
        """Return one subject's haemodynamics; delays differ between areas and, less, between vertices."""
        rng = generator(seed, "blood", cortex.subject)
        n = cortex.space.size
        mean = np.array([HRF_DELAYS_S.get(str(name), 5.8) for name in cortex.area])
        delays = np.clip(mean + rng.normal(0, 0.2) + rng.normal(0, HRF_DELAY_SD_S, size=n), 4.0, 8.0)
        kernels = np.stack([DoubleGamma(delay_s=float(delay)).kernel(1 / RATE_HZ) for delay in delays], axis=1)
        baseline = rng.uniform(700, 1300, size=n)
        ar = np.clip(rng.normal(AR, 0.08, size=n), 0, 0.7)
        return cls(cortex, delays, kernels.astype(np.float32), baseline, ar, seed)

    def signal(self, responses: np.ndarray, n_trs: int, tr_s: float) -> np.ndarray:
        """Return responses (times, voxels) at `RATE_HZ` as blood sees them at the volumes, (trs, voxels) float32.

        Before the first and after the last response there is none.
        """
        blood = scipy.signal.oaconvolve(responses, self.kernels, axes=0)
        at = np.arange(n_trs) * tr_s * RATE_HZ
        before = np.minimum(np.floor(at + 1e-6).astype(int), len(blood) - 1)
        share = np.clip(at - before, 0, 1)[:, None]
        after = np.minimum(before + 1, len(blood) - 1)
        return np.asarray((1 - share) * blood[before] + share * blood[after], dtype=np.float32)

    def noise_sd(self, signal: np.ndarray, runs: Sequence[str], tr_s: float) -> np.ndarray:
        """Return the noise SD (voxels,) that gives each vertex its ceiling, after cleaning, in the signal's unit.

        The mean of n repeats correlates with its signal by c = sqrt(S / (S + N / n)), so N = n S (1 / c^2 - 1), and c
        is the correlation of a perfect prediction. S and N are powers after cleaning: a slow signal loses more to the
        drift's polynomial and to head motion than noise does, and what head motion takes of it differs between repeats,
        which is noise. A blind vertex has noise only.

        Parameters
        ----------
        signal : (trs, voxels) of the test movie.
        runs : names of its repeats.
        """
        trs = len(signal)
        trend = polynomials(trs, 1 + int(trs * tr_s // SECONDS_A_DEGREE))
        lags = np.abs(np.subtract.outer(np.arange(trs), np.arange(trs)))
        likeness = (1 - PHYSIOLOGY) * AR**lags + PHYSIOLOGY * np.eye(trs)  # of noise with itself
        total, own, kept = np.zeros(signal.shape), np.zeros(signal.shape[1]), 0.0
        for run in runs:
            basis = np.linalg.qr(np.column_stack([trend, self._head(trs, run)]))[0]
            cleaned = signal - basis @ (basis.T @ signal)
            total += cleaned / len(runs)
            own += cleaned.var(0, ddof=1) / len(runs)
            kept += (trs - np.einsum("tk,tu,uk->", basis, likeness, basis)) / (trs - 1) / len(runs)
        several = len(runs) / max(len(runs) - 1, 1)
        power = own if len(runs) == 1 else several * total.var(0, ddof=1) - (several - 1) * own
        seeing = self.cortex.ceiling > 0
        ceiling = np.where(seeing, self.cortex.ceiling, 1.0)
        noise = CEILING_REPEATS * power * (1 / ceiling**2 - 1) - (own - power)
        return np.where(seeing, np.sqrt(np.maximum(noise, 1e-6) / kept), BLIND_NOISE_PERCENT / SIGNAL_PERCENT)

    def run(
        self, signal: np.ndarray, noise_sd: np.ndarray, *, run: str, tr_s: float
    ) -> tuple[Bold, dict[str, np.ndarray]]:
        """Return one run's BOLD in the scanner's units, and its confounds.

        Parameters
        ----------
        signal : (trs, voxels) from `signal`.
        noise_sd : (voxels,) from `noise_sd`, in the signal's unit.
        run : name; another name has other noise.
        """
        rng = generator(self.seed, "noise", self.cortex.subject, run)
        trs, voxels = signal.shape
        own = _autoregressive(rng.standard_normal((trs + SETTLE, voxels), dtype=np.float32), self.ar)[SETTLE:]
        shared = self._shared(trs, rng)
        physiology, confounds = self._physiology(trs, tr_s, rng)
        noise = np.sqrt(1 - SHARED - PHYSIOLOGY) * own + np.sqrt(SHARED) * shared + np.sqrt(PHYSIOLOGY) * physiology
        path = self._head(trs, run)
        edges = generator(self.seed, "edges", self.cortex.subject).normal(size=(len(MOTION), voxels))
        motion, drift = path @ edges, self._drift(trs, tr_s, rng)
        percent = SIGNAL_PERCENT * (signal + noise * noise_sd) + DRIFT_PERCENT * drift + MOTION_PERCENT * motion
        data = (self.baseline * (1 + percent / 100)).astype(np.float32)
        head = dict(zip(MOTION, (path * ([1.0] * 3 + [RADIANS_A_MM] * 3)).T, strict=True))
        return Bold(data, tr_s, self.cortex.space, self.cortex.subject, run), head | confounds

    def rest(self, n_trs: int, *, run: str, tr_s: float) -> tuple[Bold, dict[str, np.ndarray]]:
        """Return a run without a stimulus: slow fluctuations that the vertices of an area share, and noise."""
        rng = generator(self.seed, "rest", self.cortex.subject, run)
        slow = _autoregressive(rng.normal(size=(n_trs + 50, len(AREAS) + 2)), np.full(len(AREAS) + 2, 0.85))[50:]
        weights = np.zeros((len(AREAS) + 2, self.cortex.space.size))
        for row, name in enumerate(AREAS):
            weights[row, self.cortex.rows(name)] = 1.0
        weights[len(AREAS)] = 0.5  # all vertices
        weights[len(AREAS) + 1] = 0.7 * np.where(self.cortex.space.hemisphere == "L", 1.0, -1.0)
        return self.run(slow @ weights, np.full(self.cortex.space.size, 1.5), run=run, tr_s=tr_s)

    def _shared(self, trs: int, rng: np.random.Generator) -> np.ndarray:
        """Return noise of unit variance that vertices share within random networks, (trs, voxels)."""
        courses = _autoregressive(rng.normal(size=(trs + SETTLE, NETWORKS)), np.full(NETWORKS, AR))[SETTLE:]
        weights = generator(self.seed, "networks", self.cortex.subject).normal(size=(NETWORKS, self.cortex.space.size))
        return courses @ (weights / np.linalg.norm(weights, axis=0))

    def _physiology(self, trs: int, tr_s: float, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return aliased heart beat and breathing of unit variance, and what CSF and white matter see of them."""
        times = np.arange(trs) * tr_s
        rates_hz = (rng.normal(1.1, 0.05), rng.normal(0.28, 0.02))
        wander = np.cumsum(rng.normal(0, 0.15, size=(trs, 2)), axis=0) + rng.uniform(0, 2 * np.pi, size=2)
        waves = np.cos(2 * np.pi * np.multiply.outer(times, rates_hz) + wander)
        weights = generator(self.seed, "vessels", self.cortex.subject).normal(size=(2, self.cortex.space.size))
        weights *= np.sqrt(2) / np.linalg.norm(weights, axis=0)
        confounds = {
            name: 1000 + 10 * wave + rng.normal(0, 4, trs)
            for name, wave in zip(("csf", "white_matter"), waves.T, strict=True)
        }
        return waves @ weights, confounds

    def _head(self, trs: int, run: str) -> np.ndarray:
        """Return a moving head's six parameters in a run, (trs, 6) mm, rotations as what they move the surface by."""
        rng = generator(self.seed, "head", self.cortex.subject, run)
        steps = rng.normal(0, 0.02, size=(trs, len(MOTION)))
        steps[rng.random(trs) < 0.01] *= 10  # a start
        steps[0] = 0
        return np.cumsum(steps, axis=0)

    def _drift(self, trs: int, tr_s: float, rng: np.random.Generator) -> np.ndarray:
        """Return the scanner's drift, (trs, voxels): a slope and two slow waves, mixed anew for every vertex."""
        time_s = np.arange(trs) * tr_s
        waves = 2 * np.pi * time_s[:, None] / rng.uniform(FASTEST_S, SLOWEST_S, size=2) + rng.uniform(0, 2 * np.pi, 2)
        courses = np.column_stack([2 * time_s / SLOWEST_S, np.cos(waves)])
        return courses @ rng.normal(size=(3, self.cortex.space.size))


def _autoregressive(white: np.ndarray, ar: np.ndarray) -> np.ndarray:
    """Return AR(1) noise of unit variance, (times, columns)."""
    out = np.empty_like(white)
    out[0] = white[0]
    innovation = np.sqrt(1 - ar**2).astype(white.dtype)
    ar = ar.astype(white.dtype)
    for row in range(1, len(white)):
        out[row] = ar * out[row - 1] + innovation * white[row]
    return out
