"""What a frozen network makes of data, computed once and kept under what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from neuroreel.core.errors import DataError
from neuroreel.core.files import digest_of
from neuroreel.core.store import read_derived, write_derived
from neuroreel.core.system import RunFolder, versions
from neuroreel.nets.weights import read_about, read_state, write_state


def cached(
    run: RunFolder, name: str, made_of: Sequence[str | np.ndarray], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return tensors by name that were made of the same before, else make them and keep them.

    They lie in the run's store, for every fit of whatever system, seed or subject that asks for the same; where there
    is no store, or it can't be written, in the run's folder.

    Parameters
    ----------
    name : what they are, in plain words without spaces: "latents-train".
    made_of : everything that the tensors depend on: names, settings, and the data itself.
    make : returns the tensors, of types that numpy has too.
    """
    key = digest_of(made_of)
    found = _from_store(run, key)
    if found is None and run.store is not None:
        made = {part: tensor.detach().cpu().numpy() for part, tensor in make().items()}
        try:
            write_derived(run.store, key, made, {"what": name, "versions": versions()})
        except DataError:  # somebody else's store
            return _in_folder(run, name, key, lambda: {part: torch.from_numpy(values) for part, values in made.items()})
        found = _from_store(run, key)
    return found if found is not None else _in_folder(run, name, key, make)


def _from_store(run: RunFolder, key: str) -> dict[str, Tensor] | None:
    arrays = None if run.store is None else read_derived(run.store, key)
    return None if arrays is None else {part: torch.from_numpy(values) for part, values in arrays.items()}


def _in_folder(run: RunFolder, name: str, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a file of the run's folder; one that was made of something else is written anew."""
    file = run.file(f"cache/{name}.safetensors")
    if not (file.is_file() and read_about(file).get("made_of") == key):
        write_state(file, make(), about={"made_of": key})
    return read_state(file)  # the same layout in memory at every call, and so the same rounding
