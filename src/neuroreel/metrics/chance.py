"""The trivial answers that every system has to beat: what it says without a brain, or without looking at it.

Nothing here knows a system: a fitted one is handed in as a function from brain windows to a reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from neuroreel.core.checks import require
from neuroreel.core.seeds import generator
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.metrics.embedded import one_hot


def chance_answers(
    reconstruct: Callable[[Samples], Reconstruction], train: Samples, test: Samples, *, seed: int, draws: int = 5
) -> dict[str, tuple[Reconstruction, ...]]:
    """Return the trivial answers to a test set by chance row.

    Parameters
    ----------
    reconstruct : a fitted system: brain windows without their truth -> reconstruction.
    train, test : what it was fitted on and what it is tested on. Of `test`, only the brain is looked at.
    seed : seed of the noise.
    draws : how many brains of noise are answered; a score's chance is the mean over them.

    Returns
    -------
    dict of one answer or more by row: `mean-brain` and `noise` (what the system makes of them), `train-marginal` and
    `nearest-train`. The last two hold what the system makes: clips where the training set has them, probabilities over
    the same categories.
    """
    blind = reconstruct(mean_brain(train, test))
    wanted = (blind.clips is not None, blind.categories)
    return {
        "mean-brain": (blind,),
        "noise": tuple(reconstruct(brain) for brain in noise_brains(train, test, seed=seed, draws=draws)),
        "train-marginal": (train_marginal(train, len(test), *wanted),),
        "nearest-train": (nearest_train(train, test, *wanted),),
    }


def mean_brain(train: Samples, test: Samples) -> Samples:
    """Return the sealed test samples with every brain window replaced by the mean of the training windows."""
    mean = _window_mean(train)
    _same_windows(train, test)
    return replace(test.sealed(), brain=np.broadcast_to(mean.astype(test.brain.dtype), test.brain.shape))


def noise_brains(train: Samples, test: Samples, *, seed: int, draws: int) -> Iterator[Samples]:
    """Yield the sealed test samples with noise for a brain, another one for every draw.

    Gaussian, independent, with the mean and the standard deviation that each voxel has at each lag in training. The
    noise of a test set is the same whatever else the seed is used for.
    """
    _same_windows(train, test)
    mean = _window_mean(train).astype(np.float32)
    spread = train.brain.std(axis=0, dtype=np.float64).astype(np.float32)
    for draw in range(draws):
        rng = generator(seed, "noise-brain", draw)
        noise = rng.standard_normal(test.brain.shape, dtype=np.float32)
        noise *= spread
        noise += mean
        yield replace(test.sealed(), brain=noise.astype(test.brain.dtype, copy=False))


def train_marginal(train: Samples, n: int, clips: bool = True, categories: tuple[str, ...] = ()) -> Reconstruction:
    """Return the mean training clip and the frequencies of the training categories, n times.

    Parameters
    ----------
    train : training samples.
    n : number of test clips.
    clips : False leaves the clips out.
    categories : columns of the probabilities; none are given if empty.
    """
    mean = None
    if clips and train.clips is not None:
        total = np.zeros(train.clips.shape[1:])
        for clip in train.clips:
            total += clip
        one = np.round(total / len(train)).astype(np.uint8)
        mean = np.broadcast_to(one, (n, *one.shape))
    probabilities = None
    if categories:
        counts = np.array([np.count_nonzero(train.category == name) for name in categories], dtype=np.float64)
        counts = counts if counts.sum() else np.ones(len(categories))
        probabilities = np.tile(counts / counts.sum(), (n, 1))
    return Reconstruction(clips=mean, probabilities=probabilities, categories=categories)


def nearest_train(
    train: Samples, test: Samples, clips: bool = True, categories: tuple[str, ...] = ()
) -> Reconstruction:
    """Return, for each test clip, the training clip nearest in time: what the clock alone gives away.

    Nearest in the same run where it has training clips, else at the nearest time into any run. No brain is looked at:
    the training clip whose brain is nearest is a decoder, and stands in tables as the system `nearest-clip`.

    Parameters
    ----------
    train, test : samples; only runs and onsets are looked at, and what was shown in training.
    clips : False leaves the clips out.
    categories : columns of the probabilities, 1 for the category of the clip found; none are given if empty.
    """
    apart = np.abs(train.onset_s[None] - test.onset_s[:, None])  # (test, train)
    same = train.run[None] == test.run[:, None]
    apart = np.where(same | ~same.any(axis=1, keepdims=True), apart, np.inf)
    found = np.argmin(apart, axis=1)
    probabilities = None
    if categories:
        probabilities = np.nan_to_num(one_hot(train.category[found], categories), nan=1 / len(categories))
    shown = train.clips[found] if clips and train.clips is not None else None
    return Reconstruction(clips=shown, probabilities=probabilities, categories=categories)


def _window_mean(train: Samples) -> np.ndarray:
    """Return the mean training window (trs, voxels), float64."""
    return train.brain.mean(axis=0, dtype=np.float64)


def _same_windows(train: Samples, test: Samples) -> None:
    """Raise DataError unless training and test windows have one shape."""
    expected, got = train.brain.shape[1:], test.brain.shape[1:]
    require(got == expected, "test windows", f"must have the shape {expected} of the training windows", got)
