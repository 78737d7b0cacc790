"""Windows of brain activity of many runs and subjects, read a few runs at a time: what masked modelling trains on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuroreel.core import checks
from neuroreel.core.clock import to_samples
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Split
from neuroreel.core.store import read_store, store_table
from neuroreel.core.types import Run, Space
from neuroreel.fit.loop import Batch


@dataclass(frozen=True)
class StreamRun:
    """One run that is read when it is needed.

    Attributes
    ----------
    subject, run : names.
    trs : number of volumes.
    read : function that returns the BOLD, (trs, voxels) float32.
    """

    subject: str
    run: str
    trs: int
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every voxel over the training runs, (voxels,); a constant voxel has 1."""

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, runs: Iterable[np.ndarray]) -> Moments:
        """Return the moments over runs (trs, voxels), one run in memory at a time."""
        count, mean, square = 0, np.zeros(0), np.zeros(0)
        for data in runs:
            own, n = data.mean(0, dtype=np.float64), len(data)
            own_square = ((data - own) ** 2).sum(0, dtype=np.float64)
            if count == 0:
                mean, square, count = own, own_square, n
                continue
            apart = own - mean  # Chan, Golub & LeVeque 1983: two parts' moments put together
            mean = mean + apart * n / (count + n)
            square = square + own_square + apart**2 * count * n / (count + n)
            count += n
        checks.require(count > 1, "volumes to scale by", "must be 2 or more", count)
        sd = np.sqrt(square / count)
        return cls(mean.astype(np.float32), np.where(sd > 1e-6 * np.abs(mean) + 1e-12, sd, 1.0).astype(np.float32))

    def apply(self, brain: np.ndarray) -> np.ndarray:
        """Return (..., voxels) z-scored, float32."""
        checks.same_length("voxels", brain.shape[-1], "those of the weights", len(self.mean))
        return np.asarray((brain - self.mean) / self.sd, dtype=np.float32)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Return (..., voxels) in the units they had, float32."""
        return np.asarray(scaled * self.sd + self.mean, dtype=np.float32)


def components(
    runs: Sequence[StreamRun], moments: Moments, count: int, *, seed: int = 0, rounds: int = 6
) -> np.ndarray:
    """Return the first principal components of z-scored runs, (voxels, count) of unit length, the largest first."""
    count = min(count, sum(run.trs for run in runs))

    def parts() -> Iterator[np.ndarray]:
        return (moments.apply(run.read()) for run in runs)

    return principal_axes(parts, len(moments.mean), count, seed=seed, rounds=rounds)[0]


def principal_axes(
    parts: Callable[[], Iterable[np.ndarray]], width: int, count: int, *, seed: int = 0, rounds: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first principal axes of rows about 0, (width, count) of unit length, and the variance along each.

    By subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4), with one part in memory at a time.

    Parameters
    ----------
    parts : gives the rows in parts (rows, width), the same ones each time it is called.
    """
    count = min(count, width)
    start = generator(seed, "components").standard_normal((width, min(count + 8, width))).astype(np.float32)
    basis, values, rows = np.linalg.qr(start)[0], np.zeros(0), 0
    for _ in range(rounds):
        product, rows = np.zeros_like(basis), 0
        for data in parts():
            product += data.T @ (data @ basis)
            rows += len(data)
        basis, values, _ = np.linalg.svd(product, full_matrices=False)
    return np.asarray(basis[:, :count], dtype=np.float32), values[:count] / rows


def memory_runs(runs: Sequence[Run]) -> tuple[list[StreamRun], dict[str, Space]]:
    """Return runs in memory as runs of a stream, and the space of each subject."""
    spaces = {run.bold.subject: run.bold.space for run in runs}
    found = [
        StreamRun(run.bold.subject, run.bold.run, run.bold.n_trs, lambda data=run.bold.data: data)  # type: ignore[misc]
        for run in runs
    ]
    return found, spaces


def store_runs(
    path: str | Path, split: Split | None, *, prepare: Callable[[Run], Run] | None = None, average_s: float = 0.0
) -> tuple[list[StreamRun], dict[str, Space]]:
    """Return the runs of a store as runs of a stream, and the space of each subject; BOLD is read run by run.

    Parameters
    ----------
    split : runs that it tests, in whole or in part, are left out, so that no test data is trained on. Runs that it
        doesn't name (resting state) are taken. None where nothing is tested.
    prepare : what is done to each run when it is read, as detrending; it must not change the number of volumes.
    average_s : volumes are averaged in whole numbers of them that last about so long; 0 for none. MinD-Vis was
        pre-trained on means of ten volumes of 0.72 s (Chen et al. 2023, section 4.1), which are 7.2 s.

    Raises
    ------
    DataError : all runs are tested.
    """
    table, _ = store_table(path)
    tested = {part.run for part in split.test} if split is not None else set()
    kept = [row for row in table if row["run"] not in tested]
    rule = f"must be 1 or more beside those that {split.name if split is not None else 'no split'} tests"
    checks.require(len(kept) > 0, "runs to train on", rule, 0, path)
    together = {(row["subject"], row["run"]): max(1, to_samples(average_s, row["tr_s"])) for row in kept}

    def reader(subject: str, name: str) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            run = read_store(path, subjects=[subject], runs=[name]).recordings[0].runs[0]
            data = (run if prepare is None else prepare(run)).bold.data
            return average_volumes(data, together[subject, name])

        return read

    spaces = {}
    for row in kept:
        if row["subject"] not in spaces:
            spaces[row["subject"]] = read_store(path, subjects=[row["subject"]], runs=[row["run"]]).recordings[0].space
    runs = [
        StreamRun(subject, name, row["trs"] // together[subject, name], reader(subject, name))
        for row in kept
        for subject, name in [(row["subject"], row["run"])]
    ]
    return runs, spaces


def average_volumes(data: np.ndarray, together: int) -> np.ndarray:
    """Return the means of so many volumes each of data (trs, voxels); what is left over at the end is dropped."""
    if together == 1:
        return data
    groups = len(data) // together
    return np.asarray(data[: groups * together].reshape(groups, together, -1).mean(1))


class WindowStream:
    """All windows of `trs` volumes of some runs, z-scored by their subject's moments, with masks drawn for them.

    A batch has windows of one subject. A pass goes over groups of runs, `pool` of each of `together` subjects, in an
    order drawn anew, and over the windows of a group in an order drawn anew; so no more runs are held at a time.
    It keeps the protocol `neuroreel.fit.loop.Source`.

    Parameters
    ----------
    runs : where the BOLD comes from.
    moments : by subject.
    patches : number of patches by subject; visible : of them, by subject.
    held_out : share of the volumes of every run, the last ones, that is left out; `held` returns them.
    """

    def __init__(
        self,
        runs: Sequence[StreamRun],
        moments: Mapping[str, Moments],
        patches: Mapping[str, int],
        visible: Mapping[str, int],
        *,
        trs: int = 1,
        pool: int = 8,
        together: int = 4,
        held_out: float = 0.0,
    ) -> None:
        self.runs = [run for run in runs if run.trs >= trs]
        checks.require(len(self.runs) > 0, "runs", f"must hold 1 of {trs} volumes or more", 0)
        self.moments, self.patches, self.visible = moments, patches, visible
        self.trs, self.pool, self.together = trs, pool, together
        left = [round(held_out * run.trs) for run in self.runs]
        self.left = [each if trs <= each <= run.trs - trs else 0 for each, run in zip(left, self.runs, strict=True)]
        counts = [run.trs - each - trs + 1 for each, run in zip(self.left, self.runs, strict=True)]
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return int(self.first[-1])

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the batches of one pass over all windows; a group's windows that fill no batch wait for another."""
        pools: dict[str, list[np.ndarray]] = {}
        for subject in dict.fromkeys(run.subject for run in self.runs):
            order = rng.permutation([number for number, run in enumerate(self.runs) if run.subject == subject])
            pools[subject] = [order[start : start + self.pool] for start in range(0, len(order), self.pool)]
        queue = [(subject, pool) for subject, own in pools.items() for pool in own]
        queue = [queue[number] for number in rng.permutation(len(queue))]
        out: list[np.ndarray] = []
        for start in range(0, len(queue), self.together):
            group: list[np.ndarray] = []
            for _, pool in queue[start : start + self.together]:
                rows = rng.permutation(np.concatenate([np.arange(*self.first[n : n + 2]) for n in pool]))
                group += [rows[k : k + batch] for k in range(0, len(rows) - batch + 1, batch)]
            out += [group[number] for number in rng.permutation(len(group))]
        most = max(sum(self.first[n + 1] - self.first[n] for n in pool) for _, pool in queue)
        checks.require(len(out) > 0, "batch", f"must be no more than the windows of a group of runs ({most})", batch)
        return out

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return windows (rows, trs, voxels), the key of their ends, and visible and masked patches drawn by seed."""
        numbers = np.searchsorted(self.first, rows, side="right") - 1
        subject = self.runs[numbers[0]].subject
        starts = rows - self.first[numbers]
        brain = np.stack([self._data(n)[at : at + self.trs] for n, at in zip(numbers, starts, strict=True)])
        visible, masked = draw_masks(seeds, self.patches[subject], self.visible[subject])
        return {"brain": torch.from_numpy(brain), "key": key_of(subject), "visible": visible, "masked": masked}

    def held(self, subject: str, most: int = 512) -> np.ndarray:
        """Return up to so many windows (n, trs, voxels) of a subject's volumes that were left out, z-scored."""
        found = []
        for number, run in enumerate(self.runs):
            if run.subject == subject and self.left[number]:
                data = self._data(number)[-self.left[number] :]
                found += [data[at : at + self.trs] for at in range(0, len(data) - self.trs + 1, self.trs)]
        windows = np.stack(found) if found else np.zeros((0, self.trs, len(self.moments[subject].mean)))
        return np.asarray(windows[:: max(1, -(-len(windows) // most))], dtype=np.float32)

    def _data(self, number: int) -> np.ndarray:
        """Return a run's z-scored BOLD, from memory if it was read of late."""
        number = int(number)
        if number not in self._held:
            run = self.runs[number]
            self._held[number] = self.moments[run.subject].apply(checks.finite(f"bold of {run.run}", run.read()))
            while len(self._held) > self.pool * self.together:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]


def draw_masks(seeds: np.ndarray, patches: int, visible: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the visible and the masked patches of each sample, (samples, n) each in order, from its seed alone."""
    order = np.stack([np.random.default_rng(int(seed)).permutation(patches) for seed in seeds])
    return torch.from_numpy(np.sort(order[:, :visible], 1)), torch.from_numpy(np.sort(order[:, visible:], 1))


def key_of(subject: str) -> str:
    """Return a subject's name as the key of a part of a network, which can't hold a dot."""
    return "subject " + subject.replace("%", "%25").replace(".", "%2E")
