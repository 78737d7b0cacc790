"""A training that is looked at on the way, and leaves its network with the moving average of its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from neuroreel.fit.loop import LoopConfig, Loss, Progress, Source, train


def train_watched(
    net: nn.Module,
    loss: Loss,
    source: Source,
    loop: LoopConfig,
    look: Callable[[], Any] | None = None,
    *,
    folder: Path | None = None,
    cpu: bool = False,
    facts: Mapping[str, Any] | None = None,
    rebuild: Callable[[], nn.Module] | None = None,
    looks: int = 10,
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a trained network on the CPU, ready to be used, and the record of its training.

    Parameters
    ----------
    net, loss, source, loop, folder, cpu, facts : as in `fit.loop.train`.
    look : what is to be told of the network on data that isn't trained on; called after the first step, about `looks`
        times in all, and of the average at the end.
    rebuild : makes the network anew where a sharded one stays so.

    Returns
    -------
    tuple : the network, and a dict with the losses (200 means at most), validation (step and what `look` told),
    validation_of_average, samples_per_s, precision and resumed_at.
    """
    seen: list[tuple[int, Any]] = []

    def say(now: Progress) -> None:
        if look is not None and (now.step == 1 or now.step % max(1, loop.steps // looks) == 0):
            seen.append((now.step, look()))

    done = train(net, loss, source, loop, folder=folder, on_progress=say, cpu=cpu, facts=facts, some_unused=True)
    if done.weights and rebuild is not None:
        net = rebuild()
        net.load_state_dict(done.weights, strict=False)
    net.to("cpu").eval()
    if done.average:
        net.load_state_dict(done.average, strict=False)
    about: dict[str, Any] = {"losses": thinned(done.losses), "validation": seen}
    if look is not None:
        about["validation_of_average"] = look()
    return net, about | {
        "samples_per_s": done.samples_per_s,
        "precision": done.precision,
        "resumed_at": done.resumed_at,
    }


def thinned(losses: np.ndarray, most: int = 200) -> list[float]:
    """Return a curve as so many means at most."""
    return [float(part.mean()) for part in np.array_split(losses, min(most, len(losses)))] if len(losses) else []
