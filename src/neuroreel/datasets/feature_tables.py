"""Features of pictures by name, as they are published: ImageFeatures.h5, and folders with a file for each picture.

    ImageFeatures.h5             BData: a row is a picture or the average of a category, columns are units of layers
    FOLDER/cnn1/n0144_22563.mat  `feat` of one picture in one layer, MATLAB v5 or v7.3; any layers, any names

Decoded features are written in the same laboratory's layout, LAYER/SUBJECT/ROI/NAME.mat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.files import atomic, inside
from neuroreel.datasets.bdata import ROI, BData, category_names, image_names, is_bdata, open_bdata
from neuroreel.datasets.keyed import MATLAB, Place, read

FACTS = ("ImageID", "CatID", "FeatureType")
TRAIN_PICTURE, TEST_PICTURE, TEST_CATEGORY, OTHER_CATEGORY = 1, 2, 3, 4
FEATURE = "feat"


@dataclass(frozen=True)
class FeatureTable:
    """Features of pictures by name, and averages of categories.

    Attributes
    ----------
    names : of the pictures.
    pictures : by layer, (pictures, units) float32.
    categories : whose averages are known.
    averages : by layer, (categories, units) float32; empty where no averages are stored.
    """

    names: tuple[str, ...]
    pictures: Mapping[str, np.ndarray]
    categories: tuple[str, ...] = ()
    averages: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for layer, values in self.pictures.items():
            checks.same_length(f"pictures of {layer}", len(values), "names", len(self.names))
        for layer, values in self.averages.items():
            checks.same_length(f"averages of {layer}", len(values), "categories", len(self.categories))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.pictures)

    def of(self, names: Sequence[str], source: str | Path | None = None) -> dict[str, np.ndarray]:
        """Return the features of pictures by layer, (names, units); DataError names the first that is missing."""
        rows = {name: row for row, name in enumerate(self.names)}
        lost = [name for name in names if name not in rows]
        checks.require(not lost, "features", "must be known for every picture", f"none of {lost[:1]}", source)
        chosen = np.array([rows[name] for name in names], dtype=int)
        return {layer: values[chosen] for layer, values in self.pictures.items()}


def read_features(path: str | Path, layers: Sequence[str] = ()) -> FeatureTable:
    """Return the features of a file like ImageFeatures.h5 or of a folder with a file for each picture.

    Parameters
    ----------
    path : BData (`.h5`, `.mat`) with ImageID, CatID and FeatureType, or a folder LAYER/NAME.mat.
    layers : those to read, in this order; empty for all.

    Raises
    ------
    DataError, ConfigError
        If a file is missing or damaged, the layers of a folder hold different pictures, or a layer isn't there (those
        that are get listed).
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, layers)
    rule = "must be a BData file of features or a folder LAYER/NAME.mat"
    checks.require(path.is_file() and is_bdata(path), "features", rule, repr(str(path)), error=ConfigError)
    return _read_file(open_bdata(path), layers)


def _read_file(data: BData, layers: Sequence[str]) -> FeatureTable:
    for key in FACTS:
        checks.require(key in data.keys, "features", f"must have {', '.join(FACTS)}", ", ".join(data.keys), data.file)
    known = [key for key in data.keys if key not in FACTS and not key.startswith(ROI)]
    chosen = _chosen_layers(layers, known, data.file)
    kind = data.column("FeatureType")
    is_picture = np.isin(kind, (TRAIN_PICTURE, TEST_PICTURE))
    is_average = np.isin(kind, (TEST_CATEGORY, OTHER_CATEGORY))
    names, _ = image_names(data.column("ImageID")[is_picture], data.file)
    rows: dict[str, int] = {}
    for row, name in zip(np.flatnonzero(is_average), _categories(data, is_average), strict=True):
        rows.setdefault(name, int(row))  # one that is among the tested and among the others is the same category
    pictures, averages = {}, {}
    for layer in chosen:
        values = data.columns(f'"{layer}" = 1')
        pictures[layer] = values[is_picture].astype(np.float32)
        averages[layer] = values[list(rows.values())].astype(np.float32)
    return FeatureTable(tuple(names), pictures, tuple(rows), averages)


def _categories(data: BData, rows: np.ndarray) -> list[str]:
    return category_names(data.column("CatID")[rows], data.file)


def _read_folder(folder: Path, layers: Sequence[str]) -> FeatureTable:
    known = sorted(path.name for path in folder.iterdir() if path.is_dir())
    checks.require(bool(known), "folder of features", "must hold a folder for each layer", "none", folder)
    names: tuple[str, ...] = ()
    pictures: dict[str, np.ndarray] = {}
    for layer in _chosen_layers(layers, known, folder):
        files = sorted((folder / layer).glob(f"*{MATLAB}"))
        checks.require(bool(files), f"layer {layer}", f"must hold {MATLAB} files", "none", folder / layer)
        found = tuple(file.stem for file in files)
        rule = f"must be of the same pictures as {next(iter(pictures), layer)}"
        odd = sorted(set(found) ^ set(names or found))
        checks.require(not odd, f"files of {layer}", rule, ", ".join(odd[:3]), folder / layer)
        names = found
        values = [np.ravel(read(Place(file, FEATURE))).astype(np.float32) for file in files]
        for file, value in zip(files, values, strict=True):
            checks.same_length(FEATURE, len(value), f"that of {files[0].name}", len(values[0]), file)
        pictures[layer] = np.stack(values)
    return FeatureTable(names, pictures)


def _chosen_layers(layers: Sequence[str], known: Sequence[str], source: Path) -> list[str]:
    for layer in layers:
        checks.one_of("layer", layer, known, source)
    return list(layers or known)


def write_decoded_features(
    folder: str | Path, features: np.ndarray, names: Sequence[str], *, layer: str, subject: str, roi: str
) -> Path:
    """Write decoded features as FOLDER/LAYER/SUBJECT/ROI/NAME.mat with the key `feat`, and return that folder.

    Parameters
    ----------
    features : (names, units); each file holds (1, units) float32, MATLAB v5.
    names : of the pictures or categories.

    Raises
    ------
    DataError
        If the lengths differ, a name repeats or would leave its folder, or the disk is full.
    """
    from scipy import io

    features = checks.dimensions("features", np.asarray(features), ("names", "units"))
    checks.same_length("names", len(names), "rows of the features", len(features))
    checks.require(len(set(names)) == len(names), "names", "must differ", "one twice")
    out = inside(Path(folder), f"{layer}/{subject}/{roi}")
    for name, row in zip(names, features, strict=True):
        with atomic(inside(out, f"{name}{MATLAB}")) as partial:
            io.savemat(str(partial), {FEATURE: row[None].astype(np.float32)}, appendmat=False)
    return out
