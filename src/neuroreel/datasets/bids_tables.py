"""The tables and sidecars of BIDS: events, confounds and JSON, each broken one a sentence with its file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuroreel.core import checks
from neuroreel.datasets.bids_images import whole

MISSING = ("n/a", "")


@dataclass(frozen=True)
class EventRow:
    """A row of events.tsv; texts are empty and numbers None where the table says n/a, `stimulus` None without column.

    Attributes
    ----------
    onset_s, duration_s : seconds; the first volume of the scan is acquired at 0.
    category, caption, stimulus : as in `core.types.Event`.
    stim_file : path below the folder of stimuli.
    stim_onset_s : time within the stimulus file that is on show at the onset.
    """

    onset_s: float
    duration_s: float
    category: str = ""
    caption: str = ""
    stimulus: str | None = None
    stim_file: str = ""
    stim_onset_s: float | None = None


def read_json(file: Path) -> dict[str, Any]:
    """Return the object of a JSON sidecar."""
    with whole(file, "sidecar"):
        values = json.loads(file.read_text(encoding="utf-8"))
    checks.require(isinstance(values, dict), "sidecar", "must be a JSON object", type(values).__name__, file)
    return values


def read_tsv(file: Path) -> pd.DataFrame:
    """Return a tab-separated table as text, n/a as it stands."""
    with whole(file, "table"):
        return pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE, encoding="utf-8")


def read_events(file: Path, category: str | None = None) -> tuple[EventRow, ...]:
    """Return the rows of an events.tsv in the order of their onsets.

    Parameters
    ----------
    category : column that says what was shown; None for `category` if there is one, else `trial_type`.

    Raises
    ------
    DataError
        If the table lacks onset, duration or the asked column, or one of their values is no number.
    """
    table = read_tsv(file)
    columns = ", ".join(table.columns)
    for name in ("onset", "duration", *([category] if category else [])):
        checks.require(name in table.columns, "events", f"must have the column {name}", columns or "no columns", file)
    label = category or ("category" if "category" in table.columns else "trial_type")
    rows = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        stim_onset = row.get("stim_onset", "n/a")
        rows.append(
            EventRow(
                onset_s=_number(row["onset"], "onset", number, file),
                duration_s=0.0 if row["duration"] in MISSING else _number(row["duration"], "duration", number, file),
                category=_text(row, label),
                caption=_text(row, "caption"),
                stimulus=_text(row, "stimulus") if "stimulus" in row else None,
                stim_file=_text(row, "stim_file"),
                stim_onset_s=None if stim_onset in MISSING else _number(stim_onset, "stim_onset", number, file),
            )
        )
    return tuple(sorted(rows, key=lambda row: row.onset_s))


def read_confounds(file: Path, n_trs: int, wanted: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return the confounds of a run, (trs,) float64 by name.

    An n/a takes the next known value of its column, as the first row of fMRIPrep's derivatives has none; a column
    that knows no value is left out.

    Parameters
    ----------
    n_trs : number of volumes that the table must have.
    wanted : names of columns, or beginnings of names that end in `*`; None for all.

    Raises
    ------
    DataError
        If the table has another length or a value that is no number.
    ConfigError
        If a wanted column is not there.
    """
    table = read_tsv(file)
    checks.same_length("confounds", len(table), "volumes of the BOLD", n_trs, file)
    confounds = {}
    for name in table.columns if wanted is None else _chosen(list(table.columns), wanted, file):
        texts = table[name].where(~table[name].isin(MISSING))
        values = pd.to_numeric(texts, errors="coerce")
        bad = texts[values.isna() & texts.notna()]
        checks.require(bad.empty, f"confound {name}", "must be numbers", repr(bad.iloc[0]) if len(bad) else "", file)
        filled = values.bfill().ffill()
        if not filled.isna().any():
            confounds[str(name)] = filled.to_numpy(dtype=np.float64)
    return confounds


def _chosen(columns: list[str], wanted: Sequence[str], file: Path) -> list[str]:
    chosen: list[str] = []
    for name in wanted:
        found = [each for each in columns if each == name or (name.endswith("*") and each.startswith(name[:-1]))]
        if not found:
            checks.one_of("confound", name, columns, file)
        chosen += [each for each in found if each not in chosen]
    return chosen


def _number(text: str, column: str, line: int, file: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    checks.require(
        bool(np.isfinite(value)), f"{column} in line {line}", "must be a number of seconds", repr(text), file
    )
    return value


def _text(row: Mapping[Any, str], column: str) -> str:
    text = row.get(column, "n/a")
    return "" if text in MISSING else text


def write_tsv(file: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write a tab-separated table: None, NaN and empty text as n/a, tabs and line ends within a text as spaces."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(value) for value in row) for row in zip(*columns.values(), strict=True)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "n/a"
    text = repr(float(value)) if isinstance(value, float | np.floating) else " ".join(str(value).split())
    return text or "n/a"
