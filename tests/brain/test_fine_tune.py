import numpy as np
import pytest
import torch

from neuroreel.brain.fine_tune import FineTuneConfig, FineTunedDecoder
from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.stream import Moments
from neuroreel.core.errors import DataError
from neuroreel.core.seeds import generator
from neuroreel.core.types import Space
from neuroreel.fit.loop import LoopConfig

SHAPE = MaskedConfig(patch=5, order="flat", dim=16, depth=1, heads=2, decoder_dim=16, decoder_heads=2, trs=1, factors=0)
LOOP = LoopConfig(steps=150, batch=16, rate=5e-3, average=0.9, precision="float32")


def planted(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows (rows, 1, voxels) that show targets (rows, 3), and the targets."""
    rng, weights = generator(seed, "fine"), generator(0, "weights").standard_normal((3, 20))
    y = rng.standard_normal((rows, 3))
    x = 100 + 4 * (y @ weights + 0.3 * rng.standard_normal((rows, 20)))
    return x[:, None].astype(np.float32), (7 + 3 * y).astype(np.float32)


def begun(x: np.ndarray) -> MaskedBrain:
    return MaskedBrain(SHAPE).move("01", Space("columns", 20), Moments.of([x[:, 0]]))


@pytest.mark.parametrize("pool", ["mean", "all"])
def test_held_out_targets_are_predicted_in_their_units_and_the_encoder_stays(pool: str) -> None:
    (x, y), (new, truth) = planted(160, 1), planted(60, 2)
    brain = begun(x)
    before = {name: value.clone() for name, value in brain.net.state_dict().items()}
    decoder = FineTunedDecoder(brain, "01", FineTuneConfig(pool=pool, noise=0.1, loop=LOOP)).fit(x, y, cpu=True)
    made = decoder.predict(new)
    assert all(np.corrcoef(made[:, unit], truth[:, unit])[0, 1] > 0.8 for unit in range(3))
    assert ((made - truth) ** 2).mean() < 0.5 * truth.var()
    assert all(torch.equal(value, before[name]) for name, value in brain.net.state_dict().items())


def test_the_encoder_is_tuned_and_what_only_recovers_is_not() -> None:
    x, y = planted(40, 1)
    brain = begun(x)
    loop = LOOP.model_copy(update={"steps": 2})
    decoder = FineTunedDecoder(brain, "01", FineTuneConfig(loop=loop)).fit(x, y, cpu=True)
    assert decoder._net is not None
    old, new = dict(brain.net.named_parameters()), dict(decoder._net.net.named_parameters())
    tuned = {name for name, value in old.items() if not torch.equal(value, new[name])}
    assert any(name.startswith("encoder") for name in tuned) and any(name.endswith(".weight") for name in tuned)
    assert not any("out_" in name or name.startswith(("decoder", "mask_token", "to_decoder")) for name in tuned)


def test_without_a_fit_and_with_other_lengths_it_is_one_sentence() -> None:
    x, y = planted(40, 1)
    decoder = FineTunedDecoder(begun(x), "01")
    with pytest.raises(DataError, match=r"^decoder must be fitted before it predicts, got no weights$"):
        decoder.predict(x)
    with pytest.raises(DataError, match=r"^targets must have as many entries as brain windows \(40\), got 39$"):
        decoder.fit(x, y[1:])
