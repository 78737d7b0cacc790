"""What a report is made of: everything measured in one run, with nothing left to compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.attention import AttentionMaps
from neuroreel.core.errors import DataError
from neuroreel.core.scores import IdentificationCurve, LagSweep, Lesions, ScoreCurve, ScoreTable
from neuroreel.core.training import TrainingLog
from neuroreel.core.types import Reconstruction, Samples, Space

PROBES = "probes"
"""Folder of a run in which the results of probes are kept."""
CURVES = ("bottleneck", "minutes", "repeats")
"""Kinds of probes whose result is a curve; beside them there are lesions."""


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
class Probed:
    """What systems' scores depend on, as far as it was measured.

    Attributes
    ----------
    curves : by kind (of CURVES) and system.
    lesions : by system.
    attention : by system, where its encoder looks.
    """

    curves: Mapping[str, Mapping[str, ScoreCurve]] = field(default_factory=dict)
    lesions: Mapping[str, Lesions] = field(default_factory=dict)
    attention: Mapping[str, AttentionMaps] = field(default_factory=dict)


def read_probes(run: Path) -> Probed:
    """Return the results of probes that are kept in a run folder; DataError names a file that isn't one."""
    curves: dict[str, dict[str, ScoreCurve]] = {}
    lesions: dict[str, Lesions] = {}
    for file in sorted((run / PROBES).glob("*.json")):
        try:
            held = json.loads(file.read_text())
            if held["kind"] in CURVES:
                curves.setdefault(held["kind"], {})[held["system"]] = ScoreCurve.from_dict(held["result"])
            elif held["kind"] == "lesions":
                lesions[held["system"]] = Lesions.from_dict(held["result"])
        except (ValueError, KeyError, TypeError):
            rule = "must be whole; the probe's command makes it anew"
            raise DataError(checks.sentence("the result of a probe", rule, "another", file)) from None
    maps = sorted((run / PROBES).glob("attention-*.npz"))
    return Probed(curves, lesions, {file.stem.removeprefix("attention-"): AttentionMaps.load(file) for file in maps})


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
    trainings : how a system was trained, by system, where it kept a log.
    provenance : settings, versions, checksums, seeds, split with its reason: anything that JSON takes.
    probed : what the scores depend on.
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
    trainings: Mapping[str, TrainingLog] = field(default_factory=dict)
    probed: Probed = Probed()

    def __post_init__(self) -> None:
        for name, made in self.reconstructions.items():
            if made.clips is not None:
                checks.same_length(f"clips of {name}", len(made.clips), "test clips", len(self.truth))
        for each in self.voxel_maps:
            checks.same_length(each.title, len(each.values), "voxels", self.space.size)
