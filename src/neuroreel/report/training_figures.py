"""Figures of a training: its curves, and what was made of the same windows from the first step to the last."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from neuroreel.core.spread import evenly
from neuroreel.core.training import Curve, TrainingLog
from neuroreel.report.figures import COLOURS, INK, SOFT, STYLE, Picture, frame_grid, new_figure, picture, short

ROWS = 8
"""Looks that are drawn, at most."""


def curves_picture(system: str, log: TrainingLog, name: str = "training_curves") -> Picture | None:
    """Return the curves of a training, panel by panel, or None where none was kept."""
    panels: dict[str, dict[str, Curve]] = {}
    for key, curve in log.curves.items():
        if len(curve.steps):
            panels.setdefault(curve.panel, {})[key] = curve
    if not panels:
        return None
    with rc_context(STYLE):
        figure = new_figure(3.5 * len(panels), 3.1)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (panel, curves) in zip(grid, panels.items(), strict=True):
            for number, (key, curve) in enumerate(curves.items()):
                colour = COLOURS[number % len(COLOURS)]
                dots = "o" if len(curve.steps) < 30 else ""
                axes.plot(curve.steps, curve.values, color=colour, marker=dots, markersize=3, label=short(key, 24))
                if key in log.final:
                    axes.plot(curve.steps[-1:], [log.final[key]], "D", color=colour, markeredgecolor=INK, markersize=6)
            axes.set(xlabel="step", ylabel=panel)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if len(curves) > 1:
                axes.legend()
        ends = "; ".join(f"{key} {value:.3g}" for key, value in log.final.items())
        marked = " A diamond is what is kept, the average of the weights." if ends else ""
        return picture(
            figure,
            name,
            f"How {system} was trained",
            f"Curves over the steps of the training.{marked}{_told(log)}",
            f"Curves of the training of {system}; at the end {ends or 'nothing was measured'}.",
        )


def samples_picture(system: str, log: TrainingLog, name: str = "training_samples") -> Picture | None:
    """Return what was made of the same windows, a row for each look and what was shown above, or None without looks."""
    if log.samples is None or log.truth is None or not len(log.samples):
        return None
    looks = evenly(len(log.samples), ROWS)
    rows = {"shown": log.truth[:, None]}
    rows |= {f"step {log.steps[look]}": log.samples[look][:, None] for look in looks}
    cells = [(clip, 0) for clip in range(len(log.truth))]
    return picture(
        frame_grid(rows, cells, [""] * len(cells), dict.fromkeys(rows, SOFT) | {"shown": INK}),
        name,
        f"What {system} made while it was trained",
        f"The middle frame of {len(log.truth)} training clips that were held out, evenly spaced and not picked: shown, "
        f"and made at {len(looks)} of {len(log.samples)} looks.{_told(log)}",
        f"Rows of frames: what was shown, then what {system} made at {', '.join(list(rows)[1:])}.",
    )


def _told(log: TrainingLog) -> str:
    """Return what is to be said of a training, as sentences that follow others."""
    return "".join(f" Warning: {note}." for note in log.notes)
