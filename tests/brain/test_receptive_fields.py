"""Voxels that are planted as one field and a few weights, behind noise."""

import numpy as np
import pytest

from neuroreel.brain.receptive_fields import ReceptiveFieldConfig, ReceptiveFieldModel
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.fit.folds import assign_folds

RNG = np.random.default_rng(11)
TRS, SIDE, CHANNELS = 240, 5, 12
SEGMENTS = np.repeat(np.arange(12), 20)
PLACES = np.array([(x, y) for y in range(SIDE) for x in range(SIDE)])
TRUE = np.array([6, 6, 18, 12])  # fields of the first four voxels; the fifth is noise, the sixth what stands beside
WEIGHTS = np.zeros((CHANNELS, 4))
WEIGHTS[[0, 3], [0, 0]] = 1.0, -1.0
WEIGHTS[[5, 1, 7, 8], [1, 2, 2, 3]] = 1.0


def smooth_maps(trs: int, rng: np.random.Generator) -> np.ndarray:
    """Maps whose neighbours are alike, pooled under fields of two units: (trs, fields, channels)."""
    maps = rng.normal(size=(trs, SIDE * SIDE, CHANNELS)) * np.geomspace(1, 5, CHANNELS)
    near = np.exp(-((PLACES[:, None] - PLACES[None]) ** 2).sum(-1) / 2)
    return np.einsum("pq,tqc->tpc", near / near.sum(1, keepdims=True), maps) + 3


MAPS = smooth_maps(TRS, RNG)
BESIDE = {"words": RNG.normal(size=(TRS, 7)), "sound": RNG.normal(size=(TRS, 4))}


def signal(maps: np.ndarray, beside: dict[str, np.ndarray]) -> np.ndarray:
    sd = MAPS.std(axis=(0, 1))
    seen = [(maps[:, field] / sd) @ WEIGHTS[:, voxel] for voxel, field in enumerate(TRUE)]
    return np.column_stack([*seen, np.zeros(len(maps)), beside["sound"][:, 2]])


SIGNAL = signal(MAPS, BESIDE)
BOLD = SIGNAL + np.append(0.4 * SIGNAL[:, :4].std(0), [1.0, 0.4]) * RNG.normal(size=SIGNAL.shape) + 2
CONFIG = ReceptiveFieldConfig(beside=((), ("sound",), ("words",)), folds=6)


def source(maps: np.ndarray):
    return lambda field: maps[:, field].astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> ReceptiveFieldModel:
    return ReceptiveFieldModel(CONFIG).fit([source(MAPS)], SIDE * SIDE, BOLD, SEGMENTS, [BESIDE])


def test_the_planted_fields_are_found(fitted: ReceptiveFieldModel) -> None:
    np.testing.assert_array_equal(fitted.field_[:4], TRUE)


def test_the_planted_weights_are_found(fitted: ReceptiveFieldModel) -> None:
    sd = MAPS.std(axis=(0, 1))
    for voxel in range(4):
        found = fitted.coef_[:CHANNELS, voxel] * sd
        assert np.corrcoef(found, WEIGHTS[:, voxel])[0, 1] > 0.97
        assert found[WEIGHTS[:, voxel] != 0] == pytest.approx(WEIGHTS[WEIGHTS[:, voxel] != 0, voxel], abs=0.2)


def test_what_has_no_place_is_taken_where_it_is_followed(fitted: ReceptiveFieldModel) -> None:
    assert fitted.beside_[5] == 1 and not fitted.coef_[CHANNELS : CHANNELS + 7, 5].any()
    assert np.abs(fitted.coef_[CHANNELS + 7 :, 5]).argmax() == 2
    assert all(fitted.coef_[CHANNELS:, voxel].any() == (fitted.beside_[voxel] > 0) for voxel in range(6))


def test_noise_is_not_predicted_and_signal_is(fitted: ReceptiveFieldModel) -> None:
    rng = np.random.default_rng(12)
    maps = smooth_maps(300, rng)
    beside = {name: rng.normal(size=(300, values.shape[1])) for name, values in BESIDE.items()}
    predicted, truth = fitted.predict([source(maps)], [beside]), signal(maps, beside)
    r = [np.corrcoef(predicted[:, voxel], truth[:, voxel])[0, 1] for voxel in (0, 1, 2, 3, 5)]
    assert min(r) > 0.93
    noise = rng.normal(size=300)
    assert abs(np.corrcoef(predicted[:, 4], noise)[0, 1]) < 3 / np.sqrt(300)
    assert fitted.cv_r_[4] < 0.3 < fitted.cv_r_[:4].min()


def test_held_out_predictions_are_those_of_a_fit_without_the_fold() -> None:
    model = ReceptiveFieldModel(ReceptiveFieldConfig(folds=6)).fit([source(MAPS)], SIDE * SIDE, BOLD, SEGMENTS)
    x = MAPS[:, TRUE[3]]
    z = (x - x.mean(0)) / (x.std(0) + 1e-3 * x.std(0).max())
    z /= np.sqrt((z * z).sum(axis=1).mean())
    labels = assign_folds(TRS, 6, SEGMENTS)
    for fold in range(6):
        out, rest = labels == fold, labels != fold
        mean, level = z[rest].mean(0), BOLD[rest, 3].mean()
        gram = (z[rest] - mean).T @ (z[rest] - mean) + model.lambda_[3] * TRS * np.eye(CHANNELS)
        weights = np.linalg.solve(gram, (z[rest] - mean).T @ (BOLD[rest, 3] - level))
        np.testing.assert_allclose(model.held_out_[out, 3], (z[out] - mean) @ weights + level, atol=1e-3)


def test_each_voxel_takes_the_response_that_it_follows() -> None:
    late = np.roll(MAPS, 3, axis=0)
    bold = np.column_stack([BOLD[:, 0], np.roll(BOLD[:, 3], 3)])
    model = ReceptiveFieldModel(ReceptiveFieldConfig(folds=6, candidates=SIDE * SIDE))
    model.fit([source(MAPS), source(late)], SIDE * SIDE, bold, SEGMENTS)
    np.testing.assert_array_equal(model.response_, [0, 1])
    np.testing.assert_array_equal(model.field_, TRUE[[0, 3]])


def test_it_comes_back_from_its_arrays(fitted: ReceptiveFieldModel) -> None:
    other = ReceptiveFieldModel(CONFIG).restore(fitted.arrays())
    both = [model.predict([source(MAPS)], [BESIDE]) for model in (fitted, other)]
    np.testing.assert_array_equal(*both)
    assert np.corrcoef(both[0][:, 0], BOLD[:, 0])[0, 1] > 0.8


def test_maps_that_never_vary_predict_the_mean() -> None:
    model = ReceptiveFieldModel().fit([source(np.ones((TRS, 2, 3)))], 2, BOLD, SEGMENTS)
    np.testing.assert_allclose(model.predict([source(np.ones((5, 2, 3)))]), np.tile(BOLD.mean(0), (5, 1)), rtol=1e-5)


def test_bad_input_is_one_sentence() -> None:
    model, maps = ReceptiveFieldModel(CONFIG), [source(MAPS)]
    with pytest.raises(ConfigError, match=r"^space beside the maps must be one of words, got 'sound'$"):
        model.fit(maps, 25, BOLD, SEGMENTS, [{"words": BESIDE["words"]}])
    with pytest.raises(DataError, match=r"^pooled features must have as many entries as volumes \(200\), got 240$"):
        model.fit(maps, 25, BOLD[:200], SEGMENTS[:200], [BESIDE])
    with pytest.raises(DataError, match=r"^bold must be finite, got 1 of 1440 values NaN or infinite$"):
        model.fit(maps, 25, np.where(np.arange(TRS)[:, None] * np.ones(6) + np.arange(6) == 0, np.nan, BOLD), SEGMENTS)
    with pytest.raises(DataError, match=r"^receptive fields must be fitted before they predict, got no weights$"):
        model.predict(maps)
    with pytest.raises(DataError, match=r"^fields must be 1 or more, got 0$"):
        model.fit(maps, 0, BOLD, SEGMENTS)
