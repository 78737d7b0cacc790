"""Figures of object decoding, as the paper draws them (Horikawa & Kamitani 2017, Nat. Commun. 8:15037, figs 2-7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context

from neuroreel.core import checks
from neuroreel.report.figures import COLOURS, SOFT, STYLE, Picture, chance_line, colour_bar, new_figure, picture, short

MOST_TRIALS = 12


def unit_figure(predicted: np.ndarray, true: np.ndarray, name: str) -> Picture:
    """Return the true value of one unit against its decoded value, a point for each picture.

    Parameters
    ----------
    predicted, true : (pictures,)
    name : of the unit, with its layer and region.
    """
    checks.dimensions("predicted", predicted, ("pictures",))
    checks.same_length("true", len(true), "predicted", len(predicted))
    varies = np.ptp(predicted) > 0 and np.ptp(true) > 0
    r = float(np.corrcoef(predicted, true)[0, 1]) if varies else float("nan")
    with rc_context(STYLE):
        figure = new_figure(4.2, 3.9)
        axes = figure.subplots()
        axes.scatter(true, predicted, s=26, color=COLOURS[0], alpha=0.75, linewidths=0)
        if varies:
            slope, level = np.polyfit(true, predicted, 1)
            ends = np.array([true.min(), true.max()])
            axes.plot(ends, slope * ends + level, color=COLOURS[1])
        axes.set(xlabel="true value", ylabel="decoded value", title=f"{name}, r = {r:.2f}")
        return picture(
            figure,
            "unit",
            "One unit, decoded",
            f"{name}: the value decoded from the brain against the true one, for {len(true)} pictures.",
            f"Scatter of decoded against true values of {name}, correlation {r:.2f}.",
        )


def accuracy_figure(
    values: Mapping[str, np.ndarray],
    rois: Sequence[str],
    layers: Sequence[str],
    *,
    label: str = "identification",
    chance: float = 0.5,
) -> Picture:
    """Return accuracy per region and layer, a panel for each condition.

    Parameters
    ----------
    values : (rois, layers) by condition, e.g. "seen" and "imagined"; NaN where nothing was measured.
    label : what the values are.
    chance : the value of a guess, where the colours begin.
    """
    for condition, table in values.items():
        fits = table.shape == (len(rois), len(layers))
        checks.require(fits, condition, f"must have the shape {(len(rois), len(layers))}", table.shape)
    top = max(float(np.nanmax(table)) for table in values.values())
    least = min(chance, min(float(np.nanmin(table)) for table in values.values()))
    with rc_context(STYLE):
        width = 1.6 + len(values) * (0.62 * len(layers) + 0.7)
        figure = new_figure(width, 1.5 + 0.42 * len(rois))
        for place, (axes, (condition, table)) in enumerate(
            zip(np.ravel(figure.subplots(1, len(values), squeeze=False)), values.items(), strict=True)
        ):
            drawn = axes.imshow(table, cmap="viridis", vmin=least, vmax=top, aspect="auto")
            for (row, column), value in np.ndenumerate(table):
                if np.isfinite(value):
                    bright = (value - least) / max(top - least, 1e-9) > 0.6
                    ink = "#111111" if bright else "#ffffff"
                    best = value == np.nanmax(table[row])
                    weight = "bold" if best else "normal"
                    axes.text(
                        column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink, weight=weight
                    )
            axes.set_xticks(range(len(layers)), layers, rotation=40, ha="right")
            axes.set_yticks(range(len(rois)), rois if place == 0 else [""] * len(rois))
            axes.tick_params(length=0)
            axes.set_title(condition)
            for spine in axes.spines.values():
                spine.set_visible(False)
        colour_bar(figure, drawn, axes, label)
        best_of = ", ".join(
            f"{roi}: {layers[int(np.nanargmax(row))]}"
            for roi, row in zip(rois, next(iter(values.values())), strict=True)
            if np.isfinite(row).any()
        )
        return picture(
            figure,
            "accuracy",
            "Which layer is read from which region",
            f"{label[:1].upper()}{label[1:]} by region (rows) and layer (columns); a guess scores {chance:g}. The best "
            "layer of each region is bold.",
            f"Table of {label} by region and layer; best layers: {best_of}.",
        )


def similar_figure(
    similarity: np.ndarray, tested: Sequence[str], candidates: Sequence[str], *, shown: int = 5
) -> Picture:
    """Return the most similar categories of each tested one with their scores, the true one marked.

    Parameters
    ----------
    similarity : (tested, candidates), NaN where there is no candidate.
    shown : categories per row.
    """
    checks.require(
        similarity.shape == (len(tested), len(candidates)),
        "similarity",
        f"must have the shape {(len(tested), len(candidates))}",
        similarity.shape,
    )
    rows = min(len(tested), MOST_TRIALS)
    shown = min(shown, len(candidates))
    filled = np.where(np.isnan(similarity), -np.inf, similarity)
    order = np.argsort(-filled, axis=1, kind="stable")[:, :shown]
    hits = 0
    with rc_context(STYLE):
        figure = new_figure(1.9 + 1.45 * shown, 0.9 + 0.42 * rows)
        axes = figure.subplots()
        for row in range(rows):
            for column, best in enumerate(order[row]):
                right = candidates[best] == tested[row]
                colour = COLOURS[2] if right else SOFT
                text = f"{short(candidates[best], 16)}  {similarity[row, best]:.2f}"
                axes.text(column, row, text, ha="left", va="center", color=colour, weight="bold" if right else "normal")
                hits += int(right)
        axes.set_yticks(range(rows), [short(name, 18) for name in tested[:rows]])
        axes.set_xticks(np.arange(shown) + 0.0, [f"{place + 1}." for place in range(shown)], ha="left")
        axes.xaxis.tick_top()
        axes.set(xlim=(-0.1, shown), ylim=(rows - 0.5, -0.5))
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return picture(
            figure,
            "similar",
            "What it looked like to the decoder",
            f"The {shown} most similar of {len(candidates)} categories for each category shown (left), with the "
            "correlation of their features; the true one is green.",
            f"Of {rows} categories shown, the true one is among the {shown} most similar {hits} times.",
        )


def identification_figure(values: Mapping[str, np.ndarray], labels: Sequence[str]) -> Picture:
    """Return mean identification with its standard error over categories, a line of points for each condition.

    Parameters
    ----------
    values : (labels, categories) by condition.
    labels : what the points are of, e.g. regions.
    """
    with rc_context(STYLE):
        figure = new_figure(1.6 + 0.62 * len(labels) + 1.3, 3.2)
        axes = figure.subplots()
        for number, (condition, table) in enumerate(values.items()):
            count = np.maximum(np.sum(np.isfinite(table), axis=1), 1)
            mean, error = np.nanmean(table, axis=1), np.nanstd(table, axis=1) / np.sqrt(count)
            x = np.arange(len(labels)) + 0.12 * (number - (len(values) - 1) / 2)
            axes.errorbar(x, mean, error, fmt="o", color=COLOURS[number], capsize=0, label=condition)
        chance_line(axes, 0.5)
        axes.set_xticks(range(len(labels)), labels)
        axes.set(ylabel="identification", ylim=(0.3, 1.02))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        means = ", ".join(f"{name} {np.nanmean(table):.2f}" for name, table in values.items())
        return picture(
            figure,
            "identification",
            "Is the right object found?",
            "Share of the other categories that are less like what was decoded than the true one is: mean and standard "
            "error over categories.",
            f"Identification by region: {means} on average.",
        )
