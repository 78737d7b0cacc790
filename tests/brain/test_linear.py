import numpy as np
import pytest

from neuroreel.brain.linear import (
    ComponentRidge,
    ComponentRidgeConfig,
    L1Decoder,
    L1DecoderConfig,
    SparseDecoder,
    SparseDecoderConfig,
    TopVoxelRidge,
    TopVoxelRidgeConfig,
)
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator

QUICK = {
    SparseDecoder: SparseDecoderConfig(voxels=20, n_iter=200),
    TopVoxelRidge: TopVoxelRidgeConfig(voxels=20, alpha=1.0),
    L1Decoder: L1DecoderConfig(penalty=0.01, step=0.01, least_step=0.01),
    ComponentRidge: ComponentRidgeConfig(folds=4),
}
every_decoder = pytest.mark.parametrize("kind", list(QUICK))


def planted(rows=240, voxels=50, units=6, seed=0):
    """Voxels with their own means and scales, units that read four voxels each, and one constant unit."""
    rng = generator(seed, "linear")
    x = rng.standard_normal((rows, voxels))
    y = np.stack([x[:, rng.permutation(voxels)[:4]].sum(1) for _ in range(units)], 1)
    y = (y + 0.5 * rng.standard_normal(y.shape)) * rng.uniform(0.1, 20, units) - 40
    y[:, -1] = 2.5
    return (x * rng.uniform(0.1, 30, voxels) + 100).astype(np.float32), y


@every_decoder
def test_held_out_targets_are_predicted_in_their_own_units(kind):
    x, y = planted()
    predicted = kind(QUICK[kind]).fit(x[:180], y[:180]).predict(x[180:])
    for unit in range(5):
        assert np.corrcoef(predicted[:, unit], y[180:, unit])[0, 1] > 0.8
    np.testing.assert_allclose(predicted.mean(0), y[180:].mean(0), atol=0.5 * y.std())
    np.testing.assert_allclose(predicted[:, -1], 2.5, atol=1e-3)


@every_decoder
def test_a_loaded_decoder_predicts_the_same(kind, tmp_path):
    x, y = planted()
    decoder = kind(QUICK[kind]).fit(x, y)
    decoder.save(tmp_path / "decoder")
    again = kind.load(tmp_path / "decoder")
    assert again.config == decoder.config
    np.testing.assert_array_equal(again.predict(x), decoder.predict(x))


@every_decoder
def test_voxels_in_other_units_give_the_same_predictions(kind):
    x, y = planted()
    x = x.astype(np.float64)
    first = kind(QUICK[kind]).fit(x, y).predict(x)
    np.testing.assert_allclose(kind(QUICK[kind]).fit(5 * x - 3, y).predict(5 * x - 3), first, atol=1e-2)


def test_a_sparse_decoder_weighs_only_chosen_voxels():
    x, y = planted()
    decoder = SparseDecoder(SparseDecoderConfig(voxels=10, n_iter=200)).fit(x, y)
    assert decoder.chosen_.shape == (6, 10)
    for unit in range(6):
        assert set(np.flatnonzero(decoder.coef_[:, unit])) <= set(decoder.chosen_[unit])


@every_decoder
def test_what_is_not_fitted_neither_predicts_nor_saves(kind, tmp_path):
    with pytest.raises(DataError, match=f"{kind.__name__} must be fitted before it predicts, got no weights"):
        kind().predict(np.zeros((3, 4)))
    with pytest.raises(DataError, match="must be fitted before it is saved"):
        kind().save(tmp_path / "decoder")


def test_another_number_of_voxels_is_one_sentence():
    x, y = planted()
    decoder = TopVoxelRidge().fit(x, y)
    with pytest.raises(DataError, match=r"x voxels must have as many entries as the decoder's voxels \(50\), got 49"):
        decoder.predict(x[:, 1:])


def test_broken_weights_another_decoder_and_an_unknown_key_are_one_sentence(tmp_path):
    x, y = planted()
    TopVoxelRidge().fit(x, y).save(tmp_path / "ridge")
    file = tmp_path / "ridge" / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match="weights must be whole safetensors"):
        TopVoxelRidge.load(tmp_path / "ridge")
    file.write_bytes(whole)
    (tmp_path / "ridge" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="weights must be of a SparseDecoder, got TopVoxelRidge"):
        SparseDecoder.load(tmp_path / "ridge")
    (tmp_path / "ridge" / "config.json").write_text('{"voxel": 3}')
    with pytest.raises(ConfigError, match="config key must be one of alpha, bias, device, voxels, got 'voxel'"):
        TopVoxelRidge.load(tmp_path / "ridge")
