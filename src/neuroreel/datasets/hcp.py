"""The Human Connectome Project's grayordinates, as its releases lay them out: resting state, tasks and movies.

    FOLDER/100307/MNINonLinear/Results/rfMRI_REST1_LR/rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii
    FOLDER/100307/MNINonLinear/Results/tfMRI_MOTOR_LR/tfMRI_MOTOR_LR_Atlas_MSMAll.dtseries.nii

A file's name begins with that of its folder, then says what was done: `_Atlas`, `_MSMAll` where the surfaces were
aligned by more than folding, `_hp2000_clean` where noise components were taken out (Glasser et al. 2013, NeuroImage
80:105). Volumes (`.nii.gz`), parcels, and grayordinates of another resolution (`_1.6mm`, `_59k`) are passed over.

Of the 91,282 grayordinates the cortex's 59,412 are read. TR (0.72 s at 3 T, 1 s at 7 T) is the header's. No run has a
stimulus here: this door is for what learns from brains alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError, NeuroreelWarning
from neuroreel.core.study import RunSource, Study
from neuroreel.core.types import Bold, Run
from neuroreel.datasets.bids_images import agreed_tr_s, cifti_volumes, read_cortex_32k

NAME = "hcp"
RESULTS = Path("MNINonLinear") / "Results"
RUNS = ("rfMRI_*", "tfMRI_*")
"""Names of the folders of runs."""
DONE = re.compile(r"_Atlas(?P<aligned>_MSMAll)?(?P<cleaned>_hp\d+_clean\w*|_clean\w*)?\.dtseries\.nii")
LICENCE = "HCP Open Access Data Use Terms"
CITATION = "Van Essen, Smith, Barch, Behrens, Yacoub and Ugurbil (2013), NeuroImage 80:62-79"
ADDRESS = "https://www.humanconnectome.org/study/hcp-young-adult"


class HcpChoice(Config):
    """What is read of a folder of the Human Connectome Project.

    Attributes
    ----------
    subjects : numbers of the subjects ("100307"); empty for all that are there.
    runs : names of runs or patterns of them ("rfMRI_REST*"); empty for all that are there.
    aligned : "MSMAll" or "MSMSulc" surfaces; None for MSMAll where a subject has any, else MSMSulc.
    cleaned : the runs with noise components taken out (True) or left in (False); None for a run's clean file where it
        has one, as the resting state has and tasks have not.
    """

    subjects: tuple[str | int, ...] = ()
    runs: tuple[str, ...] = ()
    aligned: Literal["MSMAll", "MSMSulc"] | None = None
    cleaned: bool | None = None


@dataclass(frozen=True)
class _File:
    """A CIFTI file of one run, and what its name says of it."""

    path: Path
    aligned: str
    cleaned: bool


def is_hcp(folder: Path) -> bool:
    """Return whether a folder is laid out as the Human Connectome Project's: subjects with MNINonLinear/Results."""
    return bool(_homes(folder))


def hcp_study(folder: str | Path, **choice: Any) -> Study:
    """Return the runs of a folder of the Human Connectome Project, found and not yet read.

    A run whose file is cut off, or that has none of the kind asked for, or that another subject has and this one has
    not, is named in a warning and left out. Damage deeper in a file shows when the run is read.

    Parameters
    ----------
    folder : the folder of the subjects, or one subject's.
    choice : as in `HcpChoice`.

    Raises
    ------
    ConfigError : an unknown setting or subject.
    DataError : no run is left; what was looked for is listed.
    """
    chosen, folder = HcpChoice.build(choice, NAME), Path(folder)
    homes = _homes(folder)
    for name in map(str, chosen.subjects):
        checks.one_of("subject", name, homes, folder)
    wanted = [name for name in homes if not chosen.subjects or name in map(str, chosen.subjects)]
    said: list[str] = []
    found = {name: dict(_runs(name, homes[name], chosen, said)) for name in wanted}
    everywhere = sorted({run for runs in found.values() for run in runs})
    for name, runs in found.items():
        there = {path.name for path in (homes[name] / RESULTS).iterdir()}
        said += [f"{name} {run} (missing)" for run in everywhere if run not in runs and run not in there]
    looked = f"SUBJECT/{RESULTS}/{{{','.join(chosen.runs or RUNS)}}}/*_Atlas{{_MSMAll}}{{_hp2000_clean}}.dtseries.nii"
    rule = f"must have 1 that is whole, looked for {looked}"
    got = f"none ({'; '.join(said[:6])})" if said else "none"
    checks.require(bool(everywhere), "runs of the HCP folder", rule, got, folder)
    if said:
        rule, more = "must all be whole, the others are left out", f" and {len(said) - 12} more"
        text = "; ".join(said[:12]) + (more if len(said) > 12 else "")
        warnings.warn(checks.sentence("runs of the HCP folder", rule, text, folder), NeuroreelWarning, stacklevel=2)
    sources = tuple(
        RunSource(name, run, partial(_read, name, run, file), (file,))
        for name, runs in found.items()
        for run, file in runs.items()
    )
    config = {"folder": str(folder.resolve())} | chosen.model_dump(mode="json") | {"left_out": said}
    return Study(NAME, sources, licence=LICENCE, citation=CITATION, address=ADDRESS, config=config)


def _homes(folder: Path) -> dict[str, Path]:
    """Return the folders of the subjects by name."""
    places = [folder.resolve(), *sorted(path for path in folder.iterdir() if path.is_dir())]
    return {place.name: place for place in places if (place / RESULTS).is_dir()}


def _runs(subject: str, home: Path, choice: HcpChoice, said: list[str]) -> Iterator[tuple[str, Path]]:
    """Give the runs of a subject with the file that is read of each, and say what is broken or missing."""
    patterns = choice.runs or RUNS
    places = sorted(path for path in (home / RESULTS).iterdir() if path.is_dir())
    files = {path.name: _files(path) for path in places if any(fnmatchcase(path.name, pattern) for pattern in patterns)}
    for pattern in choice.runs:
        if not any(fnmatchcase(run, pattern) for run in files):
            said.append(f"{subject} {pattern} (no folder)")
    best = any(file.aligned == "MSMAll" for each in files.values() for file in each)
    aligned = choice.aligned or ("MSMAll" if best else "MSMSulc")
    for run, each in files.items():
        fit = [file for file in each if file.aligned == aligned and choice.cleaned in (None, file.cleaned)]
        if not fit:
            there = ", ".join(file.path.name for file in each) or "no CIFTI file"
            said.append(f"{subject} {run} (missing as {_asked(aligned, choice.cleaned)}, there is {there})")
            continue
        file = max(fit, key=lambda one: (one.cleaned, -len(one.path.name))).path
        try:
            cifti_volumes(file)
        except DataError as error:
            said.append(f"{subject} {run} (broken: {error})")
            continue
        yield run, file


def _asked(aligned: str, cleaned: bool | None) -> str:
    return aligned + {None: "", True: " and clean", False: " and not clean"}[cleaned]


def _files(place: Path) -> Sequence[_File]:
    """Return the CIFTI files of a run that hold the 91k grayordinates."""
    found = []
    for path in sorted(place.glob(f"{place.name}_Atlas*.dtseries.nii")):
        match = DONE.fullmatch(path.name.removeprefix(place.name))
        if match is not None:
            found.append(_File(path, "MSMAll" if match["aligned"] else "MSMSulc", match["cleaned"] is not None))
    return found


def _read(subject: str, run: str, file: Path) -> Run:
    data, space, tr_s = read_cortex_32k(file)
    return Run(Bold(data, agreed_tr_s(tr_s, None, file), space, subject, run), "")
