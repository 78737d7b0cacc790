"""Arrays by file and key: `.npy`, `.npz`, `.mat` (v5 and v7.3) and HDF5, without ever reading a pickle."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError

NUMPY, ARCHIVE, MATLAB, HDF5 = ".npy", ".npz", ".mat", (".h5", ".hdf5", ".hdf")
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Place:
    """Where an array is: a file, and a key in it (empty for `.npy`)."""

    file: Path
    key: str

    def __str__(self) -> str:
        return f"{self.file}:{self.key}" if self.key else str(self.file)


def place(text: str, folder: Path, default: str = "") -> Place:
    """Return the place that a text names: `key` in the default file, `file:key`, or `file.npy`.

    Parameters
    ----------
    folder : what relative files are relative to.

    Raises
    ------
    ConfigError
        If no file is named, or it is of a kind that isn't read.
    """
    known = (NUMPY, ARCHIVE, MATLAB, *HDF5)
    head, colon, tail = text.rpartition(":")
    if Path(text).suffix.lower() == NUMPY:
        file, key = text, ""
    elif colon and Path(head).suffix.lower() in known:
        file, key = head, tail
    else:
        file, key = default, text
    rule = f"must be a key with `file` set, FILE:KEY or a .npy file; files are {', '.join(known)}"
    ok = Path(file).suffix.lower() in known and (bool(key) or Path(file).suffix.lower() == NUMPY)
    checks.require(ok, "place of an array", rule, repr(text), folder, ConfigError)
    return Place(folder / file, key)


def read(where: Place) -> np.ndarray:
    """Return the array at a place; MATLAB's axes are in MATLAB's order in both of its formats.

    Raises
    ------
    DataError
        If the file is missing or broken, the key isn't in it (those that are get listed), or it would need a pickle.
    """
    checks.require(where.file.is_file(), "file", "must exist", repr(where.file.name), where.file)
    suffix = where.file.suffix.lower()
    with whole(where.file):
        if suffix == NUMPY:
            return np.asarray(np.load(where.file, allow_pickle=False))
        if suffix == ARCHIVE:
            with np.load(where.file, allow_pickle=False) as held:
                return np.asarray(held[_known(where, held.files)])
        if suffix == MATLAB and not is_hdf5(where.file):
            return _read_matlab(where)
        return _read_hdf5(where, matlab=suffix == MATLAB)


def texts(array: np.ndarray, name: str, source: object) -> list[str]:
    """Return the entries of a one-dimensional array as text; whole numbers without a point."""
    flat = np.squeeze(array) if array.ndim > 1 else array
    flat = flat.reshape(1) if flat.ndim == 0 else flat
    checks.dimensions(name, flat, ("entries",), str(source))
    if flat.dtype.kind == "f" and np.all(flat == np.rint(flat)):
        flat = flat.astype(np.int64)
    return [entry.decode() if isinstance(entry, bytes) else str(entry).strip() for entry in flat.tolist()]


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """Turn what reading a broken file raises into a DataError."""
    try:
        yield
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(checks.sentence("file", "must be whole and hold plain arrays", reason, file)) from error


def _known(where: Place, keys: Sequence[str]) -> str:
    rule = f"must be one of {', '.join(sorted(keys)[:20]) or 'none, it is empty'}"
    checks.require(where.key in keys, "key", rule, repr(where.key), where.file)
    return where.key


def is_hdf5(file: Path) -> bool:
    """Tell whether a file is HDF5, as MATLAB's v7.3 is."""
    import h5py

    return bool(h5py.is_hdf5(file))


def _read_matlab(where: Place) -> np.ndarray:
    from scipy import io

    require_all_elements(where.file)
    try:
        keys = [name for name, _, _ in io.whosmat(where.file)]
        value = io.loadmat(where.file, variable_names=[_known(where, keys)])[where.key]
    except (io.matlab.MatReadError, NotImplementedError, IndexError, KeyError, UnboundLocalError) as error:
        raise ValueError(str(error)) from error
    if value.dtype == object:  # a cell array of texts or numbers
        cells = [np.squeeze(cell) for cell in value.ravel()]
        plain = all(cell.ndim == 0 for cell in cells)
        checks.require(plain, "cell array", "must hold one text or number in each cell", "arrays", str(where))
        return np.array([cell.item() for cell in cells])
    return np.asarray(value)


def require_all_elements(file: Path) -> None:
    """Raise ValueError if a MATLAB v5 file ends within one of its variables, which scipy passes over in silence.

    Each variable says its length (MAT-File Format, "Data Element Format").
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(128)
        if 0 in head[:4]:
            return  # version 4, which has no such lengths
        order = "<" if head[126:128] == b"IM" else ">"
        end = 128
        while end < size:
            stream.seek(end)
            tag = stream.read(8)
            length = struct.unpack(f"{order}I", tag[4:])[0] if len(tag) == 8 else size
            end += 8 + length
    if end != size or size <= 128:
        raise ValueError("it ends within a variable")


def _read_hdf5(where: Place, matlab: bool) -> np.ndarray:
    import h5py

    with h5py.File(where.file, "r") as opened:
        keys: list[str] = []
        opened.visititems(lambda name, item: keys.append(name) if isinstance(item, h5py.Dataset) else None)
        wanted = where.key.strip("/")
        data: Any = opened[_known(Place(where.file, wanted), [key for key in keys if not key.startswith("#refs#")])]
        if h5py.check_ref_dtype(data.dtype) is not None:  # a cell array of texts
            return np.array(["".join(map(chr, np.ravel(opened[ref][()]))) for ref in np.ravel(data[()])])
        if h5py.check_string_dtype(data.dtype) is not None:
            return np.asarray(data.asstr()[()])
        value = np.asarray(data[()])
        if matlab and data.attrs.get("MATLAB_class") == b"char":
            return np.array(["".join(map(chr, row)) for row in np.atleast_2d(value.T)])
        return value.T if matlab else value
