"""BData, the files of the Kamitani laboratory: a matrix whose columns are named by metadata, and how they are selected.

    rows are trials or volumes; a column is a voxel, or something known of the row (DataType, Run, Label, ...)
    metadata is a matrix (keys, columns): ROI_V1 is 1 in the columns of V1's voxels, NaN or another number elsewhere

Files are HDF5 as bdpy writes it, MATLAB v7.3 and MATLAB v5, with `dataset` and `metadata` or `dataSet` and `metaData`.
An expression selects columns:

    ROI_V1 = 1                 where the metadata is 1; `==` is the same, and `ROI_V1` or `V1` alone
    ROI_V1 = 1 + ROI_V2 = 1    in either; `|` is the same, `&` in both, `-` in the first but not in the second
    Stat top 100               the 100 columns with the largest number
    Stat top 100 @ ROI_V1 = 1  the same within V1

`=` and `top` bind closest, then `+ | & -` from left to right, then `@`; brackets group, `*` stands for any letters, and
quotation marks hold names with other signs in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.datasets.keyed import HDF5, MATLAB, is_hdf5, require_all_elements, whole

MATRIX, METADATA = ("dataset", "dataSet"), ("metadata", "metaData")
ROI = "ROI_"

Chosen = Callable[[np.ndarray], np.ndarray]  # columns to choose within (columns,) bool -> chosen ones (columns,) bool


@dataclass(frozen=True)
class BData:
    """A BData file that was opened; its matrix is read when columns are asked for.

    Attributes
    ----------
    file : where it is.
    keys, descriptions : of the metadata.
    values : (keys, columns) float64; NaN where a key says nothing of a column.
    rows : number of rows.
    read : function of (first, stop) columns that returns (rows, stop - first).
    labels : texts by key of the metadata: value to text, where the file names values ("vmap").
    """

    file: Path
    keys: tuple[str, ...]
    descriptions: tuple[str, ...]
    values: np.ndarray
    rows: int
    read: Callable[[int, int], np.ndarray]
    labels: Mapping[str, Mapping[float, str]] = field(default_factory=dict)

    @property
    def rois(self) -> tuple[str, ...]:
        """Names of the regions, without `ROI_`."""
        return tuple(key.removeprefix(ROI) for key in self.keys if key.startswith(ROI))

    def select(self, expression: str) -> np.ndarray:
        """Return which columns an expression selects, (columns,) bool; see the module for the language.

        Raises
        ------
        ConfigError
            If the expression can't be parsed (the position is said), or names what the file doesn't have (what it has
            is listed).
        """
        return _Selection(expression, self).chosen(np.ones(self.values.shape[1], dtype=bool))

    def columns(self, chosen: np.ndarray | str) -> np.ndarray:
        """Return the chosen columns, (rows, chosen) float64; chosen by a mask (columns,) or an expression.

        Raises
        ------
        DataError
            If none is chosen or the file is damaged.
        """
        said = repr(chosen) if isinstance(chosen, str) else "a mask"
        mask = self.select(chosen) if isinstance(chosen, str) else chosen
        places = np.flatnonzero(mask)
        checks.require(places.size > 0, f"columns of {said}", "must be 1 or more", 0, self.file)
        first, stop = int(places[0]), int(places[-1]) + 1
        with whole(self.file):
            part = self.read(first, stop)
        return np.asarray(part, dtype=np.float64)[:, places - first]

    def column(self, key: str) -> np.ndarray:
        """Return the one column that a key marks, (rows,); DataError if it marks none or several."""
        found = self.columns(f'"{key}" = 1')
        checks.require(found.shape[1] == 1, f"columns of {key}", "must be 1", found.shape[1], self.file)
        return found[:, 0]

    def metadata(self, key: str) -> np.ndarray:
        """Return the metadata of a key, (columns,); ConfigError if there is none of that name."""
        return self.values[self.keys.index(checks.one_of("metadata key", key, self.keys, self.file))]


def is_bdata(file: str | Path) -> bool:
    """Tell whether a file is of a kind that may hold BData, by its name."""
    return Path(file).suffix.lower() in (MATLAB, *HDF5)


def open_bdata(file: str | Path) -> BData:
    """Return the BData of a file: HDF5, MATLAB v7.3 or MATLAB v5.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no dataset and metadata that fit each other.
    """
    file = Path(file)
    checks.require(file.is_file(), "BData", "must be a file that exists", repr(file.name), file)
    checks.require(is_bdata(file), "BData", f"must be one of {', '.join((MATLAB, *HDF5))}", repr(file.suffix), file)
    with whole(file):
        if file.suffix.lower() == MATLAB and not is_hdf5(file):
            found = _open_matlab(file)
        else:
            found = _open_hdf5(file)
    columns = found.values.shape[1] if found.values.ndim == 2 else 0
    fits = found.values.shape == (len(found.keys), columns) and len(found.keys) > 0
    rule = "must have one row for each of 1 or more keys"
    checks.require(fits, "metadata", rule, f"shape {found.values.shape} and {len(found.keys)} keys", file)
    return found


def _open_hdf5(file: Path) -> BData:
    import h5py

    with h5py.File(file, "r") as opened:
        matrix_name, metadata_name = (_spelling(file, list(opened), names) for names in (MATRIX, METADATA))
        matrix, metadata = opened[matrix_name], opened[metadata_name]
        parts = ("key", "description", "value")
        lost = [name for name in parts if not isinstance(metadata, h5py.Group) or name not in metadata]
        checks.require(not lost, "metadata", f"must have {', '.join(parts)}", f"no {', '.join(lost)}", file)
        checks.dimensions("dataset", matrix, ("rows", "columns"), file)
        turned = "MATLAB_class" in matrix.attrs  # MATLAB lays matrices out by columns
        values = np.asarray(metadata["value"][()], dtype=np.float64)
        keys, descriptions = (_hdf5_texts(opened, metadata[name]) for name in parts[:2])
        shape = matrix.shape[::-1] if turned else matrix.shape
        labels = {}
        for key, group in opened.get("vmap", {}).items():
            labels[key] = {float(value): _text(text[()]) for value, text in group.items()}
    values = values.T if turned else values
    checks.same_length("columns of the metadata", values.shape[-1], "columns of the dataset", shape[1], file)

    def read(first: int, stop: int) -> np.ndarray:
        with h5py.File(file, "r") as again:
            matrix = again[matrix_name]
            return np.asarray(matrix[first:stop].T if turned else matrix[:, first:stop])

    return BData(file, keys, descriptions, values, int(shape[0]), read, labels)


def _hdf5_texts(opened: Any, texts: Any) -> tuple[str, ...]:
    """Return texts that are stored as bytes, as strings, or as a MATLAB cell array of references."""
    import h5py

    if h5py.check_ref_dtype(texts.dtype) is None:
        return tuple(_text(entry) for entry in np.ravel(texts[()]))
    found = []
    for reference in np.ravel(texts[()]):
        cell = opened[reference]
        empty = "MATLAB_empty" in cell.attrs
        found.append("" if empty else "".join(map(chr, np.ravel(cell[()]))).strip())
    return tuple(found)


def _text(entry: Any) -> str:
    return entry.decode("utf-8", "replace").strip("\0 ") if isinstance(entry, bytes) else str(entry).strip()


def _open_matlab(file: Path) -> BData:
    from scipy import io

    require_all_elements(file)
    try:
        names = [_spelling(file, [name for name, _, _ in io.whosmat(file)], two) for two in (MATRIX, METADATA)]
        held = io.loadmat(file, variable_names=names)
        matrix, metadata = held[names[0]], held[names[1]]
        texts = [tuple(_cell(cell) for cell in np.ravel(metadata[name].item())) for name in ("key", "description")]
        values = np.asarray(metadata["value"].item(), dtype=np.float64)
    except (io.matlab.MatReadError, NotImplementedError, IndexError, KeyError, UnboundLocalError) as error:
        raise ValueError(f"metadata must be a structure of key, description and value: {error}") from error
    checks.dimensions("dataset", matrix, ("rows", "columns"), file)
    checks.same_length("columns of the metadata", values.shape[-1], "columns of the dataset", matrix.shape[1], file)
    return BData(file, texts[0], texts[1], values, len(matrix), lambda first, stop: matrix[:, first:stop])


def _cell(cell: np.ndarray) -> str:
    return str(np.ravel(cell)[0]).strip() if np.size(cell) else ""


def _spelling(file: Path, held: list[str], names: tuple[str, ...]) -> str:
    """Return the name that the file has of two spellings."""
    found = [name for name in names if name in held]
    got = ", ".join(name for name in held if not name.startswith(("__", "#"))) or "nothing"
    checks.require(bool(found), "BData", f"must hold {' or '.join(names)}", got, file)
    return found[0]


# ---------------------------------------------------------------------------------------------------------------------
# Selection

_TOKEN = re.compile(
    r"""(?P<quoted>"[^"]*"|'[^']*')|(?P<number>\d+(?:\.\d+)?(?![\w*.]))|(?P<name>[\w*.]+)|(?P<sign>==|[()=|&+@-])"""
)
_UNIONS = ("+", "|", "&", "-")


class _Selection:
    """An expression, parsed by descent: one method for each level of binding."""

    def __init__(self, expression: str, data: BData) -> None:
        self.expression, self.data = expression, data
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, position
        place = 0
        while place < len(expression):
            if expression[place].isspace():
                place += 1
                continue
            match = _TOKEN.match(expression, place)
            if match is None:
                self.refuse("must be names, numbers and = == + | & - @ ( )", place)
                break
            self.tokens.append((str(match.lastgroup), match.group(), place))
            place = match.end()
        self.next = 0
        self.chosen = self.within()
        if self.next < len(self.tokens):
            self.refuse("must go on with one of + | & - @", self.tokens[self.next][2])

    def refuse(self, rule: str, place: int) -> None:
        """Raise the error of a position, counted from 1."""
        got = f"{self.expression!r} at position {place + 1}"
        raise ConfigError(checks.sentence("selection", rule, got, self.data.file))

    def peek(self) -> tuple[str, str, int]:
        if self.next < len(self.tokens):
            return self.tokens[self.next]
        return "end", "", len(self.expression)

    def take(self) -> tuple[str, str, int]:
        token = self.peek()
        self.next += 1
        return token

    def within(self) -> Chosen:
        left = self.union()
        while self.peek()[1] == "@":
            self.take()
            left = _within(left, self.union())
        return left

    def union(self) -> Chosen:
        left = self.atom()
        while self.peek()[0] == "sign" and self.peek()[1] in _UNIONS:
            sign = self.take()[1]
            left = _combine(sign, left, self.atom())
        return left

    def atom(self) -> Chosen:
        kind, text, place = self.take()
        if (kind, text) == ("sign", "("):
            inner = self.within()
            _, closing, place = self.take()
            if closing != ")":
                self.refuse("must close its bracket", place)
            return inner
        if kind not in ("name", "quoted", "number"):
            self.refuse("must have a name", place)
        rows = self.rows(text.strip("\"'"), place)
        if self.peek()[1] in ("=", "=="):
            self.take()
            number = self.number()
            return lambda within: within & np.any(rows == number, axis=0)
        if self.peek()[:2] == ("name", "top"):
            self.take()
            if len(rows) != 1:
                self.refuse("must have one key before top", place)
            return _top(rows[0], int(self.number()))
        return lambda within: within & np.any(rows == 1, axis=0)

    def number(self) -> float:
        minus = self.peek()[1] == "-"
        if minus:
            self.take()
        kind, text, place = self.take()
        if kind != "number":
            self.refuse("must have a number", place)
        return -float(text) if minus else float(text)

    def rows(self, name: str, place: int) -> np.ndarray:
        """Return the metadata of the keys of a name, (keys, columns)."""
        keys = self.data.keys
        for wanted in (name, ROI + name):
            found = [row for row, key in enumerate(keys) if fnmatchcase(key, wanted.replace("[", "[[]"))]
            if found:
                return self.data.values[found]
        regions = [key for key in keys if key.startswith(ROI)]
        self.refuse(f"must name what the file has, {', '.join(sorted(regions or keys))}", place)
        raise AssertionError


def _within(left: Chosen, right: Chosen) -> Chosen:
    return lambda within: left(right(within))


def _combine(sign: str, left: Chosen, right: Chosen) -> Chosen:
    if sign == "&":
        return lambda within: left(within) & right(within)
    if sign == "-":
        return lambda within: left(within) & ~right(within)
    return lambda within: left(within) | right(within)


def _top(values: np.ndarray, count: int) -> Chosen:
    """Choose the largest numbers; of equal ones those that come first."""

    def chosen(within: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(within & ~np.isnan(values))
        best = places[np.argsort(-values[places], kind="stable")[:count]]
        mask = np.zeros(len(values), dtype=bool)
        mask[best] = True
        return mask

    return chosen


# ---------------------------------------------------------------------------------------------------------------------
# Names of pictures


def image_names(ids: np.ndarray, source: str | Path | None = None) -> tuple[list[str], list[str]]:
    """Return the names of pictures and of their categories from numbers like 1443537.022563.

    The number is category.image: that one is picture n01443537_22563 of the category n01443537 (ImageNet's names).

    Raises
    ------
    DataError
        If a number isn't finite or >= 0, or has digits that no such number has (they are lost below double precision).
    """
    ids = checks.finite("image numbers", np.asarray(ids, dtype=np.float64), source)
    checks.require(bool(np.all(ids >= 0)), "image numbers", "must be >= 0", ids.min() if ids.size else 0, source)
    categories = np.floor(ids)
    images = (ids - categories) * 1e6
    off = np.abs(images - np.rint(images))
    rule = "must be category.image with 6 digits of the image"
    checks.require(bool(np.all(off < 0.1)), "image numbers", rule, ids[np.argmax(off)] if ids.size else 0, source)
    names = [f"n{int(c):08d}_{int(i)}" for c, i in zip(categories, np.rint(images), strict=True)]
    return names, category_names(categories, source)


def category_names(ids: np.ndarray, source: str | Path | None = None) -> list[str]:
    """Return the names of categories from their numbers: 1443537 is n01443537."""
    if not np.all(np.isfinite(ids)):
        raise DataError(checks.sentence("category numbers", "must be finite", "NaN", source))
    return [f"n{int(number):08d}" for number in np.floor(ids)]
