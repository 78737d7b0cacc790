"""Latent diffusion pipelines in the real folder layout, made small and at random: what stands in for a hub's."""

import json
from pathlib import Path

import torch


def write_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer of single letters, with its two files."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def write_stable_diffusion(folder: Path, *, side: int = 16, width: int = 16, prediction: str = "epsilon") -> Path:
    """Write a StableDiffusionPipeline for pictures of `side` pixels whose tokens are 8 of `width`."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    write_tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
    tokenizer = CLIPTokenizer.from_pretrained(folder.with_name(f"{folder.name}-tokenizer"))
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=4,
            ),
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=side // 2,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=width,
                attention_head_dim=2,
                norm_num_groups=4,
            ),
            scheduler=DDIMScheduler(
                beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=False, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def write_clip(folder: Path, *, side: int = 16, dim: int = 12) -> Path:
    """Write a CLIPModel with the tokenizer of single letters and its way of scaling pictures of `side` pixels."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = common | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = common | {"image_size": side, "patch_size": 8}
        net = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=dim))
    net.save_pretrained(folder)
    sides = {"height": side, "width": side}
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=sides).save_pretrained(folder)
    return folder


def write_blip(folder: Path, words: tuple[str, ...] = ("a", "circle", "square", "stripe")) -> Path:
    """Write a BlipForConditionalGeneration of few words, whose captions depend on the picture."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    numbers = {word: i for i, word in enumerate(vocabulary)}
    BertTokenizer(vocab=numbers, bos_token="[DEC]").save_pretrained(folder)
    common = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = common | {"vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 32}
    text |= {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0, "initializer_range": 1.0}
    vision = common | {"image_size": 16, "patch_size": 8, "initializer_range": 1.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BlipForConditionalGeneration(
            BlipConfig(text_config=text, vision_config=vision, projection_dim=8, image_text_hidden_size=16)
        )
    net.save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
