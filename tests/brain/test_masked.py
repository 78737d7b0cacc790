import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroreel.brain.masked import MaskedBrain, MaskedConfig, masked_loss
from neuroreel.brain.patches import Patches, make_patches, places_mm, same_space
from neuroreel.brain.recovery import score_recovery
from neuroreel.brain.stream import Moments, WindowStream, components, draw_masks, key_of, memory_runs, store_runs
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Segment, Split, Window
from neuroreel.core.store import store_table, write_store
from neuroreel.core.types import Bold, Dataset, Recording, Run, Space
from neuroreel.fit.loop import LoopConfig
from neuroreel.nets.transformer import Attention, Block, sine_positions

TINY = MaskedConfig(patch=4, dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2, trs=2)
LOOP = LoopConfig(steps=4, batch=8, rate=2e-3, precision="float32")


def grid_space(n: int, seed: int = 0, *, shuffled: bool = True) -> Space:
    """Voxels of a slab in an order that says nothing of their place."""
    index = np.stack(np.unravel_index(np.arange(n), (8, -(-n // 8), 1)), 1)
    if shuffled:
        index = index[generator(seed, "grid").permutation(n)]
    return Space("volume", n, index=index, affine=np.diag([2.0, 2.0, 2.0, 1.0]), template="toy")


def waves(space: Space, trs: int, seed: int, noise: float = 0.3) -> np.ndarray:
    """A few smooth maps over the slab that come and go, and noise: neighbours say what a patch does."""
    places = places_mm(space)
    assert places is not None
    maps = np.stack([np.cos(places[:, 0] / 5 * a + places[:, 1] / 7 * b) for a in (0, 1) for b in (0, 1, 2)])
    rng = generator(seed, "waves")
    data = rng.standard_normal((trs, len(maps))) @ maps + noise * rng.standard_normal((trs, space.size))
    return (300 + 5 * data).astype(np.float32)


def toy_run(name: str, *, voxels: int = 40, trs: int = 30, subject: str = "01", seed: int = 1) -> Run:
    space = grid_space(voxels)
    return Run(Bold(waves(space, trs, seed), 2.0, space, subject, name), "" if name == "rest" else name)


@lru_cache(maxsize=1)
def known_brain() -> MaskedBrain:
    return trained_on(TINY, toy_run("a"), toy_run("b", seed=2))


def trained_on(config: MaskedConfig, *runs: Run, **changes: object) -> MaskedBrain:
    brain = MaskedBrain(config)
    brain.fit(*memory_runs(runs), loop=LOOP.model_copy(update=changes), cpu=True)
    return brain


def fitted(config: MaskedConfig = TINY) -> MaskedBrain:
    """Return a brain of 40 voxels that was trained a little."""
    return deepcopy(known_brain()) if config == TINY else trained_on(config, toy_run("a"), toy_run("b", seed=2))


def cut(run: Run, trs: int = 2) -> np.ndarray:
    return np.stack([run.bold.data[at : at + trs] for at in range(0, run.bold.n_trs - trs + 1, trs)])


# patches


@pytest.mark.parametrize("order", ["cortical", "flat"])
@pytest.mark.parametrize(("voxels", "count"), [(48, 3), (49, 4), (33, 3), (16, 1)])
def test_every_voxel_is_in_one_patch_and_only_the_last_has_padding(voxels: int, count: int, order: str) -> None:
    patches = make_patches(grid_space(voxels), 16, order)  # type: ignore[arg-type]
    assert patches.voxels.shape == (count, 16)
    assert sorted(patches.voxels[patches.real]) == list(range(voxels))
    assert patches.real[:-1].all() and patches.real[-1].sum() == voxels - 16 * (count - 1)
    brain = np.random.default_rng(0).standard_normal((3, 2, voxels)).astype(np.float32)
    np.testing.assert_array_equal(patches.join(patches.cut(brain)), brain)
    assert (patches.cut(brain)[..., ~patches.real] == 0).all()


def test_cortical_patches_are_neighbours_and_follow_each_other() -> None:
    space = grid_space(256)
    widths, steps = {}, {}
    for order in ("cortical", "flat"):
        patches = make_patches(space, 16, order)  # type: ignore[arg-type]
        places, middles = places_mm(space)[patches.voxels], patches.places_mm()  # type: ignore[index]
        widths[order] = np.linalg.norm(places - middles[:, None], axis=2).mean()
        steps[order] = np.linalg.norm(np.diff(middles, axis=0), axis=1).mean()
    assert widths["cortical"] < 1.5 * 3.06  # a square of 4 x 4 voxels of 2 mm has a mean distance of 3.06 mm
    assert widths["flat"] > 3 * widths["cortical"] and steps["cortical"] < 16


def test_cortical_patches_follow_the_surface_and_not_the_straight_line() -> None:
    rng = np.random.default_rng(0)
    index, side = rng.choice(10242, 300, replace=False), np.repeat(["L", "R"], 150)
    space = Space("surface", 300, index=index, hemisphere=side, template="fsaverage5")
    patches = make_patches(space, 10)
    assert all(len(set(side[row])) == 1 for row in patches.voxels)  # no patch over both hemispheres: 150 = 15 x 10
    places, middles = places_mm(space), patches.places_mm()
    assert places is not None and middles is not None
    spread = np.linalg.norm(places[patches.voxels] - middles[:, None], axis=2).mean()
    flat = make_patches(space, 10, "flat")
    assert spread < 0.5 * np.linalg.norm(places[flat.voxels] - flat.places_mm()[:, None], axis=2).mean()  # type: ignore[index]


def test_cortical_order_needs_a_place() -> None:
    with pytest.raises(
        ConfigError, match="order must be flat where the place of the voxels isn't known, got 'cortical'"
    ):
        make_patches(Space("columns", 20), 4)
    space = Space("surface", 2, index=np.arange(2), hemisphere=np.array(["L", "L"]), template="fsnative")
    with pytest.raises(ConfigError, match="template of the surface must be one of fsLR, fsaverage5, got 'fsnative'"):
        make_patches(space, 1)


def test_a_patch_number_is_spread_to_its_voxels_and_padding_is_dropped() -> None:
    patches = Patches(Space("columns", 3), np.array([[2, 0], [1, -1]]))
    np.testing.assert_array_equal(patches.spread(np.array([5.0, 7.0])), [5, 7, 5])


# the parts


def test_attention_is_the_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2), torch.randn(3, 5, 8)
    q, k, v = layer.qkv(x).reshape(3, 5, 3, 2, 4).unbind(2)
    weights = torch.einsum("bihd,bjhd->bhij", q, k).div(2).softmax(-1)
    expected = layer.out(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(3, 5, 8))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.weights(x), weights.mean(1), rtol=1e-4, atol=1e-6)


def test_space_is_attended_within_a_volume_and_time_within_a_patch() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2, 1.0, trs=3), torch.randn(1, 3, 5, 8, requires_grad=True)
    space_only = Block(8, 2, 1.0, trs=1)
    reach = torch.autograd.grad(space_only(x)[0, 1, 2].sum(), x)[0].abs().sum(-1)[0]
    assert (reach[1] > 0).all() and (reach[0] == 0).all() and (reach[2] == 0).all()
    reach = torch.autograd.grad(block(x)[0, 1, 2].sum(), x)[0].abs().sum(-1)[0]
    assert (reach > 0).all()  # first over the patches of each volume, then over the volumes of the patch


def test_sine_positions_are_those_of_the_formula() -> None:
    codes = sine_positions(torch.arange(7), 6)
    for k in range(3):
        angle = 5 / 10000 ** (k / 3)
        assert codes[5, k].item() == pytest.approx(np.sin(angle)) and codes[5, 3 + k].item() == pytest.approx(
            np.cos(angle)
        )
    assert sine_positions(torch.randn(4, 3), 16).shape == (4, 16)


def test_masks_are_drawn_by_the_seed_of_each_sample_alone() -> None:
    seeds = np.array([7, 8, 9])
    visible, masked = draw_masks(seeds, 20, 5)
    assert visible.shape == (3, 5) and masked.shape == (3, 15)
    assert all(sorted([*a.tolist(), *b.tolist()]) == list(range(20)) for a, b in zip(visible, masked, strict=True))
    assert torch.equal(draw_masks(seeds[1:], 20, 5)[0], visible[1:]) and not torch.equal(visible[0], visible[1])


# the network


@pytest.mark.parametrize("embedding", ["own", "shared"])
def test_only_visible_patches_are_seen_and_only_masked_voxels_count(embedding: str) -> None:
    brain = fitted(TINY.model_copy(update={"embedding": embedding, "patch": 16}))  # 40 voxels: 8 of padding
    key, x = key_of("01"), torch.randn(2, 2, 40)
    visible, masked = torch.tensor([[0], [2]]), torch.tensor([[1, 2], [0, 1]])
    order = torch.from_numpy(brain.patches("01").voxels)
    made = brain.net(x, key, visible, masked)
    other, hidden = x.clone(), order[1][order[1] >= 0]
    other[:, :, hidden] = 9.0
    torch.testing.assert_close(brain.net(other, key, visible, masked), made)
    by_hand = [
        np.mean([(made[n, t, m, s].item() - x[n, t, order[p, s]].item()) ** 2
                 for t in range(2) for m, p in enumerate(masked[n]) for s in range(16) if order[p, s] >= 0])
        for n in range(2)
    ]  # fmt: skip
    loss = masked_loss(brain.net, {"brain": x, "key": key, "visible": visible, "masked": masked})
    np.testing.assert_allclose(loss.detach(), by_hand, rtol=1e-4)


def test_the_number_of_encoded_tokens_is_that_of_the_visible_patches() -> None:
    brain = fitted()
    counts: list[int] = []
    hook = brain.net.encoder[0].register_forward_hook(lambda block, inputs, output: counts.append(output.shape[2]))
    brain.recover(cut(toy_run("a")), "01", brain.masks("01", 1)[0])
    hook.remove()
    assert set(counts) == {TINY.visible(10)} == {2}


def test_the_share_of_masked_patches_is_the_configs() -> None:
    assert [TINY.model_copy(update={"mask": m}).visible(100) for m in (0.75, 0.5, 0.999)] == [25, 50, 1]
    assert TINY.model_copy(update={"mask": 0.001}).visible(100) == 99
    published = MaskedConfig.published()
    assert (published.dim, published.depth, published.patch, published.decoder_dim) == (1024, 24, 16, 512)


def test_visible_voxels_are_left_as_they_are_and_masked_ones_keep_their_unit() -> None:
    run = toy_run("a")
    brain, windows = fitted(), cut(run)
    mask = brain.masks("01", 1)[0]
    made = brain.recover(windows, "01", mask)
    seen = ~brain.patches("01").spread(mask)
    np.testing.assert_allclose(made[:, :, seen], windows[:, :, seen], rtol=1e-5)
    assert not np.allclose(made[:, :, ~seen], windows[:, :, ~seen]) and 250 < made.min() < made.max() < 350


@pytest.mark.heavy
def test_held_out_patches_are_recovered_better_than_by_ridge() -> None:
    space = grid_space(96)
    data = [waves(space, 150, seed, noise=1.0) for seed in range(4)]
    runs = [Run(Bold(each, 2.0, space, "01", str(n)), "") for n, each in enumerate(data)]
    config = TINY.model_copy(update={"patch": 8, "dim": 48, "decoder_dim": 48, "trs": 1})
    brain = MaskedBrain(config)
    loop = LoopConfig(steps=2500, batch=64, rate=3e-3, average=0.99)
    brain.fit(*memory_runs(runs[:3]), loop=loop, cpu=True)
    score = score_recovery(
        brain, "01", *(np.concatenate([cut(run, 1) for run in each]) for each in (runs[:3], runs[3:]))
    )
    assert score.r2["mean"] == 0 and score.r2["ridge"] > 0.5 and score.r2["masked"] > score.r2["ridge"]


def test_the_mean_predictors_r2_is_nought_and_the_ridges_that_of_a_fit_by_hand() -> None:
    brain = fitted()
    train, test = cut(toy_run("a", trs=120)), cut(toy_run("c", seed=3, trs=60))
    score = score_recovery(brain, "01", train, test, masks=2)
    assert score.r2["mean"] == 0 and score.r2["ridge"] > 0.3
    x, y = (brain.moments("01").apply(each) for each in (train, test))
    error = total = 0.0
    for mask in brain.masks("01", 2):
        hidden = brain.patches("01").spread(mask)
        a, b = (each[:, :, ~hidden].reshape(len(each), -1) for each in (x, y))
        weights = np.linalg.lstsq(
            np.column_stack([a, np.ones(len(a))]), x[:, :, hidden].reshape(len(a), -1), rcond=None
        )[0]
        truth = y[:, :, hidden].reshape(len(b), -1)
        error += ((np.column_stack([b, np.ones(len(b))]) @ weights - truth) ** 2).sum()
        total += (truth**2).sum()
    assert score.r2["ridge"] > 1 - error / total - 0.02  # least squares, which the ridge's penalty can only help


# many subjects, the store


def store_of(folder: Path) -> tuple[Path, Split]:
    """Return the store that `toy_store` wrote, and its split."""
    return folder / "toy.zarr", store_table(folder / "toy.zarr")[1]["b"]


def toy_store(folder: Path) -> tuple[Path, Split]:
    subjects = {"01": 40, "02": 52}
    recordings = tuple(
        Recording(
            "toy", name, tuple(toy_run(run, voxels=n, subject=name, seed=k) for k, run in enumerate(("a", "b", "rest")))
        )
        for name, n in subjects.items()
    )
    split = Split(name="b held out", reason="a toy", train=(Segment(run="a"),), test=(Segment(run="b"),))
    return write_store(folder / "toy.zarr", Dataset("toy", recordings, Window(trs=2), {"b": split})), split


def test_a_store_is_streamed_run_by_run_without_the_runs_that_are_tested(tmp_path: Path) -> None:
    path, split = toy_store(tmp_path)
    runs, spaces = store_runs(
        path, split, prepare=lambda run: replace(run, bold=replace(run.bold, data=-run.bold.data))
    )
    assert [(run.subject, run.run) for run in runs] == [("01", "a"), ("01", "rest"), ("02", "a"), ("02", "rest")]
    assert {name: space.size for name, space in spaces.items()} == {"01": 40, "02": 52}
    np.testing.assert_allclose(runs[0].read(), -toy_run("a", seed=0).bold.data)


def test_a_stream_holds_few_runs_and_gives_every_window_once_a_pass() -> None:
    runs, _ = memory_runs([toy_run(name, seed=n, trs=17) for n, name in enumerate("abcdef")])
    moments = {"01": Moments.of(run.read() for run in runs)}
    stream = WindowStream(runs, moments, {"01": 10}, {"01": 3}, trs=2, pool=2, together=1)
    batches = stream.epoch(8, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(len(stream))) == list(range(96))
    for rows in batches:
        batch = stream.read(rows, np.arange(8))
        numbers, at = np.divmod(rows, 16)
        expected = np.stack([moments["01"].apply(runs[n].read()[a : a + 2]) for n, a in zip(numbers, at, strict=True)])
        np.testing.assert_allclose(batch["brain"], expected, rtol=1e-6)
        assert len(stream._held) <= 2


def test_components_are_those_of_the_covariance() -> None:
    runs, _ = memory_runs([toy_run("a", seed=1, trs=60), toy_run("b", seed=2, trs=50)])
    moments = Moments.of(run.read() for run in runs)
    data = np.concatenate([moments.apply(run.read()) for run in runs]).astype(np.float64)
    expected = np.linalg.eigh(data.T @ data)[1][:, ::-1][:, :4]
    found = components(runs, moments, 4)
    np.testing.assert_allclose(np.abs((found * expected).sum(0)), 1, atol=1e-3)


def test_moments_over_runs_are_those_of_all_volumes() -> None:
    runs = [toy_run("a", seed=n, trs=20 + n).bold.data for n in range(3)]
    whole = np.concatenate(runs).astype(np.float64)
    moments = Moments.of(runs)
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.sd, whole.std(0), rtol=1e-5)
    assert Moments.of([np.ones((4, 2), dtype=np.float32)]).sd.tolist() == [1, 1]


def test_subjects_with_other_voxels_train_together_and_share_the_body(tmp_path: Path) -> None:
    path, split = toy_store(tmp_path)
    brain = MaskedBrain(TINY)
    first = {name: value.detach().clone() for name, value in brain.net.named_parameters()}
    trained = brain.fit(*store_runs(path, split), loop=LOOP.model_copy(update={"steps": 12}), cpu=True)
    assert brain.subjects == ("01", "02") and np.isfinite(trained.losses).all()
    assert brain.encode(cut(toy_run("b", voxels=52, subject="02")), "02").shape == (15, 2 * 13, 16)
    assert all(not torch.equal(value, first[name]) for name, value in brain.net.named_parameters() if name in first)


# other voxels


def moments_of(space: Space) -> Moments:
    return Moments(np.full(space.size, 300, dtype=np.float32), np.full(space.size, 8, dtype=np.float32))


def test_other_voxels_are_refused_unless_the_config_says_how() -> None:
    brain, space = fitted(), grid_space(52)
    known, other = "sub-01: 40 voxels of toy volume", "52 voxels of toy volume"
    with pytest.raises(DataError, match=rf"voxels of sub-02 must be those of the weights \({known}\) .*, got {other}"):
        brain.move("02", space, moments_of(space))
    with pytest.raises(DataError, match=rf"voxels must be those of the weights \({known}\), got 52"):
        brain.encode(np.zeros((1, 2, 52), dtype=np.float32), "01")
    assert brain.subjects == ("01",)


@pytest.mark.parametrize("embedding", ["own", "shared"])
def test_the_same_voxels_in_another_order_are_moved_to_without_loss(embedding: str) -> None:
    config = TINY.model_copy(update={"embedding": embedding})
    brain = fitted(config)
    old, shift = brain.patches("01"), np.roll(np.arange(40), 7)
    space = replace(old.space, index=old.space.index[shift])  # type: ignore[index]
    moments = brain.moments("01")
    brain.move("02", space, Moments(moments.mean[shift], moments.sd[shift]), how="interpolated")
    for subject, order in (("01", np.arange(40)), ("02", shift)):
        weights = brain.weight_map(subject)
        if embedding == "own":
            np.testing.assert_allclose(weights, brain.weight_map("01")[order], rtol=1e-5)
    assert not same_space(old.space, space) and brain.subjects == ("01", "02")


def test_interpolated_weights_lie_between_those_of_neighbours() -> None:
    brain, fine = fitted(), grid_space(40, seed=5)
    assert fine.index is not None
    inside = np.column_stack([fine.index[:, 0] * 2 + 1, fine.index[:, 1] * 2 + 1, fine.index[:, 2]])
    space = replace(fine, index=inside, affine=np.eye(4))  # halfway between the old voxels
    brain.move("02", space, moments_of(space), how="interpolated")
    old, new = brain.patches("01"), brain.patches("02")
    rows = old.join(np.moveaxis(brain.net.end(key_of("01")).weight.detach().numpy(), 2, 0))
    moved = new.join(np.moveaxis(brain.net.end(key_of("02")).weight.detach().numpy(), 2, 0))
    here, there = places_mm(space), places_mm(old.space)
    assert here is not None and there is not None
    for voxel in range(0, 40, 7):
        distance = np.linalg.norm(there - here[voxel], axis=1)
        near = np.argsort(distance, kind="stable")[:4]
        if np.allclose(distance[near], distance[near[0]]):  # four corners, each as near as the others
            np.testing.assert_allclose(moved[:, voxel], rows[:, near].mean(1), atol=1e-5)


def test_relearnt_ends_begin_anew_and_the_body_stays() -> None:
    brain, space = fitted(), grid_space(52)
    body = {name: value.clone() for name, value in brain.net.state_dict().items() if not name.startswith("ends")}
    brain.move("02", space, moments_of(space), how="relearnt")
    assert all(torch.equal(brain.net.state_dict()[name], value) for name, value in body.items())
    assert brain.encode(cut(toy_run("b", voxels=52)), "02").shape == (15, 26, 16)
    flat = Space("columns", 52)
    with pytest.raises(DataError, match=r"voxels must lie in the space of the weights, .*, got 52 voxels of columns"):
        MaskedBrain.move(
            fitted(TINY.model_copy(update={"order": "flat"})), "02", flat, moments_of(flat), how="interpolated"
        )


# files, maps


def test_saved_weights_carry_the_voxels_and_give_the_same_tokens(tmp_path: Path) -> None:
    brain, windows = fitted(), cut(toy_run("a"))
    brain.save(tmp_path / "m")
    again = MaskedBrain.load(tmp_path / "m")
    assert same_space(again.patches("01").space, brain.patches("01").space) and again.config == brain.config
    np.testing.assert_array_equal(again.encode(windows, "01"), brain.encode(windows, "01"))
    assert not list((tmp_path / "m").rglob("*.pt")) and not list((tmp_path / "m").rglob("*.pkl"))
    with pytest.raises(DataError, match="must be those of the weights"):
        again.move("02", grid_space(52), moments_of(grid_space(52)))


@pytest.mark.parametrize("part", ["masked.json", "masked.safetensors", "space.safetensors", "moments.safetensors"])
def test_a_missing_or_corrupt_part_is_named(tmp_path: Path, part: str) -> None:
    fitted().save(tmp_path / "m")
    file = next((tmp_path / "m").rglob(part))
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises((DataError, ConfigError), match=part):
        MaskedBrain.load(tmp_path / "m")


def test_attention_is_mapped_to_voxels_and_means_one() -> None:
    brain = fitted()
    chart = brain.attention(cut(toy_run("a")), "01")
    assert chart.shape == (2, 40)  # two layers: the first is the middle and the last the last
    np.testing.assert_allclose(chart.mean(1), 1, rtol=1e-5)  # 40 voxels in 10 whole patches
    patches = brain.patches("01")
    assert all(np.ptp(chart[:, voxels], axis=1).max() == 0 for voxels in patches.voxels)
    with pytest.raises(DataError, match=r"layers must lie within 0..1, got \[5\]"):
        brain.attention(cut(toy_run("a")), "01", layers=[5])


def test_weights_are_mapped_to_the_voxels_they_belong_to() -> None:
    brain = fitted()
    with torch.no_grad():
        brain.net.end(key_of("01")).weight[3, 1] = 100.0
    chart = brain.weight_map("01")
    assert np.argmax(chart) == brain.patches("01").voxels[3, 1] and chart.max() == pytest.approx(400)


def test_a_fit_goes_on_from_its_checkpoint_and_refuses_one_of_other_voxels(tmp_path: Path) -> None:
    whole = trained_on(TINY, toy_run("a"), toy_run("b", seed=2), steps=6)
    loop, runs = LOOP.model_copy(update={"steps": 6, "checkpoint_every": 3}), (toy_run("a"), toy_run("b", seed=2))

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == 5:
            raise Stop

    with pytest.raises(Stop):
        MaskedBrain(TINY).fit(*memory_runs(runs), loop=loop, folder=tmp_path, on_progress=stop, cpu=True)
    resumed = MaskedBrain(TINY)
    assert resumed.fit(*memory_runs(runs), loop=loop, folder=tmp_path, cpu=True).resumed_at == 3
    for name, value in whole.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name
    other = memory_runs([toy_run("a", voxels=44)])
    with pytest.raises(DataError, match=r"got other voxels.01 \(40 voxels of toy volume, .*, not 44 voxels of toy"):
        MaskedBrain(TINY).fit(*other, loop=loop, folder=tmp_path, cpu=True)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_many_subjects_train_alike_on_one_and_two_processes(tmp_path: Path, kind: str) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_masked as t\n"
        "path, split = t.store_of(Path(sys.argv[2]))\n"
        "loop = t.LOOP.model_copy(update={'steps': 8})\n"
        "brain = t.MaskedBrain(t.TINY)\n"
        "done = brain.fit(*t.store_runs(path, split), loop=loop, cpu=True, folder=Path(sys.argv[3]))\n"
        "print(*done.losses, float(abs(brain.encode(t.cut(t.toy_run('a')), '01')).mean()))\n"
    )
    toy_store(tmp_path)
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    curves = {}
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        known = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if processes > 1:
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
            known |= sharded if kind == "fsdp" else {}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path), str(tmp_path / str(processes))],
                stdout=subprocess.PIPE,
                text=True,
                env=known | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            )
            for rank in range(processes)
        ]
        outputs = [each.communicate(timeout=300)[0] for each in started]
        curves[processes] = [float(value) for value in outputs[0].split()]
    assert len(curves[1]) == 9  # of 8 steps, and of the tokens afterwards
    np.testing.assert_allclose(curves[2], curves[1], rtol=1e-4)


@pytest.fixture(scope="module")
def benchmark_script() -> Iterator[Path]:
    yield Path(__file__).parents[2] / "benchmarks" / "masked.py"


@pytest.mark.heavy
def test_the_benchmark_ends_with_an_object_of_what_it_measured(benchmark_script: Path) -> None:
    import json

    command = [sys.executable, benchmark_script, "--json", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"ratio", "samples_per_s", "matrix_peak_share"} <= set(found) and found["ratio"] > 0
    assert 0 < found["matrix_peak_share"] < 1 and found["same_loss"][0] == pytest.approx(
        found["same_loss"][1], rel=1e-4
    )
