"""Where the masked encoder of a system looks, stage by stage (MinD-Video, Chen et al. 2023, section 4.4).

A stage's encoder is kept beside the fit as it goes:

    keep_stage(brain, run, "masked modelling")        # in a system's `fit`, after each stage but the last
    stages_of(system, run.path)                       # {"masked modelling": ..., "fitted": system.brain_}

Attention is that of all patches in view; a patch's share goes to its voxels, and the padding has none. A voxel that was
chosen because it responds is looked at for that too, so maps are read beside those of a model of shuffled pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from neuroreel.brain.masked import MaskedBrain
from neuroreel.core import checks
from neuroreel.core.attention import AttentionMaps
from neuroreel.core.system import RunFolder

STAGES = "stages"
FITTED = "fitted"
"""Name of the last stage: the encoder as it was fitted."""


@runtime_checkable
class Attending(Protocol):
    """A fitted system whose brain windows go through a masked encoder."""

    brain_: MaskedBrain
    subject_: str


def keep_stage(brain: MaskedBrain, run: RunFolder, name: str) -> None:
    """Keep the encoder as it is after a stage of a fit; stages are read in the order in which they were first kept."""
    known = [folder.name.split(" ", 1) for folder in _folders(run.path)]
    number = next((place for place, other in known if other == name), str(len(known)))
    brain.save(run.file(f"{STAGES}/{number} {name}/kept").parent)


def stages_of(system: Attending, log: Path) -> dict[str, MaskedBrain]:
    """Return the encoders that were kept beside a fit, and then the one that was fitted, by stage.

    Raises
    ------
    ConfigError, DataError : a kept part is missing or damaged.
    """
    kept = {folder.name.split(" ", 1)[1]: MaskedBrain.load(folder) for folder in _folders(log)}
    return kept | {FITTED: system.brain_}


def attention_by_stage(
    stages: Mapping[str, MaskedBrain], subject: str, windows: np.ndarray, layers: Sequence[int] | None = None
) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    """Return the numbers of the layers, and by stage the attention that each voxel's patch gets, (layers, voxels).

    Parameters
    ----------
    windows : (n, trs, voxels) in the units of the fit; means are taken over them.
    layers : numbers of the encoder's blocks; the first, the middle and the last one unless given.
    """
    checks.require(bool(stages), "stages", "must be 1 or more", 0)
    depth = next(iter(stages.values())).config.depth
    chosen = tuple(layers) if layers else tuple(sorted({0, depth // 2, depth - 1}))
    return chosen, {name: brain.attention(windows, subject, layers=chosen) for name, brain in stages.items()}


def attention_maps(
    system: Attending, log: Path, windows: np.ndarray, layers: Sequence[int] | None = None
) -> AttentionMaps:
    """Return where a fitted system's encoder looks after each stage that was kept; as `attention_by_stage`."""
    chosen, found = attention_by_stage(stages_of(system, log), system.subject_, windows, layers)
    return AttentionMaps(chosen, system.brain_.config.depth, found)


def _folders(log: Path) -> list[Path]:
    return sorted((log / STAGES).glob("[0-9]* *"))
