"""The simulated cortex: visual areas on fsaverage5, and the receptive field and tuning of every vertex in them.

Areas lie around published centres (MNI152, close enough to fsaverage's MNI305 for a simulation). V1 fills the calcarine
bank, V2 and V3 are the shells around it by distance along the surface; the others are patches. Folding and tuning
differ between subjects: centres shift by some millimetres, sizes by some tenths, everything else by seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import dijkstra

from neuroreel.core import checks
from neuroreel.core.seeds import generator
from neuroreel.core.types import Space

TEMPLATE = "fsaverage5"
AREAS = ("V1", "V2", "V3", "V4", "LO", "MT", "FFA", "PPA")
ELSEWHERE = "blind"
"""Vertices outside the visual areas: they see nothing."""


@dataclass(frozen=True)
class Area:
    """One visual area.

    Attributes
    ----------
    centre_mm : (x, y, z) of the right hemisphere in MNI space; the left one is its mirror image.
    vertices : number of vertices a hemisphere.
    slope, least : receptive field size (SD, degrees) = least + slope * eccentricity.
    most : largest eccentricity of a receptive field's centre, in degrees.
    depth : where the area stands in the visual hierarchy: 0 the filters of V1, 1 the meaning of what is seen.
    ceiling : noise ceiling to give it: the correlation of a perfect prediction with the mean of ten repeats.
    """

    centre_mm: tuple[float, float, float]
    vertices: int
    slope: float
    least: float
    most: float
    depth: float
    ceiling: float


# Centres: V1 Amunts et al. 2000; V4, LO Larsson & Heeger 2006; MT Dumoulin et al. 2000; FFA Kanwisher et al. 1997; PPA
# Epstein & Kanwisher 1998. Receptive field slopes in the order of Amano et al. 2009. Ceilings in the order of the
# reproducibility of movie responses in Wen et al. 2018.
AREA_TABLE: Mapping[str, Area] = {
    "V1": Area((11.0, -80.0, 4.0), 120, 0.12, 0.35, 7.0, 0.0, 0.85),
    "V2": Area((11.0, -80.0, 4.0), 110, 0.17, 0.45, 7.0, 0.2, 0.84),
    "V3": Area((11.0, -80.0, 4.0), 90, 0.24, 0.6, 7.0, 0.35, 0.82),
    "V4": Area((27.0, -75.0, -13.0), 60, 0.38, 0.9, 6.0, 0.55, 0.8),
    "LO": Area((41.0, -74.0, -2.0), 60, 0.5, 1.4, 5.0, 0.75, 0.82),
    "MT": Area((45.0, -66.0, 3.0), 40, 0.45, 1.5, 6.0, 0.3, 0.78),
    "FFA": Area((40.0, -52.0, -19.0), 40, 0.6, 2.5, 4.0, 1.0, 0.76),
    "PPA": Area((26.0, -44.0, -11.0), 40, 0.6, 3.0, 5.0, 1.0, 0.76),
}
SHELLS = ("V1", "V2", "V3")
SHIFT_MM, RESIZE = 3.0, 0.15
FIELD_DEG = 8.0
"""Half the height of the movie on the screen, in degrees of visual angle."""


@dataclass(frozen=True)
class Cortex:
    """One subject's visual cortex, one row per vertex.

    Attributes
    ----------
    subject : name.
    space : vertices of fsaverage5 with masks of the areas and of the blind ones; measures x, y, sd: receptive fields.
    area : (voxels,) name of the area.
    x, y, sd : (voxels,) receptive fields in degrees from fixation, right and up positive.
    depth : (voxels,) place in the hierarchy; NaN where nothing is seen.
    ceiling : (voxels,) the noise ceiling to give it; 0 where nothing is seen.
    """

    subject: str
    space: Space
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray
    sd: np.ndarray
    depth: np.ndarray
    ceiling: np.ndarray

    def rows(self, *names: str) -> np.ndarray:
        """Return the rows of the vertices in some areas."""
        return np.flatnonzero(np.isin(self.area, names))


def make_cortex(
    subject: str, *, seed: int = 0, scale: float = 1.0, blind: int = 300, ceilings: Mapping[str, float] | None = None
) -> Cortex:
    """Return one subject's cortex.

    Parameters
    ----------
    subject : name; another name is another brain of the same seed.
    scale : size of the areas: 1 is about 1,100 vertices in all, 0.25 a quarter of them.
    blind : vertices that see nothing, of both hemispheres together.
    ceilings : noise ceilings by area, where they are to differ from `AREA_TABLE`.

    Raises
    ------
    DataError, ConfigError
        If a ceiling isn't within 0..1, its area is unknown, or the scale isn't > 0.
    """
    checks.positive("scale", scale)
    for name, ceiling in (ceilings or {}).items():
        checks.one_of("area", name, AREAS)
        checks.require(0 < ceiling < 1, f"ceiling of {name}", "must lie between 0 and 1", ceiling)
    rng = generator(seed, "cortex", subject)
    parts = [_hemisphere(side, scale, blind // 2, rng) for side in ("L", "R")]
    area = np.concatenate([names for _, names in parts])
    index = np.concatenate([vertices for vertices, _ in parts])
    side = np.repeat(["L", "R"], [len(vertices) for vertices, _ in parts])
    x, y, sd = _receptive_fields(area, side, rng)
    depth = np.array([AREA_TABLE[name].depth if name in AREA_TABLE else np.nan for name in area])
    asked = {name: (ceilings or {}).get(name, AREA_TABLE[name].ceiling) for name in AREAS}
    ceiling = np.array([asked.get(name, 0.0) for name in area])
    space = Space(
        "surface",
        len(area),
        index=index,
        hemisphere=side,
        template=TEMPLATE,
        rois={name: area == name for name in (*AREAS, ELSEWHERE)},
        measures={"x": x, "y": y, "sd": sd},
    )
    return Cortex(subject, space, area, x, y, sd, depth, ceiling)


@lru_cache(maxsize=2)
def _surface(side: str) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Return coordinates halfway between white and pial (vertices, 3) mm, and the lengths of the mesh's edges."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    files = fetch_surf_fsaverage(TEMPLATE)
    name = {"L": "left", "R": "right"}[side]
    white, pial = (load_surf_mesh(files[f"{kind}_{name}"]) for kind in ("white", "pial"))
    points = (np.asarray(white.coordinates) + np.asarray(pial.coordinates)) / 2
    faces = np.asarray(white.faces)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = scipy.sparse.coo_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))
    return points, (graph + graph.T).tocsr()


def _hemisphere(side: str, scale: float, blind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices and the name of each one's area."""
    points, graph = _surface(side)
    mirror = np.array([-1.0 if side == "L" else 1.0, 1.0, 1.0])
    taken = np.full(len(points), "", dtype="U5")
    for name in AREAS:
        area = AREA_TABLE[name]
        if name == SHELLS[0] or name not in SHELLS:
            # V2 and V3 go on where V1 ends
            centre = np.array(area.centre_mm) * mirror + rng.normal(0, SHIFT_MM / np.sqrt(3), size=3)
            seed = int(np.argmin(np.linalg.norm(points - centre, axis=1)))
            distance = dijkstra(graph, indices=seed)
        count = max(4, round(area.vertices * scale * float(np.exp(rng.normal(0, RESIZE)))))
        free = np.flatnonzero((taken == "") & np.isfinite(distance))
        chosen = free[np.argsort(distance[free], kind="stable")[:count]]
        taken[chosen] = name
    free = np.flatnonzero(taken == "")
    # far from the visual areas: the front half of the brain
    far = free[points[free, 1] > -20.0]
    taken[rng.choice(far, size=min(blind, len(far)), replace=False)] = ELSEWHERE
    vertices = np.flatnonzero(taken != "")
    return vertices, taken[vertices]


def _receptive_fields(
    area: np.ndarray, side: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres and sizes in degrees: more of the centre than of the periphery, each hemisphere its own side."""
    n = len(area)
    x, y, sd = (np.full(n, np.nan) for _ in range(3))
    for name in AREAS:
        rows = np.flatnonzero(area == name)
        facts = AREA_TABLE[name]
        # cortical magnification: equal steps of log eccentricity
        eccentricity = np.exp(rng.uniform(np.log(0.4), np.log(facts.most), size=len(rows)))
        spread = 1.0 if name in SHELLS else 1.4  # late areas reach over the midline
        angle = rng.uniform(-np.pi / 2, np.pi / 2, size=len(rows)) * spread
        across = np.where(side[rows] == "L", 1.0, -1.0)  # the left hemisphere sees the right side
        x[rows] = across * eccentricity * np.cos(angle)
        y[rows] = eccentricity * np.sin(angle)
        sd[rows] = (facts.least + facts.slope * eccentricity) * np.exp(rng.normal(0, 0.15, size=len(rows)))
    return x, y, sd
