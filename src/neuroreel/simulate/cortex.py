"""The simulated cortex: visual areas on fsaverage5, and the receptive field and tuning of every vertex in them.

V1, V2 and V3 are laid out together by the wedge map of Balasubramanian, Polimeni & Schwartz (2002, Neural Networks
15(10)): eccentricity grows from the occipital pole along the calcarine sulcus, the polar angle across it, with the
lower field above, and V2 and V3 mirror their neighbour. The other areas are patches around published centres (MNI152,
close enough to fsaverage's MNI305 for a simulation). Folding and tuning differ between subjects: places shift by some
millimetres, sizes by some tenths, everything else by seed.
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
    centre_mm : (x, y, z) of the right hemisphere in MNI space; the left one is its mirror image. None for those that
        the wedge map places.
    vertices : number of vertices a hemisphere.
    slope, least : receptive field size (SD, degrees) = least + slope * eccentricity.
    most : largest eccentricity of a receptive field's centre, in degrees.
    depth : where the area stands in the visual hierarchy: 0 the filters of V1, 1 the meaning of what is seen.
    ceiling : noise ceiling to give it: the correlation of a perfect prediction with the mean of ten repeats.
    """

    centre_mm: tuple[float, float, float] | None
    vertices: int
    slope: float
    least: float
    most: float
    depth: float
    ceiling: float


# Centres: V4, LO Larsson & Heeger 2006; MT Dumoulin et al. 2000; FFA Kanwisher et al. 1997; PPA Epstein & Kanwisher
# 1998. Receptive field slopes in the order of Amano et al. 2009. Ceilings in the order of what movies
# reach in ten repeats: .94 is a correlation of .43 between two single runs, .89 one of .28, as in the more reproducible
# vertices of Wen et al. 2018 (from memory, unconfirmed).
AREA_TABLE: Mapping[str, Area] = {
    "V1": Area(None, 120, 0.12, 0.35, 7.0, 0.0, 0.94),
    "V2": Area(None, 110, 0.17, 0.45, 7.0, 0.2, 0.93),
    "V3": Area(None, 90, 0.24, 0.6, 7.0, 0.35, 0.92),
    "V4": Area((27.0, -75.0, -13.0), 60, 0.38, 0.9, 6.0, 0.55, 0.91),
    "LO": Area((41.0, -74.0, -2.0), 60, 0.5, 1.4, 5.0, 0.75, 0.91),
    "MT": Area((45.0, -66.0, 3.0), 40, 0.45, 1.5, 6.0, 0.3, 0.9),
    "FFA": Area((40.0, -52.0, -19.0), 40, 0.6, 2.5, 4.0, 1.0, 0.89),
    "PPA": Area((26.0, -44.0, -11.0), 40, 0.6, 3.0, 5.0, 1.0, 0.89),
}
EARLY = ("V1", "V2", "V3")
POLE_MM, CALCARINE_MM = (12.0, -98.0, -2.0), (14.0, -70.0, 8.0)
"""Where V1's centre of gaze lies, and a place further along the calcarine sulcus."""
SMALLEST, LARGEST = 0.1, 3.0  # scales
SHIFT_MM, RESIZE = 3.0, 0.15
FOVEA_DEG = 0.75  # the wedge map's a: below it magnification stops growing
WEDGES = 1.5  # how far V1 to V3 together reach around the centre of gaze, in right angles to each side
FITTING = 40  # steps in which the wedge map finds its sizes
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
    scale : size of the areas: 1 is about 1,100 vertices in all, 0.25 a quarter of them; 0.1 to 3.
    blind : vertices that see nothing, of both hemispheres together.
    ceilings : noise ceilings by area, where they are to differ from `AREA_TABLE`.

    Raises
    ------
    DataError, ConfigError
        If a ceiling isn't within 0..1, its area is unknown, or the scale isn't within 0.1..3.
    """
    checks.require(SMALLEST <= scale <= LARGEST, "scale", f"must lie within {SMALLEST:g}..{LARGEST:g}", scale)
    check_ceilings(ceilings or {})
    rng = generator(seed, "cortex", subject)
    parts = [_hemisphere(side, scale, blind // 2, rng) for side in ("L", "R")]
    index, area, x, y = (np.concatenate([part[column] for part in parts]) for column in range(4))
    side = np.repeat(["L", "R"], [len(part[0]) for part in parts])
    x, y, sd = _receptive_fields(area, side, x, y, rng)
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


def check_ceilings(ceilings: Mapping[str, float]) -> None:
    """Raise ConfigError or DataError unless all areas are known and all ceilings lie between 0 and 1."""
    for name, ceiling in ceilings.items():
        checks.one_of("area of a ceiling", name, AREAS)
        checks.require(0 < ceiling < 1, f"ceiling of {name}", "must lie between 0 and 1", ceiling)


@dataclass(frozen=True)
class _Surface:
    """One hemisphere of the template.

    Attributes
    ----------
    points : (vertices, 3) mm, halfway between white and pial.
    sphere : (vertices, 3) mm, the same on a sphere of 100 mm.
    graph : (vertices, vertices) lengths of the mesh's edges.
    """

    points: np.ndarray
    sphere: np.ndarray
    graph: scipy.sparse.csr_matrix

    def nearest(self, place_mm: np.ndarray) -> int:
        """Return the vertex nearest to a place."""
        return int(np.argmin(np.linalg.norm(self.points - place_mm, axis=1)))


@lru_cache(maxsize=2)
def _surface(side: str) -> _Surface:
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    files = fetch_surf_fsaverage(TEMPLATE)
    name = {"L": "left", "R": "right"}[side]
    white, pial, sphere = (load_surf_mesh(files[f"{kind}_{name}"]) for kind in ("white", "pial", "sphere"))
    points = (np.asarray(white.coordinates) + np.asarray(pial.coordinates)) / 2
    faces = np.asarray(white.faces)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = scipy.sparse.coo_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))
    return _Surface(points, np.asarray(sphere.coordinates), (graph + graph.T).tocsr())


def _hemisphere(
    side: str, scale: float, blind: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the vertices, the name of each one's area, and where the wedge map says that it looks (NaN elsewhere)."""
    surface = _surface(side)
    mirror = np.array([-1.0 if side == "L" else 1.0, 1.0, 1.0])
    sizes = {name: AREA_TABLE[name].vertices * scale * float(np.exp(rng.normal(0, RESIZE))) for name in AREAS}
    pole, calcarine = (np.array(place) * mirror + _shift(rng) for place in (POLE_MM, CALCARINE_MM))
    chart = _chart(surface, surface.nearest(pole), surface.nearest(calcarine))
    taken, x, y = _wedge_map(chart, [sizes[name] for name in EARLY])
    x *= -mirror[0]  # each hemisphere sees the other side
    for name in AREAS:
        centre = AREA_TABLE[name].centre_mm
        if centre is None:
            continue
        seed = surface.nearest(np.array(centre) * mirror + _shift(rng))
        distance = dijkstra(surface.graph, indices=seed)  # type: ignore[call-overload]
        free = np.flatnonzero((taken == "") & np.isfinite(distance))
        taken[free[np.argsort(distance[free], kind="stable")[: max(4, round(sizes[name]))]]] = name
    # far from the visual areas: the front half of the brain
    far = np.flatnonzero((taken == "") & (surface.points[:, 1] > -20.0))
    taken[rng.choice(far, size=min(blind, len(far)), replace=False)] = ELSEWHERE
    vertices = np.flatnonzero(taken != "")
    return vertices, taken[vertices], x[vertices], y[vertices]


def _shift(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, SHIFT_MM / np.sqrt(3), size=3)


def _chart(surface: _Surface, origin: int, along: int) -> np.ndarray:
    """Return every vertex's place on a map of the sphere that is true from its origin, (vertices,) complex, mm.

    The real axis points to the vertex `along`, the imaginary one up.
    """
    unit = surface.sphere / np.linalg.norm(surface.sphere, axis=1, keepdims=True)
    middle = unit[origin]
    ahead = unit[along] - (unit[along] @ middle) * middle
    ahead /= np.linalg.norm(ahead)
    beside = np.cross(middle, ahead)
    angle = np.arccos(np.clip(unit @ middle, -1, 1))
    flat = unit @ ahead + 1j * (unit @ beside)
    flat *= 100 * angle / np.maximum(np.abs(flat), 1e-12)
    near = angle < 0.3
    up = np.cov(flat[near].imag, surface.points[near, 2])[0, 1]
    return flat if up > 0 else flat.conj()


def _wedge_map(chart: np.ndarray, sizes: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each vertex's area ("" for none) and its place in the visual field, degrees, x away from the midline.

    The cortex is k log(z + a), where z is the visual field with V1 squeezed into the middle wedge and V2 and V3, each
    the mirror image of its neighbour, in wedges beside it. The scale k and the widths of the wedges are those that give
    the areas their sizes.

    Parameters
    ----------
    chart : (vertices,) complex, mm from the centre of gaze.
    sizes : numbers of vertices of V1, V2 and V3.
    """
    most = AREA_TABLE[EARLY[0]].most
    near = np.flatnonzero(np.abs(chart) < 120.0)
    w = chart[near]
    k_mm = 20.0 * float(np.sqrt(sizes[0] / AREA_TABLE[EARLY[0]].vertices))
    widths = np.array(sizes) / sum(sizes)
    for _ in range(FITTING):
        z = FOVEA_DEG * (np.exp(np.minimum(w.real / k_mm, 50.0) + 1j * np.clip(w.imag / k_mm, -np.pi, np.pi)) - 1)
        borders = np.cumsum([0.0, *widths]) * WEDGES * np.pi / 2
        number = np.searchsorted(borders, np.abs(np.angle(z)), side="right") - 1
        number[(np.abs(z) > most) | (number >= len(EARLY))] = -1
        counts = np.maximum(np.bincount(number[number >= 0], minlength=len(EARLY)), 1)
        k_mm *= float(sum(sizes) / counts.sum()) ** 0.25
        wrong = np.array(sizes) / counts
        widths = widths * wrong**0.25
        widths /= widths.sum()
    share = (np.abs(np.angle(z)) - borders[number]) / (borders[number + 1] - borders[number])
    polar = np.where(number == 1, 1 - share, share) * np.pi / 2  # from the horizontal meridian, 0 to 90 degrees
    found = number >= 0
    taken = np.full(len(chart), "", dtype="U5")
    x, y = np.full(len(chart), np.nan), np.full(len(chart), np.nan)
    taken[near[found]] = np.array(EARLY)[number[found]]
    x[near[found]] = (np.abs(z) * np.cos(polar))[found]
    y[near[found]] = (-np.sign(z.imag) * np.abs(z) * np.sin(polar))[found]  # the lower field lies above
    return taken, x, y


def _receptive_fields(
    area: np.ndarray, side: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centres and sizes in degrees: the wedge map's, and elsewhere at random, more of them near the centre."""
    x, y, sd = x.copy(), y.copy(), np.full(len(area), np.nan)
    for name in AREAS:
        rows = np.flatnonzero(area == name)
        facts = AREA_TABLE[name]
        if name in EARLY:
            scatter = rng.normal(0, 0.05, size=(2, len(rows))) * (1 + np.hypot(x[rows], y[rows]))
            x[rows], y[rows] = x[rows] + scatter[0], y[rows] + scatter[1]
        else:
            # cortical magnification: equal steps of log eccentricity; late areas reach over the midline
            radius = np.exp(rng.uniform(np.log(0.4), np.log(facts.most), size=len(rows)))
            angle = 1.4 * rng.uniform(-np.pi / 2, np.pi / 2, size=len(rows))
            x[rows] = np.where(side[rows] == "L", 1.0, -1.0) * radius * np.cos(angle)
            y[rows] = radius * np.sin(angle)
        eccentricity = np.hypot(x[rows], y[rows])
        sd[rows] = (facts.least + facts.slope * eccentricity) * np.exp(rng.normal(0, 0.15, size=len(rows)))
    return x, y, sd
