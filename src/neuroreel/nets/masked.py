"""The network of masked brain modelling: a masked autoencoder over patches of voxels, in windows of volumes.

He et al. 2022 (masked autoencoders), Chen et al. 2023 (MinD-Vis, section 3.1; MinD-Video, section 3.2). Only visible
patches are encoded; the loss is on masked ones alone. Each space of voxels has its own ends: positions and, where the
config says so, its own weights from voxels to tokens and back. All that lies between the ends is shared.
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core.config import Config
from neuroreel.nets.transformer import Block, sine_positions

PLACE_STEP_MM = 4.0  # a step of the position code where positions are places


class MaskedConfig(Config):
    """Shape of the masked autoencoder.

    Attributes
    ----------
    patch : voxels of a patch.
    order : "cortical" puts neighbours on the cortex into one patch; "flat" takes the voxels as they come.
    embedding : "own" gives each patch its own weights from voxels to token and back, so that a voxel is known by its
        weights; "shared" has one set for all patches, as published.
    start : with an embedding of its own, a new subject's weights begin as the principal "components" of its training
        data, so that a direction of the tokens means the same in all its patches; or at "random".
    positions : "number" codes a patch's number, "place" the place of its middle in millimetres.
    dim, depth, heads, mlp_ratio : of the encoder.
    decoder_dim, decoder_depth, decoder_heads : of the decoder.
    mask : share of the patches that is masked, the same ones in all volumes of a window.
    trs : volumes of a window; with more than 1, every block attends over patches, then over time.
    factors : most factors of the linear part, which the network corrects: what masked voxels are by the factors that
        all voxels share, see `neuroreel.brain.factors`; 0 for none, as published.
    transfer : what happens with voxels that the weights don't know: "refuse", "interpolated" (the ends are interpolated
        between neighbours) or "relearnt" (the ends begin anew).
    """

    patch: int = Field(default=16, ge=1)
    order: Literal["cortical", "flat"] = "cortical"
    embedding: Literal["own", "shared"] = "own"
    start: Literal["components", "random"] = "components"
    positions: Literal["number", "place"] = "number"
    dim: int = Field(default=128, ge=2)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=1.0, gt=0)
    decoder_dim: int = Field(default=96, ge=2)
    decoder_depth: int = Field(default=2, ge=1)
    decoder_heads: int = Field(default=4, ge=1)
    mask: float = Field(default=0.75, gt=0, lt=1)
    trs: int = Field(default=2, ge=1)
    factors: int = Field(default=64, ge=0)
    transfer: Literal["refuse", "interpolated", "relearnt"] = "refuse"

    @classmethod
    def published(cls, trs: int = 1) -> MaskedConfig:
        """Return the shape that MinD-Vis (one volume) and MinD-Video (two) were published with."""
        return cls(
            order="flat",
            embedding="shared",
            dim=1024,
            depth=24,
            heads=16,
            decoder_dim=512,
            decoder_depth=8,
            decoder_heads=16,
            factors=0,
            trs=trs,
        )

    def visible(self, patches: int) -> int:
        """Return how many of so many patches are visible: 1 at least, and 1 at least is masked."""
        return min(max(1, round(patches * (1 - self.mask))), patches - 1)


class Ends(nn.Module):
    """What belongs to one space of voxels: which voxels lie in which patch, positions, factors, and own weights.

    Parameters
    ----------
    voxels : (patches, size) int, -1 in the padding.
    places_mm : (patches, 3), for positions by place.
    """

    order: Tensor
    real: Tensor
    position: Tensor
    decoder_position: Tensor
    factor_weight: Tensor
    factor_precision: Tensor
    trust: Tensor
    weight: nn.Parameter
    bias: nn.Parameter
    out_weight: nn.Parameter
    out_bias: nn.Parameter

    def __init__(self, config: MaskedConfig, voxels: np.ndarray, places_mm: np.ndarray | None = None) -> None:
        super().__init__()
        patches, size = voxels.shape
        self.register_buffer("order", torch.from_numpy(np.maximum(voxels, 0).astype(np.int64)))
        self.register_buffer("real", torch.from_numpy(voxels >= 0))
        where = torch.arange(patches) if places_mm is None else torch.from_numpy(places_mm / PLACE_STEP_MM)
        self.register_buffer("position", sine_positions(where, config.dim))
        self.register_buffer("decoder_position", sine_positions(where, config.decoder_dim))
        if config.factors:
            self.register_buffer("factor_weight", torch.zeros(config.trs, patches, size, config.factors))
            self.register_buffer("factor_precision", torch.zeros(config.trs, patches, size))
            self.register_buffer("trust", torch.ones(()))  # in what the network corrects
        if config.embedding == "own":
            self.weight = nn.Parameter(torch.randn(patches, size, config.dim) / size**0.5)
            self.bias = nn.Parameter(torch.zeros(patches, config.dim))
            small = 0.0 if config.factors else 0.5 / config.decoder_dim**0.5  # what corrects begins at nothing
            self.out_weight = nn.Parameter(torch.randn(patches, config.decoder_dim, size) * small)
            self.out_bias = nn.Parameter(torch.zeros(patches, size))

    def begin_with(self, components: Tensor) -> None:
        """Let own weights point along components (voxels, k) of unit length, as large as the random ones are.

        A token's direction j then is component j as the patch's voxels show it; and so it is on the way back where
        there are no factors to correct.
        """
        voxels, size = len(components), self.order.shape[1]
        spread = components[self.order] * self.real[..., None] * voxels**0.5  # (patches, size, k)
        ins, outs = (min(spread.shape[2], width) for width in (self.weight.shape[2], self.out_weight.shape[1]))
        with torch.no_grad():
            self.weight[:, :, :ins] = spread[:, :, :ins] / size**0.5
            if hasattr(self, "factor_weight"):
                return
            back = spread[:, :, :outs] * 0.5 / self.out_weight.shape[1] ** 0.5
            self.out_weight[:, :outs] = back.transpose(1, 2)

    def take_factors(self, weights: Tensor, noise: Tensor) -> None:
        """Keep the weights (trs, voxels, k) and noise variances (trs, voxels) of factors."""
        self.factor_weight.zero_()
        self.factor_weight[..., : weights.shape[2]] = weights[:, self.order] * self.real[..., None]
        self.factor_precision.copy_(self.real / noise[:, self.order])

    def by_factors(self, brain: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Return masked patches as the factors fill them in, (batch, trs, masked, size).

        Equation (1) of `neuroreel.brain.factors`, with other visible patches (batch, visible) in each sample.
        """
        patched = self.patches(brain)
        batch, _, patches, _ = patched.shape
        count = self.factor_weight.shape[-1]
        with torch.autocast(brain.device.type, enabled=False):
            weighed = self.factor_weight * self.factor_precision[..., None]
            seen = patched.new_zeros(batch, patches).scatter(1, visible, 1.0)
            told = torch.einsum("tpsk,tpsl->pkl", weighed, self.factor_weight).flatten(1)  # by each patch
            told = (seen @ told).view(batch, count, count) + torch.eye(count, device=brain.device)
            toward = (patched * seen[:, None, :, None]).flatten(1) @ weighed.flatten(0, 2)
            found = torch.cholesky_solve(toward[..., None], torch.linalg.cholesky(told))[..., 0]
            made = (found @ self.factor_weight.flatten(0, 2).T).view_as(patched)
        return _take(made, masked)

    def patches(self, brain: Tensor) -> Tensor:
        """Return (batch, trs, voxels) as (batch, trs, patches, size), 0 in the padding."""
        return brain[..., self.order] * self.real


class MaskedNet(nn.Module):
    """The masked autoencoder; see `MaskedConfig` for its shape."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        self.ends = nn.ModuleDict()
        if config.embedding == "shared":
            self.embed: nn.Linear | None = nn.Linear(config.patch, config.dim)
            self.readout: nn.Linear | None = nn.Linear(config.decoder_dim, config.patch)
        else:
            self.embed = self.readout = None
        shape, trs = (config.heads, config.mlp_ratio), config.trs
        self.encoder = nn.ModuleList(Block(config.dim, *shape, trs=trs) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.time = nn.Parameter(0.02 * torch.randn(trs, config.dim)) if trs > 1 else None
        self.to_decoder = nn.Linear(config.dim, config.decoder_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.decoder_dim))
        self.decoder_time = nn.Parameter(0.02 * torch.randn(trs, config.decoder_dim)) if trs > 1 else None
        shape = (config.decoder_heads, config.mlp_ratio)
        self.decoder = nn.ModuleList(Block(config.decoder_dim, *shape, trs=trs) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(config.decoder_dim)
        if config.factors and self.readout is not None:
            nn.init.zeros_(self.readout.weight)  # what corrects begins at nothing
            nn.init.zeros_(self.readout.bias)

    def end(self, key: str) -> Ends:
        """Return the ends of one space of voxels."""
        return cast(Ends, self.ends[key])

    def blocks(self) -> list[Block]:
        """Return the encoder's blocks, the first one first."""
        return [cast(Block, block) for block in self.encoder]

    def tokens(self, brain: Tensor, key: str, visible: Tensor | None = None) -> Tensor:
        """Return the patches' tokens before the first block, (batch, trs, visible or all patches, dim).

        Parameters
        ----------
        brain : (batch, trs, voxels), z-scored.
        key : of the ends.
        visible : (batch, visible) patch numbers; None for all.
        """
        ends = self.end(key)
        patched = ends.patches(brain)  # (batch, trs, patches, size)
        if self.embed is not None:
            if visible is not None:
                patched = _take(patched, visible)
            tokens = self.embed(patched)
            place = ends.position if visible is None else ends.position[visible][:, None]
            tokens = tokens + place
        else:
            tokens = torch.einsum("btps,psd->btpd", patched, ends.weight) + ends.bias + ends.position
            if visible is not None:
                tokens = _take(tokens, visible)
        return tokens if self.time is None else tokens + self.time[:, None]

    def encode(self, brain: Tensor, key: str, visible: Tensor | None = None) -> Tensor:
        """Return the encoded tokens, (batch, trs, visible or all patches, dim); parameters as in `tokens`."""
        x = self.tokens(brain, key, visible)
        for block in self.encoder:
            x = block(x)
        return cast(Tensor, self.norm(x))

    def forward(self, brain: Tensor, key: str, visible: Tensor, masked: Tensor) -> Tensor:
        """Return the masked patches' voxels as recovered from the visible ones, (batch, trs, masked, size).

        Parameters
        ----------
        brain, key : as in `tokens`.
        visible, masked : (batch, visible) and (batch, masked) patch numbers; together all patches.
        """
        ends = self.end(key)
        seen = self.to_decoder(self.encode(brain, key, visible))  # (batch, trs, visible, decoder_dim)
        batch, trs, count, dim = seen.shape
        hidden = self.mask_token.to(seen.dtype).expand(batch, trs, masked.shape[1], dim)
        place = ends.decoder_position[torch.cat([visible, masked], 1)][:, None]  # attention has no order of its own
        x = torch.cat([seen, hidden], 2) + place
        if self.decoder_time is not None:
            x = x + self.decoder_time[:, None]
        for block in self.decoder:
            x = block(x)
        x = self.decoder_norm(x[:, :, count:])
        if self.readout is not None:
            out = self.readout(x)
        else:
            out = self._own_readout(x, ends, masked)
        return cast(Tensor, ends.by_factors(brain, visible, masked) + ends.trust * out if self.config.factors else out)

    def _own_readout(self, x: Tensor, ends: Ends, masked: Tensor) -> Tensor:
        """Return the voxels of decoded masked patches, (batch, trs, masked, size), by each patch's own weights."""
        _, trs, _, dim = x.shape
        every = x.new_zeros(len(x), trs, len(ends.position), dim)
        every = every.scatter(2, _rows(masked, trs, dim), x)
        out = torch.einsum("btpd,pds->btps", every, ends.out_weight) + ends.out_bias
        return _take(out, masked)

    def errors(self, recovered: Tensor, brain: Tensor, key: str, masked: Tensor) -> Tensor:
        """Return the mean squared error on each sample's masked voxels, (batch,)."""
        ends = self.end(key)
        truth, real = _take(ends.patches(brain), masked), ends.real[masked][:, None]  # padding counts nowhere
        square = (recovered.float() - truth).square() * real
        return square.sum((1, 2, 3)) / (real.sum((1, 2, 3)) * brain.shape[1]).clamp(min=1)


def _rows(numbers: Tensor, trs: int, width: int) -> Tensor:
    """Return patch numbers (batch, n) as an index (batch, trs, n, width)."""
    return numbers[:, None, :, None].expand(-1, trs, -1, width)


def _take(patched: Tensor, numbers: Tensor) -> Tensor:
    """Return the patches of the given numbers (batch, n) of (batch, trs, patches, width)."""
    return patched.gather(2, _rows(numbers, patched.shape[1], patched.shape[3]))
