"""Transformer parts that networks share: attention, blocks over space and time, fixed sine and cosine positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroreel.core import checks

FEW, MANY = 8, 512  # tokens


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the softmax of scaled products of q and k, applied to v: (batch, heads, tokens, width) each.

    Vaswani et al. 2017, equation 1, by `scaled_dot_product_attention`; but written out where the fused kernel of a
    processor is slower than that: over few tokens, and in bfloat16, where its backward pass takes 2.6 times as long.
    """
    tokens = q.shape[-2]
    slow = q.device.type == "cpu" and (tokens <= FEW or (q.dtype == torch.bfloat16 and tokens <= MANY))
    if not slow:
        return functional.scaled_dot_product_attention(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


class Attention(nn.Module):
    """Self-attention over the tokens (batch, tokens, dim).

    Vaswani et al. 2017, equation 1, with several heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        checks.require(dim % heads == 0, "dim", f"must be a multiple of heads ({heads})", dim)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each token takes from all, of the same shape."""
        q, k, v = self._split(x)
        mixed = attend(q, k, v)  # (batch, heads, tokens, dim / heads)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each token (rows) looks at each (columns), (batch, tokens, tokens), the mean of the heads."""
        q, k, _ = self._split(x)
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        return scores.softmax(-1).mean(1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, heads, tokens, dim / heads)
        return q, k, v


class Block(nn.Module):
    """A pre-norm block over (batch, trs, tokens, dim): attention over the tokens of a volume, over time, then an MLP.

    With one volume the attention over time is left out. MinD-Video (Chen et al. 2023, section 3.2) has this order.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, trs: int = 1) -> None:
        super().__init__()
        hidden = max(1, round(dim * mlp_ratio))
        self.norm_space, self.space = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm_time = nn.LayerNorm(dim) if trs > 1 else None
        self.time = Attention(dim, heads) if trs > 1 else None
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, trs, tokens, dim)."""
        batch, trs, tokens, dim = x.shape
        flat = x.reshape(batch * trs, tokens, dim)
        x = (flat + self.space(self.norm_space(flat))).view(batch, trs, tokens, dim)
        if self.time is not None and self.norm_time is not None:
            rows = x.transpose(1, 2).reshape(batch * tokens, trs, dim)
            rows = rows + self.time(self.norm_time(rows))
            x = rows.view(batch, tokens, trs, dim).transpose(1, 2)
        return x + self.mlp(self.norm_mlp(x))

    def looks(self, x: Tensor) -> Tensor:
        """Return how much each token is looked at within its volume, (batch, trs, tokens), the mean over lookers."""
        batch, trs, tokens, dim = x.shape
        weights = self.space.weights(self.norm_space(x.reshape(batch * trs, tokens, dim)))
        return weights.mean(1).view(batch, trs, tokens)


def sine_positions(places: Tensor, dim: int) -> Tensor:
    """Return fixed sine and cosine codes of places, (n, dim).

    Vaswani et al. 2017, section 3.5, with each axis of a place in its share of the dimensions.

    Parameters
    ----------
    places : (n,) or (n, axes), in steps of about 1.
    dim : of the codes.
    """
    places = places.double().reshape(len(places), -1)
    axes = places.shape[1]
    pairs = dim // (2 * axes)
    checks.require(pairs > 0, "dim", f"must be {2 * axes} or more for places of {axes} axes", dim)
    rates = 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = places[:, :, None] * rates  # (n, axes, pairs)
    codes = torch.cat([angles.sin(), angles.cos()], 2).reshape(len(places), -1)
    return functional.pad(codes, (0, dim - codes.shape[1])).float()
