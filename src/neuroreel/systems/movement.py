"""Movement read from the brain, along which systems carry their clips.

movement = BrainMovement.fit(brain, clips, blocks, MovementConfig())      # None where nothing moves
record = movement.choose(made, movement.codes(held), truth)               # on clips that nothing was fitted to
if record["carried"]:
    clips = movement.carry(clips, movement.codes(brain))
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core.config import Config
from neuroreel.generate.frame_decoder import picture_error
from neuroreel.generate.movement import FlowBasis, Still, carried, coarse_flow
from neuroreel.metrics.motion import direction_accuracy, endpoint_error_over_flow, flow

NAME = "movement"
_AT_ONCE = 64


class MovementConfig(Config):
    """Settings of a `BrainMovement`.

    Attributes
    ----------
    components : of the clips' mean optical flow on a coarse grid.
    grid : cells of that grid on a side.
    quiet : shares of the mean speed to choose from, by which the flow that was read is made slower, to 0 at least: more
        stands still, less goes astray.
    aim : what held-out clips choose it by, and whether clips are carried at all. "error": of the shares that come
        nearer to the true flow than a still, and than the clips as they are, that with the most of right directions
        less the error. "direction": the share with the most right directions, if these are more than the clips' own;
        what moves in the right direction at a wrong speed may then be further from the true flow than a still.
    still : which picture of a clip is carried. The mean of frames suits clips that a regression has read, whose frames
        are all blurred; those of a generator are sharp one by one.
    reading : choices of the regression.
    combines : ways of combining the volumes of a window, of which the one that held-out blocks prefer is taken.
    """

    components: int = Field(default=32, ge=1)
    grid: int = Field(default=8, ge=1)
    quiet: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(0.0, 0.125, 0.25, 0.375, 0.5), min_length=1)
    aim: Literal["error", "direction"] = "error"
    still: Still = "mean"
    reading: WindowDecoderConfig = WindowDecoderConfig(per_target=True, keep=(0.125, 0.25))
    combines: tuple[Literal["mean", "concat"], ...] = Field(default=("mean", "concat"), min_length=1)


class BrainMovement:
    """A regression from brain windows to a code of movement, and what carries clips along it.

    Attributes
    ----------
    basis : the code.
    reading : the regression; `reading.held_out_` are the codes of the training windows by the folds without them.
    quiet : see `MovementConfig`.
    """

    def __init__(
        self, config: MovementConfig, basis: FlowBasis, reading: WindowDecoder, quiet: float | None = None
    ) -> None:
        self.config, self.basis, self.reading = config, basis, reading
        self.quiet = config.quiet[0] if quiet is None else quiet

    @classmethod
    def fit(cls, brain: np.ndarray, clips: np.ndarray, blocks: np.ndarray, config: MovementConfig) -> Self | None:
        """Return the regression from windows (n, trs, voxels) to the movement of clips; None where nothing moves.

        Parameters
        ----------
        clips : (n, frames, h, w, 3) uint8.
        blocks : (n,) for the folds.
        """
        if clips.shape[1] == 1:
            return None
        movement = _movement(clips, config.grid)
        if not np.ptp(movement, axis=0).any():
            return None
        basis = FlowBasis().fit(movement, config.components)
        codes = basis.codes(movement)
        ways = [config.reading.model_copy(update={"combine": combine}) for combine in config.combines]
        found = [WindowDecoder(way).fit(brain, codes, blocks) for way in ways]
        return cls(config, basis, max(found, key=lambda one: one.cv_r2_))

    def codes(self, brain: np.ndarray) -> np.ndarray:
        """Return the codes (n, components) that windows (n, trs, voxels) say."""
        return self.reading.predict(brain)

    def true_codes(self, clips: np.ndarray) -> np.ndarray:
        """Return the codes (n, components) of the movement of clips (n, frames, h, w, 3) uint8."""
        return self.basis.codes(_movement(clips, self.config.grid))

    def carry(self, clips: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return clips (n, frames, h, w, 3) uint8 of which one picture is carried along the movement of codes."""
        height, width = clips.shape[2:4]
        return carried(clips, self.basis.fields(codes, height, width, self.quiet), self.config.still)

    def choose(self, made: np.ndarray, codes: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        """Choose how much slower the movement is made, and return whether clips move better by it, with the errors.

        An error is that of the flow over its length; a still has 1.

        Parameters
        ----------
        made : (n, frames, h, w, 3) uint8, read from windows that were held out of what made them.
        codes : (n, components) of the same windows, held out too.
        truth : clips like `made`.
        """
        true, tried = flow(truth), {"own frames": made}
        for quiet in self.config.quiet:
            self.quiet = quiet
            tried[str(quiet)] = self.carry(made, codes)
        moved = {name: flow(clips) for name, clips in tried.items()}
        errors = {name: _mean(endpoint_error_over_flow(one, true)) for name, one in moved.items()}
        right = {name: _mean(direction_accuracy(one, true)) for name, one in moved.items()}
        if self.config.aim == "direction":
            better = [quiet for quiet in self.config.quiet if right[str(quiet)] > right["own frames"]]
            gain = right
        else:
            better = [quiet for quiet in self.config.quiet if errors[str(quiet)] < min(1.0, errors["own frames"])]
            gain = {name: right[name] - errors[name] for name in tried}
        if better:
            self.quiet = max(better, key=lambda quiet: gain[str(quiet)])
        pictures = {name: picture_error(lambda part: part, clips, truth) for name, clips in tried.items()}
        chosen = {"carried": bool(better), "quiet": self.quiet if better else None}
        return chosen | {"flow_errors": errors, "right_directions": right, "picture_errors": pictures}

    def save(self, folder: Path) -> None:
        """Write the regression, the code, and what was chosen."""
        self.config.save(folder / f"{NAME}-config.json")
        self.reading.save(folder, NAME)
        kept = self.basis.arrays() | {"quiet": np.array([self.quiet])}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in kept.items()}, folder / f"{NAME}-flow.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return what `save` wrote; None where nothing was saved."""
        if not (folder / f"{NAME}-config.json").is_file():
            return None
        kept = load_file(folder / f"{NAME}-flow.safetensors")
        quiet = float(kept.pop("quiet")[0])
        config = MovementConfig.load(folder / f"{NAME}-config.json")
        return cls(config, FlowBasis().restore(kept), WindowDecoder.load(folder, NAME), quiet)


def _movement(clips: np.ndarray, grid: int) -> np.ndarray:
    """Return the mean flow of clips (n, frames, h, w, 3) uint8 on the grid, (n, grid, grid, 2)."""
    parts = [clips[at : at + _AT_ONCE] for at in range(0, len(clips), _AT_ONCE)]
    return np.concatenate([coarse_flow(flow(part), grid) for part in parts])


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
