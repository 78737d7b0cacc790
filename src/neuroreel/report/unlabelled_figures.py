"""Does unlabelled video help? A score with and without it against the length of the paired scan, and the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from neuroreel.core import checks
from neuroreel.report.figures import COLOURS, INK, SOFT, STYLE, Picture, new_figure, picture


@dataclass(frozen=True)
class Helped:
    """One metric of one world with and without unlabelled video.

    Attributes
    ----------
    minutes : (points,) of paired scan.
    without, with_ : (points,) means of the metric.
    difference, low, high : (points,) mean of with - without over the same clips, and its 95 % interval.
    """

    minutes: np.ndarray
    without: np.ndarray
    with_: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray


def unlabelled_picture(worlds: Mapping[str, Sequence[Helped]]) -> Picture:
    """Return a row of two panels for each metric: the score, and what the self-supervised phase added to it.

    Parameters
    ----------
    worlds : by metric, one `Helped` for each simulated world or subject.

    Raises
    ------
    DataError : there is nothing to draw.
    """
    checks.require(any(worlds.values()), "metrics", "must be 1 or more, each of 1 world or more", 0)
    told = []
    with rc_context(STYLE):
        figure = new_figure(8.4, 2.9 * len(worlds))
        for axes, (metric, found) in zip(figure.subplots(len(worlds), 2, squeeze=False), worlds.items(), strict=True):
            for number, one in enumerate(found):
                last = number == len(found) - 1
                axes[0].plot(one.minutes, one.without, "o--", color=SOFT, label="pairs alone" if last else None)
                axes[0].plot(one.minutes, one.with_, "o-", color=COLOURS[0], label="with cycles" if last else None)
                at = one.minutes * 1.06 ** (number - (len(found) - 1) / 2)  # worlds side by side
                errors = np.abs(np.stack([one.difference - one.low, one.high - one.difference]))
                axes[1].errorbar(at, one.difference, errors, fmt="o", color=COLOURS[0], capsize=3, linewidth=1.4)
            axes[1].axhline(0, color=INK, linewidth=0.8)
            axes[0].set_ylabel(metric)
            axes[1].set_ylabel("added by unlabelled video")
            axes[0].legend(frameon=False, loc="lower right")
            ticks = np.unique(np.concatenate([one.minutes for one in found]))
            for one_axes in axes:
                one_axes.set_xscale("log")
                one_axes.set_xlabel("minutes of paired scan")
                one_axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
                one_axes.xaxis.set_minor_locator(NullLocator())
                one_axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
            gains = [f"{one.difference[0]:+.3f} at {one.minutes[0]:.3g} min" for one in found]
            told.append(f"{metric}: {', '.join(gains)}")
        return picture(
            figure,
            "unlabelled_video",
            "Does unlabelled video help?",
            "Left, the score with and without the self-supervised phase; right, the difference over the same test "
            "clips with its 95 % interval from a bootstrap over scenes. One line or point for each world.",
            "; ".join(told) + ".",
        )
