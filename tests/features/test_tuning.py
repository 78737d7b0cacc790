"""Planted gratings: every filter bank answers most to the orientation, frequency and direction that is its own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.filters import gabor_kernel

from neuroreel.features.gabor import gabor
from neuroreel.features.gist import GistConfig, GistExtractor
from neuroreel.features.hmax import HmaxConfig, HmaxExtractor, s1_bank
from neuroreel.features.motion_energy import MotionEnergyConfig, MotionEnergyExtractor, MotionFilter, motion_energy
from neuroreel.features.sift import SiftConfig, SiftExtractor


def grating(size: int, cycles: float, degrees: float, phase: float = 0.3) -> np.ndarray:
    """A picture whose luminance varies along the angle, from x (right) towards y (down)."""
    y, x = np.mgrid[:size, :size] / size
    angle = np.deg2rad(degrees)
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.rint(127.5 + 100 * wave).astype(np.uint8)[..., None].repeat(3, axis=-1)


def test_the_gabor_is_that_of_scikit_image() -> None:
    theirs = gabor_kernel(0.15, theta=0.6, sigma_x=3.0, sigma_y=10.0, n_stds=3)
    side = min(theirs.shape)
    half, (cy, cx) = side // 2, (theirs.shape[0] // 2, theirs.shape[1] // 2)
    cut = theirs[cy - half : cy + half + 1, cx - half : cx + half + 1]
    ours = gabor(side, 1 / 0.15, 3.0, 0.6, 0.3, 0.0)
    np.testing.assert_allclose(ours * cut.real[half, half], cut.real, atol=1e-12)


def test_s1_has_the_sizes_of_the_published_table() -> None:
    table = {7: (2.8, 3.5), 9: (3.6, 4.6), 21: (9.2, 11.5), 37: (18.2, 22.8)}
    for side, (sigma, wavelength) in table.items():
        width = 0.0036 * side**2 + 0.35 * side + 0.18
        assert (width, width / 0.8) == pytest.approx((sigma, wavelength), rel=0.02)
    bank = s1_bank(16, 4)
    assert [kernels.shape for kernels in bank][-1] == (4, 37, 37)
    for kernels in bank:
        np.testing.assert_allclose(kernels.sum((1, 2)), 0, atol=1e-12)
        np.testing.assert_allclose(np.square(kernels).sum((1, 2)), 1)


@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_complex_cells_prefer_their_orientation(degrees: int) -> None:
    config = HmaxConfig(scales=4, layers=("hmax2",), units=10_000)
    extractor = HmaxExtractor(config)
    c1 = extractor._c1(extractor._s1(grating(64, 64 / 5.6, degrees)[None]))
    means = c1[0].mean((0, 2, 3)).numpy()
    assert np.argmax(means) == degrees // 45
    assert means.max() > 2 * np.sort(means)[-2]


def test_a_prototype_is_matched_by_the_frame_it_came_from() -> None:
    training = np.random.default_rng(0).integers(256, size=(4, 64, 64, 3), dtype=np.uint8)
    config = HmaxConfig(scales=4, layers=("hmax3",), patches=20, patch_sizes=(4,))
    best = HmaxExtractor(config).fit(training, seed=0).extract(training, 1).max(0)
    np.testing.assert_allclose(best, 1, atol=1e-4)


def test_a_complex_cell_forgives_a_shift_that_a_simple_cell_does_not() -> None:
    square = np.zeros((3, 64, 64, 3), np.uint8)
    square[0, 24:40, 24:40] = 255
    square[1, 24:40, 25:41] = 255
    square[2, 8:24, 40:56] = 255
    training = np.random.default_rng(1).integers(256, size=(9, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    extractor = HmaxExtractor(HmaxConfig(scales=4, units=50_000, patches=40, patch_sizes=(4,))).fit(training, seed=0)
    found = extractor.extract_layers(square, 1)
    near = {layer: np.corrcoef(values[:2])[0, 1] for layer, values in found.items()}
    far = {layer: np.corrcoef(values[::2])[0, 1] for layer, values in found.items()}
    assert near["hmax2"] > near["hmax1"] + 0.1
    assert far["hmax3"] > far["hmax2"] + 0.5


@pytest.mark.parametrize("scale", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 1, 3, 6])
def test_gist_prefers_its_orientation_and_frequency(scale: int, number: int) -> None:
    cycles = 128 * 0.3 / 1.85**scale
    extractor = GistExtractor(GistConfig(prefilter_cycles=0))
    energy = extractor.extract(grating(128, cycles, 180 * number / 8)[None], 1).reshape(32, 16).mean(1)
    assert np.argmax(energy) == 8 * scale + number


def test_gist_says_where_the_energy_is() -> None:
    picture = np.full((1, 128, 128, 3), 127, np.uint8)
    picture[0, 32:64, 64:96] = grating(128, 20, 0)[32:64, 64:96]
    cells = GistExtractor().extract(picture, 1).reshape(32, 4, 4).mean(0)
    assert np.unravel_index(np.argmax(cells), (4, 4)) == (1, 2)


def test_gist_hardly_changes_with_contrast() -> None:
    low = (127 + 0.3 * (grating(128, 20, 30).astype(float) - 127)).astype(np.uint8)
    full, faint = GistExtractor().extract(np.stack([grating(128, 20, 30), low]), 1)
    assert np.corrcoef(full, faint)[0, 1] > 0.99
    assert 0.5 < faint.mean() / full.mean() <= 1.1


def test_words_are_shares_and_tell_textures_apart() -> None:
    first = np.stack([grating(128, 12, 0, phase) for phase in range(3)])
    second = np.stack([grating(128, 12, 45, phase) for phase in range(3)])
    extractor = SiftExtractor(SiftConfig(words=8)).fit(np.concatenate([first, second]), seed=0)
    a, b = extractor.extract(first, 1), extractor.extract(second, 1)
    np.testing.assert_allclose(a.sum(1), 1, rtol=1e-5)
    assert np.minimum(a[0], a[1]).sum() > 0.7
    assert np.minimum(a[0], b[0]).sum() < 0.3


def test_a_frame_without_keypoints_has_no_words() -> None:
    training = np.random.default_rng(0).integers(256, size=(4, 64, 64, 3), dtype=np.uint8)
    extractor = SiftExtractor(SiftConfig(words=5, step=0)).fit(training, seed=0)
    flat = np.full((1, 64, 64, 3), 90, np.uint8)
    np.testing.assert_array_equal(extractor.extract(flat, 1), 0)


def moving(direction: float, cycles: float, hertz: float, fps: float = 24, frames: int = 48) -> np.ndarray:
    """A grating that moves towards the direction, 0 right and 90 up."""
    y, x = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32), indexing="ij")
    angle = np.deg2rad(direction)
    along = x * np.cos(angle) - y * np.sin(angle)
    times = np.arange(frames)[:, None, None] / fps
    return np.cos(2 * np.pi * (cycles * along - hertz * times))


@pytest.mark.parametrize("direction", [0, 45, 90, 135, 180, 225, 270, 315])
def test_motion_energy_prefers_its_direction(direction: float) -> None:
    filters = [MotionFilter(0.5, 0.5, d, 4, 4, 0.15, 0.3) for d in range(0, 360, 45)]
    energy = motion_energy(moving(direction, 4, 4), 24, filters)[12:36].mean(0)
    assert filters[int(np.argmax(energy))].direction == direction
    opposite = energy[(int(direction // 45) + 4) % 8]
    assert opposite < 0.1 * energy.max()


@pytest.mark.parametrize(("cycles", "hertz"), [(2, 2), (4, 6), (8, 2), (4, 0)])
def test_motion_energy_prefers_its_frequencies(cycles: float, hertz: float) -> None:
    kinds = [(c, h) for c in (2, 4, 8) for h in (0, 2, 6)]
    filters = [MotionFilter(0.5, 0.5, 0, c, h, 0.15, 0.3) for c, h in kinds]
    energy = motion_energy(moving(0, cycles, hertz), 24, filters)[12:36].mean(0)
    assert kinds[int(np.argmax(energy))] == (cycles, hertz)


def test_motion_energy_does_not_depend_on_the_phase() -> None:
    energy = motion_energy(moving(0, 4, 4), 24, [MotionFilter(0.5, 0.5, 0, 4, 4, 0.15, 0.3)])[12:36]
    assert energy.std() < 0.02 * energy.mean()


def test_motion_energy_is_that_of_pymoten_with_its_directions_turned_round() -> None:
    known = json.loads((Path(__file__).parent / "data" / "pymoten_energy.json").read_text())
    pictures = np.random.default_rng(known["seed"]).random(known["shape"]).astype(np.float32)
    filters = [MotionFilter(*numbers) for numbers in known["filters"]]
    filters = [replace(one, direction=one.direction + 180) for one in filters]
    energy = motion_energy(pictures, known["fps"], filters)
    np.testing.assert_allclose(energy.T, known["energy"], atol=2e-5, rtol=1e-5)


def test_the_pyramid_tiles_the_frame_and_counts_still_filters_once() -> None:
    extractor = MotionEnergyExtractor(MotionEnergyConfig(cycles=(2.0, 8.0), hertz=(0.0, 4.0)))
    fine = {(one.x, one.y) for one in extractor.filters if one.cycles == 8}
    assert len(fine) == 9
    assert np.mean(list(fine)) == pytest.approx(0.5)
    assert {one.direction for one in extractor.filters if one.hertz == 0} == {0, 45, 90, 135}
