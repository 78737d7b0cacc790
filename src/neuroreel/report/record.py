"""What a report is made of: everything measured in one run, with nothing left to compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.scores import IdentificationCurve, LagSweep, ScoreTable
from neuroreel.core.types import Reconstruction, Samples, Space


@dataclass(frozen=True)
class VoxelMap:
    """One number per voxel.

    Attributes
    ----------
    title : what it is, e.g. "encoding correlation on the test set".
    values : (voxels,), NaN where undefined.
    unit : e.g. "r".
    note : how it was measured, in a sentence.
    """

    title: str
    values: np.ndarray
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Record:
    """One data set's results.

    Attributes
    ----------
    dataset, subject : names.
    truth : the opened test samples: clips, categories, onsets, blocks.
    reconstructions : by system, rows as in `truth`.
    table : scores of all systems.
    space : where the voxels lie.
    voxel_maps : numbers on the cortex; empty where none was measured.
    lag_sweep : or None.
    curves : identification curve by system.
    provenance : settings, versions, checksums, seeds, split with its reason: anything that JSON takes.
    """

    dataset: str
    subject: str
    truth: Samples
    reconstructions: Mapping[str, Reconstruction]
    table: ScoreTable
    space: Space
    voxel_maps: tuple[VoxelMap, ...] = ()
    lag_sweep: LagSweep | None = None
    curves: Mapping[str, IdentificationCurve] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, made in self.reconstructions.items():
            if made.clips is not None:
                checks.same_length(f"clips of {name}", len(made.clips), "test clips", len(self.truth))
        for each in self.voxel_maps:
            checks.same_length(each.title, len(each.values), "voxels", self.space.size)
