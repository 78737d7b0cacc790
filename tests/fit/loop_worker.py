"""A small training that the tests start as processes of their own: `python loop_worker.py FOLDER KEY=VALUE ...`."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neuroreel.core.seeds import generator
from neuroreel.fit.loop import Arrays, Batch, LoopConfig, Player, Progress, train


def make_net(dropout: bool = True) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.1 * dropout), nn.Linear(16, 2))


def make_source(rows: int = 96, bad: int | None = None) -> Arrays:
    x = generator(0, "loop").standard_normal((rows, 6)).astype(np.float32)
    y = np.tanh(x[:, :2] * x[:, 2:4])
    if bad is not None:
        y[bad] = np.nan
    return Arrays({"x": x, "y": y})


def squared_error(net: nn.Module, batch: Batch) -> Tensor:
    return (net(batch["x"]) - batch["y"]).square().mean(1)


def teacher_and_pupil() -> list[Player]:
    """Two players with parts of their own: the first layer learns the answer, the last one the opposite."""
    return [
        Player("teacher", squared_error, ("0.",), rate=2.0),
        Player("pupil", lambda net, batch: (net(batch["x"]) + batch["y"]).square().mean(1), ("3.",)),
    ]


def main() -> None:
    folder, *settings = sys.argv[1:]
    kill_at = int(os.environ.get("KILL_AT", "0"))
    net = make_net(dropout="NO_DROPOUT" not in os.environ)

    def die(progress: Progress) -> None:
        if progress.step == kill_at:
            os.kill(os.getpid(), 9)

    config = LoopConfig.read(None, settings)
    loss = teacher_and_pupil() if "PLAYERS" in os.environ else squared_error
    trained = train(net, loss, make_source(), config, folder=Path(folder), on_progress=die, cpu=True)
    if os.environ.get("RANK", "0") == "0":
        np.save(Path(folder) / "losses.npy", trained.losses)


if __name__ == "__main__":
    main()
