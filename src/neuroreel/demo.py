"""The demo: a movie read from a real brain, eight categories from another, then a brain whose answers are known."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

from neuroreel.core.errors import FetchError, NeuroreelWarning
from neuroreel.core.files import write_text
from neuroreel.core.scores import ScoreTable
from neuroreel.core.store import read_store
from neuroreel.core.system import RunFolder
from neuroreel.datasets.prepare import prepare
from neuroreel.report.page import write_report
from neuroreel.report.record import Record
from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment
from neuroreel.systems import find_system
from neuroreel.workflow import RunConfig, describe, make_record, make_sets

BASELINES = ("mean-frame", "no-brain", "nearest-clip", "ridge-latents", "ridge-pixels")
LEFT_OUT = {"alexnet2": "", "alexnet5": ""}
"""Networks that the demo has no time for."""
SIMULATED = ExperimentConfig(minutes=16.0, test_minutes=4.0, size=64, fps=8.0)


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
        records.append(_record("szinte2024", out / "szinte2024.zarr", seed, say))
    except FetchError as error:
        warnings.warn(NeuroreelWarning(f"the real recording is left out: {error}"), stacklevel=2)
    bids = out / "simulated-bids"
    config = SIMULATED.model_copy(update={"seed": seed})
    simulate_experiment(bids, config, progress=lambda done, total, text: say(f"simulating {text} ({done}/{total})"))
    records.append(_record(str(bids), out / "simulated.zarr", seed, say))
    say("writing the report")
    page = write_report(records, out / "report")
    tables = {record.dataset: record.table for record in records}
    scores = {name: table.to_dict()["rows"] for name, table in tables.items()}
    write_text(out / "scores.json", json.dumps(scores, indent=2) + "\n")
    return page, tables


def _record(source: str, store: Path, seed: int, say: Callable[[str], None]) -> Record:
    """Return everything that the report shows of one source."""
    prepare(source, store, progress=lambda done, total, text: say(f"preparing {text} ({done}/{total})"))
    config = RunConfig(seed=seed, embed=LEFT_OUT)
    sets = make_sets(read_store(store), config)
    systems = {}
    for name in BASELINES:
        say(f"{sets.dataset.name}: fitting {name}")
        run = RunFolder(store.with_suffix("") / name, seed=seed)
        systems[name] = find_system(name)().fit(sets.train, run=run)
    return make_record(
        systems, sets, config, describe(sets, config, store), progress=lambda text: say(f"{sets.dataset.name}: {text}")
    )
