"""How near a reconstruction is in its pixels: one value per clip, inputs (n, frames, height, width, 3) uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.color import rgb2gray

from neuroreel.core.checks import dimensions, one_of, require

CLIP_AXES = ("n", "frames", "height", "width", "3")
CLIPS_AT_ONCE = 32
GREY = 128.0
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
ROUNDING_ERROR = 1 / 12  # variance of what rounding to whole grey levels takes away


def check_clips(predicted: np.ndarray, truth: np.ndarray) -> None:
    """Raise DataError unless both are clips (n, frames, height, width, 3) uint8 of one shape."""
    for name, clips in (("predicted", predicted), ("truth", truth)):
        dimensions(name, clips, CLIP_AXES)
        require(clips.shape[-1] == 3, name, "must have 3 colour channels", f"shape {clips.shape}")
        require(clips.dtype == np.uint8, name, "must be uint8 from 0 to 255", clips.dtype)
        require(clips.size > 0, name, "must hold at least one pixel", f"shape {clips.shape}")
    require(predicted.shape == truth.shape, "predicted", f"must have the truth's shape {truth.shape}", predicted.shape)


def mse(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean squared error of each clip in squared grey levels (0 to 255), array (n,)."""
    check_clips(predicted, truth)
    pairs = zip(predicted, truth, strict=True)
    return np.array([np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs])


def psnr(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each clip in dB, array (n,).

    Taken from the error of the whole clip, which is held at or above 1/12, the rounding error of uint8: a perfect clip
    has 58.9 dB and the mean stays finite.
    """
    return _decibels(mse(predicted, truth))


def pixcorr(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation over all values of each clip, array (n,).

    NaN where the truth is constant, 0 where only the prediction is.
    """
    check_clips(predicted, truth)
    flat = zip(predicted.reshape(len(predicted), 1, -1), truth.reshape(len(truth), 1, -1), strict=True)
    return np.array([float(np.sum(unit_rows(a) * unit_rows(b, undefined=np.nan))) for a, b in flat])


def frame_correlation(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean over the frames of a clip of the Pearson correlation between luminance images, array (n,).

    Frames that are constant in the truth are left out; a clip of nothing else is NaN. A constant predicted frame
    counts 0.
    """
    check_clips(predicted, truth)
    values = np.full(len(truth), np.nan)
    for i, (a, b) in enumerate(zip(predicted, truth, strict=True)):
        frames = np.sum(unit_rows(_luminance(a)) * unit_rows(_luminance(b), undefined=np.nan), axis=1)
        known = frames[~np.isnan(frames)]
        if known.size:
            values[i] = known.mean()
    return values


@dataclass(frozen=True)
class SsimForm:
    """What one of the functions called SSIM does.

    Parameters
    ----------
    down, across : weights of the window, a 1-D array along the height and along the width; they sum to 1.
    colour : True scores the three channels, False the luminance.
    unbiased : True divides covariances by the pixels of the window less one.
    """

    down: np.ndarray
    across: np.ndarray
    colour: bool
    unbiased: bool


_UNIFORM = np.full(7, 1 / 7)
_GAUSS = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)  # sigma 1.5 px, cut at 3.5 sigma on both sides
_GAUSS /= _GAUSS.sum()

SSIM_FORMS = {
    "rgb-uniform7": SsimForm(_UNIFORM, _UNIFORM, colour=True, unbiased=True),
    "gray-gauss": SsimForm(_GAUSS, _GAUSS, colour=False, unbiased=False),
    "columns-compat": SsimForm(_GAUSS, np.ones(1), colour=False, unbiased=False),
}


def ssim(predicted: np.ndarray, truth: np.ndarray, form: str) -> np.ndarray:
    """Return the structural similarity of each clip, a mean over its frames and channels, array (n,).

    Parameters
    ----------
    predicted, truth : clips (n, frames, height, width, 3) uint8.
    form : `rgb-uniform7`, RGB with a 7 x 7 uniform window; `gray-gauss`, luminance with a Gaussian window of sigma 1.5
        px (11 x 11); `columns-compat`, luminance with each column scored as a 1-D signal, which is what released code
        computes when it says that the last axis of a grey image is its colour channel: unrelated photographs score
        about .32, and it is only here to compare with published numbers.

    Returns
    -------
    array (n,). Source: Wang et al. 2004, IEEE Transactions on Image Processing 13(4), eq. 13, over the windows that lie
    within the image.

    Raises
    ------
    DataError : the frames are smaller than the window. ConfigError : the form is unknown.
    """
    check_clips(predicted, truth)
    one_of("SSIM form", form, SSIM_FORMS)
    height, width = SSIM_FORMS[form].down.size, SSIM_FORMS[form].across.size
    got = f"{truth.shape[2]} x {truth.shape[3]}"
    fits = truth.shape[2] >= height and truth.shape[3] >= width
    require(fits, "the frames", f"must be at least {height} x {width} pixels (height x width) for ssim:{form}", got)
    rows = [slice(start, start + CLIPS_AT_ONCE) for start in range(0, len(truth), CLIPS_AT_ONCE)]
    return np.concatenate(
        [ssim_compare(ssim_parts(predicted[i], form), ssim_parts(truth[i], form), form) for i in rows]
    )


def ssim_parts(clips: np.ndarray, form: str) -> dict[str, np.ndarray]:
    """Return what SSIM needs of one side: the images and the mean and variance of every window, each clips first."""
    spec = SSIM_FORMS[form]
    if spec.colour:
        images = np.moveaxis(clips, -1, 2).reshape(len(clips), -1, *clips.shape[2:4]).astype(np.float32)
    else:
        images = rgb2gray(clips).astype(np.float32) * 255
    images -= GREY  # near 0, so that single precision is enough for the variances
    mean = _windowed(images, spec)
    return {"images": images, "mean": mean, "variance": _windowed(images * images, spec) - mean * mean}


def ssim_compare(predicted: dict[str, np.ndarray], truth: dict[str, np.ndarray], form: str) -> np.ndarray:
    """Return the SSIM of each clip from the parts of both sides, array (n,); a truth of one clip is held to all."""
    spec = SSIM_FORMS[form]
    a, b = predicted["mean"], truth["mean"]
    pixels = spec.down.size * spec.across.size
    scale = pixels / (pixels - 1) if spec.unbiased else 1.0
    covariance = scale * (_windowed(predicted["images"] * truth["images"], spec) - a * b)
    variances = scale * (predicted["variance"] + truth["variance"])
    a, b = a + GREY, b + GREY
    likeness = (2 * a * b + C1) * (2 * covariance + C2) / ((a * a + b * b + C1) * (variances + C2))
    return likeness.mean(axis=(1, 2, 3), dtype=np.float64)


def mse_pairs(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return `mse` of every predicted clip (rows) with every true clip (columns), array (n, n)."""
    check_clips(predicted, truth)
    left, right = predicted.reshape(len(predicted), -1), truth.reshape(len(truth), -1)
    total = np.zeros((len(left), len(right)))
    for columns in column_blocks(left.shape[1], len(left)):
        a, b = left[:, columns].astype(np.float64), right[:, columns].astype(np.float64)
        # whole numbers below 2**53 throughout, so nothing is lost in the difference
        total += np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None] - 2 * a @ b.T
    return total / left.shape[1]


def psnr_pairs(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return `psnr` of every predicted clip (rows) with every true clip (columns), array (n, n)."""
    return _decibels(mse_pairs(predicted, truth))


def pixcorr_pairs(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return `pixcorr` of every predicted clip (rows) with every true clip (columns), array (n, n)."""
    check_clips(predicted, truth)
    return correlation_matrix(predicted.reshape(len(predicted), -1), truth.reshape(len(truth), -1))


def frame_correlation_pairs(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return `frame_correlation` of every predicted clip (rows) with every true clip (columns), array (n, n)."""
    check_clips(predicted, truth)
    total, count = np.zeros((len(predicted), len(truth))), np.zeros(len(truth))
    for frame in range(truth.shape[1]):
        matrix = correlation_matrix(_luminance(predicted[:, frame]), _luminance(truth[:, frame]))
        known = ~np.isnan(matrix[0])
        total[:, known] += matrix[:, known]
        count += known
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def correlation_matrix(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Pearson's r between every row of `predicted` and every row of `truth`.

    Parameters
    ----------
    predicted, truth : arrays (n, features) and (m, features).

    Returns
    -------
    array (n, m), rounded to 12 decimals so that equal rows tie; a constant row of `truth` is a column of NaN, a
    constant row of `predicted` a row of 0.
    """
    dimensions("predicted", predicted, ("n", "features"))
    dimensions("truth", truth, ("n", "features"))
    width = truth.shape[1]
    require(predicted.shape[1] == width, "predicted", f"must have the truth's {width} features", predicted.shape[1])
    means = [rows.mean(axis=1, dtype=np.float64, keepdims=True) for rows in (predicted, truth)]
    products = np.zeros((len(predicted), len(truth)))
    squares = [np.zeros(len(predicted)), np.zeros(len(truth))]
    for columns in column_blocks(width, max(len(predicted), len(truth))):
        a, b = predicted[:, columns] - means[0], truth[:, columns] - means[1]
        products += a @ b.T
        squares[0] += np.einsum("nf,nf->n", a, a)
        squares[1] += np.einsum("nf,nf->n", b, b)
    scale = np.sqrt(np.outer(squares[0], squares[1]))
    matrix = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    matrix[np.ptp(predicted, axis=1) == 0] = 0.0
    matrix[:, np.ptp(truth, axis=1) == 0] = np.nan
    return np.round(np.clip(matrix, -1, 1), 12)


def unit_rows(rows: np.ndarray, undefined: float = 0.0) -> np.ndarray:
    """Return the rows with mean 0 and length 1, as float64; constant ones are filled with `undefined`."""
    centred = rows - rows.mean(axis=1, dtype=np.float64, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    constant = (np.ptp(rows, axis=1) == 0)[:, None] | (length == 0)
    return np.where(constant, undefined, centred / np.where(constant, 1.0, length))


def column_blocks(width: int, rows: int, numbers: int = 2**24) -> list[slice]:
    """Return slices over the columns that hold about `numbers` values each, to bound the memory in use."""
    step = max(1, numbers // max(1, rows))
    return [slice(start, start + step) for start in range(0, width, step)]


def _decibels(error: np.ndarray) -> np.ndarray:
    """Return 10 log10(255^2 / error), the error held at or above the rounding error of uint8."""
    return 10 * np.log10(255**2 / np.maximum(error, ROUNDING_ERROR))


def _luminance(frames: np.ndarray) -> np.ndarray:
    """Return images (n, height, width, 3) uint8 as rows of luminance (Rec. 709) from 0 to 255, array (n, pixels).

    Rounded, since equal colours can differ in their last bit and a constant image must stay constant.
    """
    return np.round(rgb2gray(frames) * 255, 6).reshape(len(frames), -1)


def _windowed(images: np.ndarray, form: SsimForm) -> np.ndarray:
    """Return the weighted mean over every window that lies within the images (..., height, width)."""
    down = _sliding(form.down, images.shape[-2])
    across = _sliding(form.across, images.shape[-1])
    return down @ images @ across.T


def _sliding(weights: np.ndarray, length: int) -> np.ndarray:
    """Return the matrix (places, length) that takes a signal to its weighted mean at every place of the window."""
    places = length - weights.size + 1
    matrix = np.zeros((places, length), dtype=np.float32)
    for offset, weight in enumerate(weights):
        matrix[np.arange(places), np.arange(places) + offset] = weight
    return matrix
