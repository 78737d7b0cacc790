"""What the vertices of the simulated cortex answer to a movie, before the blood: from pixels and from the truth.

Early areas pool oriented contrast energy, motion energy and colour under their receptive fields; the middle ones pool
feature maps of a random convolutional network (no decoder of neuroreel has its architecture or its weights, so that
nothing is opened with its own key); the late ones follow the meaning of what is shown. An area mixes the three as
`MIXTURE` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from neuroreel.core.seeds import generator
from neuroreel.core.types import Video
from neuroreel.simulate.backgrounds import BACKGROUNDS
from neuroreel.simulate.categories import CATEGORIES, GROUP_OF, GROUPS
from neuroreel.simulate.cortex import AREAS, FIELD_DEG, Cortex
from neuroreel.simulate.movies import Movie

RATE_HZ = 4.0
"""How often a neural response is computed."""

GRID = 16
SEEN = 64  # side in pixels at which movies are looked at
ORIENTATIONS, WAVELENGTHS_PX, DIRECTIONS = 4, (5.0, 10.0), 8
STAGES = ((5, 24), (3, 48), (3, 96))  # kernel and channels of the random network's stages, each of which halves the map
ATTRIBUTES = 16
TUNED_CHANNELS = 6  # channels that a vertex mixes in each of its parts

# shares of the variance from: energy and colour, motion, stage 1, 2, 3 of the network, meaning
MIXTURE: Mapping[str, tuple[float, float, float, float, float, float]] = {
    "V1": (0.9, 0.1, 0.0, 0.0, 0.0, 0.0),
    "V2": (0.5, 0.1, 0.4, 0.0, 0.0, 0.0),
    "V3": (0.2, 0.15, 0.4, 0.25, 0.0, 0.0),
    "V4": (0.1, 0.0, 0.1, 0.7, 0.1, 0.0),
    "LO": (0.0, 0.0, 0.0, 0.2, 0.4, 0.4),
    "MT": (0.05, 0.85, 0.1, 0.0, 0.0, 0.0),
    "FFA": (0.0, 0.0, 0.0, 0.0, 0.15, 0.85),
    "PPA": (0.0, 0.0, 0.0, 0.0, 0.15, 0.85),
}
PREFERRED: Mapping[str, tuple[str, ...]] = {"FFA": ("person", "animal"), "PPA": ("building", "furniture", "vehicle")}


@dataclass(frozen=True)
class Maps:
    """What is computed of some frames, for all vertices of all subjects.

    Attributes
    ----------
    parts : feature maps (times, channels, GRID, GRID) float32, one for each part of `MIXTURE` but meaning.
    meaning : (times, attributes) float32.
    """

    parts: tuple[np.ndarray, ...]
    meaning: np.ndarray


class Neurons:
    """The vertices of one subject, with the tuning of each; call `respond` with the maps of a movie."""

    def __init__(self, cortex: Cortex, *, seed: int = 0) -> None:
        rng = generator(seed, "neurons", cortex.subject)
        self.cortex = cortex
        self.fields = _receptive_fields(cortex)
        counts = _channel_counts()
        self.tuning = [_sparse_tuning(len(cortex.area), count, rng) for count in counts]
        self.meaning = _semantic_tuning(cortex, rng)
        self.shares = np.array([MIXTURE.get(str(name), (0.0,) * 6) for name in cortex.area])

    def respond(self, maps: Maps, moments: list[tuple[np.ndarray, np.ndarray]] | None = None) -> Responses:
        """Return the responses (times, voxels): each part z-scored, mixed by the area's shares; blind vertices are 0.

        Parameters
        ----------
        moments : means and SDs of the parts, those of the first movie for all later ones; None to take this movie's.
        """
        parts = [_pool(part, self.fields, tuning) for part, tuning in zip(maps.parts, self.tuning, strict=True)]
        parts.append(maps.meaning @ self.meaning.T)
        if moments is None:
            moments = [(part.mean(0), np.maximum(part.std(0), 1e-6)) for part in parts]
        total = np.zeros_like(parts[0])
        for part, (mean, sd), share in zip(parts, moments, self.shares.T, strict=True):
            total += np.sqrt(share).astype(np.float32) * ((part - mean) / sd)
        return Responses(total, moments)


@dataclass(frozen=True)
class Responses:
    """Responses (times, voxels) float32 at `RATE_HZ`, and the moments that scaled them."""

    values: np.ndarray
    moments: list[tuple[np.ndarray, np.ndarray]]


def look_at(video: Video, movie: Movie, *, batch: int = 256, progress: Callable[[int], None] | None = None) -> Maps:
    """Return the maps of a movie at `RATE_HZ`.

    Parameters
    ----------
    video : the movie as its file shows it.
    movie : the same, with its truth.
    batch : frames looked at together.
    progress : called with the number of times done.
    """
    count = int(np.floor(video.shape[0] / video.fps * RATE_HZ + 1e-6))
    numbers = np.minimum(np.floor(np.arange(count) / RATE_HZ * video.fps + 1e-6).astype(int), video.shape[0] - 1)
    network = RandomNetwork()
    early, motion, stages = [], [], [[] for _ in STAGES]  # type: tuple[list, list, list[list]]
    for start in range(0, count, batch):
        wanted = numbers[start : start + batch]
        first = max(0, int(wanted[0]) - 1)
        frames = _seen(video.frames(first, int(wanted[-1]) + 1))
        now, before = frames[wanted - first], frames[np.maximum(wanted - 1, 0) - first]
        early.append(energy_and_colour(now))
        motion.append(motion_energy(now, before))
        for kept, stage in zip(stages, network(now), strict=True):
            kept.append(stage)
        if progress is not None:
            progress(min(start + batch, count))
    parts = [np.concatenate(kept) for kept in (early, motion, *stages)]
    return Maps(tuple(parts), meaning_of(movie, numbers))


def _seen(frames: np.ndarray) -> np.ndarray:
    """Return frames at the size at which they are looked at, (n, SEEN, SEEN, 3) float32 from 0 to 1."""
    if frames.shape[1:3] != (SEEN, SEEN):
        frames = np.stack([cv2.resize(frame, (SEEN, SEEN), interpolation=cv2.INTER_AREA) for frame in frames])
    return frames.astype(np.float32) / 255


def energy_and_colour(frames: np.ndarray) -> np.ndarray:
    """Return oriented contrast energy at two scales, luminance and two colour axes, (n, channels, GRID, GRID).

    Contrast energy is the length of a quadrature pair of Gabor filters. Source: Adelson & Bergen 1985.
    """
    filters = [
        (_gabor(wavelength, np.pi * k / ORIENTATIONS, 0.0), _gabor(wavelength, np.pi * k / ORIENTATIONS, np.pi / 2))
        for wavelength in WAVELENGTHS_PX
        for k in range(ORIENTATIONS)
    ]
    out = np.empty((len(frames), len(filters) + 3, GRID, GRID), dtype=np.float32)
    for row, frame in enumerate(frames):
        grey = frame.mean(axis=2)
        for channel, (even, odd) in enumerate(filters):
            energy = np.hypot(cv2.filter2D(grey, -1, even), cv2.filter2D(grey, -1, odd))
            out[row, channel] = _shrink(energy)
        colours = (grey, frame[..., 0] - frame[..., 1], frame[..., 2] - (frame[..., 0] + frame[..., 1]) / 2)
        for channel, plane in enumerate(colours):
            out[row, len(filters) + channel] = _shrink(plane)
    return out


def motion_energy(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the energy of motion in eight directions, (n, DIRECTIONS, GRID, GRID).

    From the products of the change in time with the gradient in space, which for a moving pattern has the sign of the
    motion along the gradient (Hassenstein & Reichardt 1956), half-wave rectified, and pooled.
    """
    out = np.empty((len(now), DIRECTIONS, GRID, GRID), dtype=np.float32)
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    for row, (frame, last) in enumerate(zip(now, before, strict=True)):
        grey, old = (cv2.GaussianBlur(image.mean(axis=2), (0, 0), 1.0) for image in (frame, last))
        change, mean = grey - old, (grey + old) / 2
        right, down = cv2.Sobel(mean, cv2.CV_32F, 1, 0), cv2.Sobel(mean, cv2.CV_32F, 0, 1)
        for channel, angle in enumerate(angles):
            along = -change * (np.cos(angle) * right - np.sin(angle) * down)  # angle 0 is right, 90 degrees up
            out[row, channel] = np.sqrt(_shrink(np.maximum(along, 0)))
    return out


class RandomNetwork:
    """Three strided convolutions with random zero-mean filters, rectified and divisively normalised over channels."""

    def __init__(self, seed: int = 20180701) -> None:
        rng = generator(seed, "random-network")
        self.filters = []
        channels = 3
        for size, out in STAGES:
            weights = rng.normal(size=(out, channels, size, size))
            weights -= weights.mean(axis=(1, 2, 3), keepdims=True)
            weights /= np.sqrt((weights**2).sum(axis=(1, 2, 3), keepdims=True))
            self.filters.append(weights.astype(np.float32))
            channels = out

    def __call__(self, frames: np.ndarray) -> list[np.ndarray]:
        """Return the maps of each stage, (n, channels, GRID, GRID), for frames (n, SEEN, SEEN, 3)."""
        import torch
        from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, relu

        x = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))) - 0.5
        maps = []
        with torch.inference_mode():
            for weights in self.filters:
                x = relu(conv2d(x, torch.from_numpy(weights), stride=2, padding=weights.shape[-1] // 2))
                x = x / (0.1 + x.pow(2).mean(dim=1, keepdim=True).sqrt())
                side = x.shape[-1]
                shown = adaptive_avg_pool2d(x, GRID) if side >= GRID else interpolate(x, (GRID, GRID), mode="bilinear")
                maps.append(shown.numpy())
        return maps


def meaning_of(movie: Movie, frames: np.ndarray) -> np.ndarray:
    """Return what frames mean, (n, attributes): the group, attributes that categories share, the place."""
    truth = [movie.scenes[int(scene)] for scene in movie.scene_of(frames)]
    codes = category_codes()
    places = {name: row for row, name in enumerate(BACKGROUNDS)}
    out = np.zeros((len(truth), codes.shape[1] + len(places)), dtype=np.float32)
    for row, scene in enumerate(truth):
        out[row, : codes.shape[1]] = codes[CATEGORIES.index(scene.category)]
        out[row, codes.shape[1] + places[scene.background]] = 1.0
    return out


def category_codes() -> np.ndarray:
    """Return the attributes of every category, (categories, groups + ATTRIBUTES): the group, and shared attributes."""
    rng = generator(0, "category-codes")
    groups = np.array([[GROUP_OF[name] == group for group in GROUPS] for name in CATEGORIES], dtype=np.float32)
    shared = (rng.random((len(CATEGORIES), ATTRIBUTES)) < 0.3).astype(np.float32)
    return np.concatenate([groups, 0.7 * shared], axis=1)


def _channel_counts() -> list[int]:
    return [ORIENTATIONS * len(WAVELENGTHS_PX) + 3, DIRECTIONS, *(channels for _, channels in STAGES)]


def _gabor(wavelength_px: float, angle: float, phase: float) -> np.ndarray:
    """Return a zero-mean Gabor filter of unit length."""
    half = round(wavelength_px)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    along = x * np.cos(angle) + y * np.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength_px) ** 2))
    wave = np.cos(2 * np.pi * along / wavelength_px + phase)
    wave -= (wave * envelope).sum() / envelope.sum()
    kernel = wave * envelope
    return (kernel / np.linalg.norm(kernel)).astype(np.float32)


def _shrink(plane: np.ndarray) -> np.ndarray:
    return cv2.resize(plane, (GRID, GRID), interpolation=cv2.INTER_AREA)


def _receptive_fields(cortex: Cortex) -> np.ndarray:
    """Return the weight of every cell of the grid in every vertex's receptive field, (voxels, GRID * GRID), sum 1."""
    centres = (np.arange(GRID) + 0.5) / GRID * 2 * FIELD_DEG - FIELD_DEG
    right, up = np.meshgrid(centres, -centres)
    seeing = ~np.isnan(cortex.sd)
    x, y, sd = (np.where(seeing, each, 1.0)[:, None] for each in (cortex.x, cortex.y, cortex.sd))
    cell = 2 * FIELD_DEG / GRID / np.sqrt(12)  # a cell's own extent, so that small fields don't fall between cells
    fields = np.exp(-((right.ravel() - x) ** 2 + (up.ravel() - y) ** 2) / (2 * (sd**2 + cell**2)))
    return (fields / fields.sum(1, keepdims=True)).astype(np.float32)


def _sparse_tuning(voxels: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Return weights (voxels, channels) with a few channels for each vertex, of both signs."""
    weights = np.zeros((voxels, channels), dtype=np.float32)
    for row in weights:
        chosen = rng.choice(channels, size=min(TUNED_CHANNELS, channels), replace=False)
        row[chosen] = rng.exponential(size=len(chosen)) * rng.choice([1.0, -0.5], size=len(chosen))
    return weights


def _semantic_tuning(cortex: Cortex, rng: np.random.Generator) -> np.ndarray:
    """Return weights (voxels, attributes and places): at random, with what FFA and PPA are known to prefer on top."""
    groups = list(GROUPS)
    attributes = len(groups) + ATTRIBUTES
    weights = 0.5 * rng.normal(size=(len(cortex.area), attributes + len(BACKGROUNDS)))
    weights[:, attributes:] *= 0.3
    for name, preferred in PREFERRED.items():
        rows = cortex.rows(name)
        for group in preferred:
            weights[rows, groups.index(group)] += rng.exponential(1.0, size=len(rows))
        if name == "PPA":
            weights[np.ix_(rows, np.arange(attributes, weights.shape[1]))] *= 4.0
    return weights.astype(np.float32)


def _pool(maps: np.ndarray, fields: np.ndarray, tuning: np.ndarray, batch: int = 64) -> np.ndarray:
    """Return maps (times, channels, GRID, GRID) pooled under the fields and mixed by the tuning, (times, voxels)."""
    out = np.empty((len(maps), len(fields)), dtype=np.float32)
    flat = maps.reshape(len(maps), maps.shape[1], -1)
    for start in range(0, len(maps), batch):
        pooled = flat[start : start + batch] @ fields.T  # (times, channels, voxels)
        out[start : start + batch] = np.einsum("tcv,vc->tv", pooled, tuning)
    return out


def area_order() -> Sequence[str]:
    """Return the areas from the lowest to the highest place in the hierarchy."""
    from neuroreel.simulate.cortex import AREA_TABLE

    return sorted(AREAS, key=lambda name: AREA_TABLE[name].depth)
