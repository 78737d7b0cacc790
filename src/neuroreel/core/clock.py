"""Seconds to samples: the one rounding rule of the package."""

from __future__ import annotations

import math

from neuroreel.core.checks import positive


def to_samples(seconds: float, step_s: float) -> int:
    """Return the whole number of samples nearest to a time; an exact half goes up.

    Parameters
    ----------
    seconds : a time or a lag in seconds, negative allowed.
    step_s : seconds per sample (a TR, or 1 / fps).

    Notes
    -----
    A millionth of a sample is forgiven, so that 3.9509999 / 1.317 and 3.951 / 1.317 give the same answer.
    """
    positive("step_s", step_s)
    return math.floor(seconds / step_s + 0.5 + 1e-6)
