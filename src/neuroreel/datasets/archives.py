"""Archives unpacked so that no member can leave the folder, whole or not at all."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from neuroreel.core import checks
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic, inside

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a zip or tar archive (also compressed) into a new folder and return it.

    All members are looked at before the first is written; only files and folders are taken, no links.

    Raises
    ------
    DataError
        If the archive is broken, or a member is a link or would lie outside the folder: then nothing is written.
    """
    archive, folder = Path(archive), Path(folder)
    checks.require(not folder.exists(), "folder to unpack to", "must not exist yet", "one that does", folder)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                named = [each for each in opened.infolist() if not each.is_dir()]
                _write(folder, archive, {each.filename: partial(opened.open, each) for each in named})
        else:
            with tarfile.open(archive) as tar:
                members = [each for each in tar.getmembers() if not each.isdir()]
                odd = [each.name for each in members if not each.isreg()]
                checks.require(not odd, "archive member", "must be a file or a folder", repr((odd or [""])[0]), archive)
                _write(folder, archive, {each.name: partial(tar.extractfile, each) for each in members})
    except _BROKEN as error:
        rule = "must be a whole zip or tar file"
        raise DataError(checks.sentence("archive", rule, type(error).__name__, archive)) from error
    return folder


def _write(folder: Path, archive: Path, members: dict[str, Callable[[], IO[bytes] | None]]) -> None:
    for name in members:
        inside(folder, name, archive)
    with atomic(folder) as fresh:
        fresh.mkdir()
        for name, opened in members.items():
            file = inside(fresh, name, archive)
            file.parent.mkdir(parents=True, exist_ok=True)
            source = opened()
            if source is not None:
                with source, file.open("wb") as goal:
                    shutil.copyfileobj(source, goal)
