"""What the benchmarks of systems on the simulated world share: a world of a seed, named answers, one table.

    sets = simulated_sets(folder, seed, window)         # 40 min x 2 to fit on, 8 min x 10 to test on
    fits = fit_all({"ridge-pixels": RidgePixels()}, sets, folder, seed)
    table = score_all(fits, sets, metrics, seed=seed)
    keep(results, seed, {"table": table.to_dict()})

Each seed is a world, a subject and a fit of its own, and keeps its place in the file of results.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_era import provenance
from PIL import Image

from neuroreel.core.files import write_text
from neuroreel.core.scores import ScoreTable
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.datasets.bids import bids_study
from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.chance import chance_answers
from neuroreel.metrics.table import evaluate
from neuroreel.nets.world import alexnet_card, load_alexnet
from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment
from neuroreel.workflow import RunConfig, Sets, make_sets

RESULTS = Path(__file__).parent / "results"
ROLES = ("image-text", "alexnet2", "alexnet5")


def simulated_sets(folder: Path, seed: int, window: Mapping[str, Any]) -> Sets:
    """Return what to fit on and what to test on in the world of a seed, simulated unless it lies in the folder."""
    experiment = simulate_experiment(folder / f"experiment-{seed}", ExperimentConfig(seed=seed))
    return make_sets(bids_study(experiment).load(), RunConfig(window=dict(window), seed=seed))


class Named:
    """A system whose clips are also named, by a network that knows the world's categories.

    What is named is what is seen: the probabilities of a clip are the mean over its frames.
    """

    def __init__(self, system: Any) -> None:
        self.system, self.net = system, load_alexnet().eval()
        self.classes = tuple(alexnet_card()["classes"])

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the system's clips with the probabilities of the network's categories."""
        return self.name(self.system.reconstruct(bold))

    def name(self, made: Reconstruction) -> Reconstruction:
        """Return clips (n, frames, h, w, 3) with the probabilities of their categories."""
        assert made.clips is not None
        n, frames = made.clips.shape[:2]
        flat = torch.from_numpy(np.array(made.clips)).flatten(0, 1)
        with torch.inference_mode():
            logits = torch.cat([self.net(self.net.pixels(part)) for part in flat.split(256)])
        shares = logits.softmax(1).double().unflatten(0, (n, frames)).mean(1)
        return replace(made, probabilities=shares.numpy(), categories=self.classes)


@dataclass(frozen=True)
class Fit:
    """A fitted system with what it made of the test set, its trivial answers and its ceiling."""

    system: Any
    made: Reconstruction
    chance: dict[str, tuple[Reconstruction, ...]]
    ceiling: Reconstruction | None
    seconds: dict[str, float]


def fit_all(systems: Mapping[str, Any], sets: Sets, folder: Path, seed: int, draws: int = 2) -> dict[str, Fit]:
    """Return the systems fitted on the training set, with their answers to the test set, all of them named.

    Parameters
    ----------
    systems : unfitted, by name; a fit that lies in the folder under that name goes on from its checkpoints.
    draws : brains of noise that each answers for its chance row.
    """
    fits, truth, started = {}, sets.test.truth, time.perf_counter()
    for name, system in systems.items():
        at, worked = time.perf_counter(), time.process_time()
        system.fit(sets.train, run=RunFolder(folder / f"fit-{seed}" / name, seed=seed))
        fitted, worked = time.perf_counter(), time.process_time() - worked
        named = Named(system)
        made = named.reconstruct(sets.test.brain)
        seconds = {"fit": fitted - at, "fit_processor": worked, "reconstruct": time.perf_counter() - fitted}
        chance = chance_answers(named.reconstruct, sets.train.samples, truth, seed=seed, draws=draws)
        best = system.ceiling(truth) if hasattr(system, "ceiling") else None
        fits[name] = Fit(system, made, chance, named.name(best) if best is not None else None, seconds)
        print(f"{time.perf_counter() - started:6.0f} s  {name} of seed {seed}", flush=True)
    return fits


def score_all(fits: Mapping[str, Fit], sets: Sets, metrics: Sequence[str], *, seed: int) -> ScoreTable:
    """Return one table of all systems, learned metrics with the networks that ship with the package."""
    return evaluate(
        {name: fit.made for name, fit in fits.items()},
        sets.test.truth,
        variants=metrics,
        chance={name: fit.chance for name, fit in fits.items()},
        ceiling={name: fit.ceiling for name, fit in fits.items()},
        embed=open_backbones(dict.fromkeys(ROLES, "world")),
        seed=seed,
    )


def keep(file: Path, seed: int, found: Mapping[str, Any], **about: Any) -> None:
    """Write what was found for a seed beside the other seeds in a file of results, with how it came about."""
    kept = json.loads(file.read_text()) if file.is_file() else {"seeds": {}}
    kept |= about
    kept["seeds"][str(seed)] = dict(found) | provenance(seed)
    write_text(file, json.dumps(kept, indent=2, default=float) + "\n")


def write_sheet(file: Path, rows: Sequence[np.ndarray], scale: int = 2) -> None:
    """Write rows of pictures, each (n, h, w, 3) uint8, as one PNG, enlarged."""
    grid = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    size = (scale * grid.shape[1], scale * grid.shape[0])
    Image.fromarray(grid).resize(size, Image.Resampling.NEAREST).save(file)


def arguments(about: str | None, results: Path) -> argparse.ArgumentParser:
    """Return a parser with the options that all these benchmarks have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where experiments and fits are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", type=json.loads, default={}, help="of the system, as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="a PNG for each seed: truth, and under it what was made")
    parser.add_argument("--out", type=Path, default=results)
    return parser
