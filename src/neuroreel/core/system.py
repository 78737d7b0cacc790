"""What a system is: the protocol that ours and everybody else's keep, and the folder that a fit writes to."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from neuroreel.core.config import Config
from neuroreel.core.files import write_text
from neuroreel.core.sets import TrainingSet
from neuroreel.core.types import Reconstruction, Samples

MAKES = frozenset({"video", "image", "category", "features", "bold"})
_VERSIONS = ("neuroreel", "numpy", "scipy", "scikit-learn", "torch", "nibabel", "nilearn", "zarr", "av")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one fit: config, weights, logs, provenance.

    Attributes
    ----------
    path : the folder, made when the first file is written.
    seed : seed of everything random in the fit.
    device : "cpu" or "cuda".
    store : the store that the fit's data come from, where what is costly to make of its stimuli can be kept for every
        fit after; None where there is none.
    """

    path: Path
    seed: int = 0
    device: str = "cpu"
    store: Path | None = None

    def file(self, name: str) -> Path:
        """Return the path of a file in the folder, whose parents are made."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def record(self, name: str, values: Mapping[str, Any]) -> None:
        """Write values as a JSON file in the folder."""
        write_text(self.file(name), json.dumps(dict(values), indent=2, default=str) + "\n")


@runtime_checkable
class System(Protocol):
    """A way of reading what was seen out of a brain; see DESIGN.md and `neuroreel.testing.check_system`.

    `name` is the entry point's name, `Settings` the class of its config, `makes` a subset of `MAKES`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Config]]
    makes: frozenset[str]
    config: Any

    def __init__(self, config: Any = None) -> None: ...

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Fit on the training set and return self."""
        ...

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return what was seen, one row per brain window in the same order."""
        ...

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the truth's own features through the same generator: the best this system could show."""
        ...

    def save(self, folder: Path) -> None:
        """Write config and weights into a folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        ...


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
