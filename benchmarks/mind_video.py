"""mind-video on the simulated world: clips read from the brain, beside trivial answers and ceilings; and its ablation.

    python benchmarks/mind_video.py --folder /tmp/mind-video --seeds 0 1 2            # 40 min x 2, 8 min x 10
    python benchmarks/mind_video.py --folder /tmp/mind-video --seeds 0 --ablation     # after that, in the same folder
    python benchmarks/mind_video.py --folder /tmp/mind-video --attention              # after that too

Each seed is a world, a subject and a fit of its own, and keeps its place in the file. Categories are named from the
clips twice, by the shipped AlexNet frame by frame and by the shipped classifier of clips, so that what is scored is
what is seen. What mean-frame would answer is the chance row of the mean training clip. The ablation scores each variant
on the same test clips, without trivial answers but shuffled pairs. `--attention` says how much the encoder looks at
each region after each stage of the fit, 1 is average, beside an encoder that was fitted to shuffled pairs.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated import RESULTS, ROLES, Fit, Named, arguments, fit_all, keep, score_all, simulated_sets, write_sheet

from neuroreel.brain.interpretation import attention_maps
from neuroreel.core.attention import regions_or_networks
from neuroreel.core.scores import ScoreTable
from neuroreel.core.sets import Window
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.generate.latent import to_pixels
from neuroreel.generate.world import load_world
from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.table import evaluate
from neuroreel.simulate.categories import GROUP_OF, GROUPS
from neuroreel.systems.baselines import NearestClip, RidgeLatentsConfig
from neuroreel.systems.mind_video import MindVideo, MindVideoConfig
from neuroreel.workflow import Sets

WINDOW = {"clip_s": 2.0, "frames": 6, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
METRICS = (
    "category-accuracy",
    "two-way:clip",
    "clip-similarity",
    "identification:pairwise",
    "direction-accuracy",
    "epe:over-flow",
    "clip-consistency:all-pairs",
    "pixcorr",
    "ssim:rgb-uniform7",
)
NAMINGS = ("category by frames", "group by frames", "category by clips", "group by clips")
STAGES = ("masked", "cache", "contrastive", "telling", "tuning")
VARIANTS: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "window 1": ({"trs": 1}, ("telling",)),
    "window 2": ({"trs": 2}, ("telling",)),
    "no contrastive stage": ({"contrastive": {"against": "none"}}, ("masked", "cache", "telling")),
    "contrastive: text only": ({"contrastive": {"against": "text"}}, ("masked", "cache", "telling")),
    "contrastive: image only": ({"contrastive": {"against": "image"}}, ("masked", "cache", "telling")),
    "no prior of captions": ({"prior": None}, STAGES),
    "no adversarial guidance": ({"null": "silent"}, ("masked", "cache", "contrastive", "telling")),
    "no masked pre-training": ({"pretraining": None}, ("cache", "telling")),
    "frames without inflation": ({"inflation": "none"}, ("masked", "cache", "contrastive")),
    "motion modules": ({"inflation": "motion"}, ("masked", "cache", "contrastive")),
    "no movement read": ({"movement": None}, STAGES),
    "no picture read": ({"picture": None}, STAGES),
}
"""By name: what differs in the settings (`trs`: in the window), and which stages are those of the full model."""


class ClipNamer:
    """The shipped classifier of clips."""

    def __init__(self) -> None:
        world = load_world(parts=("video_classifier",))
        self.net, self.classes = world.video_classifier.eval(), tuple(world.classes("video_classifier")["category"])

    def name(self, made: Reconstruction) -> Reconstruction:
        """Return clips with the probabilities of their categories; what has been named without clips stays."""
        assert made.clips is not None
        n, frames = made.clips.shape[:2]
        pixels = to_pixels(np.ascontiguousarray(made.clips).reshape(-1, *made.clips.shape[2:]))
        x = pixels.unflatten(0, (n, frames)).flatten(1, 2)
        with torch.inference_mode():
            shares = torch.cat([self.net(part)["category"].softmax(1) for part in x.split(64)])
        return replace(made, probabilities=shares.double().numpy(), categories=self.classes)


def grouped(made: Reconstruction) -> Reconstruction:
    """Return a reconstruction whose categories are put together to groups."""
    assert made.probabilities is not None
    member = np.array([[GROUP_OF[name] == group for group in GROUPS] for name in made.categories], dtype=float)
    return replace(made, probabilities=made.probabilities @ member, categories=tuple(GROUPS))


def named_anew(fit: Fit, name: Callable[[Reconstruction], Reconstruction], answered: bool = False) -> Fit:
    """Return a fit whose answers are named in another way.

    Parameters
    ----------
    answered : only what a generator made is named, and not the rows that know the training set's categories.
    """
    kept = ("train-marginal", "nearest-train") if answered else ()
    chance = {row: rows if row in kept else tuple(map(name, rows)) for row, rows in fit.chance.items()}
    return replace(fit, made=name(fit.made), chance=chance, ceiling=fit.ceiling and name(fit.ceiling))


def score_names(fits: Mapping[str, Fit], truth: Samples, seed: int) -> dict[str, Any]:
    """Return the rows of category accuracy by every way of naming."""
    namer = ClipNamer()
    by_clips = {name: named_anew(fit, namer.name, answered=True) for name, fit in fits.items()}
    groups = replace(truth, category=np.array([GROUP_OF.get(name, "") for name in truth.category]))
    ways: list[tuple[Mapping[str, Fit], Samples]] = []
    for some in (fits, by_clips):
        ways += [(some, truth), ({name: named_anew(fit, grouped) for name, fit in some.items()}, groups)]
    return {
        naming: evaluate(
            {name: fit.made for name, fit in some.items()},
            true,
            variants=("category-accuracy",),
            chance={name: fit.chance for name, fit in some.items()},
            ceiling={name: fit.ceiling for name, fit in some.items()},
            seed=seed,
        ).to_dict()["rows"]
        for naming, (some, true) in zip(NAMINGS, ways, strict=True)
    }


def thinned_sets(folder: Path, seed: int, every: int) -> Sets:
    """Return the sets of a world with every so manieth test clip."""
    sets = simulated_sets(folder, seed, WINDOW)
    return replace(sets, test=sets.test.take(np.arange(0, len(sets.test.truth), every)))


def one_seed(
    folder: Path, seed: int, settings: dict[str, Any], every: int, draws: int, sheet: Path | None
) -> dict[str, Any]:
    """Return the scores of one world."""
    started = time.perf_counter()
    sets = thinned_sets(folder, seed, every)
    system = MindVideo(MindVideoConfig.build(settings))
    systems = {"mind-video": system, "nearest-clip": NearestClip(RidgeLatentsConfig(largest=24))}
    fits = fit_all(systems, sets, folder, seed, draws=draws)
    table, truth = score_all(fits, sets, METRICS, seed=seed), sets.test.truth
    names = score_names(fits, truth, seed)
    if sheet is not None:
        draw_sheet(sheet, truth, fits["mind-video"])
    return {
        "clips": len(truth),
        "table": table.to_dict(),
        "names": names,
        "stages": stages_of(folder / f"fit-{seed}" / "mind-video"),
        "seconds_of": {name: fit.seconds for name, fit in fits.items()},
        "seconds": time.perf_counter() - started,
    }


def stages_of(run: Path) -> dict[str, Any]:
    """Return what the stages of a fit came to: retrieval while training, held-out losses, the scales tried."""
    contrastive = run / "contrastive.json"
    found = json.loads((run / "video.json").read_text())
    for stage in ("telling", "tuning"):
        if found[stage]:
            found[stage].pop("losses")
    read = json.loads(contrastive.read_text()) if contrastive.is_file() else {}
    read.pop("losses", None)
    return {"contrastive": read, "video": found}


def draw_sheet(sheet: Path, truth: Samples, fit: Fit, count: int = 8) -> None:
    """Write frames of some clips, and under each what was read and what the true caption makes."""
    assert truth.clips is not None and fit.made.clips is not None
    rows = []
    for row in np.linspace(0, len(truth) - 1, count).astype(int):
        sides = [truth.clips[row], fit.made.clips[row]]
        sides += [fit.ceiling.clips[row]] if fit.ceiling is not None and fit.ceiling.clips is not None else []
        rows.append(np.concatenate(sides))
    write_sheet(sheet, rows)


def ablate(folder: Path, seed: int, settings: dict[str, Any], out: Path, every: int, only: list[str]) -> None:
    """Score the variants of one world one by one; those that are in the file already stay, whoever wrote them."""

    def known() -> dict[str, Any]:
        seeds = json.loads(out.read_text())["seeds"] if out.is_file() else {}
        return dict(seeds.get(str(seed), {}).get("rows", {}))

    sets = thinned_sets(folder, seed, every)
    about = {"settings": MindVideoConfig.build(settings).model_dump(mode="json"), "window": WINDOW}
    for name in only or ["full", *VARIANTS]:
        if name not in known():
            row = one_variant(folder, seed, settings, sets, name, every if "window" in name else 1)
            keep(out, seed, {"rows": known() | {name: row}, "every": every}, **about)


def one_variant(folder: Path, seed: int, settings: dict[str, Any], sets: Sets, name: str, every: int) -> dict[str, Any]:
    """Return the scores of a variant of the full model, whose fit it shares as far as both are the same."""
    started = time.perf_counter()
    differs, shared = VARIANTS.get(name, ({}, STAGES))
    full, own = folder / f"fit-{seed}" / "mind-video", folder / f"fit-{seed}" / name.replace(" ", "-").replace(":", "")
    for stage in shared:
        if (full / stage).is_dir() and not (own / stage).exists():
            shutil.copytree(full / stage, own / stage)
    window, more = {k: v for k, v in differs.items() if k == "trs"}, {k: v for k, v in differs.items() if k != "trs"}
    if "contrastive" in more:
        more["contrastive"] = settings.get("contrastive", {}) | more["contrastive"]
    train, test = sets.at(Window.build(sets.window.model_dump() | window)) if window else (sets.train, sets.test)
    test = test.take(np.arange(0, len(test.truth), every))
    system = MindVideo(MindVideoConfig.build(settings | more)).fit(train, run=RunFolder(own, seed=seed))
    truth = test.truth
    made = Named(system).reconstruct(test.brain)
    table: ScoreTable = evaluate(
        {"mind-video": made}, truth, variants=METRICS, embed=open_backbones(dict.fromkeys(ROLES, "world")), seed=seed
    )
    names = score_names({"mind-video": Fit(system, made, {}, None, {})}, truth, seed)
    print(f"{time.perf_counter() - started:6.0f} s  {name}", flush=True)
    return {
        "clips": len(truth),
        "scores": table.to_dict()["rows"]["mind-video"],
        "names": {naming: rows["mind-video"] for naming, rows in names.items()},
        "stages": stages_of(own),
        "seconds": time.perf_counter() - started,
    }


def looked_at(folder: Path, seed: int, settings: dict[str, Any], every: int) -> dict[str, Any]:
    """Return the attention to regions after each stage of the full model's fit, and of one to shuffled pairs."""
    started = time.perf_counter()
    sets = thinned_sets(folder, seed, every)
    full, own = folder / f"fit-{seed}" / "mind-video", folder / f"fit-{seed}" / "shuffled-pairs"
    if (full / "masked").is_dir() and not (own / "masked").exists():
        shutil.copytree(full / "masked", own / "masked")
    alone = settings | {"movement": None, "picture": None}  # neither touches the encoder
    found = []
    for log, train, how in ((full, sets.train, settings), (own, sets.train.shuffled(seed), alone)):
        system = MindVideo(MindVideoConfig.build(how)).fit(train, run=RunFolder(log, seed=seed))
        found.append(attention_maps(system, log, sets.test.brain.brain))
    maps = replace(found[0], shuffled=found[1].stages)
    regions = regions_or_networks(sets.train.samples.space.rois)
    return {
        "layers": maps.layer_names(),
        "voxels": {name: int(mask.sum()) for name, mask in regions.items()},
        "regions": maps.by_region(regions),
        "windows": len(sets.test.truth),
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = arguments(__doc__, RESULTS / "mind_video.json")
    parser.add_argument("--draws", type=int, default=2, help="brains of noise for the chance row")
    parser.add_argument("--ablation", action="store_true", help="score the variants instead")
    parser.add_argument("--attention", action="store_true", help="tell where the encoder looks instead")
    parser.add_argument("--every", type=int, default=1, help="score every so manieth test clip")
    parser.add_argument("--only", nargs="+", default=[], choices=["full", *VARIANTS], help="of the ablation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = {"settings": MindVideoConfig.build(args.settings).model_dump(mode="json"), "window": WINDOW}
    for seed in args.seeds:
        if args.ablation:
            out = args.out.with_stem(f"{args.out.stem}_ablation")
            ablate(args.folder, seed, args.settings, out, args.every, args.only)
            continue
        if args.attention:
            out = args.out.with_stem(f"{args.out.stem}_attention")
            keep(out, seed, looked_at(args.folder, seed, args.settings, args.every), **about)
            continue
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-{seed}") if args.sheet else None
        keep(args.out, seed, one_seed(args.folder, seed, args.settings, args.every, args.draws, sheet), **about)
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
