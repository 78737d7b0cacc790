import numpy as np
import torch

from neuroreel.brain.factors import Factors, find_factors
from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.patches import make_patches
from neuroreel.brain.recovery import score_recovery
from neuroreel.brain.stream import Moments, StreamRun, WindowStream, key_of, principal_axes
from neuroreel.core.seeds import generator
from neuroreel.core.types import Space
from neuroreel.fit.loop import LoopConfig
from neuroreel.nets.masked import Ends

VOXELS, TRS, REAL = 30, 2, 4


def planted(rows: int, seed: int) -> np.ndarray:
    """Return volumes (rows, voxels) in which four factors show, each voxel with noise of its own size."""
    maps = generator(0, "maps").standard_normal((REAL, VOXELS))
    rng = generator(seed, "planted")
    noise = rng.standard_normal((rows, VOXELS)) * generator(0, "sizes").uniform(0.5, 3, VOXELS)
    return np.asarray(rng.standard_normal((rows, REAL)) @ maps + noise, dtype=np.float32)


def streamed(data: list[np.ndarray]) -> list[StreamRun]:
    return [StreamRun("01", str(n), len(each), lambda each=each: each) for n, each in enumerate(data)]  # type: ignore[misc]


def masks(count: int = 4) -> np.ndarray:
    return np.stack([generator(n, "mask").permutation(VOXELS) < 20 for n in range(count)])


def test_what_is_hidden_is_the_conditional_mean_of_the_normal_distribution() -> None:
    rng = generator(1, "factors")
    factors = Factors(rng.standard_normal((TRS, VOXELS, 3)), rng.uniform(0.3, 2, (TRS, VOXELS)))
    windows, hidden = rng.standard_normal((5, TRS, VOXELS)), masks(1)[0]
    flat, both = factors.weights.reshape(-1, 3), np.tile(hidden, TRS)
    covariance = flat @ flat.T + np.diag(factors.noise.ravel())
    among, across = covariance[np.ix_(~both, ~both)], covariance[np.ix_(~both, both)]
    expected = windows.reshape(5, -1)[:, ~both] @ np.linalg.solve(among, across)
    np.testing.assert_allclose(factors.fill_in(windows, hidden).reshape(5, -1), expected, rtol=1e-4, atol=1e-5)


def test_planted_factors_fill_in_almost_as_well_as_the_distribution_that_made_them() -> None:
    train, test = [planted(150, seed) for seed in (1, 2, 3)], planted(400, 4)
    moments = Moments.of(train)
    found = find_factors(streamed(train), moments, 1, 16, masks(2))
    maps = generator(0, "maps").standard_normal((REAL, VOXELS)) / moments.sd
    best = Factors(maps.T[None], (generator(0, "sizes").uniform(0.5, 3, VOXELS) / moments.sd)[None] ** 2)
    z = moments.apply(test)[:, None]
    errors = [sum(float(((z[:, :, h] - f.fill_in(z, h)) ** 2).sum()) for h in masks()) for f in (best, found)]
    assert found.weights.shape[2] in (4, 8) and errors[0] < errors[1] < 1.02 * errors[0]


def test_principal_axes_are_those_of_the_covariance_whatever_the_parts() -> None:
    data = planted(300, 5)
    axes, variances = principal_axes(lambda: iter((data[:100], data[100:])), VOXELS, 3, rounds=40)
    values, vectors = np.linalg.eigh(data.T @ data / len(data))
    np.testing.assert_allclose(variances, values[:-4:-1], rtol=1e-3)
    np.testing.assert_allclose(np.abs((axes * vectors[:, :-4:-1]).sum(0)), 1, atol=1e-3)


def test_the_network_fills_in_as_the_factors_do_with_another_mask_for_every_window() -> None:
    config = MaskedConfig(patch=4, order="flat", dim=8, depth=1, heads=2, decoder_dim=8, decoder_heads=2, factors=5)
    patches = make_patches(Space("columns", VOXELS), 4, "flat")
    rng = generator(2, "factors")
    factors = Factors(*(rng.uniform(0.3, 2, shape).astype(np.float32) for shape in ((2, VOXELS, 3), (2, VOXELS))))
    ends = Ends(config, patches.voxels)
    ends.take_factors(torch.from_numpy(factors.weights), torch.from_numpy(factors.noise))
    windows = rng.standard_normal((3, 2, VOXELS)).astype(np.float32)
    order = np.stack([rng.permutation(len(patches)) for _ in windows])
    visible, masked = (torch.from_numpy(np.sort(each, 1)) for each in (order[:, :3], order[:, 3:]))
    made = ends.by_factors(torch.from_numpy(windows), visible, masked).numpy()
    for row, numbers in enumerate(masked.numpy()):
        hidden = patches.spread(np.isin(np.arange(len(patches)), numbers))
        patched = patches.cut(np.zeros((1, 2, VOXELS), dtype=np.float32))
        patched[0][:, numbers] = made[row]
        expected = factors.fill_in(windows[row : row + 1], hidden)
        np.testing.assert_allclose(patches.join(patched)[:, :, hidden], expected, rtol=1e-4, atol=1e-5)


def test_a_new_network_recovers_by_factors_alone_and_none_are_published() -> None:
    assert MaskedConfig.published().factors == 0 and not hasattr(
        Ends(MaskedConfig.published(), np.arange(32).reshape(2, 16)), "factor_weight"
    )
    for embedding in ("own", "shared"):
        config = MaskedConfig(patch=4, order="flat", dim=8, heads=2, decoder_dim=8, embedding=embedding)
        brain = MaskedBrain(config).move("01", Space("columns", VOXELS), Moments.of([planted(50, 1)]))
        windows, mask = planted(6, 2).reshape(3, 2, VOXELS), brain.masks("01", 1)[0]
        hidden = brain.patches("01").spread(mask)
        mean = np.broadcast_to(brain.moments("01").mean[hidden], (3, 2, int(hidden.sum())))
        np.testing.assert_allclose(brain.recover(windows, "01", mask)[:, :, hidden], mean, atol=1e-5)


def test_the_last_tenth_of_every_run_is_held_out_of_the_batches() -> None:
    data = [np.arange(40, dtype=np.float32)[:, None].repeat(VOXELS, 1) + 100 * n for n in range(2)]
    moments = {"01": Moments(np.zeros(VOXELS, dtype=np.float32), np.ones(VOXELS, dtype=np.float32))}
    stream = WindowStream(streamed(data), moments, {"01": 8}, {"01": 2}, trs=2, held_out=0.1)
    rows = np.concatenate(stream.epoch(2, np.random.default_rng(0)))
    seen = stream.read(rows, rows)["brain"].numpy()
    held = stream.held("01")
    assert len(stream) == len(rows) == 2 * 35 and seen.max() == 135 and (seen % 100).max() == 35
    np.testing.assert_array_equal(held[:, :, 0], [[36, 37], [38, 39], [136, 137], [138, 139]])


def test_corrections_that_do_not_hold_on_new_volumes_are_not_trusted() -> None:
    """All that is planted is linear: what the network adds is learnt by heart."""
    space, train, test = Space("columns", VOXELS), [planted(60, seed) for seed in (1, 2)], planted(300, 4)
    config = MaskedConfig(patch=5, order="flat", dim=32, depth=1, heads=2, decoder_dim=32, decoder_heads=2, trs=1)
    brain = MaskedBrain(config)
    loop = LoopConfig(steps=120, batch=16, rate=1e-2, precision="float32")
    brain.fit(streamed(train), {"01": space}, loop=loop, cpu=True)
    ends, windows = brain.net.end(key_of("01")), (np.concatenate(train)[:, None], test[:, None])
    found = score_recovery(brain, "01", *windows, ridge=False).r2["masked"]
    trust = float(ends.trust)
    ends.trust.fill_(1.0)
    assert 0 <= trust < 0.5 and found > score_recovery(brain, "01", *windows, ridge=False).r2["masked"]
