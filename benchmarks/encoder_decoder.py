"""encoder-decoder on the simulated world, beside ridge-pixels and the mean frame, with chance rows and ceilings.

    python benchmarks/encoder_decoder.py --folder /tmp/ed --seeds 0 1 2     # 40 min x 2, 8 min x 10
    python benchmarks/encoder_decoder.py --folder /tmp/ed --real            # V1 while a bar moves
    python benchmarks/encoder_decoder.py --folder /tmp/ed --motion          # with the option to read movement

Six frames of each clip of two seconds, one volume's time, are decoded from three volumes. ridge-pixels decodes frames
as high as the highest that encoder-decoder may choose. The encoder is scored on the mean of the test repeats; what
wen2018's ridge encoder has in the same world is copied from `linear_era.json` where that has the seed.

--real is szinte2024: bars that go left and down teach, bars that go right and up test. ridge-pixels has its defaults
there; what encoder-decoder chose on held-out training blocks and the difference of the two, clip by clip with its
interval over blocks, stand beside the scores.
"""

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated import RESULTS, Fit, Named, arguments, fit_all, keep, score_all, simulated_sets, write_sheet
from unlabelled_video import values_of

from neuroreel.core.system import RunFolder
from neuroreel.core.types import Samples
from neuroreel.datasets.cards import study
from neuroreel.metrics.chance import chance_answers
from neuroreel.metrics.encoding import voxel_correlation
from neuroreel.metrics.inference import interval_of_mean
from neuroreel.report.cortex import voxel_picture
from neuroreel.report.record import VoxelMap
from neuroreel.systems.baselines import MeanFrame, RidgePixels, RidgePixelsConfig
from neuroreel.systems.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from neuroreel.workflow import RunConfig, Sets, evaluate_systems, make_sets

WINDOW = {"clip_s": 2.0, "frames": 6, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
METRICS = (
    "ssim:rgb-uniform7",
    "identification:pairwise",
    "pixcorr",
    "two-way:clip",
    "two-way:alexnet2",
    "direction-accuracy",
    "epe:over-flow",
)
REAL_METRICS = ("frame-correlation", "identification:pairwise", "pixcorr", "ssim:gray-gauss")
SEEN_S = 12.0  # volumes before have no whole response


def encoding(system: EncoderDecoder, sets: Sets, seed: int, picture: Path | None) -> dict[str, Any]:
    """Return the median correlation of the encoder with the mean test repeat by area, beside wen2018's."""
    runs = sets.test.runs
    first = [run for run in runs if run.stimulus == runs[0].stimulus]
    mean = np.mean([run.bold.data for run in first], axis=0)
    whole = first[0].bold.start_s + first[0].bold.tr_s * np.arange(len(mean)) >= SEEN_S
    r = voxel_correlation(system.encode(first[0]).data[whole], mean[whole])
    space = first[0].bold.space
    if picture is not None:
        drawn, _ = voxel_picture(space, VoxelMap("encoder-decoder: r", r, "correlation"), "encoder_correlation")
        if drawn is not None:
            picture.write_bytes(drawn.png)
    old = json.loads((RESULTS / "linear_era.json").read_text())["wen2018"]
    areas = old["encoding"]["areas"] if old["seed"] == seed else {}
    return {
        name: {"encoder": float(np.nanmedian(r[mask])), "wen2018": areas.get(name, {}).get("correlation")}
        for name, mask in space.rois.items()
    }


def moving(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores of one world with and without the movement that is read from the brain, of one fit."""
    sets = simulated_sets(folder, seed, WINDOW)
    config = EncoderDecoderConfig.build({"motion": 32} | settings)
    system = EncoderDecoder(config)
    fits = fit_all({"encoder-decoder": system}, sets, folder, seed, draws=1)
    choices = json.loads((folder / f"fit-{seed}" / "encoder-decoder" / "choices.json").read_text())
    fits["encoder-decoder, carried"] = fits.pop("encoder-decoder")
    own = copy.copy(system)
    own.motion_ = None
    named, truth = Named(own), sets.test.truth
    made = named.reconstruct(sets.test.brain)
    chance = chance_answers(named.reconstruct, sets.train.samples, truth, seed=seed, draws=1)
    fits["encoder-decoder"] = Fit(own, made, chance, named.name(own.ceiling(truth)), {})
    if sheet is not None:
        rows = np.linspace(0, len(truth) - 1, 14).astype(int)
        shown = [truth.clips, *(fit.made.clips for fit in fits.values())]
        write_sheet(sheet, [clips[rows, frame] for clips in shown for frame in (0, 5)])
    table = score_all(fits, sets, METRICS, seed=seed)
    return {"settings": config.model_dump(mode="json"), "choices": choices, "table": table.to_dict()}


def one_seed(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores of one world."""
    started = time.perf_counter()
    sets = simulated_sets(folder, seed, WINDOW)
    config = EncoderDecoderConfig.build(settings)
    systems = {
        "encoder-decoder": EncoderDecoder(config),
        "ridge-pixels": RidgePixels(RidgePixelsConfig(largest=max(config.sizes, default=config.decoder.size))),
        "mean-frame": MeanFrame(),
    }
    fits = fit_all(systems, sets, folder, seed, draws=1)
    voxels = encoding(systems["encoder-decoder"], sets, seed, sheet and sheet.with_stem(f"{sheet.stem}-cortex"))
    if sheet is not None:
        rows = np.linspace(0, len(sets.test.truth) - 1, 14).astype(int)
        shown = [sets.test.truth.clips, *(fits[name].made.clips for name in ("encoder-decoder", "ridge-pixels"))]
        write_sheet(sheet, [clips[rows, frame] for clips in shown for frame in (0, 5)])
    table = score_all(fits, sets, METRICS, seed=seed)
    own = folder / f"fit-{seed}" / "encoder-decoder"
    about = {name: json.loads((own / f"{name}.json").read_text()) for name in ("encoder", "pairs", "cycles")}
    choices = json.loads((own / "choices.json").read_text())
    return {
        "clips": len(sets.test.truth),
        "settings": config.model_dump(mode="json"),
        "choices": choices,
        "table": table.to_dict(),
        "encoding": voxels,
        "training": {name: {key: one[key] for key in ("validation", "precision")} for name, one in about.items()},
        "seconds_of_each": {name: fit.seconds for name, fit in fits.items()},
        "seconds": time.perf_counter() - started,
    }


def real_bars(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores on the real V1, with the chance rows of every system."""
    config = RunConfig(seed=seed, metrics=REAL_METRICS)
    sets = make_sets(study("szinte2024").load(), config)
    systems = {"encoder-decoder": EncoderDecoder(EncoderDecoderConfig.build(settings)), "ridge-pixels": RidgePixels()}
    seconds = {}
    for name, system in systems.items():
        started = time.perf_counter()
        system.fit(sets.train, run=RunFolder(folder / f"real-{seed}" / name, seed=seed))
        seconds[name] = time.perf_counter() - started
    made, table = evaluate_systems(systems, sets, config)
    if sheet is not None:
        rows = np.linspace(0, len(sets.test.truth) - 1, 10).astype(int)
        shown = [sets.test.truth.clips, *(made[name].clips for name in systems)]
        write_sheet(sheet, [clips[rows, 0] for clips in shown])
    return {
        "clips": len(sets.test.truth),
        "settings": settings,
        "choices": json.loads((folder / f"real-{seed}" / "encoder-decoder" / "choices.json").read_text()),
        "table": table.to_dict(),
        "difference": differences(*(made[name].clips for name in systems), sets.test.truth, seed),
        "seconds_of_each": seconds,
    }


def differences(one: np.ndarray, other: np.ndarray, truth: Samples, seed: int) -> dict[str, dict[str, float]]:
    """Return by how much one system's clips score higher than another's, with the interval over blocks."""
    found = {}
    for metric in REAL_METRICS:
        apart = values_of(metric, one, truth.clips) - values_of(metric, other, truth.clips)
        low, high = interval_of_mean(apart, truth.block, seed=seed)
        found[metric] = {"value": float(np.nanmean(apart)), "low": low, "high": high}
    return found


def main() -> None:
    parser = arguments(__doc__, RESULTS / "encoder_decoder.json")
    parser.add_argument("--real", action="store_true", help="szinte2024 instead of the simulated world")
    parser.add_argument("--motion", action="store_true", help="with and without movement that is read, nothing beside")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measure, name = (real_bars, "_szinte2024") if args.real else (moving, "_motion") if args.motion else (one_seed, "")
    if args.out == RESULTS / "encoder_decoder.json":
        args.out = RESULTS / f"encoder_decoder{name}.json"
    for seed in args.seeds:
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-{seed}") if args.sheet else None
        about = {} if args.real else {"window": WINDOW}
        keep(args.out, seed, measure(args.folder, seed, args.settings, sheet), **about)
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
