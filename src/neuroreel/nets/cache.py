"""What a frozen network makes of data, computed once and kept in a file that knows what it was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from neuroreel.nets.weights import read_about, read_state, write_state


def cached(file: Path, made_of: Sequence[str | np.ndarray], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return tensors by name from a file that was made of the same, else make them and write the file.

    Parameters
    ----------
    file : safetensors; one that was made of something else is written anew.
    made_of : everything that the tensors depend on: names, settings, and the data itself.
    make : returns the tensors.
    """
    key = digest_of(made_of)
    if not (file.is_file() and read_about(file).get("made_of") == key):
        write_state(file, make(), about={"made_of": key})
    return read_state(file)  # the same layout in memory at every call, and so the same rounding


def digest_of(parts: Sequence[str | np.ndarray]) -> str:
    """Return the SHA-256 of texts and arrays, one behind the other."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(part.tobytes())
        digest.update(b"\0")
    return digest.hexdigest()
