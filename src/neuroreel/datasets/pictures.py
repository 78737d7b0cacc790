"""Folders of pictures: found by name, read as squares of one size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import DataError
from neuroreel.core.sets import resize

SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp")


def find_pictures(folder: str | Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the file of each picture by its name, which is the file's without the suffix, in any subfolder.

    Raises
    ------
    DataError
        If the folder isn't there or a picture isn't in it; the first that is missing is named.
    """
    folder = Path(folder)
    checks.require(folder.is_dir(), "folder of pictures", "must be there", repr(str(folder)))
    files = {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}
    wanted = list(dict.fromkeys(names))
    lost = [name for name in wanted if name not in files]
    got = f"no {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "") if lost else ""
    checks.require(not lost, "pictures", f"must all be in the folder as {', '.join(SUFFIXES)}", got, folder)
    return {name: files[name] for name in wanted}


def read_pictures(paths: Sequence[Path], side: int) -> np.ndarray:
    """Return pictures as (pictures, side, side, 3) uint8 RGB: the square in the middle of each, brought to one size.

    Raises
    ------
    DataError
        If a file is damaged or no picture.
    """
    import cv2

    out = np.empty((len(paths), side, side, 3), dtype=np.uint8)
    for row, path in enumerate(paths):
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is None:
            raise DataError(checks.sentence("picture", "must be an image that can be read", "damaged bytes", path))
        height, width = picture.shape[:2]
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        square = picture[top : top + edge, left : left + edge, ::-1]
        out[row] = resize(np.ascontiguousarray(square)[None], side, side)[0]
    return out


def pictures_by_category(folder: str | Path) -> dict[str, list[Path]]:
    """Return the pictures of each category: the subfolders of a folder, by name.

    Raises
    ------
    DataError
        If there is no subfolder with a picture.
    """
    folder = Path(folder)
    checks.require(folder.is_dir(), "folder of categories", "must be there", repr(str(folder)))
    found = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        pictures = sorted(path for path in inner.rglob("*") if path.suffix.lower() in SUFFIXES)
        if pictures:
            found[inner.name] = pictures
    checks.require(bool(found), "folder of categories", "must hold a folder of pictures for each", "none", folder)
    return found
