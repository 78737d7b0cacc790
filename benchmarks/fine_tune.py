"""Does masked modelling help a decoder that has little paired data? On the simulated world, at a quarter of it.

    python benchmarks/fine_tune.py --json --work WORK --out benchmarks/results/masked_fine_tune.json

A decoder is the masked encoder and a linear head on the mean of its tokens, both trained on the first quarter of the
training movie. It begins once with the weights of masked modelling (on all training runs and resting state, whose
pictures it never sees) and once at random; steps, rate and all else are the same. Targets are the principal components
of that quarter's pictures. What is scored is pairwise identification of the held-out test movie's clips. A ridge on the
same clips stands beside them.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from masked import RECOVERY, WORLD, clean, keep, make_world

from neuroreel.brain.fine_tune import FineTuneConfig, FineTunedDecoder
from neuroreel.brain.masked import MaskedBrain
from neuroreel.brain.stream import Moments, store_runs
from neuroreel.core.sets import Split
from neuroreel.core.store import read_store
from neuroreel.core.system import versions
from neuroreel.core.types import Samples
from neuroreel.fit.loop import LoopConfig
from neuroreel.fit.ridge import predict_ridge, solve_ridge_cv
from neuroreel.metrics.identification import identify_pairwise, similarity_matrix
from neuroreel.workflow import RunConfig, make_sets

SUBJECT, UNITS = "01", 48
WINDOW = {"trs": RECOVERY.trs, "frames": 2, "height": 16, "width": 16, "clip_s": 2.0}


def picture_components(train: Samples, test: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return the first components of both sides' clips (clips, units), found in the training clips."""
    assert train.clips is not None and test.clips is not None
    flat, new = (each.clips.reshape(len(each), -1).astype(np.float32) / 255 for each in (train, test))
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:UNITS]
    return (flat - flat.mean(0)) @ axes.T, (new - flat.mean(0)) @ axes.T


def first_part(samples: Samples, share: float) -> Samples:
    """Return the samples of the first blocks, which make up a share of all blocks."""
    blocks = np.unique(samples.block)
    return samples.take(np.isin(samples.block, blocks[: max(1, round(share * len(blocks)))]))


def measure(store: Path, seed: int, share: float, steps: int, tuning: FineTuneConfig) -> dict[str, Any]:
    """Return the scores of one seed by where the decoder begins, and the ridge's."""
    sets = make_sets(read_store(store), RunConfig(subject=SUBJECT, scale="none", window=WINDOW))
    train, test = first_part(sets.train.samples, share), sets.test.truth
    y, truth = picture_components(train, test)
    runs, spaces = store_runs(store, Split.build(sets.cut.split.model_dump()), prepare=clean)
    runs = [run for run in runs if run.subject == SUBJECT]
    pre = MaskedBrain(RECOVERY, seed=seed)
    loop = LoopConfig(steps=steps, batch=64, rate=2e-3, average=0.99, precision="float32", seed=seed)
    pre.fit(runs, {SUBJECT: spaces[SUBJECT]}, loop=loop, cpu=True, pool=16)
    scratch = MaskedBrain(RECOVERY, seed=seed).move(SUBJECT, spaces[SUBJECT], pre.moments(SUBJECT))
    out: dict[str, Any] = {"clips": len(train), "test_clips": len(test)}
    tuned = tuning.model_copy(update={"loop": tuning.loop.model_copy(update={"seed": seed})})
    for name, brain in (("pretrained", pre), ("scratch", scratch)):
        decoder = FineTunedDecoder(brain, SUBJECT, tuned, seed=seed).fit(train.brain, y, cpu=True)
        out[name] = identification(decoder.predict(test.brain), truth)
        out[f"{name}_loss"] = float(decoder.losses_[-20:].mean())
    scale = Moments.of([train.brain.mean(1)])
    x, new = scale.apply(train.brain.mean(1)), scale.apply(test.brain.mean(1))
    fit = solve_ridge_cv(x, y, alphas=np.geomspace(1e1, 1e5, 9), folds=4, groups=train.block)
    return out | {"ridge": identification(predict_ridge(fit, new), truth)}


def identification(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean pairwise identification; chance is 0.5."""
    return float(identify_pairwise(similarity_matrix(predicted, truth)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--work", type=Path, required=True, help="folder of the simulated studies, made if they lack")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.25, help="of the training scenes that are paired")
    parser.add_argument("--steps", type=int, default=1000, help="of masked modelling")
    parser.add_argument("--tuning-steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tuning = FineTuneConfig()
    tuning = tuning.model_copy(update={"loop": tuning.loop.model_copy(update={"steps": args.tuning_steps})})
    seeds: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for seed in args.seeds:
        start = time.process_time()
        seeds[str(seed)] = measure(make_world(args.work, seed), seed, args.share, args.steps, tuning)
        seeds[str(seed)]["cpu_seconds"] = time.process_time() - start
        print(f"seed {seed}: {seeds[str(seed)]}", file=sys.stderr, flush=True)
        values = {name: [each[name] for each in seeds.values()] for name in ("pretrained", "scratch", "ridge")}
        result = {
            "summary": {
                name: {"mean": float(np.mean(each)), "sd": float(np.std(each, ddof=1)) if len(each) > 1 else None}
                for name, each in values.items()
            },
            "chance": 0.5,
            "seeds": seeds,
            "share": args.share,
            "masked_steps": args.steps,
            "masked": RECOVERY.model_dump(mode="json"),
            "tuning": tuning.model_dump(mode="json"),
            "world": WORLD,
            "versions": versions(),
        }
        keep(result, args.out)
    print(json.dumps(result) if args.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
