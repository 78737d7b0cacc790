"""Losses that stages share: one value per sample, so that the loop takes the mean."""

from __future__ import annotations

from torch import Tensor


def apart(tokens: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared distance (n,) of tokens from wanted ones (n, ...), 0 where those have a NaN."""
    known = ~wanted.isnan().flatten(1).any(1)
    return (tokens.float() - wanted.nan_to_num()).square().flatten(1).mean(1) * known
