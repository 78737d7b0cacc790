"""The figures of a report: drawn once, in an ink that follows the reader's light or dark theme.

Every figure is a `Picture`: an SVG for the page and a PNG for slides. Systems keep one colour in all of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from neuroreel.core.scores import IdentificationCurve, LagSweep, Scores
from neuroreel.core.spread import evenly
from neuroreel.core.types import Reconstruction, Samples

INK, SOFT, PAPER = "#12161d", "#767d89", "#ffffff"  # the SVG's own rules replace the first two
DARK_INK, DARK_SOFT = "#e9ecf1", "#979eaa"
COLOURS = ("#2f7fd6", "#e0802a", "#1f9e89", "#c8508f", "#8a67c9", "#a98a1d", "#d1495b", "#3aa0b9", "#6b8e3d", "#8b6f5e")
DPI = 200
COLUMNS = 12  # clips on a contact sheet
UNTAUGHT = "no category of the test was shown in training"
LARGEST = 256  # pixels of a thumbnail's longer side
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "neuroreel",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "image.interpolation": "none",
}


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes
    ----------
    name : file name without its end.
    title, caption : what it shows, in plain words.
    alt : what it says, for who can't see it.
    svg : for the page; follows the reader's theme.
    png : for slides, on white.
    wide : True where it takes the page's whole width.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    wide: bool


def system_colours(names: Iterable[str]) -> dict[str, str]:
    """Return one colour per system, in order of first appearance."""
    unique = dict.fromkeys(names)
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(unique)}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that many inches that no global state knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, name: str, title: str, caption: str, alt: str) -> Picture:
    """Return a drawn figure as SVG and PNG."""
    text, binary = io.StringIO(), io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, dpi=DPI, metadata={"Date": None})
        figure.savefig(binary, format="png", facecolor=PAPER, dpi=DPI)
    wide = figure.get_figwidth() > 8
    return Picture(name, title, caption, alt, themed(text.getvalue()), binary.getvalue(), wide)


def themed(svg: str) -> str:
    """Return an SVG whose ink turns light where the reader's theme is dark."""
    rules = (
        f"<style>svg{{--ink:{INK};--soft:{SOFT}}}"
        f"@media(prefers-color-scheme:dark){{svg{{--ink:{DARK_INK};--soft:{DARK_SOFT}}}}}</style>"
    )
    body = svg[svg.index("<svg") :].replace(INK, "var(--ink)").replace(SOFT, "var(--soft)")
    end = body.index(">") + 1
    return body[:end] + rules + body[end:]


def contact_sheet(truth: Samples, made: Mapping[str, Reconstruction], colours: Mapping[str, str]) -> Picture | None:
    """Return a sheet with the true clips in the first row and each system's below, evenly spaced in the test time."""
    if truth.clips is None or all(one.clips is None for one in made.values()):
        return None
    rows = {"shown": truth.clips} | {name: one.clips for name, one in made.items() if one.clips is not None}
    chosen = evenly(len(truth), COLUMNS)
    heads = [f"{onset} s" for onset in seconds(truth.onset_s[chosen])]
    cells = [(int(clip), truth.clips.shape[1] // 2) for clip in chosen]
    return picture(
        frame_grid(rows, cells, heads, colours),
        "contact_sheet",
        "Contact sheet",
        f"{len(chosen)} of {len(truth)} test clips, evenly spaced and not picked; above each, its onset. "
        "First row: what was shown.",
        f"A grid of frames: the first row was shown, the rows below were reconstructed by {listed(made)}.",
    )


def best_to_worst(
    truth: Samples, name: str, made: Reconstruction, scores: Scores, colours: Mapping[str, str]
) -> Picture | None:
    """Return the clips that one system reads best, halfway and worst, so that nobody shows the best alone.

    Clips of several frames are shown by four of them; of single pictures four neighbours in rank are shown.
    """
    known = np.flatnonzero(np.isfinite(scores.values))
    if truth.clips is None or made.clips is None or len(known) < 3:
        return None
    rank = known[np.argsort(-scores.values[known] if scores.higher_is_better else scores.values[known], kind="stable")]
    within = truth.clips.shape[1]
    many = 1 if within > 1 else max(1, min(COLUMNS // 3, len(rank) // 3))
    middle = (len(rank) - many) // 2
    groups = {"best": rank[:many], "halfway": rank[middle : middle + many], "worst": rank[-many:]}
    frames = evenly(within, 4)
    cells, heads, breaks = [], [], []
    for word, clips in groups.items():
        for clip in clips:
            for frame in frames:
                cells.append((int(clip), int(frame)))
                heads.append(f"{word} {scores.values[clip]:.2f}" if frame == frames[0] else "")
        breaks.append(len(cells))
    rows = {"shown": truth.clips, name: made.clips}
    return picture(
        frame_grid(rows, cells, heads, colours, breaks),
        "best_to_worst",
        "Best, halfway and worst",
        f"Test clips by the rank of their {scores.variant} with {name}; the number is the clip's score.",
        f"Frames that were shown above those that {name} reconstructed, for its best, middle and worst clips.",
    )


def frame_grid(
    rows: Mapping[str, np.ndarray],
    cells: Sequence[tuple[int, int]],
    heads: Sequence[str],
    colours: Mapping[str, str],
    breaks: Sequence[int] = (),
) -> Figure:
    """Return a figure with a row of frames for each name.

    Parameters
    ----------
    rows : (clips, frames, height, width, 3) uint8 by name; the first gives the shape of a cell.
    cells : clip and frame of each column.
    heads : text above each column.
    breaks : numbers of columns after which there is a wider gap.
    """
    first = next(iter(rows.values()))
    tall = first.shape[2] / first.shape[3]
    gap, wide, left, top = 0.05, 0.22, 1.5, 0.28  # in widths of a thumbnail
    places = [left + column * (1 + gap) + wide * sum(column >= each for each in breaks) for column in range(len(cells))]
    width, height = places[-1] + 1 + gap, top + len(rows) * (tall + gap)
    with rc_context(STYLE):
        figure = new_figure(10.5, 10.5 * height / width)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for x, head in zip(places, heads, strict=True):
            axes.text(x + 0.5, top - 0.1, head, ha="center", color=SOFT, fontsize=8)
        for line, (name, clips) in enumerate(rows.items()):
            y, colour = top + line * (tall + gap), colours.get(name, INK)
            label: dict[str, Any] = {"ha": "right", "va": "center", "fontweight": "bold", "fontsize": 9}
            axes.text(left - 0.12, y + tall / 2, short(name, 20), color=colour, **label)
            for x, (clip, frame) in zip(places, cells, strict=True):
                thumbnail(axes, clips[clip, min(frame, clips.shape[1] - 1)], (x, x + 1, y + tall, y), colour)
    return figure


def thumbnail(axes: Axes, frame: np.ndarray, extent: tuple[float, float, float, float], colour: str) -> None:
    """Draw one frame (height, width, 3) uint8 with a thin rim; the extent is left, right, bottom, top."""
    step = max(1, max(frame.shape[:2]) // LARGEST)
    axes.imshow(enlarge(frame[::step, ::step]), aspect="auto", extent=extent)
    left, right, bottom, top = extent
    rim: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 0.7, "alpha": 0.7}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **rim))


def enlarge(frames: np.ndarray, least: int = LARGEST) -> np.ndarray:
    """Return frames (..., height, width, 3) repeated a whole number of times, so that small pixels stay sharp."""
    times = max(1, least // max(frames.shape[-3:-1]))
    return frames.repeat(times, axis=-3).repeat(times, axis=-2)


def category_strip(
    truth: Samples, made: Mapping[str, Reconstruction], colours: Mapping[str, str]
) -> tuple[Picture | None, str]:
    """Return what was seen and what each system read, clip after clip, or None and the reason why."""
    rows = {name: one for name, one in made.items() if one.probabilities is not None and len(one.categories) > 1}
    names = [str(name) for name in dict.fromkeys(truth.category) if name]
    if not rows or len(names) < 2:
        return None, "the test clips have no categories or no system reads them"
    if not any(set(one.categories) & set(names) for one in rows.values()):
        return None, UNTAUGHT
    names = list(dict.fromkeys([*names, *(name for one in rows.values() for name in one.categories), ""]))
    shade = [*hues(len(names) - 1), SOFT]  # grey where nothing is known
    strips = {"shown": [str(name) for name in truth.category]}
    strips |= {key: [one.categories[best] for best in _best(one)] for key, one in rows.items()}
    with rc_context(STYLE):
        gap = 0.005 * len(truth)  # between blocks
        figure = new_figure(10.5, 0.95 + 0.34 * len(strips))
        axes = figure.subplots()
        start = np.arange(len(truth)) + gap * np.cumsum(np.diff(truth.block, prepend=truth.block[0]) != 0)
        for line, read in enumerate(strips.values()):
            faces = [
                to_rgba(shade[names.index(name)], 1.0 if name == strips["shown"][clip] else 0.28)
                for clip, name in enumerate(read)
            ]
            axes.broken_barh([(place, 1) for place in start], (line - 0.41, 0.82), facecolors=faces, linewidth=0)
        axes.set_yticks(range(len(strips)), [short(name, 24) for name in strips])
        for label, name in zip(axes.get_yticklabels(), strips, strict=True):
            label.set(color=colours.get(name, INK), fontweight="bold")
        axes.invert_yaxis()
        axes.set_xlim(0, start[-1] + 1)
        places = evenly(len(truth), 9)
        axes.set_xticks(start[places] + 0.5, [f"{onset} s" for onset in seconds(truth.onset_s[places])])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0)
        marks = [Patch(color=colour) for colour in shade[:-1]]
        figure.legend(
            marks,
            [short(name, 24) for name in names[:-1]],
            loc="outside lower center",
            ncols=min(8, len(names) - 1),
            handlelength=0.9,
            handleheight=0.9,
            columnspacing=1.4,
        )
        return picture(
            figure,
            "categories",
            "What was read, clip after clip",
            "One cell a clip, by onset; its colour is the most probable category. Faded cells are wrong.",
            f"Strips of coloured cells: what was shown, and what was read by {listed(rows)}.",
        ), ""


def lag_figure(sweep: LagSweep, block_s: float | None = None) -> Picture:
    """Return the score against the time from a clip's onset to the one brain volume it is read from."""
    with rc_context(STYLE):
        figure = new_figure(5.4, 3.3)
        axes = figure.subplots()
        lags = sweep.lags_s
        edge = float(np.diff(lags).min()) / 2 if len(lags) > 1 else 0.5
        axes.set_xlim(lags[0] - edge, lags[-1] + edge)
        if lags[0] < 0:
            axes.axvspan(lags[0] - edge, 0, color=SOFT, alpha=0.13, linewidth=0)
            axes.text(
                0, 1.02, "before the clip: control ", transform=axes.get_xaxis_transform(), ha="right", color=SOFT
            )
        if np.isfinite(sweep.low).any():
            axes.fill_between(lags, sweep.low, sweep.high, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(lags, sweep.values, color=COLOURS[0], marker="o", markersize=4)
        chance_line(axes, sweep.chance)
        best = sweep.best_lag_s
        if np.isfinite(best):
            score = float(sweep.values[lags == best][0])
            axes.plot([best], [score], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
        axes.set(xlabel="volume's time after the clip's onset (s)", ylabel=sweep.variant)
        note = ""
        if block_s is not None and block_s > 2 * edge * 1.5:
            note = (
                f" Clips come in blocks of about {block_s:.0f} s, so a volume just before a clip can lie in its block."
            )
        return picture(
            figure,
            "lag_sweep",
            "When the brain knows",
            "A decoder fitted anew on one volume at each lag; the band is the 95 % interval. Before the clip a volume "
            f"can't know it: what is reached there is what leaks through time.{note}",
            f"{sweep.variant} by lag: best {np.nanmax(sweep.values) if np.isfinite(best) else 0:.2f} at {best:.1f} s.",
        )


def curve_figure(curves: Mapping[str, IdentificationCurve], colours: Mapping[str, str]) -> Picture | None:
    """Return the accuracy of finding the true clip among more and more candidates."""
    if not curves:
        return None
    with rc_context(STYLE):
        figure = new_figure(5.4, 3.3)
        axes = figure.subplots()
        for name, curve in curves.items():
            if np.isfinite(curve.low).any():
                axes.fill_between(curve.candidates, curve.low, curve.high, color=colours[name], alpha=0.13, linewidth=0)
            axes.plot(curve.candidates, curve.values, color=colours[name], label=short(name, 24))
        first = next(iter(curves.values()))
        axes.plot(first.candidates, first.chance, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2, label="a guess")
        axes.set_xscale("log", base=2)
        most = float(first.candidates[-1])
        ticks = [tick for tick in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if tick < most / 1.3] + [most]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set(xlabel="candidates, the true clip included", ylabel="true clip found")
        side_legend(axes)
        return picture(
            figure,
            "identification",
            "Finding the clip among many",
            f"Share of reconstructions nearest to their own clip ({first.variant}); bands are 95 % intervals.",
            "; ".join(f"{name}: {curve.values[-1]:.0%} among {most:.0f}" for name, curve in curves.items()) + ".",
        )


def time_figure(
    variant: str, values: Mapping[str, np.ndarray], truth: Samples, colours: Mapping[str, str]
) -> Picture | None:
    """Return the score of every clip in the order of the test, with its blocks."""
    if not values or len(truth) < 3:
        return None
    with rc_context(STYLE):
        figure = new_figure(10.5, 2.7)
        axes = figure.subplots()
        order = np.arange(len(truth))
        borders = [0, *(np.flatnonzero(np.diff(truth.block)) + 1), len(truth)]
        for first, last in list(pairwise(borders))[1::2]:
            axes.axvspan(first - 0.5, last - 0.5, color=SOFT, alpha=0.10, linewidth=0)
        for name, scores in values.items():
            marker = "o" if len(truth) <= 150 else ""
            look: dict[str, Any] = {"color": colours[name], "marker": marker, "markersize": 2.6, "linewidth": 1.3}
            axes.plot(order, scores, label=short(name, 24), **look)
        places = evenly(len(truth), 11)
        axes.set_xticks(places, seconds(truth.onset_s[places]))
        axes.set_xlim(-0.5, len(truth) - 0.5)
        axes.set(xlabel="onset of the test clip (s)", ylabel=variant)
        side_legend(axes)
        return picture(
            figure,
            "scores_over_time",
            "Clip by clip",
            f"{variant} of every test clip. Bands are the blocks that interval and p-value resample.",
            f"{variant} over the test clips for {listed(values)}.",
        )


def confusion_figure(name: str, made: Reconstruction, truth: Samples) -> tuple[Picture | None, str]:
    """Return how often each category was read as each other one, or None and the reason why there is no matrix."""
    shown = [str(each) for each in dict.fromkeys(truth.category) if each]
    if made.probabilities is None or len(shown) < 2:
        return None, "the test clips have no categories or the system reads none"
    if not set(shown) & set(made.categories):
        return None, UNTAUGHT
    if max(len(shown), len(made.categories)) > 60:
        return None, "there are more than 60 categories"
    rows = [each for each in made.categories if each in shown] + [each for each in shown if each not in made.categories]
    columns = [each for each in rows if each in made.categories]
    columns += [each for each in made.categories if each not in columns]
    share = np.zeros((len(rows), len(columns)))
    for true, best in zip(truth.category, _best(made), strict=True):
        if str(true) in rows:
            share[rows.index(str(true)), columns.index(made.categories[best])] += 1
    share /= np.maximum(share.sum(1, keepdims=True), 1)
    with rc_context(STYLE):
        side = float(np.clip(0.42 * len(rows), 2.6, 9))
        figure = new_figure(side + 2.3, side + 1.0)
        axes = figure.subplots()
        drawn = axes.imshow(share, cmap="magma_r", vmin=0, vmax=1)
        if len(rows) <= 12:
            for (row, column), value in np.ndenumerate(share):
                if value > 0:
                    ink = PAPER if value > 0.45 else "#111111"
                    axes.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=7.5, color=ink)
        size = 9 if len(rows) <= 20 else 5.5
        axes.set_xticks(range(len(columns)), [short(each, 18) for each in columns], rotation=40, ha="right", size=size)
        axes.set_yticks(range(len(rows)), [short(each, 18) for each in rows], size=size)
        axes.tick_params(length=0)
        axes.set(xlabel="read from the brain", ylabel="shown")
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.7, format=FuncFormatter(lambda value, _: f"{value:.0%}"))
        bar.outline.set_visible(False)
        return picture(
            figure,
            "confusion",
            "What is taken for what",
            f"{name}: share of the clips of each category (rows) read as each category (columns).",
            f"Confusion matrix of {name}; {np.diag(share).mean():.0%} on the diagonal.",
        ), ""


def side_legend(axes: Axes) -> None:
    """Put the legend to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def chance_line(axes: Axes, chance: float | None) -> None:
    """Draw the score of a guess as a dashed line with its name."""
    if chance is not None and np.isfinite(chance):
        axes.axhline(chance, color=SOFT, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(
            "chance",
            (1, chance),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=SOFT,
            fontsize=8.5,
        )


def colour_bar(figure: Figure, drawn: Any, axes: Any, label: str) -> None:
    """Draw a slim colour bar."""
    bar = figure.colorbar(drawn, ax=axes, shrink=0.72, aspect=22, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))


def hues(count: int) -> list[str]:
    """Return that many colours that are told apart on white and on black."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [to_hex(colormaps["turbo"](0.06 + 0.88 * number / (count - 1))) for number in range(count)]


def seconds(times_s: np.ndarray) -> list[str]:
    """Return times as text, with a decimal only where whole seconds would make neighbours alike."""
    close = len(times_s) > 1 and np.abs(np.diff(times_s)).min() < 2
    return [f"{time:.1f}" if close else f"{time:.0f}" for time in times_s]


def short(text: str, most: int) -> str:
    """Return a text on one line with at most so many characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def listed(names: Iterable[str]) -> str:
    """Return `a, b and c`."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _best(made: Reconstruction) -> Sequence[int]:
    probabilities = made.probabilities
    return (
        []
        if probabilities is None
        else [int(best) for best in np.argmax(np.nan_to_num(probabilities, nan=-1.0), axis=1)]
    )
