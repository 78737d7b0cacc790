"""Does unlabelled video help? encoder-decoder with and without its self-supervised phase, at shares of the paired scan.

    python benchmarks/unlabelled_video.py --folder /tmp/ed --seeds 0 1 2

Paired is the first part of the training scan; videos without fMRI are those of the whole training set, never of the
test. Without the phase, nothing of them is used, and the decoder takes as many steps on pairs as both phases take. The
interval is that of the difference of the same test clips, from a bootstrap over scenes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from simulated import RESULTS, arguments, keep, simulated_sets

from neuroreel.brain.video_encoder import VideoEncoder
from neuroreel.core.system import RunFolder
from neuroreel.metrics.inference import interval_of_mean
from neuroreel.metrics.registry import METRICS
from neuroreel.report.unlabelled_figures import Helped, unlabelled_picture
from neuroreel.systems.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Shown
from neuroreel.workflow import Sets

WINDOW = {"clip_s": 2.0, "frames": 6, "first_lag_s": 4.0, "trs": 3, "blocks": "events", "only_events": "test"}
SHARES = (0.1, 0.25, 0.5, 1.0)
SCORED = ("ssim:rgb-uniform7", "identification:pairwise", "pixcorr")


class Remembering(EncoderDecoder):
    """An encoder-decoder that looks at the videos of one world once, whatever the share that is paired."""

    def __init__(self, config: EncoderDecoderConfig, memory: dict[str, Any]) -> None:
        super().__init__(config)
        self.memory = memory

    def begin_encoder(self, shown: list[Shown], seed: int, most: int = 600) -> None:
        """Begin with the components that are known already."""
        if "trunk" not in self.memory:
            super().begin_encoder(shown, seed, most)
            self.memory["trunk"] = self.encoder_.trunk
        self.encoder_ = VideoEncoder(self.memory["trunk"], self.window_[1], self.config.encoder.delays_s)

    def with_features(self, shown: Shown, batch: int = 20) -> Shown:
        """Return what is known of a video already."""
        if shown.name not in self.memory:
            self.memory[shown.name] = super().with_features(shown, batch)
        return self.memory[shown.name]


def values_of(metric: str, made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the value of each clip."""
    one = METRICS[metric]
    parts = one.prepare(made, {}), one.prepare(truth, {})
    if one.rank is not None and one.pairs is not None:
        return np.diagonal(one.rank(one.pairs(*parts))).copy()
    return one.compare(*parts)


def one_share(
    sets: Sets, config: EncoderDecoderConfig, share: float, seed: int, folder: Path, memory: dict[str, Any]
) -> dict[str, Any]:
    """Return both scores of every metric and their difference, at a share of the paired scan."""
    assert config.cycles is not None
    train, truth = sets.train, sets.test.truth
    assert truth.clips is not None
    few = train.take(np.arange(round(share * len(train.samples))))
    alone = config.pairs.model_copy(update={"steps": config.pairs.steps + config.cycles.steps})
    both = {"without": config.model_copy(update={"cycles": None, "pairs": alone}), "with": config}
    values, seconds = {}, {}
    for name, settings in both.items():
        started = time.perf_counter()
        system = Remembering(settings, memory)
        system.fit(few, run=RunFolder(folder / f"{name}-{share:g}", seed=seed))
        made = system.reconstruct(sets.test.brain).clips
        values[name] = {metric: values_of(metric, made, truth.clips) for metric in SCORED}
        seconds[name] = time.perf_counter() - started
    found: dict[str, Any] = {}
    for metric in SCORED:
        apart = values["with"][metric] - values["without"][metric]
        low, high = interval_of_mean(apart, truth.block, seed=seed)
        means = {name: float(np.nanmean(one[metric])) for name, one in values.items()}
        found[metric] = means | {"difference": float(np.nanmean(apart)), "low": low, "high": high}
    minutes = len(few.samples) * WINDOW["clip_s"] / 60
    return {"share": share, "minutes": minutes, "clips": len(few.samples), "metrics": found, "seconds": seconds}


def draw(file: Path, picture: Path) -> None:
    """Draw what a file of results holds."""
    seeds = json.loads(file.read_text())["seeds"].values()
    worlds = {}
    for metric in SCORED[:2]:
        worlds[metric] = []
        for one in seeds:
            points = sorted(one["points"], key=lambda point: point["minutes"])
            rows = [point["metrics"][metric] for point in points]
            columns = (
                np.array([row[name] for row in rows]) for name in ("without", "with", "difference", "low", "high")
            )
            worlds[metric].append(Helped(np.array([point["minutes"] for point in points]), *columns))
    picture.write_bytes(unlabelled_picture(worlds).png)


def main() -> None:
    parser = arguments(__doc__, RESULTS / "unlabelled_video.json")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = EncoderDecoderConfig.build(args.settings)
    about = {"settings": config.model_dump(mode="json"), "window": WINDOW}
    for seed in args.seeds:
        sets = simulated_sets(args.folder, seed, WINDOW)
        folder, memory, points = args.folder / f"unlabelled-{seed}", {}, []
        for share in args.shares:
            points.append(one_share(sets, config, share, seed, folder, memory))
            print(json.dumps(points[-1], default=float), flush=True)
            keep(args.out, seed, {"points": points}, **about)
    draw(args.out, args.sheet or args.out.with_suffix(".png"))
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
