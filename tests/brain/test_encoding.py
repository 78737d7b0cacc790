import numpy as np
import pytest
from scipy import linalg

from neuroreel.brain.encoding import (
    EncodingConfig,
    EncodingModel,
    best_unit_correlation,
    layer_index,
    stack_weights,
)
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.fit.folds import assign_folds

RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(120, 15))
BOLD = FEATURES @ RNG.normal(size=(15, 6)) + RNG.normal(size=(120, 6)) + 3
SEGMENTS = np.repeat(np.arange(12), 10)


def test_the_weights_are_those_of_the_papers_cost() -> None:
    """|x - Yw - b|^2 + lambda T |w|^2, solved by hand."""
    model = EncodingModel(EncodingConfig(lambdas=(0.03,), folds=4)).fit(FEATURES, BOLD, SEGMENTS)
    centred = FEATURES - FEATURES.mean(0)
    gram = centred.T @ centred + 0.03 * 120 * np.eye(15)
    by_hand = linalg.solve(gram, centred.T @ (BOLD - BOLD.mean(0)), assume_a="pos")
    np.testing.assert_allclose(model.coef_, by_hand, rtol=1e-5)
    np.testing.assert_allclose(model.predict(FEATURES).mean(0), BOLD.mean(0), rtol=1e-5)


def test_noise_takes_the_largest_penalty_and_signal_does_not() -> None:
    bold = np.column_stack([FEATURES @ RNG.normal(size=15), RNG.normal(size=120)])
    model = EncodingModel(EncodingConfig(lambdas=(1e-4, 1e-2, 1.0, 100.0), folds=9)).fit(FEATURES, bold, SEGMENTS)
    assert model.lambda_[0] == pytest.approx(1e-4) and model.lambda_[1] > 1e-3
    assert model.cv_r_[0] > 0.99 and model.cv_r_[1] < 0.4


def test_segments_stay_whole_where_there_are_enough_of_them() -> None:
    """A signal that repeats within a segment is only found by a fold that cuts segments."""
    codes = np.repeat(RNG.normal(size=(12, 40)), 10, axis=0)
    bold = np.repeat(RNG.normal(size=(12, 1)), 10, axis=0)
    whole = EncodingModel(EncodingConfig(lambdas=(1e-3,), folds=9)).fit(codes, bold, SEGMENTS)
    few = EncodingModel(EncodingConfig(lambdas=(1e-3,), folds=9)).fit(codes, bold, SEGMENTS // 6)
    assert whole.cv_r_[0] < few.cv_r_[0]


def test_each_voxel_takes_the_group_of_spaces_that_it_follows() -> None:
    spaces = {"a": RNG.normal(size=(120, 30)), "b": 50 * RNG.normal(size=(120, 60)), "c": RNG.normal(size=(120, 9))}
    bold = np.column_stack([spaces["a"][:, 0], spaces["b"][:, 0], spaces["a"][:, 1] + spaces["b"][:, 1] / 50])
    bold = bold + 0.3 * RNG.normal(size=(120, 3))
    model = EncodingModel(EncodingConfig(groups=(("a",), ("b",), ("b", "a"), ("c",)))).fit(spaces, bold, SEGMENTS)
    np.testing.assert_array_equal(model.group_, [0, 1, 2])
    assert not model.coef_[30:, 0].any() and not model.coef_[:30, 1].any() and not model.coef_[90:].any()
    predicted = model.predict(np.concatenate(list(spaces.values()), axis=1))
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, bold.T, strict=True)) > 0.8


def test_one_group_of_one_space_is_the_plain_model() -> None:
    scaled = FEATURES / np.sqrt(FEATURES.var(axis=0).sum())
    plain = EncodingModel(EncodingConfig(folds=4)).fit(scaled, BOLD, SEGMENTS)
    group = EncodingModel(EncodingConfig(folds=4, groups=(("x",),))).fit({"x": FEATURES}, BOLD, SEGMENTS)
    np.testing.assert_allclose(group.predict(FEATURES), plain.predict(scaled), atol=1e-5)
    np.testing.assert_allclose(group.lambda_, plain.lambda_)


def test_a_group_of_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^space of a group must be one of a, got 'z'$"):
        EncodingModel(EncodingConfig(groups=(("z",),))).fit({"a": FEATURES}, BOLD, SEGMENTS)


def test_it_comes_back_from_its_arrays() -> None:
    model = EncodingModel(EncodingConfig(folds=3)).fit(FEATURES, BOLD, SEGMENTS)
    other = EncodingModel(EncodingConfig(folds=3)).restore(model.arrays())
    np.testing.assert_array_equal(model.predict(FEATURES), other.predict(FEATURES))
    with pytest.raises(DataError, match=r"^encoding model must be fitted before it predicts, got no weights$"):
        EncodingModel().predict(FEATURES)


def test_the_best_unit_is_the_one_that_numpy_finds_in_any_blocks() -> None:
    units = RNG.normal(size=(80, 37)).astype(np.float32)
    units[:, 4] = 2.0  # one that never varies
    bold = units[:, [30, 7, 11]] + RNG.normal(size=(80, 3))
    table = np.corrcoef(np.delete(units, 4, axis=1).T, bold.T)[:36, 36:]
    for blocks in ([units], [units[:, :10], units[:, 10:11], units[:, 11:]]):
        r, unit = best_unit_correlation(blocks, bold)
        np.testing.assert_allclose(r, table.max(0), atol=1e-6)
        np.testing.assert_array_equal(unit, [30, 7, 11])


def test_the_layer_is_counted_from_one() -> None:
    np.testing.assert_array_equal(layer_index(np.array([[0.1, 0.9], [0.3, 0.2], [0.2, 0.5]])), [2, 1])


def test_bold_and_units_of_other_lengths_are_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^volumes of a layer must have as many entries as the BOLD \(120\), got 80$"):
        best_unit_correlation([np.zeros((80, 3))], BOLD)
    with pytest.raises(DataError, match=r"^segments must have as many entries as volumes \(120\), got 3$"):
        EncodingModel().fit(FEATURES, BOLD, np.arange(3))


def test_stacking_weighs_models_by_what_they_predict() -> None:
    """By hand: least squares with an intercept where its weights are above 0, and without the model where not."""
    truth, other = RNG.normal(size=(2, 200))
    bold = np.column_stack([truth, truth + other, -other]) + 5
    models = np.stack([np.column_stack([truth] * 3) + 1, np.column_stack([other] * 3) + 2])
    models = models + 0.1 * RNG.normal(size=models.shape)
    weights, intercept = stack_weights(models, bold)
    for voxel, kept in ((1, [0, 1]), (2, [0])):
        design = np.column_stack([models[kept, :, voxel].T, np.ones(200)])
        by_hand = linalg.lstsq(design, bold[:, voxel])[0]
        if by_hand[0] > 0:
            np.testing.assert_allclose(weights[kept, voxel], by_hand[:-1], rtol=1e-6)
            np.testing.assert_allclose(intercept[voxel], by_hand[-1], rtol=1e-6)
    assert weights[0, 0] > 0.9 > 0.1 > weights[1, 0] and weights[1, 2] == 0
    assert np.allclose((weights[:, None] * models).sum(0).mean(0) + intercept, bold.mean(0))


def test_held_out_predictions_are_those_of_the_group_that_was_chosen() -> None:
    spaces = {"a": RNG.normal(size=(120, 4)), "b": RNG.normal(size=(120, 4))}
    bold = np.column_stack([spaces["a"][:, 0], spaces["b"][:, 0]]) + 0.3 * RNG.normal(size=(120, 2))
    model = EncodingModel(EncodingConfig(groups=(("a",), ("b",)), folds=4)).fit(spaces, bold, SEGMENTS, held_out=True)
    labels = assign_folds(120, 4, SEGMENTS)
    for voxel in range(2):
        r = [np.corrcoef(model.held_out_[labels == f, voxel], bold[labels == f, voxel])[0, 1] for f in range(4)]
        assert np.mean(r) == pytest.approx(model.cv_r_[voxel], abs=1e-5)
