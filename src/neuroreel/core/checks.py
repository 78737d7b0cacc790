"""Checks that raise one clear sentence: name, rule, value got and, where there is one, the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from neuroreel.core.errors import ConfigError, DataError, NeuroreelError

Source = str | Path | None


def sentence(name: str, rule: str, got: object, source: Source = None) -> str:
    """Return `name rule, got value (source)`, the one form that every message has.

    >>> sentence("tr_s", "must be > 0", -2.0, "sub-01/run-3.nii.gz")
    'tr_s must be > 0, got -2.0 (sub-01/run-3.nii.gz)'
    """
    where = f" ({source})" if source is not None else ""
    return f"{name} {rule}, got {got}{where}"


def require(
    holds: bool,
    name: str,
    rule: str,
    got: object,
    source: Source = None,
    error: type[NeuroreelError] = DataError,
) -> None:
    """Raise `error` with the sentence unless the rule holds."""
    if not holds:
        raise error(sentence(name, rule, got, source))


def positive(name: str, value: float, source: Source = None) -> float:
    """Return the value if it is a finite number above 0, else raise DataError."""
    ok = isinstance(value, int | float | np.number) and bool(np.isfinite(value)) and value > 0
    require(ok, name, "must be > 0", value, source)
    return float(value)


def dimensions(name: str, array: np.ndarray, axes: tuple[str, ...], source: Source = None) -> np.ndarray:
    """Return the array if it has exactly the named axes, else raise DataError with its shape."""
    require(array.ndim == len(axes), name, f"must have the axes ({', '.join(axes)})", f"shape {array.shape}", source)
    return array


def finite(name: str, array: np.ndarray, source: Source = None) -> np.ndarray:
    """Return the array if it holds no NaN and no infinity, else raise DataError with their count."""
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    require(bad == 0, name, "must be finite", f"{bad} of {array.size} values NaN or infinite", source)
    return array


def same_length(name: str, length: int, other: str, expected: int, source: Source = None) -> None:
    """Raise DataError unless `name` has as many entries as `other`."""
    require(length == expected, name, f"must have as many entries as {other} ({expected})", length, source)


def one_of(name: str, value: str, known: Iterable[str], source: Source = None) -> str:
    """Return the value if it is known, else raise ConfigError that lists the known ones."""
    known = sorted(known)
    require(value in known, name, f"must be one of {', '.join(known)}", repr(value), source, ConfigError)
    return value
