"""Fit a classifier to labelled frames: KL divergence to the labels and an L2 penalty, seeded and resumable."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic
from neuroreel.core.seeds import generator

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class ClassifierConfig(Config):
    """Settings of the fit.

    Attributes
    ----------
    epochs : passes over the frames.
    batch : frames per step.
    rate : largest step of Adam; it rises over the first tenth and falls to 0 as a cosine.
    l2 : factor of half the squared norm of the weights (not of the biases) in the loss.
    seed : of the order, the augmentation and the dropout.
    """

    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=64, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    l2: float = Field(default=1e-4, ge=0)
    seed: int = 0


def kl_divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return KL(p || q) = H(p, q) - H(p) of each row, (n,): p the labels (n, classes), q the softmax of the logits."""
    entropy = torch.special.entr(labels).sum(1)
    return -(labels * logits.log_softmax(1)).sum(1) - entropy


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return labels (n,) int, or (n, classes) shares that sum to 1, as (n, classes) float32.

    Raises
    ------
    DataError : a label is outside 0..classes - 1, or shares are below 0 or don't sum to 1.
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        inside = labels.size == 0 or bool(labels.min() >= 0 and labels.max() < n_classes)
        checks.require(inside, "labels", f"must lie within 0..{n_classes - 1}", labels)
        return np.eye(n_classes, dtype=np.float32)[labels]
    checks.dimensions("labels", labels, ("n", "classes"))
    checks.same_length("label columns", labels.shape[1], "classes", n_classes)
    good = bool((labels >= 0).all() and np.allclose(labels.sum(1), 1, atol=1e-5))
    checks.require(good, "labels", "must be >= 0 and sum to 1", labels.sum(1).min())
    return labels.astype(np.float32)


def fit_classifier(
    net: nn.Module,
    frames: np.ndarray,
    labels: np.ndarray,
    prepare: Callable[[Tensor], Tensor],
    config: ClassifierConfig,
    *,
    n_classes: int,
    augment: Augment | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train a network in place to minimise mean KL(p || q) + l2 / 2 |weights|^2, and return a row per epoch.

    Parameters
    ----------
    net : frames' inputs to logits (n, classes).
    frames : (n, height, width, 3) uint8.
    labels : (n,) int, or (n, classes) shares: soft labels.
    prepare : uint8 frames (n, height, width, 3) to the network's inputs.
    augment : function of a batch of frames and a generator that returns other frames of the same shape.
    checkpoint : file to go on from, written after every epoch; the result is that of an unbroken run.
    on_epoch : called with the row of every finished epoch: epoch, kl, penalty, accuracy on the augmented frames.

    Raises
    ------
    DataError : labels and frames differ in number, labels break their rules, or the checkpoint is of other settings.
    """
    targets = torch.from_numpy(one_hot(labels, n_classes))
    checks.same_length("labels", len(targets), "frames", len(frames))
    checks.require(len(frames) > 0, "frames", "must be 1 or more", 0)
    weights = [value for value in net.parameters() if value.ndim > 1]
    optimiser = torch.optim.Adam(net.parameters(), lr=config.rate, betas=(0.9, 0.99))
    steps = -(-len(frames) // config.batch)
    history: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.is_file():
        history = _resume(checkpoint, net, optimiser, config)
    net.train()
    for epoch in range(len(history), config.epochs):
        rng = generator(config.seed, "classifier", epoch)
        order = rng.permutation(len(frames))
        totals = np.zeros(3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = config.rate * _schedule((epoch * steps + step) / (config.epochs * steps))
                rows = order[step * config.batch : (step + 1) * config.batch]
                batch = frames[rows] if augment is None else augment(frames[rows], rng)
                wanted = targets[torch.from_numpy(rows)]
                logits = net(prepare(torch.from_numpy(np.ascontiguousarray(batch))))
                divergence = kl_divergence(logits, wanted)
                penalty = config.l2 / 2 * torch.stack([weight.square().sum() for weight in weights]).sum()
                optimiser.zero_grad(set_to_none=True)
                (divergence.mean() + penalty).backward()
                optimiser.step()
                right = (logits.argmax(1) == wanted.argmax(1)).sum()
                totals += len(rows) * np.array([divergence.mean().item(), penalty.item(), right.item() / len(rows)])
        kl, mean_penalty, accuracy = totals / len(frames)
        history.append({"epoch": epoch + 1, "kl": kl, "penalty": mean_penalty, "accuracy": accuracy})
        if checkpoint is not None:
            with atomic(checkpoint) as partial:
                torch.save(_state(net, optimiser, config, history), partial)
        if on_epoch is not None:
            on_epoch(history[-1])
    net.eval()
    return history


def _schedule(done: float) -> float:
    """Return the share of the largest step when a share of all steps is done."""
    return min(1.0, 0.05 + done / 0.1) * 0.5 * (1 + math.cos(math.pi * done))


def _state(
    net: nn.Module, optimiser: torch.optim.Optimizer, config: ClassifierConfig, history: list[dict[str, float]]
) -> dict[str, object]:
    rows = [{key: float(value) for key, value in row.items()} for row in history]
    settings = config.model_dump_json()
    return {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "config": settings, "history": rows}


def _resume(
    checkpoint: Path, net: nn.Module, optimiser: torch.optim.Optimizer, config: ClassifierConfig
) -> list[dict[str, float]]:
    try:
        state = torch.load(checkpoint, weights_only=True)
        same = state["config"] == config.model_dump_json()
        checks.require(same, "checkpoint", "must be of the same settings", state["config"], checkpoint)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:80]
        raise DataError(
            checks.sentence("checkpoint", "must be whole and of this network", reason, checkpoint)
        ) from None
    return list(state["history"])
