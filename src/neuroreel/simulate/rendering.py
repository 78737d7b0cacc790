"""Pictures of scenes: a sprite over a panorama, placed by an affine map, so that masks and optical flow are exact."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from neuroreel.simulate.backgrounds import draw_background
from neuroreel.simulate.categories import WINDOW_MULTIPLE, draw_sprite
from neuroreel.simulate.scenes import Pose, Scene

OVERSAMPLING = 2
SMALLEST_SPRITE, SMALLEST_PANORAMA = 256, 128


class Stage:
    """A scene that is ready to be shown at one frame size.

    Parameters
    ----------
    scene : what to show.
    size : side of the square frames in pixels.
    """

    def __init__(self, scene: Scene, size: int) -> None:
        self.scene, self.size = scene, size
        self._fine = size * OVERSAMPLING
        pixels = max(SMALLEST_SPRITE, 1 << (self._fine - 1).bit_length())
        sprite = draw_sprite(scene.category, scene.colour, scene.look, pixels)
        self._extent, self._centre = sprite.extent, np.array(sprite.centre)
        self._layers, self._covers = [sprite.rgba], [sprite.cover]
        for _ in range(int(np.log2(WINDOW_MULTIPLE))):
            half = self._layers[-1].shape[1] // 2, self._layers[-1].shape[0] // 2
            self._layers.append(cv2.resize(self._layers[-1], half, interpolation=cv2.INTER_AREA))
            self._covers.append(cv2.resize(self._covers[-1], half, interpolation=cv2.INTER_AREA))
        panorama = draw_background(scene.background, scene.place, max(SMALLEST_PANORAMA, self._fine))
        if panorama.shape[0] != self._fine:
            width = round(panorama.shape[1] * self._fine / panorama.shape[0])
            panorama = cv2.resize(panorama, (width, self._fine), interpolation=cv2.INTER_AREA)
        self._panorama = panorama

    def placement(self, pose: Pose, side: float, level: int = 0) -> np.ndarray:
        """Return the affine map (2, 3) from a sprite's pixels to those of a frame with the given side.

        Both are measured from the corner of the first pixel, not from its middle.
        """
        scale = pose.size * side / self._extent * (1 << level)
        wide = (2 - pose.stretch) * (-1 if self.scene.mirrored else 1)
        turn = np.radians(pose.angle)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear = rotation @ np.diag([wide, pose.stretch]) * scale
        shift = np.array([pose.x, pose.y]) * side - linear @ (self._centre / (1 << level))
        return np.column_stack([linear, shift])

    def _place(self, pyramid: list[np.ndarray], pose: Pose) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Return the sprite at its place and the window of the oversampled frame that it lies in."""
        ratio = self._extent / (pose.size * self._fine)
        level = int(np.clip(np.floor(np.log2(max(ratio, 1.0))), 0, len(pyramid) - 1))
        to_frame = self.placement(pose, self._fine, level)
        middle, reach = np.array([pose.x, pose.y]) * self._fine, 0.85 * pose.size * self._fine
        low = np.clip(np.floor(middle - reach), 0, self._fine - 1).astype(int)
        high = np.clip(np.ceil(middle + reach), low + 1, self._fine).astype(int)
        to_frame[:, 2] += to_frame[:, :2] @ (0.5, 0.5) - 0.5 - low
        extent = (int(high[0] - low[0]), int(high[1] - low[1]))
        placed = cv2.warpAffine(pyramid[level], to_frame, extent, flags=cv2.INTER_LINEAR)
        return placed, (slice(low[1], high[1]), slice(low[0], high[0]))

    def frame(self, time_s: float) -> np.ndarray:
        """Return the picture `time_s` after the scene's onset, (size, size, 3) uint8 RGB."""
        pose = self.scene.pose(time_s)
        left = pose.view * self._fine
        whole = int(left)
        crop = self._panorama[:, whole : whole + self._fine + 1]
        share = left - whole
        fine = cv2.addWeighted(crop[:, :-1], 1 - share, crop[:, 1:], share, 0)
        sprite, window = self._place(self._layers, pose)
        clear = (255 - sprite[..., 3:]).astype(np.uint16)
        behind = (fine[window] * clear + 127) // 255
        fine[window] = np.minimum(behind + sprite[..., :3], 255)
        return cv2.resize(fine, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def mask(self, time_s: float) -> np.ndarray:
        """Return how much of every pixel the object covers, (size, size) float32, 0 to 1; its shadow is not counted."""
        placed, window = self._place(self._covers, self.scene.pose(time_s))
        fine = np.zeros((self._fine, self._fine), np.uint8)
        fine[window] = placed
        return cv2.resize(fine, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255

    def flow(self, time_s: float, step_s: float) -> np.ndarray:
        """Return where every pixel goes from `time_s` to `time_s + step_s`, (size, size, 2) float32 (x, y) pixels.

        Exact: the object's affine map where its mask is above one half, the camera's pan elsewhere.
        """
        before, after = self.scene.pose(time_s), self.scene.pose(time_s + step_s)
        old, new = self.placement(before, self.size), self.placement(after, self.size)
        linear = new[:, :2] @ np.linalg.inv(old[:, :2])
        shift = new[:, 2] - linear @ old[:, 2]
        middle = np.arange(self.size) + 0.5
        at = np.stack(np.meshgrid(middle, middle), axis=-1)  # (size, size, xy)
        flow = np.zeros((self.size, self.size, 2), np.float32)
        flow[..., 0] = -(after.view - before.view) * self.size
        on = self.mask(time_s) > 0.5
        flow[on] = (at @ linear.T + shift - at)[on]
        return flow


@lru_cache(maxsize=4)
def stage_of(scene: Scene, size: int) -> Stage:
    """Return the stage of a scene; the last few are kept."""
    return Stage(scene, size)
