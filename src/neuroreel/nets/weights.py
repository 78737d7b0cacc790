"""Weights in files: read without pickle, checked by SHA-256, fitted to a module by name, every fault one sentence."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroreel.core.checks import require, sentence
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import atomic, sha256
from neuroreel.core.seeds import generator

_ABOUT = "neuroreel"
"""Under which name a file's header has what it says of itself."""


def read_state(file: str | Path, digest: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file, or of a torch file whose content is tensors only.

    Parameters
    ----------
    file : the weights.
    digest : SHA-256 that the file must have, hexadecimal.

    Raises
    ------
    ConfigError : the file is missing.
    DataError : the file is corrupt, holds more than tensors, or has another SHA-256.
    """
    file = Path(file)
    require(file.is_file(), "weights", "must be a readable file", repr(str(file)), error=ConfigError)
    if digest is not None:
        got = sha256(file)
        require(got == digest.lower(), "weights", f"must have the SHA-256 {digest.lower()}", got, file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise DataError(sentence("weights", "must be whole safetensors", _first_words(error), file)) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(sentence("weights", "must be a state dict of tensors", _first_words(error), file)) from None
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    tensors = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
    require(tensors, "weights", "must be a state dict of tensors", type(state).__name__, file)
    return dict(state)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str | Path | None = None) -> None:
    """Copy a state dict into a module; every name and shape must be the module's.

    Raises
    ------
    DataError : a key is missing, unknown or of another shape; the sentence names it with both shapes.
    """
    own = module.state_dict()
    for key, value in own.items():
        known = ", ".join(list(state)[:3])
        require(key in state, f"weights {key}", f"must be there, {_shape(value)}", f"a file with {known}, ...", source)
        require(
            state[key].shape == value.shape,
            f"weights {key}",
            f"must have the shape {_shape(value)}",
            _shape(state[key]),
            source,
        )
    unknown = next((key for key in state if key not in own), None)
    require(unknown is None, "weights", "must have only the layers of the module", unknown, source)
    module.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})


def take_tensors(module: nn.Module, state: Mapping[str, Tensor], source: str | Path | None = None) -> None:
    """Copy some of a module's parameters into it, such as those that were tuned; the others stay.

    Raises
    ------
    DataError : a parameter isn't the module's, or has another shape there.
    """
    own = dict(module.named_parameters())
    for name, value in state.items():
        same = name in own and own[name].shape == value.shape
        rule = "must be those of the generator that the config names"
        require(same, f"weights {name}", rule, _shape(value), source)
        own[name].data.copy_(value)


def write_state(
    file: Path,
    module: nn.Module | Mapping[str, Tensor],
    *,
    half: bool = False,
    about: Mapping[str, str] | None = None,
) -> str:
    """Write a module's tensors as safetensors, in float16 if `half`, and return the file's SHA-256.

    Parameters
    ----------
    module : the module, or the tensors by name where not all of a module's are to be kept.
    about : what `read_about` gives back, kept in the file's header.
    """
    state = module.state_dict() if isinstance(module, nn.Module) else module
    kept = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    if half:
        kept = {key: value.half() if value.is_floating_point() else value for key, value in kept.items()}
    with atomic(file) as partial:
        # as one text: safetensors writes several in no fixed order, and equal weights are to be equal files
        save_file(kept, partial, metadata={_ABOUT: json.dumps(dict(about), sort_keys=True)} if about else None)
        partial.chmod(0o644)
    return sha256(file)


def read_about(file: str | Path) -> dict[str, str]:
    """Return what a `.safetensors` file says of itself in its header, empty if nothing.

    Raises
    ------
    ConfigError : the file is missing.
    DataError : the file is corrupt.
    """
    require(Path(file).is_file(), "weights", "must be a readable file", repr(str(file)), error=ConfigError)
    try:
        with safe_open(file, framework="pt") as opened:
            found = dict(opened.metadata() or {})
    except SafetensorError as error:
        raise DataError(sentence("weights", "must be whole safetensors", _first_words(error), file)) from None
    return dict(json.loads(found[_ABOUT])) if _ABOUT in found else found


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's names, shapes and values; the values as bfloat16 has them.

    So a network is known again whether it is held in float32 or in bfloat16.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        rounded = value.detach().to(torch.bfloat16) if value.is_floating_point() else value
        digest.update(rounded.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def first_weights(seed: int, *names: str) -> Iterator[None]:
    """Draw the first weights of whatever is made in the block by name, without a trace in the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, *names).integers(2**62)))
        yield


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
