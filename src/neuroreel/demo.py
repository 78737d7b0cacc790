"""The demo: a movie read from a real brain, then a brain whose answers are known, by baselines and by diffusion."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuroreel.core.errors import FetchError, NeuroreelWarning
from neuroreel.core.files import write_text
from neuroreel.core.scores import ScoreTable
from neuroreel.core.spread import evenly
from neuroreel.core.system import RunFolder
from neuroreel.datasets.prepare import prepare
from neuroreel.report.page import write_report
from neuroreel.report.record import Record
from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment
from neuroreel.systems import find_system
from neuroreel.workflow import RunConfig, Sets, describe, make_record, stored_sets

TRIVIAL: Mapping[str, Mapping[str, Any]] = {"mean-frame": {}, "no-brain": {}}
BASELINES = {**TRIVIAL, "nearest-clip": {}, "ridge-latents": {}, "ridge-pixels": {}}
SMALL = {"largest": 24}
SMALLER = {**TRIVIAL, "nearest-clip": SMALL, "ridge-latents": SMALL, "ridge-pixels": SMALL}
"""The same reading pictures of 24 pixels, for which the demo has time."""
LEFT_OUT = {"alexnet2": "", "alexnet5": ""}
"""Networks that the demo has no time for."""
SIMULATED = ExperimentConfig(minutes=12.0, test_minutes=4.0, size=64, fps=8.0)
CLIPS = {"clip_s": 2.0, "frames": 6, "trs": 2, "first_lag_s": 4.0, "blocks": "events", "only_events": "test"}
"""Window of the simulated subject's clips."""
SCORED, READ = 20, 12
"""Test clips of the simulated subject that baselines read, and that mind-vis and mind-video read, of all evenly."""
PICTURES = {
    "pretraining": {"steps": 25, "batch": 32},
    "tuning": {"steps": 20, "batch": 16, "rate": 3e-4, "average": 0.9, "clip": 1.0},
    "steps": 10,
}
"""Settings of mind-vis that the demo has time for; it begins with the weights that ship with the package."""
FILMS = {
    "pretraining": {"steps": 25, "batch": 32},
    "contrastive": {"loop": {"steps": 45, "batch": 48, "rate": 3e-4, "average": 0.95, "clip": 1.0}},
    "telling": None,
    "tuning": {"steps": 12, "batch": 8, "rate": 3e-4, "average": 0.9, "clip": 1.0},
    "tried": 8,
    "steps": 6,
}
"""The same of mind-video."""


def run_demo(
    out: Path, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> tuple[Path, dict[str, ScoreTable]]:
    """Prepare, fit, reconstruct, score and report the real V1 movie and a simulated subject.

    Parameters
    ----------
    out : folder to write stores, simulated files and the report to; what is finished there is used again.
    seed : of everything random.

    Returns
    -------
    The report's page, and the table of each data set. A recording that can't be fetched is said and left out.
    """
    say = progress or (lambda text: None)
    records = []
    try:
        records.append(_record("szinte2024", out / "szinte2024.zarr", seed, {}, BASELINES, say))
    except FetchError as error:
        warnings.warn(NeuroreelWarning(f"the real recording is left out: {error}"), stacklevel=2)
    bids = out / "simulated-bids"
    config = SIMULATED.model_copy(update={"seed": seed})
    simulate_experiment(bids, config, progress=lambda done, total, text: say(f"simulating {text} ({done}/{total})"))
    records.append(_record(str(bids), out / "simulated.zarr", seed, CLIPS, SMALLER, say, SCORED))
    records.append(_clips_record(out / "simulated.zarr", seed, say))
    say("writing the report")
    page = write_report(records, out / "report")
    tables = {record.dataset: record.table for record in records}
    scores = {name: table.to_dict()["rows"] for name, table in tables.items()}
    write_text(out / "scores.json", json.dumps(scores, indent=2) + "\n")
    return page, tables


def _record(
    source: str,
    store: Path,
    seed: int,
    window: Mapping[str, Any],
    systems: Mapping[str, Mapping[str, Any]],
    say: Callable[[str], None],
    most: int | None = None,
) -> Record:
    """Return everything that the report shows of one source, with what differs in its window and of its systems.

    Parameters
    ----------
    most : test clips, at most; all where it is None.
    """
    prepare(source, store, progress=lambda done, total, text: say(f"preparing {text} ({done}/{total})"))
    config = RunConfig(seed=seed, embed=LEFT_OUT, window=dict(window))
    sets = stored_sets(store, config)
    sets = sets if most is None else _few(sets, most)
    return _fitted(systems, sets, config, store.with_suffix(""), say)


def _clips_record(store: Path, seed: int, say: Callable[[str], None]) -> Record:
    """Return everything that the report shows of pictures and clips that diffusion reads from the simulated brain."""
    config = RunConfig(seed=seed, embed=LEFT_OUT, window=CLIPS)
    some = _few(stored_sets(store, config), READ)
    systems: dict[str, dict[str, Any]] = {"mean-frame": {}, "mind-vis": PICTURES, "mind-video": FILMS}
    record = _fitted(systems, some, config, store.with_suffix("") / "clips", say, of_data=False)
    return replace(record, dataset=f"{record.dataset}, by diffusion")


def _few(sets: Sets, most: int) -> Sets:
    """Return the sets with so many test clips at most, of all evenly."""
    return replace(sets, test=sets.test.take(evenly(len(sets.test.truth), most)))


def _fitted(
    settings: Mapping[str, Mapping[str, Any]],
    sets: Sets,
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
    of_data: bool = True,
) -> Record:
    """Return everything that the report shows of systems by name, with what differs in their settings.

    Parameters
    ----------
    folder : for what the fits keep.
    of_data : as in `make_record`.
    """
    systems = {}
    for name, differs in settings.items():
        say(f"{sets.dataset.name}: fitting {name}")
        run = RunFolder(folder / name, seed=config.seed, store=sets.store)
        system = find_system(name)
        systems[name] = system(system.Settings.build(differs)).fit(sets.train, run=run)
    about = describe(sets, config)
    return make_record(
        systems, sets, config, about, progress=lambda text: say(f"{sets.dataset.name}: {text}"), of_data=of_data
    )
