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
    key, file = digest_of(made_of), run.path / f"cache/{name}.safetensors"
    if run.store is not None:
        found = read_derived(run.store, key)
        if found is not None:
            return {part: torch.from_numpy(values) for part, values in found.items()}
    if file.is_file() and read_about(file).get("made_of") == key:
        return read_state(file)
    made = {part: tensor.detach().cpu().contiguous() for part, tensor in make().items()}
    if run.store is not None:
        try:
            about = {"what": name, "versions": versions()}
            write_derived(run.store, key, {part: tensor.numpy() for part, tensor in made.items()}, about)
            return made
        except DataError:  # somebody else's store
            pass
    write_state(file, made, about={"made_of": key})
    return made
