"""The training loop that all networks share, on accelerate: one process, DDP or FSDP2 without a line changing.

A step's samples, and all that is drawn for them, follow from the seed and the step alone. So one process and several
see the same batches, and a training that was killed goes on to the very weights of one that was not.

    source = Arrays(frames)                        # or anything that keeps the protocol `Source`
    trained = train(net, loss, source, LoopConfig(steps=1000), folder=Path("fit"), on_progress=print)

Several `Player`s may take turns at every step, each with its own loss and its own part of the network, as a generator
and its discriminator do.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.seeds import generator
from neuroreel.fit.checkpoints import (
    Checkpoint,
    fill_model,
    fill_optimiser,
    flat_optimiser,
    newest_checkpoint,
    sharded,
    whole,
    write_checkpoint,
)

Batch = dict[str, Any]
Loss = Callable[[nn.Module, Batch], Tensor]
_EVERYONE = "loss"
_MAY_DIFFER = ("checkpoint_every", "keep", "compile", "log", "accumulate")


class LoopConfig(Config):
    """How a network is trained.

    Attributes
    ----------
    steps : optimiser steps.
    batch : samples a step, of all processes together.
    accumulate : parts that a process takes its samples of a step in, to save memory.
    rate : largest learning rate of AdamW; it rises over the warm-up and falls to 0 as a cosine.
    warm_up : share of the steps.
    betas, weight_decay : of AdamW; biases, norms and other vectors do not decay.
    clip : largest norm of the gradient; None for no limit.
    average : decay of the exponential moving average of the weights; 0 for none.
    precision : "auto" computes in bfloat16 where the device has it and gains by it (any GPU that has it, a processor
        with AMX or AVX-512 BF16), "bf16" always, "float32" never; the weights are float32.
    compile : compile the network (torch.compile).
    checkpoint_every : steps between two checkpoints; 0 for one at the end only.
    keep : checkpoints to keep.
    log : "tensorboard" writes the curves there too; "none".
    seed : of the order and of all that is drawn.
    """

    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=64, ge=1)
    accumulate: int = Field(default=1, ge=1)
    rate: float = Field(default=2.5e-4, gt=0)
    warm_up: float = Field(default=0.08, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float | None = Field(default=0.8, gt=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "bf16", "float32"] = "auto"
    compile: bool = False
    checkpoint_every: int = Field(default=0, ge=0)
    keep: int = Field(default=2, ge=1)
    log: Literal["none", "tensorboard"] = "none"
    seed: int = Field(default=0, ge=0)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: a linear warm-up, then a cosine to 0."""
        rising = round(self.warm_up * self.steps)
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))


@dataclass(frozen=True)
class Player:
    """One of several that learn in turns: at each step, it lowers its own loss by its own part of the network.

    Attributes
    ----------
    name : of its curve, and in messages.
    loss : as that of `train`.
    parts : beginnings of the names of the parameters that it learns; all others stand still in its turn.
    rate : its learning rate, in units of the config's.
    """

    name: str
    loss: Loss
    parts: tuple[str, ...] = ("",)
    rate: float = 1.0


class Source(Protocol):
    """Where the samples come from."""

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the batches of one pass, each (batch,) sample numbers, in an order drawn from `rng`."""
        ...

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return the given samples; what is random about sample i (a mask, noise) is drawn from `seeds[i]` alone."""
        ...


@dataclass(frozen=True)
class Arrays:
    """Samples in memory: arrays by name, rows first."""

    arrays: Mapping[str, Any]

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all rows in another order, in batches; what is left over waits for another pass."""
        return in_batches(rng.permutation(len(next(iter(self.arrays.values())))), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return the given rows of every array."""
        return {name: torch.as_tensor(np.ascontiguousarray(array[rows])) for name, array in self.arrays.items()}


def in_batches(order: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return an order in whole batches."""
    checks.require(len(order) >= batch, "batch", f"must be no more than the samples ({len(order)})", batch)
    return [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes
    ----------
    step, steps : done, and in all.
    loss : of the last step, over all processes; of the last player where there are several.
    rate : learning rate of the last step.
    samples_per_s : since this run began.
    eta_s : seconds left.
    """

    step: int
    steps: int
    loss: float
    rate: float
    samples_per_s: float
    eta_s: float


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes
    ----------
    losses : (steps,) of every step, those before a resume too; (steps, players) where there are several.
    average : the moving average of the weights by name, empty where none was asked for.
    weights : the whole network's, where it is sharded over processes (FSDP) and stays so; empty elsewhere.
    resumed_at : the step that this run went on from; 0 for none.
    samples_per_s : of this run, all processes together.
    precision : "bf16" or "float32", as computed.
    """

    losses: np.ndarray
    average: dict[str, Tensor]
    weights: dict[str, Tensor]
    resumed_at: int
    samples_per_s: float
    precision: str


def train(
    model: nn.Module,
    loss: Loss | Sequence[Player],
    source: Source,
    config: LoopConfig,
    *,
    folder: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cpu: bool = False,
    facts: Mapping[str, Any] | None = None,
    some_unused: bool = False,
) -> Trained:
    """Train a network in place, and go on from the newest whole checkpoint of the folder if there is one.

    Parameters
    ----------
    loss : function of the network and a batch that returns one loss per sample, (n,); or players that take their turns
        on the samples of every step in the order given, no parameter being learnt by two of them.
    source : the samples.
    folder : for checkpoints and logs; None keeps none.
    on_progress : called after every step, by the first process only.
    cpu : stay on the CPU.
    facts : kept in the checkpoints, and must be the same on a resume: what the network was made with.
    some_unused : parts of the network may have no share in a step, as one subject's part in another one's batch.

    Returns
    -------
    Trained
        The network has the last weights, not the average.

    Raises
    ------
    DataError
        A loss or gradient is NaN or infinite: the step and the samples are named and the last good checkpoint is kept.
        The GPU's memory is too small: what to lower. A checkpoint is of other settings.
    ConfigError
        The batch can't be shared among the processes, a setting needs a package that isn't there, or a player has
        nothing to learn or what another one learns.

    Warns
    -----
    NeuroreelWarning : the disk is full: training goes on with the last checkpoint whole, and the last one is an error.
    """
    players = (Player(_EVERYONE, loss),) if callable(loss) else tuple(loss)
    run = _Run(model, players, source, config, folder, cpu, dict(facts or {}), some_unused or len(players) > 1)
    try:
        with torch.random.fork_rng():
            return run.train(on_progress)
    except torch.OutOfMemoryError:
        lower = f"lower batch ({config.batch}), raise accumulate ({config.accumulate})"
        raise DataError(f"GPU memory must hold a step, got out of memory: {lower} or take a smaller network") from None
    finally:
        run.close()


class _Run:
    """One call of `train`: the network, its optimiser and where they stand."""

    def __init__(
        self,
        model: nn.Module,
        players: tuple[Player, ...],
        source: Source,
        config: LoopConfig,
        folder: Path | None,
        cpu: bool,
        facts: dict[str, Any],
        some_unused: bool,
    ) -> None:
        self.players, self.source, self.config, self.folder = players, source, config, folder
        if len(players) > 1:
            facts = facts | {"players": {player.name: player.rate for player in players}}
        self.facts = facts | {"loop": config.model_dump(mode="json", exclude=set(_MAY_DIFFER))}
        handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=some_unused)]
        log_dir = self._log_folder()
        self.engine = Accelerator(
            cpu=cpu, kwargs_handlers=handlers, log_with=log_dir and "tensorboard", project_dir=log_dir
        )
        if log_dir is not None:
            self.engine.init_trackers("neuroreel")
        self._refuse_what_cannot_be_shared()
        self.dtype = device_dtype(config.precision, self.engine.device)
        if config.compile:
            model = cast(nn.Module, torch.compile(model))
        optimiser = _optimiser(model, players, config, self.engine.device)
        self.model, self.optimiser = self.engine.prepare(model, optimiser)
        self.plain = self.engine.unwrap_model(self.model, keep_torch_compile=False)
        self.names: dict[Tensor, str] = {value: name for name, value in self.plain.named_parameters()}
        self.average = {n: p.detach().clone() for p, n in self.names.items()} if config.average > 0 else {}
        self.learns = {
            player.name: [value for value, name in self.names.items() if value.requires_grad and _takes(player, name)]
            for player in players
        }
        self.losses: list[Any] = []  # of every step: a number, or one for each of several players

    def train(self, on_progress: Callable[[Progress], None] | None) -> Trained:
        config, first = self.config, self.engine.is_main_process
        self.resume()
        begun, start = len(self.losses), time.perf_counter()
        batches = _batches(self.source, config, begun)
        self.model.train()
        for step in range(begun, config.steps):
            each = self.step(step, next(batches))
            self.losses.append(each if len(each) > 1 else each[0])
            per_s = config.batch * (step + 1 - begun) / (time.perf_counter() - start)
            rate = config.rate_at(step)
            if self.config.log != "none":
                curves = {player.name: value for player, value in zip(self.players, each, strict=True)}
                self.engine.log(curves | {"rate": rate, "samples_per_s": per_s}, step=step)
            if on_progress is not None and first:
                left = (config.steps - step - 1) * config.batch / per_s
                on_progress(Progress(step + 1, config.steps, each[-1], rate, per_s, left))
            due = config.checkpoint_every and (step + 1) % config.checkpoint_every == 0
            if step + 1 == config.steps or due:
                self.save(step + 1)
        self.model.eval()
        done = config.steps - begun
        seconds = time.perf_counter() - start
        return Trained(
            np.array(self.losses),
            {name: whole(value).cpu() for name, value in self.average.items()},
            {n: whole(v).cpu() for n, v in self.plain.state_dict().items()} if self.engine.is_fsdp2 else {},
            begun,
            config.batch * done / seconds if done else 0.0,
            "bf16" if self.dtype == torch.bfloat16 else "float32",
        )

    def step(self, step: int, rows: np.ndarray) -> list[float]:
        """Let every player take a step on the samples of all processes, and return their mean losses."""
        seeds = generator(self.config.seed, "samples", step).integers(2**62, size=len(rows))
        torch.manual_seed(int(seeds[self.engine.process_index]))
        for group in self.optimiser.param_groups:
            group["lr"] = group["times"] * self.config.rate_at(step)
        means = [self.turn(player, step, rows, seeds) for player in self.players]
        if self.average:
            decay = min(self.config.average, (1 + step) / (10 + step))
            with torch.no_grad():
                for parameter, name in self.names.items():
                    self.average[name].lerp_(parameter.detach(), 1 - decay)
        return means

    def turn(self, player: Player, step: int, rows: np.ndarray, seeds: np.ndarray) -> float:
        """Take one player's step on the samples of all processes and return their mean loss.

        What the others learn needs no gradient meanwhile and gets none, and AdamW leaves alone what has none: one
        optimiser serves for all.
        """
        config, engine = self.config, self.engine
        for name, values in self.learns.items():
            for value in values:
                value.requires_grad_(name == player.name)
        mine = np.array_split(np.arange(len(rows)), engine.num_processes)[engine.process_index]
        parts = np.array_split(mine, config.accumulate)
        losses = []
        for number, part in enumerate(parts):
            batch = {key: _to(value, engine.device) for key, value in self.source.read(rows[part], seeds[part]).items()}
            wait = engine.no_sync(self.model) if number + 1 < len(parts) else nullcontext()
            with wait:
                with torch.autocast(engine.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                    each = player.loss(self.model, batch)
                engine.backward(each.float().mean() / len(parts))
            losses.append(each.detach().float())
        every = engine.gather(torch.cat(losses))
        mean = float(every.mean())
        norm = self._clip()
        if not (math.isfinite(mean) and math.isfinite(norm)):
            self._stop(player, step, rows, every, norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return mean

    def _clip(self) -> float:
        limit = self.config.clip if self.config.clip is not None else math.inf
        norm = self.engine.clip_grad_norm_(self.model.parameters(), limit)
        return float(whole(norm)) if norm is not None else 0.0

    def _stop(self, player: Player, step: int, rows: np.ndarray, losses: Tensor, norm: float) -> None:
        """Raise the sentence that names the step and the samples, and whose turn it was where there are several."""
        whose = f" of the {player.name}" if len(self.players) > 1 else ""
        bad = [int(row) for row, value in zip(rows, losses.tolist(), strict=True) if not math.isfinite(value)]
        got = f"{float(losses.mean())}" if bad else f"{float(losses.mean()):.4g} with a gradient of {norm}"
        listed = bad or [int(row) for row in rows]
        samples = ", ".join(str(row) for row in listed[:8]) + (", ..." if len(listed) > 8 else "")
        last = max((path.name for path in self.folder.glob("step-*")), default="none") if self.folder else "none"
        where = f"step {step + 1}, samples {samples}; last checkpoint: {last}"
        raise DataError(f"loss and gradient{whose} must be finite, got {got} ({where})")

    def save(self, step: int) -> None:
        """Write a checkpoint; a full disk is a warning unless the training is at its end."""
        if self.folder is None:
            return
        model = {name: whole(value) for name, value in self.plain.state_dict().items()}
        tensors = {"model": model, "optimiser": flat_optimiser(self.optimiser.optimizer, self.names)}
        if self.average:
            tensors["average"] = {name: whole(value) for name, value in self.average.items()}
        failed: DataError | None = None
        if self.engine.is_main_process:
            facts = self.facts | {"losses": self.losses}
            try:
                write_checkpoint(self.folder, Checkpoint(step, tensors, facts), self.config.keep)
            except DataError as error:
                failed = error
        self.engine.wait_for_everyone()
        if failed is not None and step == self.config.steps:
            raise failed
        if failed is not None:
            text = f"training goes on, with the last checkpoint as it was: {failed}"
            warnings.warn(text, NeuroreelWarning, stacklevel=4)

    def resume(self) -> None:
        """Take the newest whole checkpoint, if there is one."""
        found = newest_checkpoint(self.folder) if self.folder is not None else None
        if found is None:
            return
        kept = {key: value for key, value in found.facts.items() if key != "losses"}
        wanted = copy.deepcopy(self.facts)
        others = sorted(_differing(wanted, kept))
        checks.require(
            not others, "checkpoint", "must be of the same settings", f"other {', '.join(others)}", self.folder
        )
        fill_model(self.plain, found.tensors["model"], self.folder)
        fill_optimiser(self.optimiser.optimizer, found.tensors["optimiser"], self.names)
        for name, value in found.tensors.get("average", {}).items():
            self.average[name] = sharded(value.to(self.engine.device), self.average[name])
        self.losses = list(found.facts["losses"])

    def _log_folder(self) -> str | None:
        if self.config.log == "none":
            return None
        there = importlib.util.find_spec("tensorboard") is not None
        checks.require(
            there,
            "log",
            "must name a package that is installed (pip install tensorboard)",
            "tensorboard",
            error=ConfigError,
        )
        checks.require(self.folder is not None, "log", "must go with a folder", None, error=ConfigError)
        return str(self.folder)

    def _refuse_what_cannot_be_shared(self) -> None:
        processes = self.engine.num_processes
        parts = processes * self.config.accumulate
        rule = f"must be a multiple of processes x accumulate ({processes} x {self.config.accumulate})"
        checks.require(self.config.batch % parts == 0, "batch", rule, self.config.batch, error=ConfigError)
        plugin = getattr(self.engine.state, "fsdp_plugin", None)
        version = 2 if plugin is None else plugin.fsdp_version
        checks.require(version == 2, "fsdp_version", "must be 2", version, error=ConfigError)

    def close(self) -> None:
        for value in (value for own in self.learns.values() for value in own):
            value.requires_grad_(True)
        if self.config.log != "none":
            self.engine.end_training()


def _batches(source: Source, config: LoopConfig, begun: int) -> Iterator[np.ndarray]:
    """Give the batches of every step from `begun` on."""
    step, number = 0, 0
    while True:
        batches = source.epoch(config.batch, generator(config.seed, "epoch", number))
        yield from batches[max(0, begun - step) :]
        step, number = step + len(batches), number + 1


def _optimiser(
    model: nn.Module, players: tuple[Player, ...], config: LoopConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Return AdamW of all that the players learn, fused where there is such a kernel."""
    groups: list[dict[str, Any]] = []
    owner: dict[str, str] = {}
    for player in players:
        own = {n: p for n, p in model.named_parameters() if p.requires_grad and _takes(player, n)}
        rule = "must learn parameters that are there, each learnt by no other"
        taken = next((f"{name} of the {owner[name]}" for name in own if name in owner), None)
        got = taken or (None if own else f"none that begins with {' or '.join(player.parts)}")
        checks.require(got is None, f"the {player.name}", rule, got, error=ConfigError)
        owner |= dict.fromkeys(own, player.name)
        many, one = [p for p in own.values() if p.ndim > 1], [p for p in own.values() if p.ndim <= 1]
        groups += [
            {"params": values, "weight_decay": decay, "times": player.rate}
            for values, decay in ((many, config.weight_decay), (one, 0.0))
            if values
        ]
    return torch.optim.AdamW(groups, lr=config.rate, betas=config.betas, fused=device.type in ("cpu", "cuda"))


def _takes(player: Player, name: str) -> bool:
    """Tell whether a parameter is of a player's part; a compiled network has a word before its names."""
    return name.removeprefix("_orig_mod.").startswith(player.parts)


def device_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in."""
    if precision == "auto":
        precision = "bf16" if _gains_by_bf16(device.type) else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


@lru_cache(maxsize=4)
def _gains_by_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Give the dotted keys in which two settings differ."""
    for key in sorted({*a, *b}):
        mine, other = a.get(key), b.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            yield from _differing(mine, other, f"{prefix}{key}.")
        elif _as_json(mine) != _as_json(other):
            yield f"{prefix}{key} ({other}, not {mine})"


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
