"""Cards of public data: what a data set is, where its files are and how they are told from others.

Files are looked for in the folder that the environment variable `NEUROREEL_DATA` names, then in the cache, and fetched
by pooch if they are in neither. Every file is checked against its SHA-256 each time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, FetchError
from neuroreel.core.files import inside, sha256
from neuroreel.core.study import Study
from neuroreel.datasets import STUDIES

ENVIRONMENT = "NEUROREEL_DATA"


@dataclass(frozen=True)
class Card:
    """The facts of a public data set, which the tests compare with its files.

    Attributes
    ----------
    name, title : short and long name.
    address : where the files are, ending in "/"; with the commit in it where there is one.
    folder : name of the folder of the files in `NEUROREEL_DATA`.
    files : SHA-256 by path below the address.
    licence, citation : of the data.
    subjects, runs, trs, voxels : how many; `trs` in each run, `voxels` of each subject before any are left out.
    tr_s : seconds per volume.
    notes : what a user has to know.
    by_hand : the files can't be fetched one by one; the user downloads them and says where they are.
    """

    name: str
    title: str
    address: str
    folder: str
    files: Mapping[str, str]
    licence: str
    citation: str
    subjects: int
    runs: int
    trs: int
    voxels: int
    tr_s: float
    notes: str = ""
    by_hand: bool = False


def known(name: str) -> tuple[Card, Callable[..., Study]]:
    """Return the card and the reader of a data set by name; an unknown one lists the known ones."""
    module, card, function = STUDIES[checks.one_of("data set", name, STUDIES)].split(":")
    found = import_module(module)
    return getattr(found, card), getattr(found, function)


def fetch(card: Card, progress: Callable[[int, int, str], None] | None = None) -> Path:
    """Return a folder that holds the files of a card, each with the checksum that the card says.

    Parameters
    ----------
    progress : function of (files done, files in all, name of the file).

    Raises
    ------
    FetchError
        In one sentence, if the address can't be reached or a file has another checksum.
    """
    own = own_folder(card)
    if card.by_hand:
        rule = f"must be downloaded by hand from {card.address} and named, folder=PATH or {ENVIRONMENT}/{card.folder}"
        checks.require(own is not None, f"data set {card.name}", rule, "no folder", error=FetchError)
    folder = own or cache_folder(card)
    for number, (file, checksum) in enumerate(card.files.items()):
        if progress is not None:
            progress(number, len(card.files), file)
        path = inside(folder, file, card.name)
        if own is None and not path.is_file():
            _download(card, file, path)
        rule = f"must be there: set {ENVIRONMENT} to a folder that has it, or unset it to fetch it"
        checks.require(path.is_file(), f"file {file} of {card.name}", rule, "nothing", folder, FetchError)
        found = sha256(path)
        rule = f"must have the SHA-256 {checksum[:12]}..."
        checks.require(found == checksum, f"file {file} of {card.name}", rule, f"{found[:12]}...", path, FetchError)
    return folder


def own_folder(card: Card) -> Path | None:
    """Return the folder of the data set in `NEUROREEL_DATA`, None if that isn't set or doesn't have it."""
    set_to = os.environ.get(ENVIRONMENT, "")
    if not set_to:
        return None
    folder = Path(set_to) / card.folder
    return folder if folder.is_dir() else None


def cache_folder(card: Card) -> Path:
    """Return the folder where pooch keeps the files of a card."""
    import pooch

    return Path(pooch.os_cache("neuroreel")) / card.folder


def study(name: str, settings: Mapping[str, Any] | None = None) -> Study:
    """Return a data set by name, its files fetched if they have to be and not yet read.

    The setting `folder` says where the files of a data set lie that is downloaded by hand.
    """
    card, read = known(name)
    chosen = dict(settings or {})
    folder = Path(str(chosen.pop("folder"))) if card.by_hand and "folder" in chosen else fetch(card)
    return read(folder, **chosen)


def read_settings(name: str, settings: Mapping[str, Any], allowed: Mapping[str, type]) -> dict[str, Any]:
    """Return the settings of a study after a check of their names and types; unknown ones list those allowed."""
    for key, value in settings.items():
        rule = f"must be one of {', '.join(sorted(allowed)) or 'none, it has no settings'}"
        checks.require(key in allowed, f"setting of {name}", rule, repr(key), error=ConfigError)
        rule = f"must be {allowed[key].__name__}"
        checks.require(
            isinstance(value, allowed[key]), f"setting {key} of {name}", rule, repr(value), error=ConfigError
        )
    return dict(settings)


def _download(card: Card, file: str, path: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    address = card.address + file
    try:
        pooch.retrieve(address, card.files[file], fname=path.name, path=path.parent)
    except ValueError as error:
        rule = f"must have the SHA-256 {card.files[file][:12]}..."
        raise FetchError(checks.sentence(f"file {file} of {card.name}", rule, "another one", address)) from error
    except (requests.RequestException, OSError) as error:
        rule = f"must be fetched once: go online, or set {ENVIRONMENT} to a folder that has {card.folder}/"
        got = type(error).__name__
        raise FetchError(checks.sentence(f"data set {card.name}", rule, got, address)) from error
