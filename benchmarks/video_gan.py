"""video-gan on the simulated world, with and without its judge of movement, beside ridge-pixels and the mean frame.

    python benchmarks/video_gan.py --folder /tmp/video-gan --seeds 0 1 2     # 40 min x 2, 8 min x 10

Each seed is a world, a subject and a fit of its own, and keeps its place in the file. `pooled` holds all seeds: how far
pairwise identification lies above the best of all chance rows, and the full system above the one without a judge of
movement, with intervals over scenes. `diversity` is the mean distance between clips in what a network of clips sees in
them, in units of the true clips'. Motion scores stand beside those of the same clips still, backwards and shuffled.

The two systems have their first stage, the generator alone, in common: it is trained once, and counts in the seconds of
the full system only. ridge-pixels decodes frames of 24 pixels, which are no blurrier than what it reads.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated import RESULTS, arguments, fit_all, keep, score_all, simulated_sets, write_sheet

from neuroreel.core.files import write_text
from neuroreel.core.training import TrainingLog
from neuroreel.generate.adversarial import diversity_ratio
from neuroreel.metrics.inference import interval_of_mean
from neuroreel.report.training_figures import curves_picture, samples_picture
from neuroreel.systems.baselines import MeanFrame, RidgePixels, RidgePixelsConfig
from neuroreel.systems.video_gan import VideoGan, VideoGanConfig

WINDOW = {"clip_s": 2.0, "frames": 8, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
METRICS = (
    "identification:pairwise",
    "ssim:rgb-uniform7",
    "pixcorr",
    "two-way:clip",
    "two-way:alexnet5",
    "clip-similarity",
    "category-accuracy",
    "clip-consistency:adjacent",
    "epe:over-flow",
    "direction-accuracy",
)
FULL, WITHOUT = "video-gan", "video-gan-without-clip-judge"
DRAWS = 3
RIDGE_SIDE = 24
FIRST = METRICS[0]


def settings_of(settings: dict[str, Any]) -> dict[str, VideoGanConfig]:
    """Return the settings of the full system and of the one without a judge of movement."""
    full = VideoGanConfig.build(settings)
    nets = full.nets.model_copy(update={"temporal": False})
    return {FULL: full, WITHOUT: full.model_copy(update={"nets": nets})}


def one_seed(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores of one world."""
    sets = simulated_sets(folder, seed, WINDOW)
    systems: dict[str, Any] = {name: VideoGan(config) for name, config in settings_of(settings).items()}
    systems |= {"ridge-pixels": RidgePixels(RidgePixelsConfig(largest=RIDGE_SIDE)), "mean-frame": MeanFrame()}
    fits = fit_all({FULL: systems.pop(FULL)}, sets, folder, seed, draws=DRAWS)
    alike = folder / f"fit-{seed}"
    shutil.copytree(alike / FULL / "first", alike / WITHOUT / "first", dirs_exist_ok=True)
    fits |= fit_all(systems, sets, folder, seed, draws=DRAWS)
    table, truth = score_all(fits, sets, METRICS, seed=seed), sets.test.truth
    assert truth.clips is not None
    full = fits[FULL].system
    see = full.see
    real = see(truth.clips)
    logs = {name: TrainingLog.load(folder / f"fit-{seed}" / name) for name in (FULL, WITHOUT)}
    if sheet is not None:
        rows = np.linspace(0, len(truth) - 1, 12).round().astype(int)
        shown = [truth.clips, *(fits[name].made.clips for name in (FULL, WITHOUT, "ridge-pixels"))]
        write_sheet(sheet, [clips[rows, frame] for clips in shown for frame in (1, 6)])
        drawn = {"samples": samples_picture(FULL, logs[FULL]), "curves": curves_picture(FULL, logs[FULL])}
        for name, one in drawn.items():
            if one is not None:
                sheet.with_stem(f"{sheet.stem}-{name}").write_bytes(one.png)
    return {
        "clips": len(truth),
        "table": table.to_dict(),
        "diversity": {name: diversity_ratio(see(fit.made.clips), real) for name, fit in fits.items()},
        "held_out": {name: dict(log.final) | {"notes": list(log.notes)} for name, log in logs.items() if log},
        "code": {part: len(r2) for part, r2 in full.codes_.cv_r2_.items()},
        "seconds": {name: fit.seconds for name, fit in fits.items()},
        "blocks": truth.block.tolist(),
        "values": {name: row[FIRST].values.tolist() for name, row in table.rows.items()},
        "best_chance": {name: row[FIRST].chance_value for name, row in table.rows.items()},
    }


def pooled(seeds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what all seeds say together: a block is a scene of a seed."""
    blocks = np.concatenate([[f"{seed}/{block}" for block in each["blocks"]] for seed, each in seeds.items()])

    def of(name: str) -> np.ndarray:
        return np.concatenate([np.array(each["values"][name]) for each in seeds.values()])

    above = {
        f"{name} above chance": np.concatenate(
            [np.array(each["values"][name]) - each["best_chance"][name] for each in seeds.values()]
        )
        for name in (FULL, WITHOUT, "ridge-pixels")
    }
    above |= {f"{FULL} above {name}": of(FULL) - of(name) for name in (WITHOUT, "ridge-pixels", "mean-frame")}
    found = {}
    for name, values in above.items():
        low, high = interval_of_mean(values, blocks, seed=0)
        found[name] = {"difference": float(values.mean()), "low": low, "high": high}
    return {"metric": FIRST, "seeds": sorted(seeds), **found}


def main() -> None:
    args = arguments(__doc__, RESULTS / "video_gan.json").parse_args()
    torch.set_num_threads(args.threads)
    about = {
        "settings": {name: one.model_dump(mode="json") for name, one in settings_of(args.settings).items()},
        "window": WINDOW,
    }
    for seed in args.seeds:
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-{seed}") if args.sheet else None
        keep(args.out, seed, one_seed(args.folder, seed, args.settings, sheet), **about)
        kept = json.loads(args.out.read_text())
        write_text(args.out, json.dumps(kept | {"pooled": pooled(kept["seeds"])}, indent=2) + "\n")
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
