"""Figures of what a score depends on: curves over dimensions, minutes and repeats, and regions removed or alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from neuroreel.core.scores import Lesions, ScoreCurve
from neuroreel.report.figures import (
    SOFT,
    STYLE,
    Picture,
    chance_line,
    listed,
    new_figure,
    picture,
    short,
    side_legend,
)

WORDS = {
    "bottleneck": (
        "How many brain dimensions are needed",
        "Each brain volume is projected to its first principal components, found on the training volumes alone, and "
        "the system is fitted anew; the last point is the brain as it is. A score that is reached with few dimensions "
        "says little about the brain.",
    ),
    "minutes": (
        "How long to scan",
        "Fitted anew on the first share of every training run.",
    ),
    "repeats": (
        "How often to repeat the test",
        "The same fitted system on test windows averaged over fewer repeats.",
    ),
}
"""Title and caption of each kind of curve."""


def curve_picture(curves: Mapping[str, ScoreCurve], colours: Mapping[str, str], kind: str) -> Picture:
    """Return one metric of several systems against how much they were given; `kind` is a key of WORDS."""
    title, caption = WORDS[kind]
    first = next(iter(curves.values()))
    with rc_context(STYLE):
        figure = new_figure(5.4, 3.3)
        axes = figure.subplots()
        for name, curve in curves.items():
            colour = colours[name]
            if np.isfinite(curve.low).any():
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(curve.x, curve.values, color=colour, marker="o", markersize=4, label=short(name, 24))
        known = [curve.chance[np.isfinite(curve.chance)] for curve in curves.values()]
        joined = np.concatenate(known)
        chance_line(axes, float(joined.mean()) if joined.size else None)
        axes.set_xscale("log")
        points = np.unique(np.concatenate([curve.x for curve in curves.values()]))
        axes.xaxis.set_major_locator(FixedLocator(_apart(points)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:.3g}" if value < 1000 else f"{value:,.0f}")
        )
        axes.set(xlabel=first.along, ylabel=short(first.variant, 34))
        if len(curves) > 1:
            side_legend(axes)
        ends = "; ".join(
            f"{name}: {curve.values[0]:.2f} at {_count(curve.x[0])}, {curve.values[-1]:.2f} at {_count(curve.x[-1])}"
            for name, curve in curves.items()
        )
        words = f"{caption} Bands are 95 % intervals; chance is the best answer that decodes nothing."
        return picture(figure, kind, title, words, f"{first.variant} against {first.along}. {ends}.")


def lesions_picture(name: str, found: Lesions, colour: str, file: str = "lesions") -> Picture:
    """Return one system's score with each region removed (hollow) and with that region alone (filled)."""
    rows = len(found.regions)
    with rc_context(STYLE):
        figure = new_figure(5.4, 1.25 + 0.33 * rows)
        axes = figure.subplots()
        places = np.arange(rows)
        if np.isfinite([found.whole_low, found.whole_high]).all():
            axes.axvspan(found.whole_low, found.whole_high, color=colour, alpha=0.10, linewidth=0)
        axes.axvline(found.whole, color=colour, linewidth=1.2)
        if np.isfinite(found.chance):
            axes.axvline(found.chance, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2)
        for key, shift, face, label in (
            ("without", -0.14, "none", "without it"),
            ("only", 0.14, colour, "with it alone"),
        ):
            values, low, high = (getattr(found, column) for column in (key, f"{key}_low", f"{key}_high"))
            axes.hlines(places + shift, low, high, color=colour, alpha=0.55, linewidth=1.6)
            look: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 6, "linewidth": 0}
            axes.plot(values, places + shift, marker="o", label=label, **look)
        labels = [
            f"{short(region, 18)} ({count:.0f})" for region, count in zip(found.regions, found.voxels, strict=True)
        ]
        axes.set_yticks(places, labels)
        axes.set_ylim(rows - 0.45, -0.55)
        axes.grid(axis="y", color=SOFT, alpha=0.15, linewidth=0.8)
        axes.set_xlabel(short(found.variant, 40))
        above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": 8.5, "va": "bottom"}
        side = "left" if found.whole < found.chance else "right"
        axes.text(found.whole, 1.01, "all voxels", color=colour, ha="left" if side == "right" else "right", **above)
        if np.isfinite(found.chance):
            axes.text(found.chance, 1.01, "chance", color=SOFT, ha=side, **above)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=0.8)
        signed = found.without if found.higher_is_better else -found.without
        worst = found.regions[int(np.nanargmin(signed))] if np.isfinite(signed).any() else None
        alt = f"{found.variant} of {name} without each of {listed(found.regions)}, and with it alone."
        alt += f" Worst without {worst}." if worst is not None else ""
        return picture(
            figure,
            file,
            f"Which regions carry it: {name}",
            "Fitted anew without each region's voxels (hollow) and with them alone (filled); bars and the band are "
            "95 % intervals; in brackets the number of voxels. What others carry too isn't lost without it.",
            alt,
        )


def _count(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _apart(values: np.ndarray, least: float = 1.45) -> list[float]:
    """Return the values that lie a factor apart, so that their labels don't overlap; the last is always among them."""
    kept = [float(values[-1])]
    for value in values[::-1]:
        if value * least <= kept[-1]:
            kept.append(float(value))
    return kept[::-1]
