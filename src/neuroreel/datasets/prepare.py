"""Files of any kind into a store: one door for studies by name, BIDS folders, HCP folders and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroreel.core import checks
from neuroreel.core.config import parse_override
from neuroreel.core.errors import ConfigError
from neuroreel.core.store import Progress, write_store
from neuroreel.core.study import Study
from neuroreel.datasets import STUDIES


def prepare(
    source: str | Path,
    target: str | Path,
    *,
    settings: Sequence[str] = (),
    cache_frames: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Read a source and write it to a store, whole or not at all; return the store's path.

    Parameters
    ----------
    source : name of a study in `datasets.STUDIES`, a TOML file about arrays, a BIDS-derivatives folder, a folder of
        the Human Connectome Project, or a BData file of trials (`Subject1.h5`).
    target : the store, by custom `*.zarr`.
    settings : `key=value` settings of the source: a study's own, keys of the TOML, a `BidsChoice`, an `HcpChoice` or a
        `TrialsConfig`.
    cache_frames : keep decoded frames in the store.
    progress : function of (runs done, runs in all, what is going on).

    Raises
    ------
    NeuroreelError
        In one sentence; then nothing is written.
    """
    return write_store(target, find_study(source, settings), cache_frames=cache_frames, progress=progress)


def find_study(source: str | Path, settings: Sequence[str] = ()) -> Study:
    """Return the study of a source, found but not yet read.

    Raises
    ------
    ConfigError
        If the source is neither a name of a study, nor a TOML or BData file, nor a folder; the names are listed.
    """
    path = Path(source)
    if str(source) in STUDIES:
        from neuroreel.datasets.cards import study

        return study(str(source), _nested(settings))
    if path.is_dir():
        from neuroreel.datasets.hcp import hcp_study, is_hcp

        if is_hcp(path):
            return hcp_study(path, **_nested(settings))
        from neuroreel.datasets.bids import bids_study

        return bids_study(path, **_nested(settings))
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5", ".mat"):
        from neuroreel.datasets.trials import trials_study

        return trials_study(path, settings)
    rule = f"must be a TOML file, a BIDS or HCP folder or one of {', '.join(sorted(STUDIES))}, or a BData file"
    checks.require(path.is_file() and path.suffix == ".toml", "source", rule, repr(str(source)), error=ConfigError)
    from neuroreel.datasets.arrays import arrays_study

    return arrays_study(path, settings)


def _nested(settings: Sequence[str]) -> dict[str, Any]:
    return dict(parse_override(text) for text in settings)
