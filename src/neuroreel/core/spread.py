"""A few of many, evenly."""

from __future__ import annotations

import numpy as np


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many whole numbers below `count`, evenly spread from the first to the last, rising."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
