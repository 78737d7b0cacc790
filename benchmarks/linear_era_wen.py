"""wen2018 on the simulated world, whole: layer map, encoding, pictures and meaning, against what was planted.

    python benchmarks/linear_era_wen.py --json --folder /tmp/wen            # 40 min x 2, 8 min x 10: as the goals ask
    python benchmarks/linear_era_wen.py --json --folder /tmp/wen --quick    # minutes: a small cortex, a short movie

The experiment comes in through the door of anybody's BIDS folder, is cleaned and split by the workflow, and the system
sees the training set only. The decoder's network never saw the movies: it was trained on scenes of other seeds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from linear_era import provenance
from scipy.stats import spearmanr

from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.datasets.bids import bids_study
from neuroreel.metrics.chance import chance_answers
from neuroreel.metrics.embedded import one_hot
from neuroreel.metrics.nway import nway
from neuroreel.metrics.table import evaluate
from neuroreel.simulate.cortex import AREA_TABLE
from neuroreel.simulate.experiment import TRUTH, ExperimentConfig, simulate_experiment
from neuroreel.systems.wen2018 import EncodingScores, Wen2018, Wen2018Config
from neuroreel.workflow import RunConfig, Sets, make_sets

QUICK = ExperimentConfig(minutes=8, segment_minutes=2, test_minutes=2, test_repeats=4, scale=0.3, blind=60)
WINDOW = {"clip_s": 2.0, "frames": 2, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
SETTINGS = {
    "fps": 1.5,
    "stream": {"pca_fps": 0.75},
    "hrf": "spm",  # what the simulated blood answers like: later than 4 s
    "other_hrfs": ("wen2018",),
    "motion": {},
    "detrend": 4,  # what the workflow takes out of the BOLD of runs of 8 minutes
    "encoding": {
        "groups": (
            ("motion-energy", "conv1", "conv2", "conv3"),
            ("conv1", "conv2", "conv3", "conv4", "conv5"),
            ("motion-energy", "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"),
            ("conv5", "fc6", "fc7"),
        )
    },
    "fields": {"fps": 3.0, "model": {"beside": ((), ("motion-energy",), ("fc7",))}},
    "correction": "fdr",
    "cells": 8,
    "semantic": {"alphas": tuple(10.0 ** (step / 2) for step in range(-4, 5))},
}
CEILING = 0.3
Say = Callable[[str], None]


def wen_results(folder: Path, *, seed: int = 0, quick: bool = False, say: Say = print) -> dict[str, Any]:
    """Return what wen2018 recovers of the simulated world.

    Parameters
    ----------
    folder : where the experiment and the fit are kept; an experiment that is there is used again.
    seed : of the world, the system and the permutations.
    quick : a small world, to see that all works; the numbers mean little.
    """
    started = time.perf_counter()

    def at(text: str) -> None:
        say(f"{time.perf_counter() - started:6.0f} s  {text}")

    config = (QUICK if quick else ExperimentConfig()).model_copy(update={"seed": seed})
    at("simulating")
    experiment = simulate_experiment(folder / "experiment", config)
    dataset = bids_study(experiment).load()
    sets = make_sets(dataset, RunConfig(window=WINDOW, seed=seed))
    vertices = pd.read_csv(experiment / TRUTH / f"sub-{sets.subject}_vertices.tsv", sep="\t")
    at("fitting")
    system = Wen2018(Wen2018Config.build(SETTINGS)).fit(sets.train, run=RunFolder(folder / "fit", seed=seed))
    at("scoring the encoding")
    scores = system.score_encoding(sets.test.runs, seed=seed)
    found = encoding(system, scores, vertices)
    at(f"reconstructing; encoding {found['median_normalised_correlation']:.3f} of the ceiling")
    results = {
        "experiment": config.model_dump(mode="json"),
        "window": WINDOW,
        "settings": system.config.model_dump(mode="json"),
        "layer_map": layer_map(system, vertices),
        "encoding": found,
        "decoding": decoding(system, sets, seed),
        "voxels_decoded_from": int(system.voxels_.sum()),
    }
    at("done")
    return results | {"seconds": round(time.perf_counter() - started)}


def layer_map(system: Wen2018, vertices: pd.DataFrame) -> dict[str, Any]:
    """Return the median layer of each area beside the planted depth, and the rank correlation of the two."""
    assert system.layer_correlation_ is not None
    area, index = vertices["area"].to_numpy(), system.layer_index_
    rows = {}
    for name, planted in AREA_TABLE.items():
        here = area == name
        rows[name] = {
            "planted_depth": planted.depth,
            "median_layer": float(np.median(index[here])),
            "mean_layer": float(index[here].mean()),
            "voxels": int(here.sum()),
            "correlation_by_layer": system.layer_correlation_[:, here].mean(1).round(4).tolist(),
        }
    depth = [row["planted_depth"] for row in rows.values()]
    median = [row["median_layer"] for row in rows.values()]
    return {
        "layers": list(system.network.layers),
        "areas": rows,
        "rank_correlation": float(spearmanr(depth, median).statistic),
    }


def encoding(system: Wen2018, scores: EncodingScores, vertices: pd.DataFrame) -> dict[str, Any]:
    """Return the median correlation over the noise ceiling, of all voxels with a ceiling over 0.3 and by area.

    `held_out` are the medians of the correlation with held-out training volumes of the two models that are stacked, and
    `trusted` the means of their weights.
    """
    assert system.encoding_ is not None and system.fields_ is not None and system.stack_ is not None
    models = {"layers": system.encoding_, "fields": system.fields_}
    area = vertices["area"].to_numpy()
    known = scores.ceiling > CEILING
    normalised = np.divide(scores.voxels.correlation, scores.ceiling, out=np.full(len(area), np.nan), where=known)
    seeing = np.isin(area, list(AREA_TABLE))
    return {
        "ceiling_over": CEILING,
        "voxels": int(known.sum()),
        "median_normalised_correlation": float(np.median(normalised[known])),
        "areas": {
            name: {
                "correlation": float(np.median(scores.voxels.correlation[area == name])),
                "ceiling": float(np.median(scores.ceiling[area == name])),
                "normalised": float(np.median(normalised[known & (area == name)])),
                "significant": float(scores.voxels.significant[area == name].mean()),
                "held_out": {key: float(np.median(model.cv_r_[area == name])) for key, model in models.items()},
                "trusted": dict(zip(models, system.stack_[:2, area == name].mean(axis=1).tolist(), strict=True)),
            }
            for name in AREA_TABLE
        },
        "significant_seeing": float(scores.voxels.significant[seeing].mean()),
        "significant_blind": float(scores.voxels.significant[~seeing].mean()),
    }


def decoding(system: Wen2018, sets: Sets, seed: int) -> dict[str, Any]:
    """Return the scores of pictures and categories on the test movie's scenes, with every chance row."""
    truth = sets.test.truth
    made = system.reconstruct(sets.test.brain)
    chance = chance_answers(system.reconstruct, sets.train.samples, truth, seed=seed)
    table = evaluate(
        {system.name: made},
        truth,
        variants=("identification:pairwise", "frame-correlation", "category-accuracy"),
        chance={system.name: chance},
        ceiling={system.name: system.ceiling(truth)},
        seed=seed,
    )
    rows: Any = table.to_dict()["rows"]
    return {"clips": len(truth), "scores": rows[system.name], "category": categories(made, truth)}


def categories(made: Reconstruction, truth: Samples) -> dict[str, Any]:
    """Return top-1, top-3 and top-5 accuracy over clips, and over scenes by the mean log-probability of their clips.

    A clip of a category that training never showed is a miss.
    """
    assert made.probabilities is not None
    names, p = made.categories, np.log(made.probabilities + 1e-12)
    scenes = np.unique(truth.block)
    mean = np.stack([p[truth.block == scene].mean(0) for scene in scenes])
    label = np.array([truth.category[truth.block == scene][0] for scene in scenes])
    found: dict[str, Any] = {"categories": len(names), "chance_top1": 1 / len(names), "scenes": len(scenes)}
    for of, values, labels in (("clips", p, truth.category), ("scenes", mean, label)):
        known = np.isin(labels, names)
        true = one_hot(labels[known], names)
        for top in (1, 3, 5):
            found[f"top{top}_{of}"] = float(nway(values[known], true, len(names), top=top).sum() / len(labels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the experiment and the fit are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="print the results as JSON and nothing else")
    args = parser.parse_args()
    say: Say = (lambda text: print(text, file=sys.stderr, flush=True)) if args.json else print
    results = wen_results(args.folder, seed=args.seed, quick=args.quick, say=say) | provenance(args.seed)
    print(json.dumps(results, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
