"""Pipelines of diffusers, built at small size, saved, opened again without a network and driven by tokens."""

import json
import os
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from neuroreel.core.errors import ConfigError, NeuroreelWarning
from neuroreel.generate.plugin import generate, open_pipeline, pooled_width, token_shape
from neuroreel.generate.samplers import denoise, make_sampler
from neuroreel.nets.autoencoder import FoldedAutoencoder

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 34}
NOISE = {"beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
COUNTS = {"stable": 12, "world": 12, "animate": 12, "wan": 512, "ltx": 128, "xl": 77}
FRAMES = {"stable": 1, "world": 1, "animate": 3, "wan": 5, "ltx": 9, "xl": 1}
SIZES = {"stable": 16, "world": 16, "animate": 16, "wan": 16, "ltx": 32, "xl": 16}


def autoencoder():
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks)


def tokenizer():
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "a", "b"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=12)


def text_encoder():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=6, max_position_embeddings=12, bos_token_id=0, eos_token_id=1, **sizes)
    )


def adapter():
    return MotionAdapter(
        (8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=6,
    )


def stable_parts():
    return {
        "vae": autoencoder(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "unet": UNet2DConditionModel(**UNET),
        "scheduler": DDIMScheduler(**NOISE),
    }


def build_stable():
    empty = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**stable_parts(), **empty)


def build_world():
    """The parts of the generator that ships with the package."""
    empty = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts = stable_parts() | {"vae": FoldedAutoencoder(block_out_channels=(8, 8, 8), norm_num_groups=4)}
    parts["unet"] = UNet2DConditionModel(**UNET, addition_embed_type="text", addition_embed_type_num_heads=4)
    return diffusers.StableDiffusionPipeline(**parts, **empty)


def build_animate():
    return diffusers.AnimateDiffPipeline(**stable_parts(), motion_adapter=adapter())


def build_wan():
    net = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.WanPipeline(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, transformer=net)


def build_ltx():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 16}
    net = LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_layers=1, **sizes)
    four, five = (8, 8, 8, 8), (1, 1, 1, 1, 1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=four,
        decoder_block_out_channels=four,
        layers_per_block=five,
        decoder_layers_per_block=five,
    )
    parts = {"vae": vae, "transformer": net, "scheduler": FlowMatchEulerDiscreteScheduler()}
    return diffusers.LTXPipeline(tokenizer=None, text_encoder=None, **parts)


def build_xl():
    empty = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    parts = {"vae": autoencoder(), "unet": UNet2DConditionModel(**UNET | XL), "scheduler": DDIMScheduler(**NOISE)}
    return diffusers.StableDiffusionXLPipeline(**empty, **parts)


BUILD = {
    "stable": build_stable,
    "world": build_world,
    "animate": build_animate,
    "wan": build_wan,
    "ltx": build_ltx,
    "xl": build_xl,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, build in BUILD.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp("pipelines") / name
        build().save_pretrained(found[name])
    index = found["world"] / "model_index.json"
    index.write_text(index.read_text().replace('"neuroreel"', '"neuroreel.nets.autoencoder"'))
    return found


@pytest.fixture(scope="module")
def pipelines(folders):
    return {name: open_pipeline(folder) for name, folder in folders.items()}


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clips(pipeline, name, tokens, null, **settings):
    more = {"pooled": drawn(len(tokens), 10)} if name == "xl" else {}
    options = {"frames": FRAMES[name], "size": SIZES[name], "steps": 2, "guidance": 3.0}
    return generate(pipeline, tokens, null, **options | more | settings)


@pytest.mark.parametrize("name", BUILD)
def test_tokens_make_frames_by_a_pipeline_that_was_saved_and_opened_again(pipelines, name):
    tokens, null = drawn(2, 12, 16), drawn(1, 12, 16, seed=2)
    found = clips(pipelines[name], name, tokens, null)
    assert found.shape == (2, FRAMES[name], SIZES[name], SIZES[name], 3)
    assert found.dtype == np.uint8 and found.std() > 1
    other = clips(pipelines[name], name, torch.cat([tokens[:1], 3 * drawn(1, 12, 16, seed=4)]), null)
    assert np.array_equal(found[0], other[0]) and not np.array_equal(found[1], other[1])
    assert not np.array_equal(found, clips(pipelines[name], name, tokens, -3 * null))


@pytest.mark.parametrize("name", BUILD)
def test_a_row_depends_on_its_number_and_the_seed_and_not_on_the_batch(pipelines, name):
    tokens = drawn(1, 12, 16).expand(3, -1, -1)
    found, done = clips(pipelines[name], name, tokens, None, guidance=1.0), []
    assert not np.array_equal(found[0], found[1])
    more = {"pooled": drawn(3, 10)[1:]} if name == "xl" else {}
    part = clips(
        pipelines[name], name, tokens[1:], None, guidance=1.0, batch=1, first=1, on_progress=done.append, **more
    )
    assert np.abs(part.astype(int) - found[1:]).max() <= 1 and done == [1, 2]
    assert not np.array_equal(found, clips(pipelines[name], name, tokens, None, guidance=1.0, seed=1))


@pytest.mark.parametrize("name", BUILD)
def test_count_and_width_of_the_tokens_are_read_from_the_pipeline(pipelines, name):
    assert token_shape(pipelines[name]) == (COUNTS[name], 16)
    assert pooled_width(pipelines[name]) == (10 if name == "xl" else None)


def test_pictures_are_those_of_a_loop_written_out(folders, pipelines):
    tokens, null = drawn(1, 12, 16), drawn(1, 12, 16, seed=2)
    kept = []

    def keep(pipeline, i, t, now):
        kept.append(now["latents"])
        return {}

    settings = {"callback_on_step_end": keep}
    settings |= {"latents": drawn(1, 4, 8, 8, seed=7)}
    found = clips(pipelines["stable"], "stable", tokens, null, settings=settings)
    unet = UNet2DConditionModel.from_pretrained(folders["stable"] / "unet")
    vae = AutoencoderKL.from_pretrained(folders["stable"] / "vae")
    latents = denoise(unet, settings["latents"], tokens, null, make_sampler("ddim", NOISE), steps=2, guidance=3.0)
    torch.testing.assert_close(kept[-1], latents, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        pixels = vae.decode(latents / vae.config.scaling_factor).sample
    expected = ((pixels[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert np.abs(found[0, 0] - expected).max() <= 1


def test_a_stable_diffusion_is_opened_as_another_class_with_a_part_given(folders):
    torch.manual_seed(0)
    pipeline = open_pipeline(folders["stable"], "AnimateDiffPipeline", parts={"motion_adapter": adapter()})
    assert type(pipeline).__name__ == "AnimateDiffPipeline"
    assert clips(pipeline, "animate", drawn(1, 12, 16), None, guidance=1.0).shape == (1, 3, 16, 16, 3)


def test_text_encoders_are_opened_only_where_they_are_asked_for(folders, pipelines):
    assert pipelines["stable"].text_encoder is None and pipelines["stable"].tokenizer is not None
    spoken = open_pipeline(folders["stable"], text=True)
    with torch.no_grad():
        told, null = spoken.encode_prompt("a b", "cpu", 1, True)
    assert told.shape[1:] == token_shape(spoken)
    pictures = generate(pipelines["stable"], told, null, size=16, steps=1, settings={"latents": drawn(1, 4, 8, 8)})
    options = {"height": 16, "width": 16, "num_inference_steps": 1, "latents": drawn(1, 4, 8, 8), "output_type": "np"}
    assert np.array_equal(pictures[0], (spoken("a b", **options).images * 255).round())


def test_pipelines_that_take_no_tokens_are_one_sentence(tmp_path):
    index = {"_class_name": "StableVideoDiffusionPipeline", "_diffusers_version": "0.40.0"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    said = "StableVideoDiffusionPipeline must take prompt_embeds to be driven by tokens, got image, height, "
    with pytest.raises(ConfigError, match=said):
        open_pipeline(tmp_path)
    plain = diffusers.DDIMPipeline(diffusers.UNet2DModel(block_out_channels=(32,) * 4), DDIMScheduler())
    for call in (token_shape, lambda p: generate(p, drawn(1, 2, 16), size=16)):
        with pytest.raises(
            ConfigError, match=r"^DDIMPipeline must take prompt_embeds to be driven by tokens, got batch"
        ):
            call(plain)


def test_tokens_of_another_width_or_count_name_both(pipelines):
    with pytest.raises(ConfigError, match=r"width of the tokens must be that of the WanPipeline \(16\), got 12"):
        clips(pipelines["wan"], "wan", drawn(1, 2, 12), drawn(1, 2, 12))
    with pytest.raises(
        ConfigError, match=r"width of the null must be that of the StableDiffusionPipeline \(16\), got 1"
    ):
        clips(pipelines["stable"], "stable", drawn(1, 2, 16), drawn(1, 2, 12))
    with pytest.raises(ConfigError, match=r"count of the null must be that of the tokens \(2\), got 3"):
        clips(pipelines["stable"], "stable", drawn(1, 2, 16), drawn(1, 3, 16))
    with pytest.raises(ConfigError, match=r"null must have 1 row, or as many as the tokens \(3\), got 2"):
        clips(pipelines["stable"], "stable", drawn(3, 2, 16), drawn(2, 2, 16))
    with pytest.raises(ConfigError, match=r"tokens must be \(n, count, width\), got \(2, 16\)"):
        clips(pipelines["stable"], "stable", drawn(2, 16), None)
    for got in (None, drawn(1, 9)):
        with pytest.raises(ConfigError, match=r"pooled must be \(1, 10\) for a StableDiffusionXLPipeline, got "):
            clips(pipelines["xl"], "xl", drawn(1, 2, 16), None, guidance=1.0, pooled=got)


def test_frames_and_sizes_that_a_pipeline_cannot_make_are_one_sentence(pipelines):
    for name, settings, said in (
        ("wan", {"frames": 6}, "frames must be 1 more than a multiple of 4 for a WanPipeline, got 6"),
        ("ltx", {"frames": 6}, "frames must be 1 more than a multiple of 8 for a LTXPipeline, got 6"),
        ("animate", {"frames": 7}, r"frames must be no more than the motion modules can take \(6\), got 7"),
        ("stable", {"frames": 2}, "frames must be 1 for a StableDiffusionPipeline, which makes pictures, got 2"),
        ("wan", {"size": (16, 24)}, "width must be a multiple of 16 for a WanPipeline, got 24"),
        ("stable", {"size": 12}, "StableDiffusionPipeline must be able to take these settings, got `height` and"),
        ("stable", {"guidance": 0.5}, "guidance must be 1 or more, got 0.5"),
        ("stable", {"guidance": 2}, "null must be given, or guidance be 1, for a StableDiffusionPipeline, got None"),
        ("stable", {"settings": {"fps": 3}}, "setting of a StableDiffusionPipeline must be one of .*, got 'fps'"),
    ):
        with pytest.raises(ConfigError, match=said):
            clips(pipelines[name], name, drawn(1, 2, 16), None, **{"guidance": 1.0} | settings)


def test_a_pipeline_that_is_made_for_one_count_of_tokens_takes_no_other():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 2, "text_embed_dim": 16}
    sizes |= {"sample_width": 2, "sample_height": 2, "sample_frames": 9, "max_text_seq_length": 6, "num_layers": 1}
    net = CogVideoXTransformer3DModel(in_channels=4, out_channels=4, **sizes)
    blocks = {"down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4}
    vae = AutoencoderKLCogVideoX(block_out_channels=(4,) * 4, latent_channels=4, norm_num_groups=2, **blocks)
    pipeline = diffusers.CogVideoXPipeline(None, None, vae=vae, transformer=net, scheduler=DDIMScheduler())
    assert generate(pipeline, drawn(1, 6, 16), drawn(1, 6, 16), frames=9, size=16, steps=1).shape == (1, 9, 16, 16, 3)
    with pytest.raises(ConfigError, match=r"count of the tokens must be that of the CogVideoXPipeline \(6\), got 4"):
        generate(pipeline, drawn(1, 4, 16), drawn(1, 4, 16), frames=9, size=16, steps=1)


def test_guidance_goes_where_a_pipeline_has_true_guidance_beside_a_learnt_one():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 16, "axes_dims_rope": (4, 4, 8)}
    net = FluxTransformer2DModel(in_channels=4, num_layers=1, num_single_layers=1, pooled_projection_dim=10, **sizes)
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.0}
    vae = AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1, **plain)
    empty = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = diffusers.FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, transformer=net, **empty)
    assert token_shape(pipeline) == (512, 16) and pooled_width(pipeline) == 10
    tokens, options = drawn(1, 3, 16), {"size": 16, "steps": 2, "pooled": drawn(1, 10)}
    one, three = (generate(pipeline, tokens, 9 * drawn(1, 3, 16, seed=2), guidance=g, **options) for g in (1.0, 3.0))
    assert one.shape == (1, 1, 16, 16, 3) and not np.array_equal(one, three)


def test_sources_that_are_no_pipeline_are_one_sentence(folders, tmp_path):
    rule = "pipeline must be a folder with a model_index.json, or a name on the hub that can be fetched, got "
    for source in (tmp_path, "nobody/nothing"):
        with pytest.raises(ConfigError, match=rule):
            open_pipeline(source, offline=True)
    with pytest.raises(ConfigError, match="pipeline must be of a class of diffusers, got 'UNet2DModel'"):
        open_pipeline(folders["stable"], "UNet2DModel")
    with pytest.raises(ConfigError, match=r"part of a StableDiffusionPipeline must be one of .*, got 'motion'"):
        open_pipeline(folders["stable"], parts={"motion": None})


def test_weights_that_are_no_safetensors_are_refused(tmp_path):
    build_stable().save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("unet/*.bin"))
    said = "pipeline must be a whole StableDiffusionPipeline, its weights as safetensors, got "
    with pytest.raises(ConfigError, match=said):
        open_pipeline(tmp_path)


def test_hidden_pictures_are_said(pipelines, monkeypatch):
    pipeline = pipelines["stable"]

    def black(image, *_):
        return torch.zeros_like(image), [True] * len(image)

    monkeypatch.setattr(pipeline, "run_safety_checker", black)
    with pytest.warns(NeuroreelWarning, match="safety checker must hide no picture that is to be scored, got 2 black"):
        clips(pipeline, "stable", drawn(2, 12, 16), None, guidance=1.0, batch=1)


def test_a_hub_name_is_read_from_where_hf_home_says(folders, tmp_path):
    cache = tmp_path / "hub" / "models--lab--small"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "snapshots" / "abc").symlink_to(folders["stable"])
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    code = "from neuroreel.generate import plugin as p; print(p.token_shape(p.open_pipeline('lab/small')))"
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(12, 16)", done.stderr
