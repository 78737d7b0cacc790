"""Masked brain modelling on the runs of many stores, into one folder that systems begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from pydantic import Field

from neuroreel.brain.interpretation import keep_stage
from neuroreel.brain.masked import MaskedBrain
from neuroreel.brain.patches import places_mm
from neuroreel.brain.stream import Moments, StreamRun, memory_runs, store_runs
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.sets import Split, TrainingSet
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Run, Space
from neuroreel.fit.loop import LoopConfig, Progress
from neuroreel.fit.watched import thinned
from neuroreel.nets.masked import MaskedConfig

CHECKPOINTS = "checkpoints"


class PretrainConfig(Config):
    """How a masked autoencoder is pre-trained.

    Attributes
    ----------
    masked : its shape.
    loop : how it is trained; it is checkpointed every 200 steps unless this says otherwise.
    average_s : see `store_runs`.
    split : of each store, by name or as a JSON file: the runs that it tests are left out. None for a store's only one;
        where a store has none, the stimuli shown most often are left out, or the last one, and nothing where nothing
        was shown.
    cpu : stay on the CPU.
    seed : of the first weights.
    """

    masked: MaskedConfig = Field(default_factory=MaskedConfig)
    loop: LoopConfig = Field(default_factory=lambda: LoopConfig(checkpoint_every=200))
    average_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    split: str | None = None
    cpu: bool = False
    seed: int = 0


def pretrain(
    stores: Mapping[Path, Split | None],
    out: Path,
    config: PretrainConfig,
    *,
    prepare: Callable[[Run], Run] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Train on all runs of some stores that their splits don't test, write the weights, and return what was done.

    The same call goes on where it was stopped. A subject whose name is in several stores is called STORE-NAME.

    Parameters
    ----------
    stores : the split of each.
    out : folder of the weights, as `MaskedBrain.load` reads it; checkpoints lie in it too.
    prepare : as in `store_runs`.

    Returns
    -------
    dict : subjects, runs (trained on, by subject), steps, loss (mean of the last 100), samples_per_s, precision and
        resumed_at.

    Raises
    ------
    DataError, ConfigError : as in `store_runs` and `MaskedBrain.fit`.
    """
    runs, spaces = gather(stores, prepare=prepare, average_s=config.average_s)
    brain = MaskedBrain(config.masked, seed=config.seed)
    done = brain.fit(runs, spaces, loop=config.loop, folder=out / CHECKPOINTS, on_progress=on_progress, cpu=config.cpu)
    if PartialState().is_main_process:
        brain.save(out)
    return {
        "subjects": list(brain.subjects),
        "runs": {subject: [run.run for run in runs if run.subject == subject] for subject in brain.subjects},
        "steps": config.loop.steps,
        "loss": float(done.losses[-100:].mean()),
        "samples_per_s": done.samples_per_s,
        "precision": done.precision,
        "resumed_at": done.resumed_at,
    }


def begin_brain(
    train: TrainingSet, masked: MaskedConfig, loop: LoopConfig | None, run: RunFolder, pretrained: str = ""
) -> MaskedBrain:
    """Return the encoder that a system begins with, after masked modelling on its training runs.

    `masked.json` tells of it, and the encoder is kept as the fit's first stage (`brain.interpretation`). Every repeat
    counts by itself. The volumes of a window are those of the training set, and patches are taken in order where the
    place of the voxels isn't known.

    Parameters
    ----------
    masked : shape of the encoder, where it isn't pre-trained.
    loop : of the modelling, in batches no larger than there is data; None leaves the encoder as it is at first.
    run : where its checkpoints lie, from which it goes on.
    pretrained : folder of `neuroreel pretrain` to go on from.

    Raises
    ------
    DataError : the pre-trained weights are of other windows, or of other voxels.
    """
    trs = train.samples.brain.shape[1]
    if pretrained:
        brain = MaskedBrain.load(Path(pretrained))
        rule = f"must be that of the window ({trs})"
        checks.require(brain.config.trs == trs, "trs of the pre-trained weights", rule, brain.config.trs)
    else:
        known = places_mm(train.samples.space) is not None
        brain = MaskedBrain(
            masked.model_copy(update={"trs": trs, "order": masked.order if known else "flat"}), seed=run.seed
        )
    runs, spaces = memory_runs(train.runs)
    if loop is None:
        for subject, space in spaces.items():
            if subject not in brain.subjects:
                brain.move(subject, space, Moments.of(each.read() for each in runs if each.subject == subject))
        return brain
    windows = sum(each.bold.n_trs - trs + 1 for each in train.runs)
    batch = max(1, min(loop.batch, windows // max(1, len(train.runs))))
    loop = loop.model_copy(update={"seed": run.seed, "batch": batch})
    folder = run.file("masked/losses.json").parent
    done = brain.fit(runs, spaces, loop=loop, folder=folder, cpu=run.device == "cpu")
    run.record("masked.json", {"losses": thinned(done.losses), "samples_per_s": done.samples_per_s})
    keep_stage(brain, run, "masked modelling")
    return brain


def gather(
    stores: Mapping[Path, Split | None], *, prepare: Callable[[Run], Run] | None = None, average_s: float = 0.0
) -> tuple[list[StreamRun], dict[str, Space]]:
    """Return the runs of several stores and the spaces of their subjects, whose names then differ."""
    found = {path: store_runs(path, split, prepare=prepare, average_s=average_s) for path, split in stores.items()}
    often = Counter(subject for _, spaces in found.values() for subject in spaces)
    runs: list[StreamRun] = []
    every: dict[str, Space] = {}
    for path, (own, spaces) in found.items():
        names = {subject: _name(path, subject, often) for subject in spaces}
        for subject, space in spaces.items():
            rule = "must differ, or the names of their stores"
            checks.require(names[subject] not in every, "names of the subjects", rule, names[subject], path)
            every[names[subject]] = space
        runs += [replace(run, subject=names[run.subject]) for run in own]
    return runs, every


def _name(store: Path, subject: str, often: Mapping[str, int]) -> str:
    return subject if often[subject] == 1 else f"{store.stem}-{subject}"
