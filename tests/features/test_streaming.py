import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Video
from neuroreel.features.extractor import Extractor
from neuroreel.features.streaming import FeatureStream, StreamConfig, top_eigen


class Pixels(Extractor):
    """Random projections of the pixels: 700 units above 0, and 7 of both signs."""

    name = "pixels"
    layers = ("many", "fc8")

    def __init__(self) -> None:
        from neuroreel.features.gist import GistConfig

        self.config = GistConfig(batch=16)
        rng = np.random.default_rng(5)
        self.maps = {"many": rng.random((192, 700)), "fc8": rng.standard_normal((192, 7))}

    def shape(self, layer: str) -> tuple[int, ...]:
        return (self.maps[layer].shape[1],)

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        flat = frames.reshape(len(frames), -1) / 255
        return {layer: (flat @ weights).astype(np.float32) for layer, weights in self.maps.items()}


def movie(seed: int, frames: int = 130) -> Video:
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.standard_normal((frames, 8, 8, 3)), axis=0)
    pictures = np.clip(127 + 20 * slow, 0, 255).astype(np.uint8)
    return Video.from_frames(pictures, name=f"movie{seed}", fps=10)


def sampling(frames: int, volumes: int = 12) -> scipy.sparse.csr_array:
    kernel = np.array([0.0, 0.2, 0.5, 0.3, 0.1, -0.1])
    weights = np.zeros((volumes, frames))
    for volume in range(volumes):
        for tap, weight in enumerate(kernel):
            frame = 10 * volume + 4 - tap * 3
            if 0 <= frame < frames:
                weights[volume, frame] = weight
    return scipy.sparse.csr_array(weights)


def in_memory(extractor: Pixels, layer: str, videos: list[Video]) -> tuple[np.ndarray, ...]:
    found = [extractor.extract_layers(video.frames(), 10)[layer].astype(float) for video in videos]
    found = [np.log10(x + 0.01) if layer == "many" else x for x in found]
    x = np.concatenate(found)
    mean, sd = x.mean(0), x.std(0)
    values, axes = np.linalg.svd((x - mean) / sd, full_matrices=False)[1:]
    k = np.searchsorted(np.cumsum(values**2), 0.99 * np.sum(values**2)) + 1
    scores = [sampling(len(one)) @ ((one - mean) / sd) @ axes[:k].T / np.sqrt(x.shape[1]) for one in found]
    return scores, values[:k] ** 2 / len(x)


@pytest.mark.parametrize("layer", ["many", "fc8"])
def test_components_at_99_percent_equal_the_answer_in_memory(layer: str, tmp_path: Path) -> None:
    videos = [movie(0), movie(1)]
    stream = FeatureStream(Pixels(), tmp_path)
    ours = stream.fit_transform(videos, [sampling(130)] * 2)
    scores, variance = in_memory(Pixels(), layer, videos)
    basis = stream.bases_[layer]
    np.testing.assert_allclose(basis.variance, variance, rtol=1e-4)
    for mine, known in zip(ours, scores, strict=True):
        signs = np.sign(np.sum(mine[layer] * known, 0))
        np.testing.assert_allclose(mine[layer] * signs, known, atol=1e-4 * np.abs(known).max())


def test_another_movie_is_projected_on_the_training_basis(tmp_path: Path) -> None:
    stream = FeatureStream(Pixels(), tmp_path)
    again = stream.fit_transform([movie(0)], [sampling(130)])[0]
    same = stream.transform(movie(0), sampling(130))
    back = FeatureStream.load(Pixels(), tmp_path).transform(movie(0), sampling(130))
    for layer in ("many", "fc8"):
        np.testing.assert_allclose(same[layer], again[layer], atol=2e-5)
        np.testing.assert_array_equal(back[layer], same[layer])


def test_scores_lead_back_to_the_features(tmp_path: Path) -> None:
    video = movie(0)
    stream = FeatureStream(Pixels(), tmp_path, StreamConfig(variance=1.0))
    every_frame = scipy.sparse.csr_array(np.eye(130))
    scores = stream.fit_transform([video], [every_frame])[0]
    known = Pixels().extract_layers(video.frames(), 10)
    for layer in ("many", "fc8"):
        np.testing.assert_allclose(stream.units(layer, scores[layer]), known[layer], rtol=2e-3, atol=2e-3)


def test_a_lower_rate_of_the_basis_is_the_basis_of_those_frames(tmp_path: Path) -> None:
    video = movie(3)
    FeatureStream(Pixels(), tmp_path / "a", StreamConfig(pca_fps=2.5)).fit([video])
    some = FeatureStream.load(Pixels(), tmp_path / "a").bases_["fc8"]
    x = Pixels().extract_layers(video.frames(), 10)["fc8"].astype(float)
    z = ((x - x.mean(0)) / x.std(0))[::4]
    values = np.linalg.eigvalsh(z.T @ z / len(z))[::-1]
    np.testing.assert_allclose(some.variance, values[: some.n_components], rtol=1e-5)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_the_largest_eigenvectors_are_those_of_numpy(dtype: type, close: float) -> None:
    x = np.random.default_rng(0).standard_normal((90, 200)) * np.exp(-np.arange(200) / 30)
    values, vectors = top_eigen(np.asfortranarray((x @ x.T).astype(dtype)), 0.9)
    known, axes = np.linalg.eigh(x @ x.T)
    known, axes = known[::-1], axes[:, ::-1]
    k = np.searchsorted(np.cumsum(known), 0.9 * known.sum()) + 1
    assert len(values) == k
    np.testing.assert_allclose(values, known[:k], rtol=close)
    np.testing.assert_allclose(np.abs(np.sum(vectors * axes[:, :k], 0)), 1, atol=close)


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^frames of a sampling must have as many entries as those of the movie \(130\)"
    ):
        FeatureStream(Pixels(), tmp_path).fit_transform([movie(0)], [sampling(129)])
    with pytest.raises(DataError, match=r"^fc8 must be >= 0 for the logarithm \(name it in `plain`\), got -"):
        FeatureStream(Pixels(), tmp_path, StreamConfig(plain=())).fit([movie(0)])
    with pytest.raises(ConfigError, match=r"^frames of the basis must be at most 50 .*, got 130$"):
        FeatureStream(Pixels(), tmp_path, StreamConfig(memory_gb=1e-5)).fit([movie(0)])
    assert not list(tmp_path.glob(".scratch*"))


def test_a_broken_folder_is_one_sentence(tmp_path: Path) -> None:
    FeatureStream(Pixels(), tmp_path).fit([movie(0)])
    file = tmp_path / "many.components"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=rf"^file must have {size} bytes, got {size - 4} \(.*many\.components\)$"):
        FeatureStream.load(Pixels(), tmp_path)
    with pytest.raises(DataError, match=r"^stream must be a fitted folder, got no stream\.json \(.*\)$"):
        FeatureStream.load(Pixels(), tmp_path / "none")


@pytest.mark.heavy
def test_the_full_network_stays_under_2_gb() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "features.py"
    command = [sys.executable, str(script), "--json", "--minutes", "0.5", "--pca-fps", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=580)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["units"]["conv1"] == 290_400
    assert result["peak_gb"] < 2
