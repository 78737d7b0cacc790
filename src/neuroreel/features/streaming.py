"""Features of long movies in bounded memory: batches of frames to moments, principal components, volumes.

What is computed is what an all-in-memory pipeline computes, in this order (Wen et al. 2018, Cereb. Cortex 28:4136):
x = log10(features + 0.01); z = (x - mean) / SD of each unit on the training movies; scores = z V / sqrt(units) with V
the principal components of z that hold 99 % of its variance; a haemodynamic response and sampling at the volumes.

Two facts keep it small. The response and the sampling H are linear in time, so they commute with z and V: H x needs
only the volumes that a batch of frames touches. And for n frames of many more units the components follow from the
n x n Gram matrix, V = z' U / sqrt(lambda) with z z' = U lambda U' (the dual form of PCA), summed over blocks of units.
The frames of the basis lie on disk between the two passes; one forward pass per frame is all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.linalg
from pydantic import Field
from scipy.linalg import lapack

from neuroreel.core import checks
from neuroreel.core.clock import to_samples
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import write_error, write_text
from neuroreel.core.types import Video
from neuroreel.features.extractor import Extractor

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_FLOAT64_BYTES = 400e6  # the largest Gram matrix that is kept in float64; above it, float32
_BLOCK_BYTES = 64e6


class StreamConfig(Config):
    """Settings of the stream.

    Attributes
    ----------
    log : take log10(x + log_offset) of every layer but those in `plain`.
    plain : layers without the logarithm: those that have values below 0.
    variance : share of the variance that the components hold.
    max_components : most components of a layer, or None.
    pca_fps : rate at which frames enter the principal components; None takes every frame. The moments always take all.
    memory_gb : the largest matrix of the principal components; more frames than fit are an error that says so.
    """

    log: bool = True
    log_offset: float = Field(default=0.01, gt=0)
    plain: tuple[str, ...] = ("fc8", "prob")
    variance: float = Field(default=0.99, gt=0, le=1)
    max_components: int | None = Field(default=None, ge=1)
    pca_fps: float | None = Field(default=None, gt=0)
    memory_gb: float = Field(default=0.9, gt=0)


class Table:
    """A float32 matrix on disk, read and written in parts without mapping it into memory; `new` empties the file."""

    def __init__(self, file: Path, shape: tuple[int, int], *, new: bool = True) -> None:
        self.file, self.shape = file, shape
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if new else os.O_RDONLY
        try:
            self._handle = os.open(file, flags, 0o644)
        except OSError as error:
            if new:
                raise write_error(error, file) from error
            raise DataError(checks.sentence("file", "must be readable", type(error).__name__, file)) from None
        size = 4 * shape[0] * shape[1]
        got = os.fstat(self._handle).st_size
        checks.require(new or got == size, "file", f"must have {size} bytes", got, file)

    def write(self, row: int, values: np.ndarray) -> None:
        """Write rows (rows, columns) from a row on."""
        if not values.size:
            return
        data = np.ascontiguousarray(values, dtype=np.float32).data.cast("B")
        place = row * self.shape[1] * 4
        try:
            while len(data):
                done = os.pwrite(self._handle, data, place)
                data, place = data[done:], place + done
        except OSError as error:
            raise write_error(error, self.file) from error

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return a part of the matrix, (rows, columns) float32."""
        first, last, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        out = np.empty((last - first, right - left), dtype=np.float32)
        whole = right - left == self.shape[1]
        parts = [out] if whole else list(out)
        for i, part in enumerate(parts):
            place = ((first + i) * self.shape[1] + left) * 4
            got = 0
            view = part.data.cast("B")
            while got < len(view):
                more = os.preadv(self._handle, [view[got:]], place + got)
                if more == 0:
                    raise DataError(checks.sentence("file", "must be whole", "an early end", self.file))
                got += more
        return out

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


@dataclass(frozen=True)
class LayerBasis:
    """What the stream learns of one layer.

    Attributes
    ----------
    mean, sd : (units,) float64 of the training frames; an SD of 0 counts as 1.
    variance : (components,) variance of each component per frame, falling.
    total : variance of all units together: the number of units that vary, if every frame entered.
    components : (units, components) on disk.
    """

    mean: np.ndarray
    sd: np.ndarray
    variance: np.ndarray
    total: float
    components: Table

    @property
    def n_components(self) -> int:
        """Number of components."""
        return len(self.variance)


class FeatureStream:
    """Moments, principal components and volumes of an extractor's features, batch by batch.

    Parameters
    ----------
    extractor : a fitted extractor.
    folder : where the components are kept and, while it fits, the frames of the basis: 4 bytes x units x frames.
    config : settings.

    Attributes
    ----------
    bases_ : LayerBasis by layer, after `fit`.
    """

    def __init__(self, extractor: Extractor, folder: str | Path, config: StreamConfig | None = None) -> None:
        self.extractor = extractor
        self.folder = Path(folder)
        self.config = config or StreamConfig()
        self.bases_: dict[str, LayerBasis] = {}

    def fit(self, videos: Sequence[Video]) -> Self:
        """Learn moments and components from training movies."""
        self.fit_transform(videos, [None] * len(videos))
        return self

    def fit_transform(
        self, videos: Sequence[Video], samplings: Sequence[csr_array | None]
    ) -> list[dict[str, np.ndarray]]:
        """Learn from training movies and return their scores at the volumes, in one pass over the frames.

        Parameters
        ----------
        videos : training movies, each with 1 frame or more.
        samplings : for each movie a sparse matrix (volumes, frames): the haemodynamic response and the sampling.
            None gives no scores of that movie.

        Returns
        -------
        For each movie with a sampling: (volumes, components) float32 by layer.

        Raises
        ------
        DataError : there is no movie, a sampling has another number of frames than its movie, a layer that is to be
            taken the logarithm of has values below 0, or the disk is full.
        ConfigError : more frames enter the components than the memory holds.
        """
        checks.require(len(videos) > 0, "videos", "must be 1 or more", 0)
        checks.same_length("samplings", len(samplings), "videos", len(videos))
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(".scratch-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=self.folder) as scratch:
            return self._fit(videos, samplings, Path(scratch))

    def _fit(
        self, videos: Sequence[Video], samplings: Sequence[csr_array | None], scratch: Path
    ) -> list[dict[str, np.ndarray]]:
        steps = [self._step(video) for video in videos]
        n_basis = sum(-(-video.shape[0] // step) for video, step in zip(videos, steps, strict=True))
        units = self.extractor.n_units
        self._fits(n_basis, max(units.values()))
        moments = {layer: _Moments(n) for layer, n in units.items()}
        basis = {layer: Table(scratch / f"{_safe(layer)}.frames", (n_basis, n)) for layer, n in units.items()}
        sampled, row = [], 0
        for number, (video, sampling, step) in enumerate(zip(videos, samplings, steps, strict=True)):
            run = _Sampler(self, video, sampling, scratch, f"run{number}", moments)
            for start, values in run:
                taken = np.arange(-start % step, len(next(iter(values.values()))), step)
                for layer, table in basis.items():
                    table.write(row, values[layer][taken])
                row += len(taken)
            sampled.append(run)
        self.bases_ = {layer: self._learn(layer, basis[layer], moments[layer]) for layer in units}
        for table in basis.values():
            table.close()
        scores = [
            {layer: self._project(layer, run, moments[layer].shift) for layer in units}
            for run in sampled
            if run.sampling is not None
        ]
        for run in sampled:
            run.close()
        self._save()
        return scores

    def transform(self, video: Video, sampling: csr_array) -> dict[str, np.ndarray]:
        """Return the scores of another movie at its volumes, (volumes, components) float32 by layer."""
        checks.require(bool(self.bases_), "stream", "must be fitted before it transforms", "no fit")
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=self.folder) as scratch:
            fixed = {layer: _Moments(len(basis.mean), basis.mean) for layer, basis in self.bases_.items()}
            run = _Sampler(self, video, sampling, Path(scratch), "run", fixed)
            for _ in run:
                pass
            scores = {layer: self._project(layer, run, fixed[layer].shift) for layer in self.bases_}
            run.close()
            return scores

    def units(self, layer: str, scores: np.ndarray) -> np.ndarray:
        """Return the features that scores (n, components) stand for, (n, units) float32: the inverse of the basis.

        The logarithm is undone too. A response in time can't be undone: the scores are taken as they are.
        """
        checks.one_of("layer", layer, self.bases_)
        basis = self.bases_[layer]
        checks.dimensions("scores", scores, ("n", "components"))
        checks.same_length("scores", scores.shape[1], "components", basis.n_components)
        n_units = len(basis.mean)
        out = np.empty((len(scores), n_units), dtype=np.float32)
        for block in _blocks(n_units, basis.n_components):
            components = basis.components.read(block, slice(None))
            z = np.sqrt(n_units) * scores @ components.T
            out[:, block] = z * basis.sd[block] + basis.mean[block]
        return 10**out - self.config.log_offset if self._logs(layer) else out

    @classmethod
    def load(cls, extractor: Extractor, folder: str | Path) -> Self:
        """Return the stream that `fit` left in a folder, for the same extractor.

        Raises
        ------
        DataError : the folder is no fitted stream, or belongs to another extractor.
        """
        folder = Path(folder)
        card = folder / "stream.json"
        checks.require(card.is_file(), "stream", "must be a fitted folder", "no stream.json", folder)
        facts = json.loads(card.read_text())
        same = facts["extractor"] == extractor.name and facts["units"] == extractor.n_units
        checks.require(same, "stream", f"must belong to {extractor.name} with its layers", facts["extractor"], folder)
        stream = cls(extractor, folder, StreamConfig.build(facts["config"], card))
        for layer, n_units in facts["units"].items():
            with np.load(folder / f"{_safe(layer)}.npz") as arrays:
                k = len(arrays["variance"])
                table = Table(folder / f"{_safe(layer)}.components", (n_units, k), new=False)
                moments = (arrays["mean"], arrays["sd"], arrays["variance"], float(arrays["total"]))
            stream.bases_[layer] = LayerBasis(*moments, table)
        return stream

    def _save(self) -> None:
        for layer, basis in self.bases_.items():
            np.savez(
                self.folder / f"{_safe(layer)}.npz",
                mean=basis.mean,
                sd=basis.sd,
                variance=basis.variance,
                total=basis.total,
            )
        facts = {
            "extractor": self.extractor.name,
            "units": self.extractor.n_units,
            "config": self.config.model_dump(mode="json"),
        }
        write_text(self.folder / "stream.json", json.dumps(facts, indent=2) + "\n")

    def _logs(self, layer: str) -> bool:
        return self.config.log and layer not in self.config.plain

    def _step(self, video: Video) -> int:
        if self.config.pca_fps is None:
            return 1
        return max(1, to_samples(1 / self.config.pca_fps, 1 / video.fps))

    def _fits(self, n_basis: int, most_units: int) -> None:
        side = min(n_basis, most_units)
        most = int(np.sqrt(self.config.memory_gb * 1e9 / 4))
        rule = f"must be at most {most} for memory_gb {self.config.memory_gb:g} (lower pca_fps)"
        checks.require(side <= most, "frames of the basis", rule, side, error=ConfigError)

    def _learn(self, layer: str, frames: Table, moments: _Moments) -> LayerBasis:
        """Return the basis of a layer from its frames on disk, which are less `moments.shift`."""
        n, n_units = frames.shape
        mean, sd = moments.finish()
        offset = mean - moments.shift
        side = min(n, n_units)
        dtype: Any = np.float64 if side**2 * 8 <= _FLOAT64_BYTES else np.float32
        gram = np.zeros((side, side), dtype=dtype, order="F")
        syrk = scipy.linalg.get_blas_funcs("syrk", (gram,))
        dual = n < n_units
        if dual:
            for block in _blocks(n_units, n):
                z = _standard(frames.read(slice(None), block), offset[block], sd[block], dtype)
                gram = syrk(1.0, z.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
        else:
            for rows in _blocks(n, n_units):
                z = _standard(frames.read(rows, slice(None)), offset, sd, dtype)
                gram = syrk(1.0, z.T, beta=1.0, c=gram, trans=0, lower=1, overwrite_c=1)
        total = float(np.trace(gram, dtype=np.float64))
        values, vectors = top_eigen(gram, self.config.variance, self.config.max_components)
        del gram
        components = Table(self.folder / f"{_safe(layer)}.components", (n_units, len(values)))
        if dual:
            vectors = vectors / np.sqrt(values).astype(dtype)
            for block in _blocks(n_units, n):
                z = _standard(frames.read(slice(None), block), offset[block], sd[block], dtype)
                components.write(block.start, z.T @ vectors)
        else:
            components.write(0, vectors)
        return LayerBasis(mean, sd, values / n, total / n, components)

    def _project(self, layer: str, run: _Sampler, shift: np.ndarray) -> np.ndarray:
        """Return the scores at the volumes of a run, (volumes, components) float32."""
        basis, table = self.bases_[layer], run.tables[layer]
        n_units = len(basis.mean)
        scores = np.zeros((table.shape[0], basis.n_components))
        for block in _blocks(n_units, max(table.shape[0], basis.n_components)):
            offset = (basis.mean[block] - shift[block]) * run.weight[:, None]
            z = (table.read(slice(None), block) - offset) / basis.sd[block]
            scores += z @ basis.components.read(block, slice(None))
        return (scores / np.sqrt(n_units)).astype(np.float32)


class _Moments:
    """Mean and SD of units from batches that have a first estimate of the mean taken off, so that nothing cancels."""

    def __init__(self, n_units: int, shift: np.ndarray | None = None) -> None:
        self.count = 0
        self.shift = np.zeros(n_units) if shift is None else shift
        self.known = shift is not None
        self.total = np.zeros(n_units)
        self.square = np.zeros(n_units)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and SD, (units,) each; an SD of 0, or below what float32 tells from 0, is 1."""
        mean = self.total / self.count
        variance = np.maximum(self.square / self.count - mean**2, 0)
        tiny = (1e-6 * np.maximum(np.abs(mean + self.shift), 1e-3)) ** 2
        return mean + self.shift, np.sqrt(np.where(variance > tiny, variance, 1.0))


class _Sampler:
    """One movie: iterating gives its batches less the moments' shift, adds to the moments, and fills the volumes."""

    def __init__(
        self,
        stream: FeatureStream,
        video: Video,
        sampling: csr_array | None,
        folder: Path,
        name: str,
        moments: dict[str, _Moments],
    ) -> None:
        self.stream, self.video, self.moments, self.sampling = stream, video, moments, sampling
        self.tables: dict[str, Table] = {}
        if sampling is None:
            return
        checks.same_length("frames of a sampling", sampling.shape[1], "those of the movie", video.shape[0], video.name)
        self.columns = sampling.tocsc()
        self.weight = np.asarray(sampling.sum(axis=1)).ravel()
        rows = sampling.shape[0]
        self.tables = {
            layer: Table(folder / f"{name}-{_safe(layer)}.volumes", (rows, len(one.shift)))
            for layer, one in moments.items()
        }
        coo = sampling.tocoo()
        self.last = np.full(rows, -1)
        np.maximum.at(self.last, coo.row, coo.col)

    def close(self) -> None:
        """Close the volumes on disk."""
        for table in self.tables.values():
            table.close()

    def __iter__(self) -> Any:
        import torch

        config = self.stream.config
        start = 0
        open_rows: dict[str, dict[int, np.ndarray]] = {layer: {} for layer in self.moments}
        if self.sampling is not None:
            for layer, one in self.moments.items():
                for empty in np.flatnonzero(self.last < 0):
                    self.tables[layer].write(int(empty), np.zeros((1, len(one.shift))))
        for found in self.stream.extractor.stream(self.video):
            n = len(next(iter(found.values())))
            touched, weights = self._weights(start, start + n)
            for layer, values in found.items():
                x = torch.from_numpy(np.require(values, requirements=["C", "W"]))
                if self.stream._logs(layer):
                    lowest = float(x.min())
                    rule = "must be >= 0 for the logarithm (name it in `plain`)"
                    checks.require(lowest >= 0, layer, rule, lowest, self.video.name)
                    x.add_(config.log_offset).log10_()
                one = self.moments[layer]
                if not one.known:
                    one.shift = x.mean(0).double().numpy()
                    one.known = True
                x.sub_(torch.from_numpy(one.shift.astype(np.float32)))
                both = torch.from_numpy(np.concatenate([np.ones((1, n)), weights]).astype(np.float32)) @ x
                one.count += n
                one.total += both[0].numpy()
                one.square += torch.einsum("ij,ij->j", x, x).numpy()
                pending = open_rows[layer]
                for row, part in zip(touched, both[1:].numpy(), strict=True):
                    if row in pending:
                        pending[row] += part
                    else:
                        pending[row] = part.astype(np.float64)
                    if self.last[row] < start + n:
                        self.tables[layer].write(row, pending.pop(row)[None])
                found[layer] = x.numpy()
            yield start, found
            start += n

    def _weights(self, start: int, stop: int) -> tuple[list[int], np.ndarray]:
        """Return the volumes that a batch of frames touches and their weights (volumes, frames)."""
        if self.sampling is None:
            return [], np.zeros((0, stop - start))
        part = self.columns[:, start:stop].tocsr()
        touched = np.flatnonzero(np.diff(part.indptr))
        return [int(row) for row in touched], part[touched].toarray()


def top_eigen(gram: np.ndarray, share: float, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues that hold a share of the trace, falling, and their eigenvectors.

    The matrix is reduced to tridiagonal form in its own memory and only the wanted vectors are formed, so that a
    matrix of 14,400 rows needs little more than itself.

    Parameters
    ----------
    gram : (n, n) symmetric and positive semidefinite, in Fortran order, lower triangle; used up.
    share : of the trace.
    most : largest number of eigenvalues.

    Returns
    -------
    values (k,) float64; vectors (n, k), each with its largest entry above 0.

    Raises
    ------
    DataError : the trace is 0: no unit varies.
    """
    n = len(gram)
    trace = float(np.trace(gram, dtype=np.float64))
    checks.require(trace > 0, "features", "must vary over the frames", "the same value in every frame")
    if n == 1:
        return np.array([trace]), np.ones((1, 1), gram.dtype)
    functions: Any = lapack.get_lapack_funcs(("sytrd", "sytrd_lwork", "ormqr"), (gram,))
    sytrd, sytrd_work, ormqr = functions
    work = int(np.real(sytrd_work(n, lower=1)[0]))
    reflectors, diagonal, beside, tau, failed = sytrd(gram, lower=1, lwork=work, overwrite_a=1)
    checks.require(failed == 0, "features", "must have principal components", f"LAPACK's error {failed}")
    d, e = diagonal.astype(np.float64), beside.astype(np.float64)
    values = np.maximum(scipy.linalg.eigvalsh_tridiagonal(d, e)[::-1], 0)
    # Directions that rounding alone can make are none.
    real = int(np.count_nonzero(values > values[0] * n * np.finfo(gram.dtype).eps))
    count = int(np.searchsorted(np.cumsum(values), share * trace * (1 - 1e-12)) + 1)
    count = min(count, real, most or n)
    vectors = np.zeros((n, count), dtype=gram.dtype, order="F")
    for first in range(0, count, 512):
        last = min(first + 512, count)
        part = scipy.linalg.eigh_tridiagonal(d, e, select="i", select_range=(n - last, n - 1 - first))[1]
        vectors[:, first:last] = part[:, ::-1]
    # Q = H(1) ... H(n-1) acts on entries 1 to n-1, and its reflectors lie below the first subdiagonal: shifted up by
    # one place in memory they are those of a QR factorisation; the wrapped-around last row is set to 0.
    head = vectors[:1].copy()
    vectors[:-1] = vectors[1:]
    vectors[-1] = 0
    reflectors[0, 1:] = 0
    flat = reflectors.reshape(-1, order="F")[1 : 1 + n * (n - 1)]
    shifted = flat.reshape((n, n - 1), order="F")
    size = int(np.real(ormqr("L", "N", shifted, tau, vectors, -1)[1][0]))
    vectors, _, _ = ormqr("L", "N", shifted, tau, vectors, size, overwrite_c=1)
    vectors[1:] = vectors[:-1].copy()
    vectors[:1] = head
    sign = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    vectors *= np.where(sign == 0, 1, sign)
    return values[:count], vectors


def _standard(x: np.ndarray, offset: np.ndarray, sd: np.ndarray, dtype: Any) -> np.ndarray:
    return ((x - offset) / sd).astype(dtype, copy=False)


def _blocks(length: int, across: int) -> list[slice]:
    """Cut a length into slices so that a block (slice, across) of float64 stays within the memory of a block."""
    step = max(1, int(_BLOCK_BYTES / (8 * max(across, 1))))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _safe(layer: str) -> str:
    return layer.replace(":", "-").replace("/", "-")
