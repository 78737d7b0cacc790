"""mind-vis on the simulated world: pictures read from the brain, beside ridge-latents, chance rows and ceilings.

    python benchmarks/mind_vis.py --folder /tmp/mind-vis --seeds 0 1 2     # 40 min x 2, 8 min x 10; 20 min a seed

Each seed is a world, a subject and a fit of its own, and keeps its place in the file. Categories are named from the
pictures by the shipped AlexNet, so that what is scored is what is seen.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated import RESULTS, arguments, fit_all, keep, score_all, simulated_sets, write_sheet

from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.consistency import generation_consistency
from neuroreel.systems.baselines import RidgeLatents
from neuroreel.systems.mind_vis import MindVis, MindVisConfig

WINDOW = {"clip_s": 2.0, "frames": 1, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
METRICS = (
    "category-accuracy",
    "two-way:clip",
    "clip-similarity",
    "two-way:alexnet2",
    "two-way:alexnet5",
    "identification:pairwise",
    "pixcorr",
    "ssim:rgb-uniform7",
)
SAMPLES, TRIALS = 3, 24


def one_seed(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores of one world."""
    started = time.perf_counter()
    sets = simulated_sets(folder, seed, WINDOW)
    systems = {"mind-vis": MindVis(MindVisConfig.build(settings)), "ridge-latents": RidgeLatents()}
    fits = fit_all(systems, sets, folder, seed)
    table = score_all(fits, sets, METRICS, seed=seed)
    truth, embed = sets.test.truth, open_backbones({"image-text": "world"})
    first = np.unique(truth.block, return_index=True)[1][:TRIALS]
    trials = sets.test.brain.take(first)
    several = systems["mind-vis"].samples(trials, SAMPLES)
    seen = np.stack([embed["image-text"](several[:, k : k + 1]) for k in range(SAMPLES)], 1)
    alike = generation_consistency(
        seen.reshape(len(first), SAMPLES, -1), trials.brain.mean(1), truth.block[first], seed=seed
    )
    tuning = json.loads((folder / f"fit-{seed}" / "mind-vis" / "tuning.json").read_text())
    if sheet is not None:
        rows, ridge = first[:12], fits["ridge-latents"].made.clips
        write_sheet(sheet, [truth.clips[rows, 0], *several[:12].transpose(1, 0, 2, 3, 4), ridge[rows, 0]])
    return {
        "clips": len(truth),
        "table": table.to_dict(),
        "consistency": vars(alike),
        "tuning": {key: tuning[key] for key in ("ridge_r2", "validation", "validation_of_average", "precision")},
        "fit_seconds": {name: fit.seconds["fit"] for name, fit in fits.items()},
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    args = arguments(__doc__, RESULTS / "mind_vis.json").parse_args()
    torch.set_num_threads(args.threads)
    about = {"settings": MindVisConfig.build(args.settings).model_dump(mode="json"), "window": WINDOW}
    for seed in args.seeds:
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-{seed}") if args.sheet else None
        keep(args.out, seed, one_seed(args.folder, seed, args.settings, sheet), **about)
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
