"""mind-vis on the simulated world: pictures read from the brain, beside ridge-latents, chance rows and ceilings.

    python benchmarks/mind_vis.py --folder /tmp/mind-vis --seeds 0 1 2     # 40 min x 2, 8 min x 10; 20 min a seed

Each seed is a world, a subject and a fit of its own, and keeps its place in the file. Categories are named from the
pictures by the shipped AlexNet, so that what is scored is what is seen.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_era import provenance
from PIL import Image

from neuroreel.core.files import write_text
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.datasets.bids import bids_study
from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.chance import chance_answers
from neuroreel.metrics.consistency import generation_consistency
from neuroreel.metrics.table import evaluate
from neuroreel.nets.world import alexnet_card, load_alexnet
from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment
from neuroreel.systems.baselines import RidgeLatents
from neuroreel.systems.mind_vis import MindVis, MindVisConfig
from neuroreel.workflow import RunConfig, make_sets

RESULTS = Path(__file__).parent / "results" / "mind_vis.json"
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


class Named:
    """A system whose pictures are also named, by a network that knows the world's categories."""

    def __init__(self, system: Any) -> None:
        self.system, self.net = system, load_alexnet().eval()
        self.classes = tuple(alexnet_card()["classes"])

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the system's pictures with the probabilities of the network's categories."""
        return self.name(self.system.reconstruct(bold))

    def name(self, made: Reconstruction) -> Reconstruction:
        """Return pictures (n, 1, h, w, 3) with the probabilities of their categories."""
        assert made.clips is not None
        with torch.inference_mode():
            parts = torch.from_numpy(made.clips[:, 0].copy()).split(256)
            logits = torch.cat([self.net(self.net.pixels(part)) for part in parts])
        return Reconstruction(made.clips, logits.softmax(1).double().numpy(), self.classes)


def one_seed(folder: Path, seed: int, settings: dict[str, Any], sheet: Path | None) -> dict[str, Any]:
    """Return the scores of one world."""
    started = time.perf_counter()
    experiment = simulate_experiment(folder / f"experiment-{seed}", ExperimentConfig(seed=seed))
    sets = make_sets(bids_study(experiment).load(), RunConfig(window=WINDOW, seed=seed))
    truth, train = sets.test.truth, sets.train.samples
    fits: dict[str, Any] = {
        "mind-vis": MindVis(MindVisConfig.build(settings)),
        "ridge-latents": RidgeLatents(),
    }
    made, chance, ceiling, seconds = {}, {}, {}, {}
    for name, system in fits.items():
        at = time.perf_counter()
        system.fit(sets.train, run=RunFolder(folder / f"fit-{seed}" / name, seed=seed))
        seconds[name] = time.perf_counter() - at
        named = Named(system)
        made[name] = named.reconstruct(sets.test.brain)
        chance[name] = chance_answers(named.reconstruct, train, truth, seed=seed, draws=2)
        ceiling[name] = named.name(system.ceiling(truth))
        print(f"{time.perf_counter() - started:6.0f} s  {name} of seed {seed}", flush=True)
    roles = dict.fromkeys(("image-text", "alexnet2", "alexnet5"), "world")
    embed = open_backbones(roles)
    table = evaluate(made, truth, variants=METRICS, chance=chance, ceiling=ceiling, embed=embed, seed=seed)
    system = fits["mind-vis"]
    first = np.unique(truth.block, return_index=True)[1][:TRIALS]
    trials = sets.test.brain.take(first)
    several = system.samples(trials, SAMPLES)
    seen = np.stack([embed["image-text"](several[:, k : k + 1]) for k in range(SAMPLES)], 1)
    alike = generation_consistency(
        seen.reshape(len(first), SAMPLES, -1), trials.brain.mean(1), truth.block[first], seed=seed
    )
    tuning = json.loads((folder / f"fit-{seed}" / "mind-vis" / "tuning.json").read_text())
    if sheet is not None:
        rows = first[:12]
        parts = [truth.clips[rows, 0], *several[:12].transpose(1, 0, 2, 3, 4), made["ridge-latents"].clips[rows, 0]]
        grid = np.concatenate([np.concatenate(list(part), 1) for part in parts])
        Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), Image.Resampling.NEAREST).save(sheet)
    return {
        "clips": len(truth),
        "table": table.to_dict(),
        "consistency": vars(alike),
        "tuning": {key: tuning[key] for key in ("ridge_r2", "validation", "validation_of_average", "precision")},
        "fit_seconds": seconds,
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where experiments and fits are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", type=json.loads, default={}, help="of MindVisConfig, as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="a PNG for each seed: truth, samples, ridge-latents")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        sheet = args.sheet.with_stem(f"{args.sheet.stem}-{seed}") if args.sheet else None
        found = one_seed(args.folder, seed, args.settings, sheet)
        kept = json.loads(args.out.read_text()) if args.out.is_file() else {"seeds": {}}
        kept["settings"] = MindVisConfig.build(args.settings).model_dump(mode="json")
        kept["window"] = WINDOW
        kept["seeds"][str(seed)] = found | provenance(seed)
        write_text(args.out, json.dumps(kept, indent=2, default=float) + "\n")
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
