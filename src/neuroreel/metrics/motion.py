"""How a reconstruction moves, and what it would score if it stood still, ran backwards or jumped."""

from __future__ import annotations

import cv2
import numpy as np

from neuroreel.core.checks import require
from neuroreel.core.seeds import generator
from neuroreel.metrics.pixel import check_clips

FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)  # pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags
MOVING_PX = 0.1
SAME_WAY = np.cos(np.pi / 4)


def flow(clips: np.ndarray) -> np.ndarray:
    """Return the optical flow from each frame to the next, in pixels of the clip per frame.

    Parameters
    ----------
    clips : array (n, frames, height, width, 3) uint8, at least two frames.

    Returns
    -------
    array (n, frames - 1, height, width, 2) float32, x to the right and y down. Source: Farneback 2003, SCIA, with the
    settings of the field's released code (.5, 3, 15, 3, 5, 1.2, 0).
    """
    check_clips(clips, clips)
    n, frames, height, width, _ = clips.shape
    require(frames >= 2, "clips", "must have at least 2 frames to move", frames)
    fields = np.zeros((n, frames - 1, height, width, 2), dtype=np.float32)
    for clip, field in zip(clips, fields, strict=True):
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
        for step in range(frames - 1):
            if np.array_equal(grey[step], grey[step + 1]):
                continue  # stands still
            start = np.zeros((height, width, 2), dtype=np.float32)
            field[step] = cv2.calcOpticalFlowFarneback(grey[step], grey[step + 1], start, *FARNEBACK)
    return fields


def endpoint_error(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean length of the difference of two flows of each clip, in pixels per frame, array (n,).

    Depends on the size of the frames and their rate: `endpoint_error_over_flow` doesn't. A truth of one clip is held
    to all.
    """
    return _length(predicted - truth).mean(axis=(1, 2, 3), dtype=np.float64)


def endpoint_error_over_flow(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return `endpoint_error` divided by the mean length of the true flow, array (n,).

    A still frame scores 1, so a system has to stay below it. NaN where the truth moves by less than a tenth of a pixel
    per frame on average.
    """
    speed = _length(truth).mean(axis=(1, 2, 3), dtype=np.float64)
    error = endpoint_error(predicted, truth)
    ratio = np.full(error.shape, np.nan)
    return np.divide(error, speed, out=ratio, where=np.broadcast_to(speed >= MOVING_PX, error.shape))


def direction_accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the share of the truth's moving pixels whose predicted flow points within 45 degrees of it, array (n,).

    Chance is .25 for a direction at random. A pixel that doesn't move in the prediction is wrong; one that moves by
    less than a tenth of a pixel per frame in the truth isn't counted. NaN for a truth without any movement.
    """
    speed = _length(truth)
    moving = speed >= MOVING_PX
    along = np.sum(predicted * truth, axis=-1)
    other = _length(predicted)
    right = moving & (other > 0) & (along >= SAME_WAY * speed * other)
    count = moving.sum(axis=(1, 2, 3))
    hits = right.sum(axis=(1, 2, 3))
    share = np.full(hits.shape, np.nan)
    return np.divide(hits, count, out=share, where=np.broadcast_to(count > 0, hits.shape))


def without_motion(clips: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Return the same reconstruction as a still, backwards and with its frames in a random order.

    Parameters
    ----------
    clips : array (n, frames, height, width, 3) uint8.
    seed : seed of the orders, one for each clip, never the true one.

    Returns
    -------
    dict with `static` (the middle frame held), `reversed` and `frame-shuffled`, each of the shape of `clips`.
    """
    check_clips(clips, clips)
    n, frames = clips.shape[:2]
    middle = clips[:, frames // 2 : frames // 2 + 1]
    rng = generator(seed, "frame-shuffled")
    orders = np.array([_other_order(frames, rng) for _ in range(n)])
    return {
        "static": np.broadcast_to(middle, clips.shape),
        "reversed": clips[:, ::-1],
        "frame-shuffled": clips[np.arange(n)[:, None], orders],
    }


def consistency_all_pairs(frames: np.ndarray) -> np.ndarray:
    """Return the mean cosine between the embeddings of all pairs of frames of a clip, array (n,).

    Parameters
    ----------
    frames : embeddings (n, frames, units). A still clip scores 1: nothing here looks at the truth.
    """
    cosines = _cosines(frames)
    first, second = np.triu_indices(frames.shape[1], k=1)
    return cosines[:, first, second].mean(axis=1)


def consistency_adjacent(frames: np.ndarray) -> np.ndarray:
    """Return the mean cosine between the embeddings of neighbouring frames of a clip, array (n,); a still clip is 1."""
    cosines = _cosines(frames)
    return np.diagonal(cosines, offset=1, axis1=1, axis2=2).mean(axis=1)


def consistency_gated_compat(frames: np.ndarray, similarity: np.ndarray, *, gate: float = 0.6) -> np.ndarray:
    """Return `consistency_adjacent`, set to 0 where the clip is no more like the truth than the gate, array (n,).

    Parameters
    ----------
    frames : embeddings (n, frames, units).
    similarity : array (n,), cosine of the video embeddings of prediction and truth.
    gate : similarity at or below which released code says 0. Only here to compare with published numbers.
    """
    return np.where(similarity > gate, consistency_adjacent(frames), 0.0)


def _length(field: np.ndarray) -> np.ndarray:
    """Return the length of each vector (..., 2)."""
    return np.hypot(field[..., 0], field[..., 1])


def _other_order(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return an order of the frames that isn't the true one, if there is another."""
    order = rng.permutation(frames)
    while frames > 1 and np.array_equal(order, np.arange(frames)):
        order = rng.permutation(frames)
    return order


def _cosines(frames: np.ndarray) -> np.ndarray:
    """Return the cosine between every two frames of a clip, array (n, frames, frames)."""
    require(frames.ndim == 3, "embeddings", "must have the axes (n, frames, units)", f"shape {frames.shape}")
    require(frames.shape[1] >= 2, "embeddings", "must be of at least 2 frames", frames.shape[1])
    rows = frames.astype(np.float64)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit @ np.swapaxes(unit, 1, 2)
