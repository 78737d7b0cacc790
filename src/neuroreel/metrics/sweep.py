"""Scores as curves: against the lag of the brain, and against the number of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from neuroreel.core.checks import positive, require, same_length
from neuroreel.core.scores import IdentificationCurve, LagSweep, Scores
from neuroreel.metrics.identification import identification_curve
from neuroreel.metrics.inference import defined_mean, interval_of_mean

FIRST_LAG_S, LAST_LAG_S = -6.0, 12.0


def sweep_lags(step_s: float, *, first_s: float = FIRST_LAG_S, last_s: float = LAST_LAG_S) -> np.ndarray:
    """Return the lags from about -6 to +12 s that are whole multiples of a step (the TR), so that 0 is one of them."""
    positive("step_s", step_s)
    require(first_s <= last_s, "first_s", f"must be <= last_s, {last_s}", first_s)
    return step_s * np.arange(np.ceil(first_s / step_s - 1e-6), np.floor(last_s / step_s + 1e-6) + 1)


def lag_sweep(measure: Callable[[float], Scores], lags_s: Sequence[float] | np.ndarray) -> LagSweep:
    """Return a score against the lag between a clip's onset and the brain it is decoded from.

    Parameters
    ----------
    measure : function of the lag in seconds that decodes from the brain so long after the onset of each clip, and
        returns the scores of one metric. The whole fit is repeated for each lag: a lag chosen on the best of these
        scores would be chosen on the test set.
    lags_s : rising lags; negative ones come before the clip and are the control, see `sweep_lags`.

    Returns
    -------
    LagSweep, its chance the mean over the lags of the best chance row at each.

    Raises
    ------
    DataError : the lags give different metrics.
    """
    scores = [measure(float(lag)) for lag in lags_s]
    require(len(scores) > 0, "lags_s", "must hold at least one lag", 0)
    names = sorted({score.variant for score in scores})
    require(len(names) == 1, "a lag sweep", "must measure one metric", ", ".join(names))
    chances = [score.chance_value for score in scores if score.chance_value is not None]
    return LagSweep(
        np.asarray(lags_s, dtype=np.float64),
        np.array([score.mean for score in scores]),
        np.array([np.nan if score.low is None else score.low for score in scores]),
        np.array([np.nan if score.high is None else score.high for score in scores]),
        names[0],
        chance=float(np.mean(chances)) if chances else None,
        higher_is_better=scores[0].higher_is_better,
    )


def curve_of_candidates(
    similarity: np.ndarray,
    blocks: np.ndarray,
    *,
    candidates: Sequence[int] | None = None,
    top: int = 1,
    space: str = "",
    seed: int = 0,
    draws: int = 2000,
) -> IdentificationCurve:
    """Return the exact accuracy of identification against the number of candidates, with its interval.

    Parameters
    ----------
    similarity : array (n, n) of predictions by true clips, as `similarity_matrix` returns it.
    blocks : array (n,), the scene or segment of each clip.
    candidates : numbers of candidates from 2 to n; unless given, about ten that grow by a constant factor.
    top : success if the true one is among so many.
    space : name of the space of the features, for the variant.
    seed, draws : of the block bootstrap.
    """
    same_length("blocks", len(blocks), "clips", len(similarity))
    sizes = candidates or np.unique(np.geomspace(2, max(len(similarity), 2), 10).round().astype(int)).tolist()
    values = identification_curve(similarity, sizes, top=top)
    # (sizes, 2), NaN where there is no interval
    intervals = np.array([interval_of_mean(row, blocks, seed=seed, n=draws) for row in values], dtype=np.float64)
    return IdentificationCurve(
        np.asarray(sizes),
        np.array([defined_mean(row) for row in values]),
        intervals[:, 0],
        intervals[:, 1],
        np.minimum(1.0, top / np.asarray(sizes)),
        f"identification:top{top}" + (f"@{space}" if space else ""),
    )
