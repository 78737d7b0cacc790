import numpy as np
import pytest

from neuroreel.brain.codes import BrainCodes, CodesConfig
from neuroreel.testing import planted_sets


@pytest.fixture(scope="module")
def sets():
    return planted_sets(clips=80)


def see(clips: np.ndarray) -> np.ndarray:
    """Return what a network might see that only looks at where it is bright, (n, 4)."""
    bright = clips.mean((1, 4))
    return np.stack([bright[:, :8].mean((1, 2)), bright[:, 8:].mean((1, 2)), bright[:, :, :8].mean((1, 2))], 1)


def test_codes_of_unseen_windows_are_near_those_of_their_clips(sets):
    train, test = sets
    codes = BrainCodes(CodesConfig(pixels=20, seen=3), see)
    codes.fit(train.samples.brain, train.samples.clips, train.samples.block)
    read, true = codes.read(test.truth.brain), codes.of(test.truth.clips)
    assert read.shape == true.shape == (len(test.truth), codes.size) and read.dtype == true.dtype == np.float32
    first = [np.corrcoef(read[:, column], true[:, column])[0, 1] for column in range(3)]
    assert min(first) > 0.7


def test_a_code_has_a_spread_of_one_and_is_held_out_of_its_own_fit(sets):
    samples = sets[0].samples
    codes = BrainCodes(CodesConfig(pixels=20, seen=0)).fit(samples.brain, samples.clips, samples.block)
    np.testing.assert_allclose(codes.of(samples.clips).std(0), 1, rtol=1e-3)
    own, apart = codes.read(samples.brain), codes.held_out_
    true = codes.of(samples.clips)
    assert ((own - true) ** 2).mean() < ((apart - true) ** 2).mean()


def test_the_expected_code_is_off_the_read_one_by_an_error_that_the_clip_does_not_tell(sets):
    samples = sets[0].samples
    codes = BrainCodes(CodesConfig(pixels=10, seen=0)).fit(samples.brain, samples.clips, samples.block)
    true, error = codes.of(samples.clips), codes.held_out_ - codes.expected(samples.clips)
    np.testing.assert_allclose(error.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((error * (true - true.mean(0))).mean(0), 0, atol=1e-4)
    assert (codes.expected(samples.clips).std(0) < 1).all()


def test_components_that_cannot_be_read_are_left_out(sets):
    samples = sets[0].samples
    codes = BrainCodes(CodesConfig(pixels=60, seen=0)).fit(samples.brain, samples.clips, samples.block)
    assert 1 <= codes.size < 60
    assert min(codes.cv_r2_["pixels"]) > 0
    noise = np.random.default_rng(0).normal(size=samples.brain.shape).astype(np.float32)
    blind = BrainCodes(CodesConfig(pixels=60, seen=0)).fit(noise, samples.clips, samples.block)
    assert np.square(blind.held_out_).mean() < 0.2  # nearly the mean


def test_codes_are_kept_in_a_folder(sets, tmp_path):
    train, test = sets
    codes = BrainCodes(CodesConfig(pixels=10, seen=3), see)
    codes.fit(train.samples.brain, train.samples.clips, train.samples.block).save(tmp_path)
    again = BrainCodes.load(tmp_path, see)
    np.testing.assert_allclose(again.read(test.truth.brain), codes.read(test.truth.brain), atol=1e-5)
    np.testing.assert_allclose(again.of(test.truth.clips), codes.of(test.truth.clips), atol=1e-4)
    np.testing.assert_allclose(again.expected(test.truth.clips), codes.expected(test.truth.clips), atol=1e-4)
    assert again.size == codes.size
