"""The ridge engine beside himalaya and scikit-learn: same data, same alphas, same folds.

Every candidate runs in a process of its own, which loads the data, does a small fit to warm up, then one timed fit.
All are run once; then neuroreel and the two fastest of himalaya's are run in turn `--repeats` times, and of each
one the minimum counts, so that what else the machine does weighs little; its load before and after is in the result.
With `--threads 1` the seconds of CPU (`cpu_ratio`) hold on a busy machine too; with more threads they count the
waiting in a loop. Peak memory is what the process's maximum resident size (`getrusage`) grows by during the fit: it
comes on top of the inputs.

The variables OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE force OpenBLAS to kernels and blocks that are not this machine's
own; the processes of all candidates run without them. Which kernels were used is in the result.

    python benchmarks/ridge.py --json                  # n=3000, p=2000, v=5000, 15 alphas, 9 folds, float32
    python benchmarks/ridge.py --quick --json          # seconds, to see that it works
    python benchmarks/ridge.py --large --json          # 59,412 voxels x 4,320 TRs x 2,000 features from disk

`--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LIBRARIES = ("neuroreel", "himalaya", "scikit-learn", "numpy", "scipy", "torch")
SIZE = {"n": 3000, "p": 2000, "v": 5000, "alphas": 15, "folds": 9}
QUICK = {"n": 300, "p": 100, "v": 200, "alphas": 6, "folds": 3}
LARGE = {"n": 4320, "p": 2000, "v": 59412, "alphas": 15, "folds": 9}

Answer = tuple[np.ndarray, np.ndarray]  # alphas (targets,), coefficients (features, targets)
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, list], Callable[[], Answer]]


def make_alphas(count: int) -> np.ndarray:
    return np.logspace(0, 5, count)


def make_folds(n: int, n_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from neuroreel.fit.folds import assign_folds, iterate_folds

    return list(iterate_folds(assign_folds(n, n_folds)))


def make_data(folder: Path, n: int, p: int, v: int) -> None:
    """Write features with a falling spectrum, correlated in time, and targets of unlike noise, in blocks."""
    from neuroreel.core.seeds import generator

    rng = generator(0, "benchmark-ridge")
    x = rng.standard_normal((n, p), dtype=np.float32)
    x[1:] += 0.5 * x[:-1]
    x *= np.arange(1, p + 1, dtype=np.float32) ** -0.25
    x -= x.mean(0)
    np.save(folder / "x.npy", x)
    y: Any = np.lib.format.open_memmap(folder / "y.npy", mode="w+", dtype=np.float32, shape=(n, v))
    share = np.linspace(0, 0.6, v, dtype=np.float32)  # of the variance that the features explain
    for start in range(0, v, 4096):
        part = share[start : start + 4096]
        signal = x @ rng.standard_normal((p, len(part)), dtype=np.float32)
        signal *= np.sqrt(part) / signal.std(0)
        signal += np.sqrt(1 - part) * rng.standard_normal(signal.shape, dtype=np.float32)
        y[:, start : start + 4096] = signal - signal.mean(0)
    y.flush()


# ---------------------------------------------------------------------------------------------------------------------
# The candidates: each returns what gives the answer, outside the time


def fit_neuroreel(x: np.ndarray, y: np.ndarray, alphas: np.ndarray, folds: list) -> Callable[[], Answer]:
    from neuroreel.fit.ridge import solve_ridge_cv

    labels = np.empty(len(x), dtype=int)
    for fold, (_, held) in enumerate(folds):
        labels[held] = fold
    fit = solve_ridge_cv(x, y, alphas=alphas, folds=labels)
    return lambda: (fit.alpha, np.asarray(fit.coef))


def fit_scikit_learn(x: np.ndarray, y: np.ndarray, alphas: np.ndarray, folds: list) -> Callable[[], Answer]:
    """Fit one `Ridge` a fold and an alpha, then one an alpha that was chosen."""
    from sklearn.linear_model import Ridge

    scores = np.zeros((len(alphas), y.shape[1]))
    for train, held in folds:
        x_train, y_train = x[train], y[train]
        for index, alpha in enumerate(alphas):
            model = Ridge(alpha=alpha, copy_X=True).fit(x_train, y_train)
            scores[index] -= ((y[held] - model.predict(x[held])) ** 2).mean(0)
    best = scores.argmax(0)
    coef = np.empty((x.shape[1], y.shape[1]), dtype=x.dtype)
    for index in np.unique(best):
        chosen = best == index
        coef[:, chosen] = np.atleast_2d(Ridge(alpha=alphas[index]).fit(x, y[:, chosen]).coef_).T
    return lambda: (alphas[best], coef)


def fit_himalaya(kind: str, backend: str, batch: int | None) -> Fit:
    """Return a fit by himalaya: kind "ridge" or "kernel", all targets at once or in batches."""

    def fit(x: np.ndarray, y: np.ndarray, alphas: np.ndarray, folds: list) -> Callable[[], Answer]:
        from himalaya.backend import set_backend
        from himalaya.kernel_ridge import KernelRidgeCV
        from himalaya.ridge import RidgeCV

        numbers = set_backend(backend)
        settings: dict[str, Any] = {"n_targets_batch": batch}
        if kind == "ridge":
            settings["warn"] = False
            model = RidgeCV(alphas=alphas, fit_intercept=True, cv=folds, solver_params=settings).fit(x, y)
            return lambda: (numbers.to_numpy(model.best_alphas_), numbers.to_numpy(model.coef_))
        model = KernelRidgeCV(alphas=alphas, fit_intercept=True, cv=folds, solver_params=settings, warn=False).fit(x, y)
        return lambda: (numbers.to_numpy(model.best_alphas_), numbers.to_numpy(model.get_primal_coef()))

    return fit


CANDIDATES: dict[str, Fit] = {
    "neuroreel": fit_neuroreel,
    "himalaya-kernel-torch": fit_himalaya("kernel", "torch", None),
    "himalaya-kernel-torch-batch-1000": fit_himalaya("kernel", "torch", 1000),
    "himalaya-kernel-numpy": fit_himalaya("kernel", "numpy", None),
    "himalaya-kernel-numpy-batch-1000": fit_himalaya("kernel", "numpy", 1000),
    "himalaya-ridge-torch": fit_himalaya("ridge", "torch", None),
    "himalaya-ridge-torch-batch-1000": fit_himalaya("ridge", "torch", 1000),
    "himalaya-ridge-numpy": fit_himalaya("ridge", "numpy", None),
    "himalaya-ridge-numpy-batch-1000": fit_himalaya("ridge", "numpy", 1000),
    "scikit-learn": fit_scikit_learn,
}


# ---------------------------------------------------------------------------------------------------------------------
# One candidate in a process of its own


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def kernels() -> list[str]:
    from threadpoolctl import threadpool_info

    return sorted({f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in threadpool_info()})


def warm_up(fit: Fit, alphas: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((90, 60), dtype=np.float32), rng.standard_normal((90, 9), dtype=np.float32)
    fit(x, y, alphas, make_folds(90, 3))()


def run_worker(name: str, folder: Path, size: dict[str, int]) -> dict[str, Any]:
    alphas = make_alphas(size["alphas"])
    folds = make_folds(size["n"], size["folds"])
    fit = CANDIDATES[name]
    warm_up(fit, alphas)
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    before = peak_gb()
    start, start_cpu = time.perf_counter(), time.process_time()
    answer = fit(x, y, alphas, folds)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak = peak_gb() - before
    chosen, coef = answer()
    np.savez(folder / f"{name}.npz", alpha=chosen, coef=coef)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak, "kernels": kernels()}


def run_large_worker(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """Fit from a memory map into a memory map; the peak counts what of both maps is resident too."""
    from neuroreel.fit.ridge import solve_ridge_cv

    alphas = make_alphas(size["alphas"])
    warm_up(fit_neuroreel, alphas)
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy", mmap_mode="r")
    shape = (x.shape[1], y.shape[1])
    out: Any = np.lib.format.open_memmap(folder / "coef.npy", mode="w+", dtype=np.float32, shape=shape)
    before = peak_gb()
    start = time.perf_counter()
    fit = solve_ridge_cv(x, y, alphas=alphas, folds=size["folds"], out=out)
    out.flush()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "peak_gb": peak_gb() - before,
        "inputs_gb": (x.nbytes + y.nbytes) / 2**30,
        "output_gb": out.nbytes / 2**30,
        "precision": fit.precision,
        "kernels": kernels(),
    }


def spawn(task: str, folder: Path, size: dict[str, int], threads: int) -> dict[str, Any]:
    """Run a task of this script in a process without the variables that force OpenBLAS, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment |= dict.fromkeys(THREADS, str(threads))
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    for name, value in size.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{task} failed with exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(task: str, folder: Path, size: dict[str, int]) -> dict[str, Any]:
    if task == "data":
        make_data(folder, size["n"], size["p"], size["v"])
        return {}
    if task == "large":
        return run_large_worker(folder, size)
    return run_worker(task, folder, size)


# ---------------------------------------------------------------------------------------------------------------------
# All of them side by side


def compare(folder: Path, name: str, alphas: np.ndarray) -> dict[str, float]:
    """Return the share of targets with the same alpha, and how far their coefficients are apart.

    The largest difference of a target's coefficients is divided by the largest of them.
    """
    with np.load(folder / "neuroreel.npz") as ours, np.load(folder / f"{name}.npz") as theirs:
        place = [np.abs(np.log(np.outer(1 / alphas, answer["alpha"]))).argmin(0) for answer in (ours, theirs)]
        same = place[0] == place[1]
        a, b = ours["coef"][:, same], theirs["coef"][:, same]
        far = np.abs(a - b).max(0) / np.abs(b).max(0)
    return {"same_alphas": float(same.mean()), "coef_max_rel": float(far.max()) if same.any() else float("nan")}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_all(folder: Path, size: dict[str, int], threads: int, repeats: int, skip: set[str]) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {}
    cpu_seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    used: set[str] = set()

    def run(name: str) -> None:
        found = spawn(name, folder, size, threads)
        seconds.setdefault(name, []).append(round(found["seconds"], 3))
        cpu_seconds.setdefault(name, []).append(round(found["cpu_seconds"], 3))
        peaks[name] = max(peaks.get(name, 0.0), found["peak_gb"])
        used.update(found["kernels"])
        say(f"{name:36s} {found['seconds']:8.2f} s  {found['cpu_seconds']:8.2f} s of CPU  {found['peak_gb']:6.2f} GB")

    names = [name for name in CANDIDATES if name not in skip]
    for name in names:
        run(name)
    theirs = [name for name in names if name.startswith("himalaya")]
    finalists = sorted(theirs, key=lambda name: min(seconds[name]))[:2]
    for _ in range(repeats):
        for name in ("neuroreel", *finalists):
            run(name)
    best = min(finalists, key=lambda name: min(seconds[name]))
    agreement = {name: compare(folder, name, make_alphas(size["alphas"])) for name in names if name != "neuroreel"}
    return {
        "ratio": min(seconds[best]) / min(seconds["neuroreel"]),
        "same_alphas": agreement[best]["same_alphas"],
        "coef_max_rel": agreement[best]["coef_max_rel"],
        "peak_gb": peaks["neuroreel"],
        "best_of_himalaya": best,
        "seconds": {name: min(values) for name, values in seconds.items()},
        "all_seconds": seconds,
        "all_cpu_seconds": cpu_seconds,
        "cpu_ratio": min(cpu_seconds[best]) / min(cpu_seconds["neuroreel"]),
        "peaks_gb": peaks,
        "agreement": agreement,
        "kernels": sorted(used),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in SIZE:
        parser.add_argument(f"--{name}", type=int, help=f"default {SIZE[name]}, with --large {LARGE[name]}")
    parser.add_argument("--quick", action="store_true", help="a small size, to see that it works")
    parser.add_argument("--large", action="store_true", help="whole-cortex size from disk, neuroreel alone")
    parser.add_argument("--repeats", type=int, default=1, help="further runs of neuroreel and himalaya's two best")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip", nargs="*", default=[], choices=[*CANDIDATES][1:], metavar="CANDIDATE")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--save", type=Path, help="merge the result into this JSON file")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    size = dict(LARGE if options.large else QUICK if options.quick else SIZE)
    size |= {name: getattr(options, name) for name in SIZE if getattr(options, name) is not None}
    if options.task:
        print(json.dumps(run_task(options.task, options.folder, size)))
        return
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        spawn("data", Path(folder), size, options.threads)
        if options.large:
            result = spawn("large", Path(folder), size, options.threads)
            say(f"{result['seconds']:.1f} s, {result['peak_gb']:.2f} GB")
        else:
            result = run_all(Path(folder), size, options.threads, options.repeats, set(options.skip))
            say(f"{result['ratio']:.2f} times as fast as {result['best_of_himalaya']}")
    load.append(os.getloadavg()[0])
    result |= {"load_before_and_after": load, "cores": os.cpu_count()}
    result |= {"size": size, "dtype": "float32", "threads": options.threads, "versions": versions()}
    if options.save:
        saved = json.loads(options.save.read_text()) if options.save.exists() else {}
        saved["large" if options.large else "default"] = result
        options.save.write_text(json.dumps(saved, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
