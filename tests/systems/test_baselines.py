from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction
from neuroreel.metrics.pixel import frame_correlation
from neuroreel.systems.baselines import MeanFrame, NearestClip, NoBrain, RidgeLatents, RidgePixels, RidgePixelsConfig
from neuroreel.testing import planted_sets


def clips_of(made: Reconstruction | None) -> np.ndarray:
    assert made is not None and made.clips is not None
    return made.clips


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(tmp_path_factory.mktemp("run"))


def test_the_mean_frame_is_the_mean_of_the_training_clips(run: RunFolder) -> None:
    train, test = planted_sets()
    clips = clips_of(MeanFrame().fit(train, run=run).reconstruct(test.brain))
    assert train.samples.clips is not None
    expected = np.rint(train.samples.clips.mean(0)).astype(np.uint8)
    assert all(np.array_equal(clip, expected) for clip in clips)


def test_no_brain_shows_training_clips_as_often_as_they_come(run: RunFolder) -> None:
    train, test = planted_sets(clips=60)
    system = NoBrain().fit(train, run=run)
    many = test.brain.take(np.zeros(3000, dtype=int))
    made = system.reconstruct(many)
    assert made.probabilities is not None
    shares = made.probabilities.mean(0)
    frequency = [np.mean(train.samples.category == name) for name in made.categories]
    np.testing.assert_allclose(shares, frequency, atol=0.05)


@pytest.mark.parametrize("kind", [RidgePixels, RidgeLatents, NearestClip])
def test_what_is_read_from_the_brain_beats_the_mean_and_stays_below_its_ceiling(kind: type, run: RunFolder) -> None:
    train, test = planted_sets(clips=150, noise=0.5)
    truth = test.truth.clips
    assert truth is not None
    system = kind().fit(train, run=run)
    score = frame_correlation(clips_of(system.reconstruct(test.brain)), truth).mean()
    ceiling = frame_correlation(clips_of(system.ceiling(test.truth)), truth).mean()
    blind = frame_correlation(clips_of(MeanFrame().fit(train, run=run).reconstruct(test.brain)), truth).mean()
    assert blind + 0.03 < score < ceiling + 0.02


def test_pixels_may_be_decoded_at_another_size_and_come_back_in_the_clips_own(run: RunFolder) -> None:
    train, test = planted_sets()
    system = RidgePixels(RidgePixelsConfig(height=6, width=8)).fit(train, run=run)
    assert system.decoders_["pixels"].predict(test.brain.brain).shape[1] == 2 * 6 * 8  # grey: one channel
    assert clips_of(system.reconstruct(test.brain)).shape[1:] == (2, 16, 16, 3)


def test_ridge_pixels_needs_pictures_and_says_so(run: RunFolder) -> None:
    train, _ = planted_sets()
    object.__setattr__(train, "samples", train.samples.sealed())
    with pytest.raises(DataError, match=r"training samples must have clips, or 2 categories or more, got neither"):
        RidgePixels().fit(train, run=run)


def test_a_saved_system_without_weights_is_one_sentence(run: RunFolder, tmp_path: Path) -> None:
    train, _ = planted_sets()
    MeanFrame().fit(train, run=run).save(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(DataError, match=r"^weights must be there, got no such file"):
        MeanFrame.load(tmp_path)
