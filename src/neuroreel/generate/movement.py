"""Movement of clips as a short code, and still pictures carried along it.

What moves changes few pixels by much, so the principal components of clips leave movement out. A code of the optical
flow keeps it: principal components of each clip's mean flow on a coarse grid.
"""

from __future__ import annotations

from typing import Literal, Self

import cv2
import numpy as np

from neuroreel.core import checks

Still = Literal["mean", "middle"]
"""Which picture of a clip is carried: the mean of its frames, or the middle one."""


class FlowBasis:
    """Principal components of the mean optical flow of clips on a coarse grid.

    Attributes
    ----------
    mean_ : (grid, grid, 2) float32, x to the right and y down, in pixels of the clip per frame.
    axes_ : (components, grid * grid * 2) float32, of length 1.
    speed_ : mean length of the flow, in pixels of the clip per frame.
    """

    mean_: np.ndarray
    axes_: np.ndarray
    speed_: float

    def fit(self, coarse: np.ndarray, components: int) -> Self:
        """Fit to `coarse_flow`s (n, grid, grid, 2), at most so many components.

        Raises
        ------
        DataError : the clips all move in the same way.
        """
        flat = coarse.reshape(len(coarse), -1)
        self.mean_ = flat.mean(0).reshape(coarse.shape[1:])
        _, lengths, axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
        kept = np.flatnonzero(lengths > 1e-4 * max(lengths[0], 1e-6))[:components]
        checks.require(len(kept) > 0, "movement of clips", "must differ", "all the same")
        self.axes_ = axes[kept]
        self.speed_ = float(np.hypot(coarse[..., 0], coarse[..., 1]).mean(dtype=np.float64))
        return self

    def codes(self, coarse: np.ndarray) -> np.ndarray:
        """Return the codes (n, components) float32 of `coarse_flow`s (n, grid, grid, 2)."""
        return np.asarray((coarse - self.mean_).reshape(len(coarse), -1) @ self.axes_.T, dtype=np.float32)

    def fields(self, codes: np.ndarray, height: int, width: int, quiet: float = 0.0) -> np.ndarray:
        """Return the flow fields (n, height, width, 2) float32 of codes (n, components), in pixels per frame.

        Parameters
        ----------
        quiet : by how much the length of every vector is made smaller, as a share of the clips' mean speed, to 0 at
            least: what was read is uncertain, and a slow movement in a wrong direction is worse than none.
        """
        coarse = (codes @ self.axes_).reshape(-1, *self.mean_.shape) + self.mean_
        wide = [
            cv2.resize(field.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for field in coarse
        ]
        fields = np.stack(wide) if wide else np.zeros((0, height, width, 2), np.float32)
        length = np.hypot(fields[..., 0], fields[..., 1])[..., None]
        left = np.clip(length - quiet * self.speed_, 0, None)
        return np.asarray(fields * np.divide(left, length, out=np.zeros_like(length), where=length > 0), np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt by name, for saving."""
        return {"mean": self.mean_, "axes": self.axes_, "speed": np.array([self.speed_])}

    def restore(self, arrays: dict[str, np.ndarray]) -> Self:
        """Take back what `arrays` returned."""
        self.mean_, self.axes_, self.speed_ = arrays["mean"], arrays["axes"], float(arrays["speed"][0])
        return self


def carried(clips: np.ndarray, fields: np.ndarray, still: Still = "mean") -> np.ndarray:
    """Return clips in which one picture of each, shown at half time, is carried along a flow field over the frames.

    Parameters
    ----------
    clips : (n, frames, h, w, 3) uint8.
    fields : (n, h, w, 2) pixels per frame, x to the right and y down.
    still : the picture: the "mean" of the clip's frames, or its "middle" frame, which is sharper.

    Returns
    -------
    array like `clips`.
    """
    n, frames, height, width, _ = clips.shape
    checks.same_length("fields", len(fields), "clips", n)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    found = np.empty_like(clips)
    for clip, field, made in zip(clips, fields, found, strict=True):
        picture = clip.mean(0, dtype=np.float32) if still == "mean" else clip[frames // 2].astype(np.float32)
        for number in range(frames):
            back = field * np.float32(number - (frames - 1) / 2)  # from where each pixel comes
            moved = cv2.remap(
                picture, x - back[..., 0], y - back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
            made[number] = np.clip(np.rint(moved), 0, 255)
    return found


def coarse_flow(flows: np.ndarray, grid: int) -> np.ndarray:
    """Return the mean over the steps of flows (n, steps, h, w, 2) on a grid, (n, grid, grid, 2), pixels per frame."""
    checks.dimensions("flows", flows, ("n", "steps", "height", "width", "xy"))
    height, width = flows.shape[2:4]
    size = min(grid, width), min(grid, height)
    return np.stack([cv2.resize(flow.mean(0), size, interpolation=cv2.INTER_AREA) for flow in flows])
