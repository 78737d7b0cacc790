"""What the vertices of the simulated cortex answer to a movie, before the blood: from pixels and from the truth.

Early areas pool oriented contrast energy, motion energy and colour under their receptive fields; the middle ones pool
the stages of a trained network (no decoder of neuroreel has its architecture or its weights, so that nothing is opened
with its own key); the late ones follow the meaning of what is shown. An area mixes the three as `MIXTURE` says.

A vertex stands for a voxel, which pools 1e5 neurons or more: much more than a column of one preference. So of the first
stages (V2, V3) it answers to all channels, with positive weights that differ between vertices and a little more of
some, and channels that hardly ever fire count as little as they fire. Of the later stages, whose neurons lie together
by preference in patches as large as a voxel (faces, places), it is tuned to some channels only. This is an assumption,
not a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from neuroreel.core.seeds import generator
from neuroreel.core.types import Video
from neuroreel.simulate.backgrounds import BACKGROUNDS
from neuroreel.simulate.categories import CATEGORIES, GROUP_OF, GROUPS
from neuroreel.simulate.cortex import FIELD_DEG, Cortex
from neuroreel.simulate.movies import Movie

RATE_HZ = 4.0
"""How often a neural response is computed."""

GRID = 16
STAGE_CHANNELS = (24, 48, 96, 128)  # of `simulate.ventral`, which needs torch and is imported when it looks
SEEN = 64  # side in pixels at which movies are looked at
ORIENTATIONS, WAVELENGTHS_PX, DIRECTIONS = 4, (5.0, 10.0), 8
ATTRIBUTES = 16
TUNED_CHANNELS = (6, 6, 6, 24)  # channels of each stage that a vertex prefers: late ones see patterns of many
POOLED_STAGES = 2  # the first ones, of which a vertex pools all channels beside
SCALED_STAGES = 3  # the first ones, whose channels keep their relative activity
LIGHT_AND_COLOURS = (2.0, 1.2, 1.2)  # SDs of their weights, where those of contours are 1
ORIENTATION_WIDTH, DIRECTION_WIDTH = 1.5, 2.0  # concentrations of the von Mises tuning curves

# shares of the variance from: energy and colour, motion, the network's stages 1 to 4, meaning
MIXTURE: Mapping[str, tuple[float, float, float, float, float, float, float]] = {
    "V1": (0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0),
    "V2": (0.4, 0.1, 0.5, 0.0, 0.0, 0.0, 0.0),
    "V3": (0.1, 0.1, 0.3, 0.5, 0.0, 0.0, 0.0),
    "V4": (0.0, 0.0, 0.0, 0.3, 0.7, 0.0, 0.0),
    "LO": (0.0, 0.0, 0.0, 0.0, 0.3, 0.6, 0.1),
    "MT": (0.1, 0.6, 0.15, 0.15, 0.0, 0.0, 0.0),
    "FFA": (0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.4),
    "PPA": (0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.4),
}
PREFERRED: Mapping[str, tuple[str, ...]] = {"FFA": ("person", "animal"), "PPA": ("building", "furniture", "vehicle")}


@dataclass(frozen=True)
class Maps:
    """What is computed of some frames, for all vertices of all subjects.

    Attributes
    ----------
    parts : feature maps (times, channels, side, side) float32, one for each part of `MIXTURE` but meaning.
    meaning : (times, attributes) float32.
    """

    parts: tuple[np.ndarray, ...]
    meaning: np.ndarray


@dataclass(frozen=True)
class Moments:
    """What responses are scaled by: taken from one movie and kept for all others.

    Attributes
    ----------
    channels : for each feature map of `Maps`, the SD of its channels; of the network's first stages
        (`SCALED_STAGES`) one for all, the root mean square of its channels', so that those that hardly ever fire stay
        small.
    means, sds : for each part, those of the vertices that it drives.
    """

    channels: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    sds: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Responses:
    """Responses (times, voxels) float32 at `RATE_HZ`, and the moments that scaled them."""

    values: np.ndarray
    moments: Moments


class Neurons:
    """The vertices of one subject, with the tuning of each; call `respond` with the maps of a movie.

    Parameters
    ----------
    cortex : the vertices.
    seed : of the tuning.

    Attributes
    ----------
    orientation_deg : (voxels,) preferred orientation of the contour, 0 is horizontal, 90 upright.
    direction_deg : (voxels,) preferred direction of motion, 0 is right, 90 up.
    shares : (voxels, parts) how much of a vertex's variance comes from each part; 0 for blind ones.
    """

    def __init__(self, cortex: Cortex, *, seed: int = 0) -> None:
        rng = generator(seed, "neurons", cortex.subject)
        self.cortex = cortex
        voxels = len(cortex.area)
        self.orientation_deg = rng.uniform(0, 180, size=voxels)
        self.direction_deg = rng.uniform(0, 360, size=voxels)
        self.shares = np.array([MIXTURE.get(str(name), (0.0,) * 7) for name in cortex.area])
        self._tuning = [
            _early_tuning(self.orientation_deg, rng),
            _direction_tuning(self.direction_deg),
            *(_sparse_tuning(voxels, *pair, rng) for pair in zip(STAGE_CHANNELS, TUNED_CHANNELS, strict=True)),
        ]
        pools = generator(seed, "pools", cortex.subject)
        for weights in self._tuning[2 : 2 + POOLED_STAGES]:
            weights += pools.exponential(size=weights.shape).astype(np.float32)
        self._meaning = _semantic_tuning(cortex, rng)

    def respond(self, maps: Maps, moments: Moments | None = None) -> Responses:
        """Return the responses (times, voxels): each part z-scored, mixed by the area's shares; blind vertices are 0.

        Parameters
        ----------
        moments : those of the first movie, for all later ones; None to take this movie's.
        """
        driven = [np.flatnonzero(share > 0) for share in self.shares.T]
        scales = _scales(maps) if moments is None else moments.channels
        parts = [
            _pool(part, receptive_fields(self.cortex, part.shape[-1])[rows], tuning[rows] / sd)
            for part, tuning, rows, sd in zip(maps.parts, self._tuning, driven, scales, strict=False)
        ]
        parts.append(maps.meaning @ self._meaning[driven[-1]].T)
        if moments is None:
            means, sds = tuple(part.mean(0) for part in parts), tuple(np.maximum(part.std(0), 1e-6) for part in parts)
            moments = Moments(scales, means, sds)
        total = np.zeros((len(maps.meaning), len(self.shares)), dtype=np.float32)
        for number, (part, rows) in enumerate(zip(parts, driven, strict=True)):
            weight = np.sqrt(self.shares[rows, number]) / moments.sds[number]
            total[:, rows] += ((part - moments.means[number]) * weight).astype(np.float32)
        return Responses(total, moments)


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
    from neuroreel.simulate.ventral import VentralNetwork

    network = VentralNetwork.trained()
    kept: list[tuple[np.ndarray, ...]] = []
    for start in range(0, count, batch):
        wanted = numbers[start : start + batch]
        first = max(0, int(wanted[0]) - 1)
        frames = video.frames(first, int(wanted[-1]) + 1)
        now, before = _seen(frames[wanted - first]), _seen(frames[np.maximum(wanted - 1, 0) - first])
        kept.append((energy_and_colour(now), motion_energy(now, before), *map(_shrink, network.look(now))))
        if progress is not None:
            progress(min(start + batch, count))
    return Maps(tuple(np.concatenate(part) for part in zip(*kept, strict=True)), meaning_of(movie, numbers))


def _seen(frames: np.ndarray) -> np.ndarray:
    """Return frames at the size at which they are looked at, (n, SEEN, SEEN, 3) float32 from 0 to 1."""
    if frames.shape[1:3] != (SEEN, SEEN):
        frames = np.stack([cv2.resize(frame, (SEEN, SEEN), interpolation=cv2.INTER_AREA) for frame in frames])
    return frames.astype(np.float32) / 255


def energy_and_colour(frames: np.ndarray) -> np.ndarray:
    """Return oriented contrast energy at two scales, luminance and two colour axes, (n, channels, GRID, GRID).

    Contrast energy is the length of a quadrature pair of Gabor filters, taken at every second pixel. Channels go scale
    by scale, and within a scale by the orientation of the contour: 0, 45, 90 and 135 degrees, anticlockwise from
    horizontal. Source: Adelson & Bergen 1985, JOSA A 2(2).
    """
    import torch
    from torch.nn.functional import conv2d, pad

    grey = frames.mean(axis=3)
    colours = (grey, frames[..., 0] - frames[..., 1], frames[..., 2] - (frames[..., 0] + frames[..., 1]) / 2)
    parts = []
    for wavelength in WAVELENGTHS_PX:
        # a wave that runs along `across` draws contours at a right angle to it; rows of a picture go down
        across = [np.pi / 2 - np.pi * k / ORIENTATIONS for k in range(ORIENTATIONS)]
        pairs = [_gabor(wavelength, angle, phase) for phase in (0.0, np.pi / 2) for angle in across]
        half = pairs[0].shape[0] // 2
        with torch.inference_mode():
            padded = pad(torch.from_numpy(grey[:, None]), (half,) * 4, mode="reflect")
            found = conv2d(padded, torch.from_numpy(np.stack(pairs)[:, None]), stride=2)
            parts.append(_shrink(torch.hypot(found[:, :ORIENTATIONS], found[:, ORIENTATIONS:]).numpy()))
    parts.append(_shrink(np.stack(colours, axis=1)))
    return np.concatenate(parts, axis=1)


def motion_energy(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the energy of motion in eight directions, (n, DIRECTIONS, GRID, GRID): right, then anticlockwise.

    From the products of the change in time with the gradient in space, which for a moving pattern has the sign of the
    motion along the gradient (Hassenstein & Reichardt 1956), at half the resolution, half-wave rectified, and pooled.
    """
    import torch
    from torch.nn.functional import avg_pool2d, conv2d, pad

    blur, slope = np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0]) / 16, np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    with torch.inference_mode():
        pair = avg_pool2d(torch.from_numpy(np.concatenate([now, before]).mean(axis=3)[:, None]), 2)
        pair = conv2d(pad(pair, (1,) * 4, mode="reflect"), torch.from_numpy(blur).float()[None, None])
        grey, old = pair[: len(now)], pair[len(now) :]
        slopes = torch.from_numpy(np.stack([slope, slope.T])).float()[:, None]
        gradient = conv2d(pad((grey + old) / 2, (1,) * 4, mode="reflect"), slopes)
        along = -(grey - old) * gradient  # (n, right and down, SEEN / 2, SEEN / 2)
        out = np.empty((len(now), DIRECTIONS, GRID, GRID), dtype=np.float32)
        for channel, angle in enumerate(2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS):
            part = float(np.cos(angle)) * along[:, :1] - float(np.sin(angle)) * along[:, 1:]
            out[:, channel : channel + 1] = _shrink(part.clamp_min(0).numpy())
    return np.sqrt(out)


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


def _shrink(planes: np.ndarray) -> np.ndarray:
    """Return planes (n, channels, side, side) averaged down to GRID x GRID, or as they are where they are smaller."""
    import torch
    from torch.nn.functional import avg_pool2d

    step = planes.shape[-1] // GRID
    return np.ascontiguousarray(avg_pool2d(torch.from_numpy(planes), step).numpy() if step > 1 else planes)


def receptive_fields(cortex: Cortex, side: int = GRID) -> np.ndarray:
    """Return the weight of every cell of a grid in every vertex's receptive field, (voxels, side * side), sum 1."""
    centres = (np.arange(side) + 0.5) / side * 2 * FIELD_DEG - FIELD_DEG
    right, up = np.meshgrid(centres, -centres)
    seeing = ~np.isnan(cortex.sd)
    x, y, sd = (np.where(seeing, each, 1.0)[:, None] for each in (cortex.x, cortex.y, cortex.sd))
    cell = 2 * FIELD_DEG / side / np.sqrt(12)  # a cell's own extent, so that small fields don't fall between cells
    fields = np.exp(-((right.ravel() - x) ** 2 + (up.ravel() - y) ** 2) / (2 * (sd**2 + cell**2)))
    return (fields / fields.sum(1, keepdims=True)).astype(np.float32)


def _early_tuning(orientation_deg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return weights (voxels, channels): contours of one orientation at either scale, and light and colours."""
    voxels = len(orientation_deg)
    channels = np.arange(ORIENTATIONS) * 180 / ORIENTATIONS
    curve = _von_mises(2 * (channels - orientation_deg[:, None]), ORIENTATION_WIDTH)
    energy = [rng.exponential(size=(voxels, 1)) * curve for _ in WAVELENGTHS_PX]
    colours = rng.normal(size=(voxels, 3)) * LIGHT_AND_COLOURS
    return np.concatenate([*energy, colours], axis=1).astype(np.float32)


def _direction_tuning(direction_deg: np.ndarray) -> np.ndarray:
    """Return weights (voxels, DIRECTIONS): one direction excites, the opposite one inhibits a little."""
    channels = np.arange(DIRECTIONS) * 360 / DIRECTIONS
    curve = _von_mises(channels - direction_deg[:, None], DIRECTION_WIDTH)
    opposite = _von_mises(channels - direction_deg[:, None] - 180, DIRECTION_WIDTH)
    return (curve - 0.3 * opposite).astype(np.float32)


def _von_mises(angle_deg: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(np.exp(width * (np.cos(np.radians(angle_deg)) - 1)))


def _sparse_tuning(voxels: int, channels: int, tuned: int, rng: np.random.Generator) -> np.ndarray:
    """Return weights (voxels, channels) with so many tuned channels for each vertex, of both signs."""
    chosen = rng.random((voxels, channels)).argsort(axis=1)[:, :tuned]
    strength = rng.exponential(size=chosen.shape) * rng.choice([1.0, -0.5], size=chosen.shape)
    weights = np.zeros((voxels, channels), dtype=np.float32)
    np.put_along_axis(weights, chosen, strength.astype(np.float32), axis=1)
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


def _scales(maps: Maps) -> tuple[np.ndarray, ...]:
    """Return `Moments.channels` of a movie."""
    sds = [_channel_sd(part) for part in maps.parts]
    first = len(sds) - len(STAGE_CHANNELS)
    for number in range(first, first + SCALED_STAGES):
        sds[number] = np.full_like(sds[number], np.sqrt((sds[number] ** 2).mean()))
    return tuple(sds)


def _channel_sd(maps: np.ndarray) -> np.ndarray:
    """Return the SD of every channel over times and places, (channels,)."""
    squares = np.einsum("tcij,tcij->c", maps, maps, dtype=np.float64) / (maps[:, 0].size)
    variance = squares - maps.mean(axis=(0, 2, 3), dtype=np.float64) ** 2
    return np.sqrt(np.maximum(variance, 1e-12)).astype(np.float32)


def _pool(maps: np.ndarray, fields: np.ndarray, tuning: np.ndarray) -> np.ndarray:
    """Return maps (times, channels, side, side) pooled under fields and mixed by tuning, (times, voxels) float32."""
    flat = maps.reshape(*maps.shape[:2], -1)
    out = np.zeros((len(fields), len(maps)), dtype=np.float32)
    for channel in range(maps.shape[1]):
        rows = np.flatnonzero(tuning[:, channel])
        out[rows] += (fields[rows] * tuning[rows, channel, None]) @ flat[:, channel].T
    return out.T
