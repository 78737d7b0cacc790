"""Random numbers by name: the same seed and names give the same numbers, in any order and on any number of workers."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose, independent of every other purpose of the same seed.

    Parameters
    ----------
    seed : the run's seed.
    names : what the numbers are for, e.g. ``("noise", "sub-01", 3)``.
    """
    words = "/".join(str(name) for name in names).encode()
    digest = hashlib.sha256(words).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
