"""Checkpoints of a training: whole or not there, safetensors and JSON only, the newest good one found by itself.

folder/step-00000120/     model.safetensors, optimiser.safetensors, average.safetensors (where there is an average)
                          state.json: the step, the settings, the history, and the SHA-256 of each file
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroreel.core.checks import require, sentence
from neuroreel.core.errors import DataError, NeuroreelError, NeuroreelWarning
from neuroreel.core.files import atomic, sha256

STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from.

    Attributes
    ----------
    step : optimiser steps done.
    tensors : by part ("model", "optimiser", "average"), by name.
    facts : the settings and the history: anything that JSON takes.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint under its step's name, and drop all but the `keep` newest; return where it lies.

    Raises
    ------
    DataError
        If the disk is full or the folder can't be written; the older ones are as they were.
    """
    target = folder / f"step-{checkpoint.step:08d}"
    with atomic(target) as partial:
        partial.mkdir()
        digests = {}
        for part, tensors in checkpoint.tensors.items():
            file = partial / f"{part}.safetensors"
            _save(dict(tensors), file)
            _to_disk(file)
            digests[part] = sha256(file)
        state = {"step": checkpoint.step, "sha256": digests, "facts": dict(checkpoint.facts)}
        (partial / STATE).write_text(json.dumps(state))
        _to_disk(partial / STATE)
    for old in _by_age(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a folder that is whole, or None.

    Warns
    -----
    NeuroreelWarning : one that is damaged was passed over, in one sentence with its file.
    """
    for path in _by_age(folder):
        try:
            return _read(path)
        except NeuroreelError as error:
            warnings.warn(f"a damaged checkpoint is passed over: {error}", NeuroreelWarning, stacklevel=2)
    return None


def _read(path: Path) -> Checkpoint:
    try:
        state = json.loads((path / STATE).read_text())
        step, digests, facts = int(state["step"]), dict(state["sha256"]), dict(state["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(sentence("checkpoint", f"must hold {STATE}", type(error).__name__, path)) from None
    tensors = {}
    for part, digest in digests.items():
        file = path / f"{part}.safetensors"
        got = sha256(file) if file.is_file() else "no file"
        require(got == digest, "checkpoint", f"must have the SHA-256 {digest}", got, file)
        tensors[part] = load_file(file)
    return Checkpoint(step, tensors, facts)


def fill_model(model: nn.Module, state: Mapping[str, Tensor], source: Path | None) -> None:
    """Give a network the weights of a checkpoint, and a sharded one each process's share of them.

    Raises
    ------
    DataError : they are of another network.
    """
    own = model.state_dict()
    other = sorted({name for name in {*own, *state} if name not in own or name not in state})
    other += [name for name in own if name in state and own[name].shape != state[name].shape]
    rule = "must be of this network"
    require(not other, "checkpoint", rule, f"other {', '.join(other[:3])}", source)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(sharded(state[name].to(value.device), value))


def _by_age(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Write tensors; a full disk is an OSError as it is for any other file."""
    try:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        known = re.search(r"(?:os error |code: )(\d+)", str(error))
        code = int(known[1]) if known else errno.EIO
        raise OSError(code, os.strerror(code)) from None


def _to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def flat_optimiser(optimiser: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """Return an optimiser's state as tensors by `parameter|quantity`; sharded ones are put together."""
    return {
        f"{names[parameter]}|{key}": whole(value)
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    }


def fill_optimiser(optimiser: torch.optim.Optimizer, flat: Mapping[str, Tensor], names: Mapping[Tensor, str]) -> None:
    """Give an optimiser the state that `flat_optimiser` returned."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in flat.items():
        name, quantity = key.rsplit("|", 1)
        parameter = parameters[name]
        like = parameter if value.shape == parameter.shape else None
        device = parameter.device if like is not None or _on_device(optimiser) else torch.device("cpu")
        optimiser.state[parameter][quantity] = sharded(value.to(device), like)


def _on_device(optimiser: torch.optim.Optimizer) -> bool:
    """Return whether the optimiser keeps its step counts beside the parameters."""
    return bool(optimiser.defaults.get("fused") or optimiser.defaults.get("capturable"))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that may be sharded over processes as a whole one; every process must call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def sharded(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Return a whole tensor laid out as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor):
        return distribute_tensor(tensor, like.device_mesh, like.placements)
    return tensor.clone()
