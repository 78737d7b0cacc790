"""Maps of features pooled under Gaussian fields: what voxels with those receptive fields could see of an extractor.

Source: St-Yves & Naselaris 2018, NeuroImage 180:188, eq. 3: a feature-weighted receptive field pools every map of a
network under one Gaussian, so that a voxel needs a weight for each map and not for each of its places.

Pooling, the haemodynamic response and sampling at the volumes are all linear; they are done batch by batch of frames,
and volumes are written to disk as soon as no further frame touches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, field_validator

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.types import Video
from neuroreel.features.extractor import Extractor
from neuroreel.features.streaming import Table

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array


class FieldsConfig(Config):
    """The grid of fields.

    Attributes
    ----------
    sizes : SDs of the Gaussians in shares of the frame's side, each > 0.
    spacing : distance of neighbouring centres in SDs; the centres of a size are an even grid over the frame.
    whole : one field more that is the whole frame.
    """

    sizes: tuple[float, ...] = Field(default=(0.04, 0.08, 0.16, 0.32), min_length=1)
    spacing: float = Field(default=1.8, gt=0)
    whole: bool = True

    @field_validator("sizes")
    @classmethod
    def _above_0(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if min(sizes) <= 0:
            raise ValueError(f"sizes must be > 0, got {min(sizes):g}")
        return sizes


@dataclass(frozen=True, eq=False)
class Fields:
    """Gaussian fields.

    Attributes
    ----------
    x, y : (fields,) centres from the left and from the top, in shares of the frame's sides.
    sd : (fields,) in the same unit; infinite for the whole frame.
    """

    x: np.ndarray
    y: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, config: FieldsConfig) -> Fields:
        """Return the fields of a grid: size by size, row by row from the top, the whole frame last."""
        rows: list[tuple[float, float, float]] = []
        for size in config.sizes:
            count = int(np.ceil(1 / (config.spacing * size)))
            centres = (np.arange(count) + 0.5) / count
            rows += [(x, y, size) for y in centres for x in centres]
        if config.whole:
            rows.append((0.5, 0.5, np.inf))
        return cls(*np.array(rows).T)

    def __len__(self) -> int:
        return len(self.x)

    def weights(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return every field's weights of a map's units, (fields, rows * columns) float32 with sum 1.

        Parameters
        ----------
        x : (columns,) centres of the map's columns, y : (rows,) of its rows, evenly spaced. A unit's own extent widens
            the field, so that a small one doesn't fall between units.
        """
        along, down = (self._profile(centre, places) for centre, places in ((self.x, x), (self.y, y)))
        weights = (down[:, :, None] * along[:, None, :]).reshape(len(self), -1)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def _profile(self, centre: np.ndarray, places: np.ndarray) -> np.ndarray:
        step = float(places[1] - places[0]) if len(places) > 1 else 1.0
        exponent = -((places - centre[:, None]) ** 2) / (2 * (self.sd[:, None] ** 2 + step**2 / 12))
        return np.exp(exponent - exponent.max(axis=1, keepdims=True))


class FieldPooling:
    """Pools an extractor's maps under fields.

    Parameters
    ----------
    extractor : a fitted extractor; its layers without places are left out.
    config : the grid.

    Attributes
    ----------
    fields : the `Fields`.
    layers : the layers that have maps.
    n_channels : number of maps of all of them.

    Raises
    ------
    ConfigError : no layer of the extractor has maps.
    """

    def __init__(self, extractor: Extractor, config: FieldsConfig | None = None) -> None:
        self.extractor, self.fields = extractor, Fields.of(config or FieldsConfig())
        self.layers = tuple(layer for layer in extractor.layers if extractor.places(layer) is not None)
        rule = "must have maps to pool in one layer or more"
        checks.require(bool(self.layers), extractor.name, rule, ", ".join(extractor.layers), error=ConfigError)
        self.n_channels = sum(extractor.shape(layer)[0] for layer in self.layers)
        self._weights: dict[str, np.ndarray] = {}
        for layer in self.layers:
            places = extractor.places(layer)
            assert places is not None
            self._weights[layer] = self.fields.weights(*places)

    def pool(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return features (frames, units) by layer as (frames, fields, channels) float32, layer by layer."""
        parts = []
        for layer in self.layers:
            channels = self.extractor.shape(layer)[0]
            maps = found[layer].reshape(len(found[layer]), channels, -1)
            parts.append((maps @ self._weights[layer].T).transpose(0, 2, 1))  # (frames, fields, channels)
        return np.concatenate(parts, axis=2)

    def volumes(self, video: Video, sampling: csr_array, file: Path) -> PooledVolumes:
        """Pool a movie and sample it at its volumes, into a file of 4 bytes x volumes x fields x channels.

        Parameters
        ----------
        sampling : (volumes, frames) sparse: the haemodynamic response and the sampling.
        """
        checks.same_length("frames of a sampling", sampling.shape[1], "those of the movie", video.shape[0], video.name)
        table = Table(file, (sampling.shape[0], len(self.fields) * self.n_channels))
        columns, last = sampling.tocsc(), _last_frames(sampling)
        nothing = np.zeros((1, table.shape[1]), dtype=np.float32)
        for empty in np.flatnonzero(last < 0):
            table.write(int(empty), nothing)
        pending: dict[int, np.ndarray] = {}
        start = 0
        for found in self.extractor.stream(video):
            pooled = self.pool(found)
            stop = start + len(pooled)
            rows, weights = _touched(columns, start, stop)
            for row, part in zip(rows, weights @ pooled.reshape(len(pooled), -1), strict=True):
                pending[row] = pending[row] + part if row in pending else part
                if last[row] < stop:
                    table.write(row, pending.pop(row)[None])
            start = stop
        return PooledVolumes(table, self.n_channels)


@dataclass(frozen=True, eq=False)
class PooledVolumes:
    """Pooled features at the volumes, on disk; `field` reads those of one field."""

    table: Table
    n_channels: int

    def field(self, number: int) -> np.ndarray:
        """Return the features of a field, (volumes, channels) float32."""
        start = number * self.n_channels
        return self.table.read(slice(None), slice(start, start + self.n_channels))

    def close(self) -> None:
        """Close the file."""
        self.table.close()


def _last_frames(sampling: csr_array) -> np.ndarray:
    """Return the last frame that touches each volume, (volumes,); -1 where none does."""
    entries = sampling.tocoo()
    last = np.full(sampling.shape[0], -1)
    np.maximum.at(last, entries.row, entries.col)
    return last


def _touched(columns: csc_array, start: int, stop: int) -> tuple[list[int], np.ndarray]:
    """Return the volumes that some frames touch, and their weights (volumes, frames) float32."""
    part = columns[:, start:stop].tocsr()
    rows = np.flatnonzero(np.diff(part.indptr))
    return [int(row) for row in rows], part[rows].toarray().astype(np.float32)
