"""Figures of masked brain modelling: what was hidden and what was recovered on the cortex, and how it was learnt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from neuroreel.core import checks
from neuroreel.core.types import Space
from neuroreel.report.cortex import draw_surface, load_surfaces, look_closer, on_vertices
from neuroreel.report.figures import COLOURS, SOFT, STYLE, Picture, colour_bar, new_figure, picture, short, side_legend

VIEWS = tuple((view, letter) for view in ("posterior", "medial", "ventral") for letter in "LR")


def recovery_picture(
    space: Space, truth: np.ndarray, hidden: np.ndarray, recovered: np.ndarray, name: str = "masked_recovery"
) -> tuple[Picture | None, str]:
    """Return one volume's activity on the cortex: true, as the network saw it, and recovered; or None and why not.

    Parameters
    ----------
    truth, recovered : (voxels,) z-scored.
    hidden : (voxels,) bool, where the network saw nothing.
    """
    for key, values in (("truth", truth), ("hidden", hidden), ("recovered", recovered)):
        checks.same_length(key, len(values), "voxels", space.size)
    if space.kind != "surface":
        return None, "the voxels don't lie on a surface"
    surfaces = load_surfaces(space.template)
    if isinstance(surfaces, str):
        return None, surfaces
    most = max(float(np.percentile(np.abs(truth), 98)), 1e-6)
    norm, cmap = Normalize(-most, most), "RdBu_r"
    rows = {"true": truth, "what was seen": np.where(hidden, np.nan, truth), "recovered": recovered}
    r = float(np.corrcoef(truth[hidden], recovered[hidden])[0, 1])
    with rc_context(STYLE):
        figure = new_figure(10.5, 5.2)
        grid = figure.subplots(len(rows), len(VIEWS))
        for row, values in zip(grid, rows.values(), strict=True):
            for axes, (view, letter) in zip(row, VIEWS, strict=True):
                shown = on_vertices(space, values, letter, len(surfaces[letter].coordinates))
                draw_surface(axes, surfaces[letter], shown, view, letter, norm, cmap)
        for column in grid.T:
            look_closer(column)
        for row, label in zip(grid, rows, strict=True):
            row[0].text(-0.04, 0.5, label, rotation=90, va="center", ha="right", transform=row[0].transAxes)
        for axes, (view, letter) in zip(grid[0], VIEWS, strict=True):
            axes.set_title(f"{view}, {'left' if letter == 'L' else 'right'}", color=SOFT, fontsize=9)
        colour_bar(figure, ScalarMappable(norm, cmap), grid, "activity (SD)")
        return picture(
            figure,
            name,
            "Masked activity, recovered",
            f"One held-out volume. {hidden.mean():.0%} of the voxels were hidden (grey in the middle row) and then "
            f"recovered from the others: r = {r:.2f} over the hidden voxels. What is recovered is what voxels share; "
            "noise of a voxel's own can't be.",
            f"Three rows of inflated cortex: true activity, what was seen, and what was recovered; r = {r:.2f}.",
        ), ""


def loss_picture(curves: Mapping[str, np.ndarray], name: str = "masked_losses", window: int = 50) -> Picture:
    """Return the loss of trainings by step.

    Parameters
    ----------
    curves : by training, (steps,).
    window : steps of the running mean; the single steps are drawn faintly behind it.
    """
    with rc_context(STYLE):
        figure = new_figure(5.8, 3.4)
        axes = figure.subplots()
        low, high = np.inf, -np.inf
        for number, (label, losses) in enumerate(curves.items()):
            colour, width = COLOURS[number % len(COLOURS)], max(1, min(window, len(losses) // 4))
            smooth = np.convolve(losses, np.full(width, 1 / width), mode="valid")
            axes.plot(np.arange(1, len(losses) + 1), losses, color=colour, alpha=0.18, linewidth=0.6)
            axes.plot(np.arange(len(smooth)) + width / 2 + 0.5, smooth, color=colour, label=short(label, 28))
            low, high = min(low, float(smooth.min())), max(high, float(smooth.max()))
        room = 0.12 * max(high - low, 1e-6)
        axes.axhline(1.0, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2, label="the mean")
        axes.set(xlabel="step", ylabel="squared error, masked voxels (SD²)", ylim=(low - room, high + room))
        side_legend(axes)
        ends = "; ".join(f"{label}: {np.mean(losses[-window:]):.3f}" for label, losses in curves.items())
        return picture(
            figure,
            name,
            "How it was learnt",
            f"Running mean over {window} steps, with the single steps behind it. 1 is what the mean predicts.",
            f"Loss by step; at the end {ends}.",
        )
