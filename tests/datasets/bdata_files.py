"""Small files in the layout of Generic Object Decoding: BData in its three formats, ImageFeatures, feature folders."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy import io

from neuroreel.core.seeds import generator

VOXELS = {"V1": range(5), "V2": range(5, 9), "LVC": range(9), "FFA": range(9, 12), "VC": range(12)}
TRAIN = [1443537.022563, 1443537.000048, 1621127.019020, 1621127.022837]
TEST = [1518878.010042, 1639765.052902]
NAMES = ["n01443537_22563", "n01443537_48", "n01621127_19020", "n01621127_22837", "n01518878_10042", "n01639765_52902"]


def trials(
    seed: int = 0, train: Sequence[float] = TRAIN, test: Sequence[float] = TEST
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return a dataset, its keys and its metadata: 2 training runs, 2 of perception, 1 of imagery."""
    rng, half = generator(seed, "bdata"), len(train) // 2
    rows = [(1, run, label) for run in (1, 2) for label in train[half * (run - 1) : half * run]]
    rows += [(2, run, label) for run in (1, 2) for label in test]
    rows += [(3, 1, label) for label in test]
    count = len({voxel for region in VOXELS.values() for voxel in region})
    voxels = rng.normal(size=(len(rows), count))
    dataset = np.concatenate([np.array(rows), voxels], axis=1)  # DataType, Run, Label, then the voxels
    keys = ["DataType", "Run", "Label", "VoxelData", "voxel_x", "Stat", *(f"ROI_{name}" for name in VOXELS)]
    values = np.full((len(keys), dataset.shape[1]), np.nan)
    values[[0, 1, 2], [0, 1, 2]] = 1
    values[3, 3:] = 1
    values[4, 3:] = np.arange(count) * 3.0
    values[5, 3:] = rng.permutation(count)
    for row, region in enumerate(VOXELS.values()):
        values[6 + row, 3 + np.array(region)] = 1
    return dataset, keys, values


def image_features(layers: dict[str, int], seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return a dataset, keys and metadata like those of ImageFeatures.h5, with 3 categories besides the 2 tested."""
    rng = generator(seed, "features")
    numbers = [*TRAIN, *TEST, *[np.nan] * 5]
    categories = [*np.floor(TRAIN), *np.floor(TEST), *np.floor(TEST), 2000001, 2000002, 2000003]
    kinds = [1] * 4 + [2] * 2 + [3] * 2 + [4] * 3
    blocks = [rng.normal(size=(len(kinds), units)) for units in layers.values()]
    dataset = np.concatenate([*blocks, np.array([numbers, categories, kinds]).T], axis=1)
    keys = [*layers, "ImageID", "CatID", "FeatureType"]
    values = np.full((len(keys), dataset.shape[1]), np.nan)
    start = 0
    for row, units in enumerate([*layers.values(), 1, 1, 1]):
        values[row, start : start + units] = 1
        start += units
    return dataset, keys, values


def write_hdf5(file: Path, dataset: np.ndarray, keys: list[str], values: np.ndarray, capital: bool = False) -> Path:
    """Write HDF5 as bdpy does."""
    first, second = ("dataSet", "metaData") if capital else ("dataset", "metadata")
    with h5py.File(file, "w") as out:
        out[first] = dataset
        out[f"{second}/key"] = [key.encode() for key in keys]
        out[f"{second}/description"] = [f"1 = {key}".encode() for key in keys]
        out[f"{second}/value"] = values
    return file


def write_matlab5(file: Path, dataset: np.ndarray, keys: list[str], values: np.ndarray) -> Path:
    """Write MATLAB v5 as BrainDecoderToolbox2 does."""
    cells = np.array(keys, dtype=object)[None]
    structure = {"key": cells, "description": cells, "value": values}
    io.savemat(file, {"dataSet": dataset, "metaData": structure, "subject": "Subject1"})
    return file


def write_matlab73(file: Path, dataset: np.ndarray, keys: list[str], values: np.ndarray) -> Path:
    """Write what MATLAB's `save -v7.3` writes: matrices by columns, texts by reference."""
    with h5py.File(file, "w", userblock_size=512) as out:
        out.create_dataset("dataSet", data=dataset.T).attrs["MATLAB_class"] = np.bytes_("double")
        group = out.create_group("metaData")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        group.create_dataset("value", data=values.T).attrs["MATLAB_class"] = np.bytes_("double")
        for name in ("key", "description"):
            cells = group.create_dataset(name, (len(keys), 1), dtype=h5py.ref_dtype)
            cells.attrs["MATLAB_class"] = np.bytes_("cell")
            for row, key in enumerate(keys):
                text = out.create_dataset(
                    f"#refs#/{name}{row}", data=np.array([[ord(c)] for c in key], dtype=np.uint16)
                )
                cells[row, 0] = text.ref
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return file


def write_feature73(file: Path, feature: np.ndarray) -> Path:
    """Write `feat` of one picture as MATLAB v7.3."""
    with h5py.File(file, "w", userblock_size=512) as out:
        out.create_dataset("feat", data=feature.T).attrs["MATLAB_class"] = np.bytes_("single")
    return file
