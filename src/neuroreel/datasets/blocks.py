"""Labels of single volumes to events."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from neuroreel.core.types import Event


def blocks_of(
    labels: Sequence[tuple[str, str]], step_s: float, dropped: Collection[str] = (), start_s: float = 0.0
) -> tuple[Event, ...]:
    """Return an event for each stretch of equal labels.

    Parameters
    ----------
    labels : (category, caption) of every step.
    step_s : seconds from one to the next.
    dropped : categories that are no event.
    start_s : time of the first.
    """
    events, row = [], 0
    for (category, caption), group in groupby(labels):
        count = len(list(group))
        if category not in dropped:
            events.append(Event(start_s + row * step_s, count * step_s, category, caption))
        row += count
    return tuple(events)
