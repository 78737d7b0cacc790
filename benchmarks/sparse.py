"""Sparse regression of 1,000 units on 500 voxels each: the published loop over units against the batched solver.

    python benchmarks/sparse.py --json           # 1,200 samples, 500 voxels, 1,000 units; minutes
    python benchmarks/sparse.py --json --quick   # seconds, on a small problem

The loop is the published kind: numpy, one unit after the other, the same start, update, pruning and stopping rule in
float64, with the features that were pruned leaving its matrices. It inverts by `numpy.linalg.pinv`, as published, and
once more by `numpy.linalg.inv`, which is faster; both are timed on the first units of a random order and scaled up to
all of them, in turns with the batched solver's blocks of units so that what else the machine does weighs on all alike.
`ratio` is of seconds on the wall; `cpu_ratio` of processor seconds, which a busy machine disturbs less.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from neuroreel.core.seeds import generator
from neuroreel.core.system import versions
from neuroreel.fit.selection import Scaling, top_features
from neuroreel.fit.sparse import solve_sparse


def draw(rows: int, voxels: int, units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return z-scored voxels (rows, voxels) and units (rows, units) that share 64 sources, both with noise."""
    rng = generator(seed, "sparse benchmark")
    sources = rng.standard_normal((rows, 64)) * np.arange(1, 65) ** -0.5
    signal = sources @ (rng.standard_normal((64, voxels)) * (rng.random((64, voxels)) < 0.15))
    shared = rng.standard_normal((rows, 20)) @ rng.standard_normal((20, voxels)) / np.sqrt(20)
    x = signal / (signal.std(0) + 1e-9) * rng.gamma(1.0, 0.35, voxels)
    x += 0.8 * rng.standard_normal((rows, voxels)) + 0.4 * shared
    y = sources @ rng.standard_normal((64, units))
    y = np.maximum(y - 0.3 * y.std(0), 0)
    y += 0.7 * y.std(0) * rng.standard_normal((rows, units))
    return Scaling.of(x).apply(x), Scaling.of(y).apply(y)


def loop_unit(
    x: np.ndarray, y: np.ndarray, invert: Callable[[np.ndarray], np.ndarray], n_iter: int = 2000
) -> np.ndarray:
    """Return the weights (k,) of one unit by the published iteration."""
    gram, product, total, rows = x.T @ x, x.T @ y, y @ y, len(x)
    relevance = np.full(x.shape[1], 1 / x.var(0).mean())
    alive, weights = np.arange(x.shape[1]), np.zeros(x.shape[1])
    for i in range(n_iter):
        covariance = invert(gram + np.diag(1 / relevance))
        w = covariance @ product
        gain = np.maximum((gram * covariance).sum(0), 1e-15)
        noise = max((total - w @ product) / rows, 1e-15 * y.var())
        updated = np.sqrt(relevance * w * w / (noise * gain))
        kept = updated > 1e-10 * updated.max()
        moved = np.abs(updated - relevance).max()
        relevance, w = updated[kept], w[kept]
        if not kept.all():
            alive, product, gram = alive[kept], product[kept], gram[np.ix_(kept, kept)]
        elif i > 100 and moved < 1e-10:
            break
    weights[alive] = w
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--quick", action="store_true", help="a small problem, in seconds")
    parser.add_argument("--units", type=int, help="units in all")
    parser.add_argument("--loop-units", type=int, help="units that the loop is timed on")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="of numpy and of torch; by default as many as each takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result there too")
    args = parser.parse_args()
    if args.threads:
        threadpool_limits(args.threads)
        torch.set_num_threads(args.threads)
    rows, voxels, k = (200, 120, 30) if args.quick else (1200, 4000, 500)
    units = args.units or (12 if args.quick else 1000)
    timed = min(units, args.loop_units or (2 if args.quick else 12))

    x, y = draw(rows, voxels, units, args.seed)
    start = time.perf_counter()
    chosen = top_features(x, y, k)
    choosing = time.perf_counter() - start
    order = generator(args.seed, "order").permutation(units)
    ways = {"pinv": np.linalg.pinv, "inv": np.linalg.inv}
    spent, busy = ({"ours": 0.0, "pinv": 0.0, "inv": 0.0} for _ in range(2))
    found = {name: np.zeros((timed, k + 1)) for name in ways}
    ours, solved = np.zeros((units, k + 1)), np.zeros(units)
    for number, block in enumerate(np.array_split(order, timed)):
        start, worked = time.perf_counter(), time.process_time()
        fit = solve_sparse(x, y[:, block], chosen=chosen[block], device=args.device)
        spent["ours"] += time.perf_counter() - start
        busy["ours"] += time.process_time() - worked
        ours[block], solved[block] = np.c_[fit.coef, fit.bias], fit.solved
        unit = block[0]
        columns = np.c_[x[:, chosen[unit]], np.ones(rows)]
        for name, invert in ways.items():
            start, worked = time.perf_counter(), time.process_time()
            found[name][number] = loop_unit(columns, y[:, unit], invert)
            spent[name] += time.perf_counter() - start
            busy[name] += time.process_time() - worked
    firsts = [block[0] for block in np.array_split(order, timed)]
    seconds, work = ({name: clock[name] / timed * units for name in ways} for clock in (spent, busy))
    result = {
        "samples": rows,
        "voxels_per_unit": k,
        "units": units,
        "loop_units_timed": timed,
        "ours_s": round(spent["ours"], 2),
        "loop_s": round(seconds["pinv"], 1),
        "loop_by_inv_s": round(seconds["inv"], 1),
        "ratio": round(seconds["pinv"] / spent["ours"], 2),
        "ratio_to_loop_by_inv": round(seconds["inv"] / spent["ours"], 2),
        "ours_cpu_s": round(busy["ours"], 2),
        "cpu_ratio": round(work["pinv"] / busy["ours"], 2),
        "cpu_ratio_to_loop_by_inv": round(work["inv"] / busy["ours"], 2),
        "weights_max_abs_diff": float(np.abs(ours[firsts] - found["pinv"]).max()),
        "weights_max_abs_diff_of_the_two_loops": float(np.abs(found["inv"] - found["pinv"]).max()),
        "largest_weight": float(np.abs(found["pinv"]).max()),
        "systems_solved_per_unit": round(float(solved.mean()), 1),
        "voxel_choice_s": round(choosing, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "threads": torch.get_num_threads(),
        "device": args.device,
        "seed": args.seed,
        "versions": versions(),
        "command": " ".join(["python", "benchmarks/sparse.py", *sys.argv[1:]]),
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
