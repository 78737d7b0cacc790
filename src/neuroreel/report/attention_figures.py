"""Figures of where an encoder looks: attention on the cortex, and by region or network for every stage of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from neuroreel.core.attention import AttentionMaps
from neuroreel.core.types import Space
from neuroreel.report.cortex import draw_surface, load_surfaces, look_closer, on_vertices, voxel_picture
from neuroreel.report.figures import COLOURS, SOFT, STYLE, Picture, colour_bar, listed, new_figure, picture, short
from neuroreel.report.record import VoxelMap

VIEWS = (("posterior", "L"), ("posterior", "R"), ("ventral", "L"), ("ventral", "R"))
BESIDE = "Voxels that were chosen because they respond are looked at for that too: what counts is the difference to "
BESIDE += "the model of shuffled pairs, which saw the same voxels with other pictures."


def attention_pictures(
    name: str, space: Space, maps: AttentionMaps, regions: Mapping[str, np.ndarray], place: int = 1
) -> tuple[list[Picture], str]:
    """Return the figures of one system's attention, and why a map is missing ("" if none is).

    Parameters
    ----------
    regions : masks (voxels,) by name; the figure of regions is left out where there are fewer than two.
    place : number of the system, for the files' names.
    """
    found, reason = [], ""
    surfaces = load_surfaces(space.template) if space.kind == "surface" else ""
    if isinstance(surfaces, str):
        stage, values = list(maps.stages.items())[-1]
        note = f"attention of the {maps.layer_names()[-1]}, {stage}; 1 is the average patch"
        chart = VoxelMap(f"where {name} looks", values[-1], "attention", note)
        drawn, reason = voxel_picture(space, chart, f"attention_map_{place}")
        found += [drawn] if drawn is not None else []
    else:
        found.append(_on_cortex(name, space, maps, surfaces, f"attention_map_{place}"))
    if sum(bool(mask.any()) for mask in regions.values()) > 1:
        found.append(regions_picture(name, maps, regions, f"attention_regions_{place}"))
    return found, reason


def _on_cortex(name: str, space: Space, maps: AttentionMaps, surfaces: Mapping[str, Any], file: str) -> Picture:
    """Draw the last stage: a row for each layer, and the model of shuffled pairs beside it."""
    stage = list(maps.stages)[-1]
    blocks = {"true pairs": maps.stages[stage]}
    if stage in maps.shuffled:
        blocks["shuffled pairs"] = maps.shuffled[stage]
    joined = np.concatenate(list(blocks.values()))
    norm, cmap = Normalize(0.0, float(np.percentile(joined, 99))), "plasma"
    rows, wide = len(maps.layers), len(VIEWS) * len(blocks)
    with rc_context(STYLE):
        figure = new_figure(10.5, 10.5 / (wide + 1.2) * rows + 0.75)
        gap = [1.0] * len(VIEWS) + ([0.18] + [1.0] * len(VIEWS) if len(blocks) > 1 else [])
        grid = figure.subplots(rows, len(gap), width_ratios=gap, squeeze=False)
        for block, (label, values) in enumerate(blocks.items()):
            first = block * (len(VIEWS) + 1)
            columns = grid[:, first : first + len(VIEWS)]
            for row, layer in zip(columns, values, strict=True):
                for axes, (view, letter) in zip(row, VIEWS, strict=True):
                    shown = on_vertices(space, layer, letter, len(surfaces[letter].coordinates))
                    draw_surface(axes, surfaces[letter], shown, view, letter, norm, cmap)
            for column in columns.T:
                look_closer(column)
            for axes, (view, letter) in zip(columns[0], VIEWS, strict=True):
                axes.set_title(f"{view}, {'left' if letter == 'L' else 'right'}", color=SOFT, fontsize=8)
            columns[0, 0].text(0.0, 1.34, label, transform=columns[0, 0].transAxes, fontweight="bold")
        for axes in grid[:, len(VIEWS)] if len(blocks) > 1 else ():
            axes.set_axis_off()
        for row, label in zip(grid, maps.layer_names(), strict=True):
            row[0].text(-0.06, 0.5, label, rotation=90, va="center", ha="right", transform=row[0].transAxes)
        colour_bar(figure, ScalarMappable(norm, cmap), grid, "attention (1: average)")
        beside = f" {BESIDE}" if len(blocks) > 1 else ""
        caption = f"Attention that a voxel's patch gets in the encoder, {stage}, averaged over test windows.{beside}"
        alt = f"Inflated cortex, coloured by attention in {listed(maps.layer_names())} of {name}."
        return picture(figure, file, f"Where {name} looks", caption, alt)


def regions_picture(name: str, maps: AttentionMaps, regions: Mapping[str, np.ndarray], file: str) -> Picture:
    """Return the mean attention of each region or network: a panel for each layer, a dot for each stage."""
    shown = {key: mask for key, mask in regions.items() if mask.any()}
    found = maps.by_region(shown)
    colours = {stage: COLOURS[number % len(COLOURS)] for number, stage in enumerate(maps.stages)}
    layers = maps.layer_names()
    with rc_context(STYLE):
        figure = new_figure(10.5, 1.5 + 0.27 * len(shown))
        panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
        rows = np.arange(len(shown))
        for number, (axes, label) in enumerate(zip(panels, layers, strict=True)):
            axes.axvline(1.0, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2)
            for pairs, face in (("shuffled", False), ("true", True)):
                for stage, values in found[pairs].items():
                    level = [values[region][number] for region in shown]
                    look = {"markerfacecolor": colours[stage] if face else "none", "color": colours[stage]}
                    axes.plot(level, rows, marker="o", markersize=6 if face else 8, linewidth=0, **look)
            axes.grid(axis="y", color=SOFT, alpha=0.15, linewidth=0.8)
            axes.set_title(label)
            axes.set_xlabel("attention (1: average)")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        panels[0].set_yticks(rows, [f"{short(region, 18)} ({mask.sum()})" for region, mask in shown.items()])
        panels[0].set_ylim(len(rows) - 0.45, -0.55)
        dot: dict[str, Any] = {"marker": "o", "linewidth": 0}
        marks = [Line2D([], [], color=colour, markersize=6, **dot) for colour in colours.values()]
        words = list(colours)
        if maps.shuffled:
            marks.append(Line2D([], [], color=SOFT, markerfacecolor="none", markersize=8, **dot))
            words.append("the same with shuffled pairs")
        figure.legend(marks, words, loc="outside lower center", ncols=len(words), handlelength=0.8)
        best = {
            label: max(shown, key=lambda key: found["true"][words[-1 - bool(maps.shuffled)]][key][n])
            for n, label in enumerate(layers)
        }
        said = "; ".join(f"{label}: {region}" for label, region in best.items())
        beside = f" {BESIDE}" if maps.shuffled else ""
        return picture(
            figure,
            file,
            f"Which regions {name} looks at",
            f"Mean attention of the patches of each region after each stage of the fit, a panel a layer.{beside}",
            f"Attention by region in {listed(layers)}. Most looked at: {said}.",
        )
