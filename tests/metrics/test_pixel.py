import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.data import astronaut, chelsea, coffee
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.metrics import pixel

GAUSS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
SCIKIT = {
    "rgb-uniform7": lambda a, b: structural_similarity(a, b, win_size=7, data_range=255, channel_axis=-1),
    "gray-gauss": lambda a, b: structural_similarity(rgb2gray(a), rgb2gray(b), **GAUSS),
    "columns-compat": lambda a, b: structural_similarity(rgb2gray(a), rgb2gray(b), channel_axis=-1, **GAUSS),
}
PAIRS = ["mse", "psnr", "pixcorr", "frame_correlation"]


@pytest.mark.parametrize("form", SCIKIT)
def test_each_ssim_is_what_scikit_image_computes(form, photographs):
    predicted, truth = photographs
    expected = [
        np.mean([SCIKIT[form](a, b) for a, b in zip(*pair, strict=True)]) for pair in zip(*photographs, strict=True)
    ]
    np.testing.assert_allclose(pixel.ssim(predicted, truth, form), expected, atol=1e-5)


@pytest.mark.parametrize("form", SCIKIT)
def test_ssim_is_1_for_a_perfect_clip_and_stays_exact_on_flat_images(form, photographs):
    truth = photographs[1]
    np.testing.assert_allclose(pixel.ssim(truth, truth, form), 1, atol=1e-6)
    flat = np.full_like(truth[:1], 30)
    expected = SCIKIT[form](flat[0, 0], truth[0, 0])
    assert pixel.ssim(flat[:, :1], truth[:1, :1], form)[0] == pytest.approx(expected, abs=1e-5)


def test_unrelated_photographs_score_what_the_three_functions_called_ssim_are_known_to_give_them():
    pictures = [picture()[:300, :300] for picture in (astronaut, chelsea, coffee)]
    photographs = np.array([resize(picture, (256, 256), anti_aliasing=True) * 255 for picture in pictures])[:, None]
    photographs = photographs.round().astype(np.uint8)
    rgb, grey, columns = (pixel.ssim(photographs, photographs[[1, 2, 0]], form).mean() for form in SCIKIT)
    assert (rgb, grey, columns) == pytest.approx((0.15, 0.19, 0.32), abs=0.08)
    assert rgb < grey < columns - 0.05


def test_mse_and_psnr_are_those_of_scikit_image(photographs):
    predicted, truth = photographs
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(pixel.psnr(predicted, truth), expected)
    np.testing.assert_allclose(pixel.mse(predicted, truth), 255**2 / 10 ** (np.array(expected) / 10))


def test_the_psnr_of_a_perfect_clip_is_that_of_rounding(photographs):
    truth = photographs[1]
    assert pixel.psnr(truth, truth) == pytest.approx(10 * np.log10(255**2 * 12))


def test_correlations_are_those_of_numpy(photographs):
    predicted, truth = photographs
    whole = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(pixel.pixcorr(predicted, truth), whole)
    grey = [
        [np.corrcoef(rgb2gray(a).ravel(), rgb2gray(b).ravel())[0, 1] for a, b in zip(*c, strict=True)]
        for c in zip(*photographs, strict=True)
    ]
    np.testing.assert_allclose(pixel.frame_correlation(predicted, truth), np.mean(grey, axis=1), atol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_has_the_value_that_it_has_alone(name, photographs):
    predicted, truth = photographs
    function, pairs = getattr(pixel, name), getattr(pixel, f"{name}_pairs")
    expected = [[function(a[None], b[None])[0] for b in truth] for a in predicted]
    np.testing.assert_allclose(pairs(predicted, truth), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_in_small_blocks_are_the_same(name, photographs, monkeypatch):
    pairs = getattr(pixel, f"{name}_pairs")
    whole = pairs(*photographs)
    blocks = pixel.column_blocks
    monkeypatch.setattr(pixel, "column_blocks", lambda width, rows: blocks(width, rows, numbers=1000))
    np.testing.assert_allclose(pairs(*photographs), whole, rtol=1e-9)


def test_a_constant_truth_is_undefined_and_a_constant_prediction_is_0(photographs):
    predicted, truth = (array.copy() for array in photographs)
    truth[0] = 7
    truth[1, 0] = 9
    predicted[2] = 7
    for name in ("pixcorr", "frame_correlation"):
        values = getattr(pixel, name)(predicted, truth)
        assert np.isnan(values).tolist() == [True] + [False] * 5
        assert values[2] == 0
        np.testing.assert_allclose(np.diagonal(getattr(pixel, f"{name}_pairs")(predicted, truth)), values, atol=1e-9)
    rest = pixel.frame_correlation(predicted[1:2, 1:], truth[1:2, 1:])
    assert pixel.frame_correlation(predicted, truth)[1] == pytest.approx(rest[0])


@pytest.mark.parametrize(
    ("predicted", "truth", "sentence"),
    [
        (np.zeros((1, 1, 8, 8, 3)), np.zeros((1, 1, 8, 8, 3)), "predicted must be uint8 from 0 to 255, got float64"),
        (
            np.zeros((1, 8, 8, 3), np.uint8),
            np.zeros((1, 8, 8, 3), np.uint8),
            r"predicted must have the axes \(n, frames",
        ),
        (
            np.zeros((1, 1, 8, 8, 3), np.uint8),
            np.zeros((1, 1, 8, 9, 3), np.uint8),
            r"must have the truth's shape \(1, 1, 8, 9",
        ),
        (np.zeros((1, 1, 8, 8, 4), np.uint8), np.zeros((1, 1, 8, 8, 4), np.uint8), "must have 3 colour channels"),
    ],
)
def test_what_are_no_clips_is_refused_in_one_sentence(predicted, truth, sentence):
    with pytest.raises(DataError, match=sentence):
        pixel.mse(predicted, truth)


def test_frames_smaller_than_the_window_are_refused():
    small = np.zeros((1, 1, 9, 16, 3), np.uint8)
    assert pixel.ssim(small, small, "rgb-uniform7")[0] == 1
    with pytest.raises(DataError, match=r"the frames must be at least 11 x 11 pixels .* got 9 x 16"):
        pixel.ssim(small, small, "gray-gauss")
    with pytest.raises(ConfigError, match="SSIM form must be one of columns-compat, gray-gauss, rgb-uniform7"):
        pixel.ssim(small, small, "rgb")
