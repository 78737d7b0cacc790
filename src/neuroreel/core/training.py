"""How a training went, kept beside what was trained: curves, and what was made of the same windows at several steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic, write_text


@dataclass(frozen=True)
class Curve:
    """Values over the steps of a training.

    Attributes
    ----------
    steps, values : (points,).
    panel : curves of the same panel share an axis, whose label it is.
    """

    steps: np.ndarray
    values: np.ndarray
    panel: str

    def until(self, step: int) -> Curve:
        """Return the part up to a step."""
        kept = self.steps <= step
        return Curve(self.steps[kept], self.values[kept], self.panel)


@dataclass(frozen=True)
class TrainingLog:
    """How a training went.

    Attributes
    ----------
    curves : by name.
    steps : (looks,) when samples were taken.
    samples : (looks, clips, height, width, 3) uint8, of the same windows each time; none where no looks were taken.
    truth : (clips, height, width, 3) uint8, what was shown in these windows.
    final : by name, what was measured of what is kept.
    notes : what is to be said of it, in sentences.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    samples: np.ndarray | None = None
    truth: np.ndarray | None = None
    final: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def add(self, step: int, values: Mapping[str, tuple[str, float]], samples: np.ndarray) -> TrainingLog:
        """Return the log with a look at a step: by name, panel and value, and the samples (clips, h, w, 3) uint8."""
        curves = dict(self.curves)
        for name, (panel, value) in values.items():
            old = curves.get(name, Curve(np.zeros(0, int), np.zeros(0), panel))
            curves[name] = Curve(np.append(old.steps, step), np.append(old.values, value), panel)
        before = samples[:0][None] if self.samples is None else self.samples
        before = before.reshape(-1, *samples.shape)
        return replace(
            self, curves=curves, steps=np.append(self.steps, step), samples=np.concatenate([before, samples[None]])
        )

    def save(self, folder: Path) -> None:
        """Write `training.json` and, with samples, `training.npz` into a folder."""
        curves = {
            name: {"steps": curve.steps.tolist(), "values": curve.values.tolist(), "panel": curve.panel}
            for name, curve in self.curves.items()
        }
        if self.samples is not None and self.truth is not None:
            with atomic(folder / "training.npz") as partial, partial.open("wb") as stream:
                np.savez_compressed(stream, steps=self.steps, samples=self.samples, truth=self.truth)
        write_text(
            folder / "training.json",
            json.dumps({"curves": curves, "final": dict(self.final), "notes": self.notes}, indent=2) + "\n",
        )

    @classmethod
    def load(cls, folder: Path) -> TrainingLog | None:
        """Return what `save` wrote into a folder, or None where there is nothing.

        Raises
        ------
        DataError : the files are damaged.
        """
        file = folder / "training.json"
        if not file.is_file():
            return None
        try:
            told = json.loads(file.read_text())
            curves = {
                name: Curve(np.array(one["steps"]), np.array(one["values"], float), str(one["panel"]))
                for name, one in told["curves"].items()
            }
            notes = tuple(str(note) for note in told["notes"])
            final = {name: float(value) for name, value in told["final"].items()}
            if not (folder / "training.npz").is_file():
                return cls(curves, final=final, notes=notes)
            with np.load(folder / "training.npz", allow_pickle=False) as held:
                return cls(curves, held["steps"], held["samples"], held["truth"], final, notes)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(checks.sentence("training log", "must be whole", type(error).__name__, file)) from None

    def until(self, step: int) -> TrainingLog:
        """Return the part up to a step: what holds when a training goes on from there."""
        kept = self.steps <= step
        curves = {name: curve.until(step) for name, curve in self.curves.items()}
        samples = None if self.samples is None else self.samples[kept]
        return replace(self, curves=curves, steps=self.steps[kept], samples=samples, final={}, notes=())
