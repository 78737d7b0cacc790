"""The U-Net over clips against the one over pictures that it was made from."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from torch.nn.functional import mse_loss

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.generate.attention import SparseCausalAttention
from neuroreel.generate.inflate import inflate, motion_unet
from neuroreel.generate.samplers import denoise, make_sampler
from neuroreel.nets.weights import fill, read_about

COMMON = {"sample_size": 8, "norm_num_groups": 4, "attention_head_dim": 2, "cross_attention_dim": 16}
WORLD = COMMON | {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
}
STABLE = COMMON | {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 2}  # blocks as Stable Diffusion v1-5
XL = WORLD | {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "use_linear_projection": True}
XL |= {"projection_class_embeddings_input_dim": 6 * 4 + 10, "transformer_layers_per_block": (1, 2)}
FRAMES, N = 4, 2


@pytest.fixture(params=["world", "stable", "xl"])
def unet(request):
    torch.manual_seed(0)
    return UNet2DConditionModel(**{"world": WORLD, "stable": STABLE, "xl": XL}[request.param]).eval()


@pytest.fixture
def small():
    torch.manual_seed(0)
    return UNet2DConditionModel(**WORLD).eval()


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def added(unet, n):
    if unet.config.addition_embed_type != "text_time":
        return None
    return {"text_embeds": drawn(n, 10, seed=5), "time_ids": torch.arange(6 * n).view(n, 6).float()}


def by_frame(unet, x, t, tokens):
    """What the 2-D network says of each frame by itself."""
    with torch.no_grad():
        more, out = added(unet, len(x)), torch.empty_like(x)
        for row in range(len(x)):
            one = {key: value[row : row + 1] for key, value in more.items()} if more else None
            for i in range(x.shape[2]):
                told = tokens[row : row + 1] if tokens.ndim == 3 else tokens[row : row + 1, i]
                out[row, :, i] = unet(x[row : row + 1, :, i], t[row], told, added_cond_kwargs=one).sample[0]
    return out


@torch.no_grad()
def of_clip(video, x, t, tokens):
    return video(x, t, tokens, added_cond_kwargs=added(video, len(x))).sample


@pytest.mark.parametrize("size", [(8, 8), (5, 12)])
def test_inflated_with_self_attention_is_the_2d_network_frame_by_frame(unet, size):
    x, t = drawn(N, 4, FRAMES, *size), torch.tensor([10, 700])
    video = inflate(unet, FRAMES, attention="self")
    for tokens in (drawn(N, 3, 16), drawn(N, FRAMES, 3, 16)):
        torch.testing.assert_close(of_clip(video, x, t, tokens), by_frame(unet, x, t, tokens), rtol=1e-4, atol=1e-5)


def test_sparse_causal_attention_changes_nothing_where_all_frames_are_equal_and_something_where_not(unet):
    still, tokens, t = drawn(N, 4, 1, 8, 8).expand(-1, -1, FRAMES, -1, -1), drawn(N, 3, 16), torch.tensor([10, 700])
    video = inflate(unet, FRAMES)
    torch.testing.assert_close(of_clip(video, still, t, tokens), by_frame(unet, still, t, tokens), rtol=1e-4, atol=1e-5)
    moving = drawn(N, 4, FRAMES, 8, 8)
    apart = of_clip(video, moving, t, tokens) - by_frame(unet, moving, t, tokens)
    assert apart[:, :, 0].abs().max() < 1e-5 < 1e-3 < apart[:, :, 1:].abs().amax(dim=(0, 1, 3, 4)).min()


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_sparse_causal_attention_is_that_of_a_dense_mask(small, frames):
    attn, places = small.mid_block.attentions[0].transformer_blocks[0].attn1, 9
    x = drawn(N * frames, places, 16)
    rows = x.view(N, frames * places, attn.heads * 8)
    q, k, v = (f(rows).view(N, -1, attn.heads, 8).transpose(1, 2) for f in (attn.to_q, attn.to_k, attn.to_v))
    frame = torch.arange(frames).repeat_interleave(places)
    seen = [frame == (frame[:, None] - back).clamp(min=0) for back in (2, 1)]
    scores = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(~(seen[0] | seen[1]), -torch.inf)
    expected = attn.to_out[0]((scores.softmax(-1) @ v).transpose(1, 2).reshape(N * frames, places, 16))
    torch.testing.assert_close(SparseCausalAttention(frames)(attn, x), expected, rtol=1e-5, atol=1e-6)


def test_a_frame_depends_on_no_later_one_without_attention_over_time(small):
    x, tokens = drawn(1, 4, FRAMES, 8, 8), drawn(1, 3, 16)
    video = inflate(small, FRAMES, temporal=False)
    other = x.clone()
    other[:, :, 2] += 1
    changed = (of_clip(video, x, 5, tokens) - of_clip(video, other, 5, tokens)).abs().amax(dim=(0, 1, 3, 4))
    assert torch.equal(changed > 0, torch.tensor([False, False, True, True]))


@pytest.mark.parametrize("make", [inflate, motion_unet])
def test_attention_over_time_has_no_effect_at_first_and_has_one_after_a_step(small, make):
    x, tokens, t = drawn(N, 4, 1, 8, 8).expand(-1, -1, FRAMES, -1, -1), drawn(N, 3, 16), torch.tensor([10, 700])
    video = make(small, FRAMES)
    torch.testing.assert_close(of_clip(video, x, t, tokens), by_frame(small, x, t, tokens), rtol=1e-4, atol=1e-5)
    step = torch.optim.SGD(video.trainable(("temporal",)), lr=0.1)
    mse_loss(video(x, t, tokens).sample, drawn(*x.shape, seed=3)).backward()
    step.step()
    found = of_clip(video, x, t, tokens)
    assert (found - by_frame(small, x, t, tokens)).abs().max() > 1e-3
    mse_loss(video(x, t, tokens).sample, drawn(*x.shape, seed=3)).backward()
    step.step()  # what is before the output layer has a gradient now: equal frames come apart by their positions
    assert of_clip(video, x, t, tokens).std(dim=2).max() > 1e-6


@pytest.mark.parametrize(
    ("parts", "layers"),
    [
        (("queries", "cross", "temporal"), (".attn1.to_q.", ".attn2.", ".temporal.")),
        (("self",), (".attn1.",)),
        (("temporal",), (".temporal.",)),
    ],
)
def test_only_the_named_layers_get_gradients_and_change(small, parts, layers):
    video = inflate(small, FRAMES)
    assert not any(weight.requires_grad for weight in video.parameters())
    before = {name: weight.clone() for name, weight in video.named_parameters()}
    step = torch.optim.SGD(video.trainable(parts), lr=1.0)
    mse_loss(video(drawn(N, 4, FRAMES, 8, 8), 5, drawn(N, 3, 16)).sample, drawn(N, 4, FRAMES, 8, 8, seed=3)).backward()
    step.step()
    named = {name for name in before if any(layer in name for layer in layers)}
    assert named == {name for name, weight in video.named_parameters() if weight.grad is not None}
    changed = {name for name, weight in video.named_parameters() if not torch.equal(weight, before[name])}
    assert changed <= named and changed


@pytest.mark.parametrize("make", [inflate, motion_unet])
def test_the_network_that_was_given_stays_as_it_was_and_makes_the_same_one_again(small, make):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    state = torch.random.get_rng_state()
    video, again = make(small, FRAMES, seed=3), make(small, FRAMES, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for weight in video.trainable():
        weight.data += 1
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(weight.requires_grad for weight in small.parameters())
    other = make(small, FRAMES, seed=4).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("make", [inflate, motion_unet])
def test_gradient_checkpointing_gives_the_same_gradients(small, make):
    found = []
    for checkpointed in (False, True):
        video = make(small, FRAMES).train()
        weights = video.trainable()
        if checkpointed:
            video.enable_gradient_checkpointing()
        for _ in range(2):  # after the first step all layers have a gradient
            video(drawn(N, 4, FRAMES, 8, 8), 5, drawn(N, 3, 16)).sample.square().mean().backward()
            torch.optim.SGD(weights, lr=0.1).step()
        found.append([weight.grad for weight in weights])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-4, atol=1e-7)


def test_checkpointing_does_run_the_blocks_again(small):
    video = inflate(small, FRAMES)
    video.trainable()
    calls = []
    block = video.unet.mid_block.attentions[0].transformer_blocks[0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(2):
        video(drawn(N, 4, FRAMES, 8, 8), 5, drawn(N, 3, 16)).sample.sum().backward()
        video.enable_gradient_checkpointing()
    assert len(calls) == 1 + 2


@pytest.mark.parametrize("make", [inflate, motion_unet])
def test_tuned_layers_alone_are_saved_and_come_back(small, make, tmp_path):
    video = make(small, FRAMES)
    for weight in video.trainable():
        weight.data += 0.1
    video.save(tmp_path / "tuned.safetensors")
    again = make(small, FRAMES, seed=9)
    again.load(tmp_path / "tuned.safetensors")
    x, tokens, t = drawn(N, 4, FRAMES, 8, 8), drawn(N, 3, 16), torch.tensor([10, 700])
    assert torch.equal(of_clip(video, x, t, tokens), of_clip(again, x, t, tokens))
    assert set(video.tuned_state()) == set(again.tuned_state()) < set(video.state_dict())
    assert not any(".resnets." in name or "attn1.to_k" in name for name in video.tuned_state() if "motion" not in name)
    assert read_about(tmp_path / "tuned.safetensors")["frames"] == str(FRAMES)


def test_tuned_layers_go_to_no_other_network(small, tmp_path):
    file = tmp_path / "tuned.safetensors"
    inflate(small, FRAMES).save(file)
    with pytest.raises(ConfigError, match=r"frames of the weights must be that of the network \(5\), got 4 \("):
        inflate(small, 5).load(file)
    with pytest.raises(ConfigError, match=r"attention of the weights must be that of the network \(self\), got sparse"):
        inflate(small, FRAMES, attention="self").load(file)
    with pytest.raises(ConfigError, match=r"kind of the weights must be that of the network \(motion\), got inflated"):
        motion_unet(small, FRAMES).load(file)
    other = UNet2DConditionModel(**WORLD)
    with pytest.raises(DataError, match="fingerprint of the weights must be that of the network"):
        inflate(other, FRAMES).load(file)
    fill(other, small.state_dict())
    inflate(other.bfloat16(), FRAMES).load(file)  # the same network, held in another precision


@pytest.mark.parametrize("make", [inflate, motion_unet])
def test_wrong_shapes_are_one_sentence(small, make):
    video, x, tokens = make(small, FRAMES), drawn(N, 4, FRAMES, 8, 8), drawn(N, 3, 16)
    with pytest.raises(
        ConfigError, match=r"latents must be \(n, 4, 4, height, width\) for this network, got \(2, 4, 3"
    ):
        video(x[:, :, :3], 5, tokens)
    with pytest.raises(ConfigError, match=r"token width must be that of the network \(16\), got 12"):
        video(x, 5, tokens[..., :12])
    with pytest.raises(
        ConfigError, match=r"tokens must be \(2, tokens, width\) or \(2, 4, tokens, width\), got \(2, 3,"
    ):
        video(x, 5, drawn(N, 3, 3, 16))
    with pytest.raises(ConfigError, match="trainable part must be one of cross, queries, self, temporal, got 'all'"):
        video.trainable(("all",))
    with pytest.raises(ConfigError, match="frames must be a whole number of 1 or more, got 0"):
        make(small, 0)


def test_networks_that_cannot_be_inflated_are_one_sentence(small):
    with pytest.raises(ConfigError, match="attention must be one of self, sparse-causal, got 'dense'"):
        inflate(small, FRAMES, attention="dense")
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None}
    with pytest.raises(ConfigError, match="U-Net must have blocks with cross-attention, got DownBlock2D/DownBlock2D"):
        inflate(UNet2DConditionModel(**WORLD | plain), FRAMES)
    with pytest.raises(ConfigError, match="trainable part must be in the network, got 'temporal'"):
        inflate(small, FRAMES, temporal=False).trainable()


def test_motion_unet_is_the_2d_network_frame_by_frame_until_it_is_trained(unet):
    x, t, tokens = drawn(N, 4, FRAMES, 8, 8), torch.tensor([10, 700]), drawn(N, 3, 16)
    video = motion_unet(unet, FRAMES)
    torch.testing.assert_close(of_clip(video, x, t, tokens), by_frame(unet, x, t, tokens), rtol=1e-4, atol=1e-5)


def test_motion_unet_takes_a_trained_adapter_and_tokens_of_every_frame():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**STABLE).eval()
    adapter = MotionAdapter((8, 8, 16, 16), motion_num_attention_heads=2, motion_norm_num_groups=4)
    x, tokens = drawn(1, 4, FRAMES, 8, 8), drawn(1, FRAMES, 3, 16)
    video = motion_unet(unet, FRAMES, adapter)
    assert (of_clip(video, x, 5, tokens) - by_frame(unet, x, torch.tensor([5]), tokens)).abs().max() > 1e-3
    kept = video.unet.down_blocks[1].motion_modules[0].proj_out.weight
    assert torch.equal(kept, adapter.down_blocks[1].motion_modules[0].proj_out.weight)


def test_frames_that_the_motion_modules_cannot_take_and_wrong_adapters_are_one_sentence(small):
    with pytest.raises(ConfigError, match=r"^frames must be no more than the motion modules can take \(3\), got 4$"):
        motion_unet(small, 4, {"motion_max_seq_length": 3})
    with pytest.raises(ConfigError, match=r"motion setting must be one of .*motion_max_seq_length.*, got 'length'"):
        motion_unet(small, 4, {"length": 3})
    with pytest.raises(ConfigError, match=r"block_out_channels of the motion adapter must be \[8, 16\], got \[8, 8\]"):
        motion_unet(small, 4, MotionAdapter((8, 8), motion_norm_num_groups=4, motion_num_attention_heads=2))
    with pytest.raises(ConfigError, match="resnet_time_scale_shift of a U-Net with motion modules must be 'default'"):
        motion_unet(UNet2DConditionModel(**WORLD, resnet_time_scale_shift="scale_shift"), 4)


@pytest.mark.parametrize(
    "make", [lambda unet: inflate(unet, FRAMES, attention="self"), lambda u: motion_unet(u, FRAMES)]
)
def test_samplers_take_it_as_they_take_a_network_of_pictures(small, make):
    noise, tokens, silent = drawn(N, 4, FRAMES, 8, 8), drawn(N, 3, 16), drawn(1, 3, 16, seed=2)
    scheduler = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False}
    clips = denoise(make(small), noise, tokens, silent, make_sampler("ddim", scheduler), steps=3)
    for i in range(FRAMES):
        frame = denoise(small, noise[:, :, i], tokens, silent, make_sampler("ddim", scheduler), steps=3)
        torch.testing.assert_close(clips[:, :, i], frame, rtol=1e-3, atol=1e-4)
