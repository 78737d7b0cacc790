from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core.errors import DataError
from neuroreel.core.seeds import generator


def make(clips: int = 80, voxels: int = 60, targets: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return windows in which the first third of the voxels sees the targets, the targets, and blocks of four."""
    rng = generator(0, "window")
    y = rng.normal(size=(clips, targets)).astype(np.float32)
    brain = rng.normal(size=(clips, 2, voxels)).astype(np.float32)
    brain[:, :, : voxels // 3] += (y @ rng.normal(size=(targets, voxels // 3)))[:, None]
    return brain, y, np.arange(clips) // 4


def test_weights_are_those_of_scikit_learns_ridge_on_the_chosen_voxels() -> None:
    brain, y, blocks = make()
    decoder = WindowDecoder().fit(brain, y, blocks)
    kept = decoder.voxel_weights() > 0
    x = brain.mean(1)[:, kept]
    length = ((x - x.mean(0)) ** 2).sum(1).mean()
    theirs = Ridge(alpha=decoder.alpha_[0] * length * len(x), solver="svd").fit(x.astype(np.float64), y)
    np.testing.assert_allclose(decoder.predict(brain), theirs.predict(x), atol=2e-3)


def test_the_voxels_that_see_are_found() -> None:
    brain, y, blocks = make()
    weights = WindowDecoder(WindowDecoderConfig(keep=(1 / 3,))).fit(brain, y, blocks).voxel_weights()
    assert (weights[:20] > 0).mean() > 0.9
    assert np.count_nonzero(weights) == 20


def test_a_clip_is_held_out_of_the_fit_that_predicts_it() -> None:
    brain, _, blocks = make(voxels=400)
    noise = generator(0, "noise").normal(size=(len(brain), 12)).astype(np.float32)
    decoder = WindowDecoder().fit(brain, noise, blocks)
    r = np.corrcoef(decoder.held_out_.ravel(), noise.ravel())[0, 1]
    assert abs(r) < 0.1 and decoder.cv_r2_ < 0.05


def test_concatenated_volumes_have_weights_of_their_own() -> None:
    brain, y, blocks = make()
    brain[:, 0] = generator(1, "first").normal(size=brain[:, 0].shape)  # only the second volume sees
    mean, both = (
        WindowDecoder(WindowDecoderConfig(combine=name, keep=(1.0,))).fit(brain, y, blocks)
        for name in ("mean", "concat")
    )
    assert both.cv_r2_ > mean.cv_r2_ > 0.2


def test_the_finish_that_predicts_best_wins() -> None:
    brain, y, blocks = make()
    finishes = (lambda p: p * 0, lambda p: p, lambda p: -p)
    assert WindowDecoder().fit(brain, y, blocks, finishes).finish_ == 1


def test_saving_keeps_the_answer(tmp_path: Path) -> None:
    brain, y, blocks = make()
    decoder = WindowDecoder(WindowDecoderConfig(per_target=True, standardise=True)).fit(brain, y, blocks)
    decoder.save(tmp_path)
    loaded = WindowDecoder.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(brain), decoder.predict(brain))
    assert loaded.config == decoder.config and loaded.keep_ == decoder.keep_


def test_bad_input_is_one_sentence() -> None:
    brain, y, blocks = make()
    with pytest.raises(DataError, match=r"^targets must have as many entries as brain windows \(80\), got 79$"):
        WindowDecoder().fit(brain, y[1:], blocks)
    brain[0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"^brain must be finite, got 1 of 9600 values NaN or infinite$"):
        WindowDecoder().fit(brain, y, blocks)
    with pytest.raises(DataError, match=r"^clips must fill 5 folds or more, got 8 clips$"):
        WindowDecoder().fit(make(8)[0], make(8)[1], np.zeros(8))


def test_the_same_choices_on_other_clips_are_the_fit_of_those_clips() -> None:
    brain, y, blocks = make()
    decoder = WindowDecoder(WindowDecoderConfig(per_target=True)).fit(brain, y, blocks)
    np.testing.assert_array_equal(decoder.again(brain, y).predict(brain), decoder.predict(brain))
    train, held = decoder.folds(blocks)[0]
    again = decoder.again(brain[train], y[train])
    np.testing.assert_allclose(again.predict(brain[held]), decoder.held_out_[held], atol=1e-3)
