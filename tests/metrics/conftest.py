import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

from neuroreel.core.types import Samples, Space


def smooth(n, frames, side, *, seed):
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((n, frames, side, side, 3)), (0, 1, side / 12, side / 12, 0))
    return (fields / fields.std() * 50 + 128).clip(0, 255).astype(np.uint8)


def mixed(truth, share, *, seed):
    noise = smooth(*truth.shape[:3], seed=seed)
    return np.round(share * truth + (1 - share) * noise.astype(float)).astype(np.uint8)


@pytest.fixture
def photographs():
    picture = astronaut()
    corners = np.random.default_rng(0).integers(0, 300, (6, 2))
    clips = [[picture[y + t : y + t + 24, x : x + 40] for t in range(3)] for y, x in corners]
    truth = np.array(clips)
    noise = np.random.default_rng(1).normal(0, 40, truth.shape)
    return (truth + noise).clip(0, 255).astype(np.uint8), truth


@pytest.fixture
def make_samples():
    def make(brain, clips=None, category=None, block=None):
        n = len(brain)
        return Samples(
            brain=brain,
            clips=clips,
            run=np.full(n, "1"),
            onset_s=np.arange(n, dtype=float),
            block=np.arange(n) // 4 if block is None else block,
            repeats=np.ones(n, dtype=int),
            category=np.full(n, "") if category is None else np.asarray(category),
            caption=np.full(n, ""),
            stimulus=np.full(n, ""),
            space=Space("columns", brain.shape[2]),
            tr_s=2.0,
            fps=3.0,
            first_lag_s=4.0,
        )

    return make


@pytest.fixture
def make_clips():
    return smooth


@pytest.fixture
def mix():
    return mixed
