from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neuroreel.brain.interpretation import Attending, attention_by_stage, attention_maps, keep_stage, stages_of
from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.stream import Moments, key_of
from neuroreel.core.attention import AttentionMaps, regions_or_networks
from neuroreel.core.errors import DataError
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Space

VOXELS, PATCH, SHAPE = 38, 4, {"dim": 16, "depth": 3, "heads": 2, "decoder_dim": 8, "decoder_depth": 1, "trs": 2}


def brain(seed: int = 0) -> MaskedBrain:
    """Return an encoder of 38 voxels in 10 patches, whose last has 2 of padding."""
    config = MaskedConfig(patch=PATCH, order="flat", decoder_heads=2, factors=0, **SHAPE)
    moments = Moments(np.zeros(VOXELS, np.float32), np.ones(VOXELS, np.float32))
    return MaskedBrain(config, seed=seed).move("01", Space("columns", VOXELS), moments)


def looking_at(patch: int, layer: int, sharpness: float = 20.0) -> MaskedBrain:
    """Return an encoder with weights set by hand: in one layer all patches look at one."""
    made = brain()
    ends = made.net.end(key_of("01"))
    with torch.no_grad():
        for weight in (ends.weight, ends.bias):
            weight.zero_()
        ends.position.zero_()
        ends.position[:, 0] = 1.0
        ends.position[patch, 0], ends.position[patch, 1] = 0.0, 1.0
        for number, block in enumerate(made.net.blocks()):
            for parameter in block.parameters():
                parameter.zero_()
            block.norm_space.weight.fill_(1.0)
            if number == layer:
                block.space.qkv.bias[:16] = sharpness  # every query alike
                block.space.qkv.weight[16:32, 1] = 1.0  # keys: how much of the planted patch's mark
    return made


@pytest.mark.parametrize("patch", [0, 4, 9])
def test_an_encoder_that_looks_at_one_patch_has_its_voxels_as_the_peak(patch: int) -> None:
    windows = np.random.default_rng(0).standard_normal((5, 2, VOXELS)).astype(np.float32)
    layers, found = attention_by_stage({"planted": looking_at(patch, layer=1)}, "01", windows)
    assert layers == (0, 1, 2)
    own = np.arange(VOXELS) // PATCH == patch
    assert np.allclose(found["planted"][1, own], 10, rtol=1e-3) and found["planted"][1, ~own].max() < 1e-2
    assert np.allclose(found["planted"][[0, 2]], 1)  # the other layers look at all alike


def test_attention_is_shared_out_whole_and_the_padding_has_none() -> None:
    windows = np.random.default_rng(1).standard_normal((7, 2, VOXELS)).astype(np.float32)
    made = brain(seed=3)
    chart = attention_by_stage({"any": made}, "01", windows, [2])[1]["any"]
    assert chart.shape == (1, VOXELS)
    first = made.patches("01").voxels[:, 0]  # a voxel of each patch has the patch's share
    assert chart[0, first].sum() == pytest.approx(10, rel=1e-5)
    assert np.ptp(chart[0, first]) > 1e-3


def test_attention_over_windows_is_that_of_a_dense_reference() -> None:
    windows = np.random.default_rng(2).standard_normal((3, 2, VOXELS)).astype(np.float32)
    made = brain(seed=5)
    x = made.net.tokens(torch.from_numpy(windows), key_of("01"))
    block = next(iter(made.net.blocks()))
    normal = torch.nn.functional.layer_norm(x, (16,), block.norm_space.weight, block.norm_space.bias)
    q, k = (
        normal @ block.space.qkv.weight[rows].T + block.space.qkv.bias[rows] for rows in (slice(0, 16), slice(16, 32))
    )
    q, k = (part.unflatten(-1, (2, 8)) for part in (q, k))  # (n, trs, patches, heads, width)
    dense = torch.einsum("ntqhd,ntkhd->nthqk", q, k).div(8**0.5).softmax(-1).mean((0, 1, 2, 3)) * 10
    chart = attention_by_stage({"any": made}, "01", windows, [0])[1]["any"][0]
    np.testing.assert_allclose(chart, dense.detach().numpy()[np.arange(VOXELS) // PATCH], rtol=1e-4)


def test_stages_are_kept_in_order_and_the_fitted_encoder_is_the_last(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for seed, name in enumerate(("masked modelling", "contrastive learning", "masked modelling")):
        keep_stage(brain(seed), run, name)
    system = SimpleNamespace(brain_=brain(9), subject_="01")
    found = stages_of(system, tmp_path)
    assert isinstance(system, Attending) and not isinstance(SimpleNamespace(), Attending)
    assert list(found) == ["masked modelling", "contrastive learning", "fitted"]
    weights = [made.net.end(key_of("01")).weight for made in found.values()]
    for made, seed in zip(weights, (2, 1, 9), strict=True):
        assert torch.equal(made, brain(seed).net.end(key_of("01")).weight)
    maps = attention_maps(system, tmp_path, np.zeros((2, 2, VOXELS), np.float32), [0])
    assert maps.depth == 3 and maps.layer_names() == ["first layer"] and set(maps.stages) == set(found)


def test_maps_are_what_was_saved_and_damaged_ones_are_one_sentence(tmp_path: Path) -> None:
    maps = AttentionMaps((0, 2), 3, {"b": np.ones((2, 4)), "a": np.zeros((2, 4))}, {"a": np.full((2, 4), 0.5)})
    maps.save(tmp_path / "maps.npz")
    again = AttentionMaps.load(tmp_path / "maps.npz")
    assert list(again.stages) == ["b", "a"] and again.layers == (0, 2) and again.depth == 3
    assert np.array_equal(again.shuffled["a"], maps.shuffled["a"])
    found = again.by_region({"V1": np.array([True, False, False, False]), "none": np.zeros(4, bool)})
    assert found == {"true": {"b": {"V1": [1, 1]}, "a": {"V1": [0, 0]}}, "shuffled": {"a": {"V1": [0.5, 0.5]}}}
    (tmp_path / "maps.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"^maps of attention must be whole, got .* \(.*maps.npz\)$"):
        AttentionMaps.load(tmp_path / "maps.npz")


def test_parcels_of_one_network_are_joined_and_other_regions_stay() -> None:
    left, right, other = np.eye(4, dtype=bool)[:3]
    rois = {"7Networks_LH_Vis_1": left, "7Networks_RH_Vis_3": right, "V1": other}
    found = regions_or_networks(rois)
    assert set(found) == {"Vis", "V1"} and found["Vis"].tolist() == [True, True, False, False]
