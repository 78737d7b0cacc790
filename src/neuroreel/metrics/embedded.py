"""What a network sees in a reconstruction: similarity of embeddings and n-way answers of a classifier.

The network is handed in as a Backbone. Embeddings are (n, units) for a network that looks at whole clips and
(n, frames, units) for one that looks at frames; a metric is then a mean over frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from neuroreel.core.checks import finite, require, same_length, sentence
from neuroreel.core.errors import DataError
from neuroreel.metrics.nway import nway
from neuroreel.metrics.pixel import correlation_matrix, unit_rows


@dataclass(frozen=True)
class Backbone:
    """A network that a learned metric looks through.

    Parameters
    ----------
    name : hub name or file name, as it stands in the variant of a score.
    weights_sha256 : SHA-256 of the weights in hex; its first 8 digits stand in the variant.
    embed : function of clips (n, frames, height, width, 3) uint8 that returns embeddings or probabilities
        (n, frames, units), or (n, units) for networks of whole clips.
    classes : number of classes that a classifier tells apart; None if unknown, or for other networks.
    smallest : height and width in pixels that frames must have at least.
    """

    name: str
    weights_sha256: str
    embed: Callable[[np.ndarray], np.ndarray]
    classes: int | None = None
    smallest: int = 1

    def __post_init__(self) -> None:
        digits = len(self.weights_sha256) == 64 and set(self.weights_sha256.lower()) <= set("0123456789abcdef")
        require(digits, "weights_sha256", "must be 64 hexadecimal digits", repr(self.weights_sha256), self.name)

    @property
    def tag(self) -> str:
        """The name without its owner and the first digits of the hash, e.g. `vit-base-patch16-224-1a2b3c4d`."""
        return f"{self.name.rstrip('/').rpartition('/')[2]}-{self.weights_sha256[:8].lower()}"

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Return the embeddings of clips, checked to be finite and one row per clip."""
        units = np.asarray(self.embed(clips))
        same_length("embeddings", len(units), "clips", len(clips), self.name)
        require(units.ndim in (2, 3), "embeddings", "must have 2 or 3 axes", f"shape {units.shape}", self.name)
        return finite("embeddings", units, self.name)


@dataclass(frozen=True)
class Absent:
    """In place of a network that can't be had: its metrics are skipped by name, for this reason.

    Parameters
    ----------
    reason : one sentence that says which file is needed.
    """

    reason: str


Embed = Mapping[str, Backbone | Absent]
"""Networks by role."""


def network(embed: Embed, role: str) -> Backbone:
    """Return the network of a role; DataError with the reason if there is none."""
    found = embed.get(role)
    if isinstance(found, Backbone):
        return found
    raise DataError(found.reason if found else sentence(f"embed[{role!r}]", "must be a network", "none"))


def cosine_similarity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the cosine between the embeddings of prediction and truth, a mean over frames, array (n,).

    0 where an embedding is all zero. A truth of one clip is held to all.
    """
    a, b = _by_frame(predicted).astype(np.float64), _by_frame(truth).astype(np.float64)
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product = np.sum(a * b, axis=-1)
    return np.divide(product, length, out=np.zeros_like(product), where=length > 0).mean(axis=1)


def correlation_distance(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return 1 - Pearson's r between the embeddings of prediction and truth, a mean over frames, array (n,)."""
    a, b = _by_frame(predicted), _by_frame(truth)
    frames = range(a.shape[1])
    products = [np.sum(unit_rows(a[:, f]) * unit_rows(b[:, f]), axis=1) for f in frames]
    return 1 - np.mean(products, axis=0)


def squared_distance(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distance between the embeddings, a mean over frames, array (n,).

    With a backbone that returns unit-normalised activations times the root of their learnt weight over their number of
    places, this is LPIPS. Source: Zhang et al. 2018, CVPR, eq. 1.
    """
    a, b = _by_frame(predicted), _by_frame(truth)
    # a frame at a time: these embeddings are maps, of a million numbers each
    frames = [np.sum(np.square(a[:, f] - b[:, f]), axis=-1, dtype=np.float64) for f in range(a.shape[1])]
    return np.mean(frames, axis=0)


def embedding_similarity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the correlation of every predicted clip (rows) with every true one (columns), a mean over frames, (n, n).

    What two-way identification ranks.
    """
    a, b = _by_frame(predicted), _by_frame(truth)
    return np.mean([correlation_matrix(a[:, f], b[:, f]) for f in range(a.shape[1])], axis=0)


def nway_frames(predicted: np.ndarray, truth: np.ndarray, n_way: int, *, top: int = 1, accepted: int = 1) -> np.ndarray:
    """Return the exact n-way accuracy of a classifier's answers, a mean over frames, array (n,).

    Parameters
    ----------
    predicted, truth : probabilities (n, classes) or (n, frames, classes); a truth of one clip is held to all. A row of
        NaN in the truth means that there is no true class, and the accuracy is NaN.
    n_way, top, accepted : as in `nway`.
    """
    a, b = _by_frame(predicted), _by_frame(truth)
    b = np.broadcast_to(b, (len(a), *b.shape[1:]))
    values = np.full((a.shape[1], len(a)), np.nan)
    for frame, row in enumerate(values):
        known = ~np.isnan(b[:, frame]).any(axis=1)
        if known.any():
            row[known] = nway(a[known, frame], b[known, frame], n_way, top=top, accepted=accepted)
    return values.mean(axis=0)


def nway_pairs(predicted: np.ndarray, truth: np.ndarray, n_way: int, *, top: int = 1, accepted: int = 1) -> np.ndarray:
    """Return `nway_frames` of every prediction (rows) with every truth (columns), array (n, n).

    Truths with the same leading classes are computed once, so that labels cost as much as there are categories.
    """
    leading = np.argsort(-_by_frame(truth), axis=2, kind="stable")[:, :, :accepted].reshape(len(truth), -1)
    missing = np.isnan(truth).reshape(len(truth), -1).any(axis=1)
    _, first, inverse = np.unique(np.column_stack([leading, missing]), axis=0, return_index=True, return_inverse=True)
    columns = [nway_frames(predicted, truth[j : j + 1], n_way, top=top, accepted=accepted) for j in first]
    return np.stack(columns, axis=1)[:, inverse.reshape(-1)]


def one_hot(labels: np.ndarray, categories: tuple[str, ...]) -> np.ndarray:
    """Return labels (n,) as probabilities (n, categories); a row of NaN where the label is empty or no category."""
    rows = np.full((len(labels), len(categories)), np.nan)
    place = {name: column for column, name in enumerate(categories)}
    for row, label in zip(rows, labels, strict=True):
        if label in place:
            row[:] = 0
            row[place[label]] = 1
    return rows


def _by_frame(units: np.ndarray) -> np.ndarray:
    """Return embeddings as (n, frames, units), one frame for a network of whole clips."""
    require(units.ndim in (2, 3), "embeddings", "must have 2 or 3 axes", f"shape {units.shape}")
    return units[:, None] if units.ndim == 2 else units
