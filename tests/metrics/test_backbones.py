import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub import constants
from safetensors.torch import save_file

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import sha256
from neuroreel.core.types import Reconstruction
from neuroreel.metrics.backbones import WORLD_ROLES, open_backbones, spread
from neuroreel.metrics.embedded import Absent, Backbone
from neuroreel.metrics.table import evaluate
from neuroreel.nets.alexnet import AlexNet, AlexNetConfig
from neuroreel.nets.inception import InceptionV3
from neuroreel.nets.residual import ResidualConfig, ResidualNet
from neuroreel.nets.weights import write_state

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
SIDES = {"size": {"height": 32, "width": 32}}
MEAN, SD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))


def make_vit():
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=60)
    return transformers.ViTForImageClassification(config), transformers.ViTImageProcessorPil(**SIDES)


def make_videomae():
    config = transformers.VideoMAEConfig(**SMALL, image_size=32, patch_size=8, num_frames=8, num_labels=60)
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return transformers.VideoMAEForVideoClassification(config), transformers.VideoMAEImageProcessorPil(**square)


def make_clip():
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    text = SMALL | {"vocab_size": 50, "max_position_embeddings": 8}
    net = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return net, transformers.CLIPImageProcessorPil(**square)


def make_efficientnet():
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320
    )
    net = transformers.EfficientNetModel(config)
    for weight in net.parameters():  # its own first weights let hardly anything through
        torch.nn.init.kaiming_normal_(weight) if weight.ndim > 1 else torch.nn.init.uniform_(weight, 0.5, 1)
    return net, transformers.EfficientNetImageProcessorPil(**SIDES)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return folders of small networks as transformers writes them, with the networks, their weights random."""
    torch.manual_seed(0)
    makers = {"image-classifier": make_vit, "video-classifier": make_videomae}
    makers |= {"image-text": make_clip, "efficientnet-b1": make_efficientnet}
    found = {}
    for role, make in makers.items():
        folder = tmp_path_factory.mktemp(role)
        net, processor = make()
        net.eval().save_pretrained(folder)
        processor.save_pretrained(folder)
        found[role] = folder, net, processor
    return found


@pytest.fixture
def clips():
    return np.random.default_rng(0).integers(0, 256, (3, 4, 40, 48, 3), dtype=np.uint8)


def answer(role, net, processor, frames):
    """Return what transformers alone makes of frames, one at a time."""
    pixels = [processor(frame, return_tensors="pt", input_data_format="channels_last") for frame in frames]
    x = torch.cat([one["pixel_values"] for one in pixels])
    with torch.no_grad():
        if role == "image-classifier":
            return net(x).logits.softmax(-1)
        return (net.get_image_features(x) if role == "image-text" else net(x)).pooler_output.flatten(1)


@pytest.mark.parametrize("role", ["image-classifier", "image-text", "efficientnet-b1"])
def test_networks_of_frames_answer_as_transformers_does(role, published, clips):
    folder, net, processor = published[role]
    backbone = open_backbones({role: str(folder)})[role]
    expected = answer(role, net, processor, clips.reshape(-1, 40, 48, 3)).numpy().reshape(3, 4, -1)
    np.testing.assert_allclose(backbone(clips), expected, rtol=1e-4, atol=1e-6)
    assert expected.std(axis=(0, 1)).max() > 1e-4
    assert backbone.weights_sha256 == sha256(folder / "model.safetensors")
    assert backbone.classes == (60 if role == "image-classifier" else None)


def test_a_network_of_clips_sees_frames_spread_evenly_as_its_processor_scales_them(published, clips):
    folder, net, processor = published["video-classifier"]
    shown = clips[:, [0, 0, 1, 1, 2, 2, 3, 3]]
    with torch.no_grad():
        x = processor([list(clip) for clip in shown], return_tensors="pt")["pixel_values"]
        expected = net(x).logits.softmax(-1).numpy()
    got = open_backbones({"video-classifier": str(folder)})["video-classifier"](clips)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(spread(16, 4), [2, 6, 10, 14])


def test_the_embedding_of_a_clip_is_the_mean_over_its_frames_for_video_text(published, clips):
    folder = str(published["image-text"][0])
    found = open_backbones({"image-text": folder, "video-text": folder})
    np.testing.assert_allclose(found["video-text"](clips), found["image-text"](clips).mean(axis=1), rtol=1e-5)


def test_the_older_layout_of_preprocessor_config_is_read(published, clips, tmp_path):
    folder, net, _ = published["image-text"]
    net.save_pretrained(tmp_path)
    old = json.loads((folder / "preprocessor_config.json").read_text())
    del old["image_processor_type"]
    old |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    roles = [open_backbones({"image-text": str(where)})["image-text"] for where in (folder, tmp_path)]
    np.testing.assert_array_equal(roles[0](clips), roles[1](clips))


def test_equal_frames_are_looked_at_once_and_answered_alike(published, clips):
    backbone = open_backbones({"image-text": str(published["image-text"][0])})["image-text"]
    still = np.broadcast_to(clips[:1, :1], clips.shape)
    assert (np.ptp(backbone(still), axis=(0, 1)) == 0).all()
    mixed = np.concatenate([clips[:1], still[:1]])
    np.testing.assert_allclose(backbone(mixed)[0], backbone(clips)[0], rtol=1e-5, atol=1e-7)


def alexnet_state(width=0.125):
    torch.manual_seed(1)
    net = AlexNet.seeded(AlexNetConfig(layout="torchvision", size=224, width=width, hidden=24, n_classes=7), 1)
    names = net.layout.names
    return {f"{names[k.partition('.')[0]]}.{k.partition('.')[2]}": v.clone() for k, v in net.state_dict().items()}


def torchvision_maps(state, x):
    """Return the maps after every ReLU of torchvision's AlexNet, written out."""
    maps = []
    for number, stride, pad in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        x = F.relu(F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], stride, pad))
        maps.append(x)
        x = F.max_pool2d(x, 3, 2) if number in (0, 3) else x
    return maps


def scaled(frames, side=None):
    x = (torch.from_numpy(frames).float() / 255 - MEAN) / SD
    x = x.permute(0, 3, 1, 2)
    if side is None:
        return x
    size = [side * length // min(x.shape[-2:]) for length in x.shape[-2:]]
    return F.interpolate(x, size, mode="bilinear", antialias=True)


@pytest.mark.parametrize(("role", "place"), [("alexnet2", 1), ("alexnet5", 4)])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_torchvisions_alexnet_gives_its_second_and_fifth_map(role, place, kind, clips, tmp_path):
    state, file = alexnet_state(), tmp_path / f"alexnet-owt.{kind}"
    save_file(state, file) if kind == "safetensors" else torch.save(state, file)
    backbone = open_backbones({role: str(file)})[role]
    expected = torchvision_maps(state, scaled(clips[0], 256))[place].flatten(1)
    np.testing.assert_allclose(backbone(clips)[0], expected, rtol=1e-3, atol=1e-4)
    assert backbone.tag == f"alexnet-owt-{sha256(file)[:8]}"


def lpips_files(folder, state):
    torch.manual_seed(2)
    widths = [len(state[f"features.{number}.bias"]) for number in (0, 3, 6, 8, 10)]
    linear = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(widths)}
    save_file(state, folder / "alexnet-owt.safetensors")
    save_file(linear, folder / "lpips-v0.1-alex.safetensors")
    return [linear[f"lin{i}.model.1.weight"] for i in range(5)]


def test_the_squared_distance_of_lpips_embeddings_is_lpips(clips, tmp_path):
    state = alexnet_state()
    linear = lpips_files(tmp_path, state)
    backbone = open_backbones({"lpips": str(tmp_path)})["lpips"]
    sides = [torchvision_maps(state, scaled(clips[i])) for i in (0, 1)]
    expected = 0
    for a, b, weight in zip(*sides, linear, strict=True):
        unit = [x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in (a, b)]
        expected = expected + F.conv2d((unit[0] - unit[1]) ** 2, weight).mean((1, 2, 3))
    seen = backbone(clips).astype(float)
    np.testing.assert_allclose(((seen[0] - seen[1]) ** 2).sum(-1), expected, rtol=1e-4)


def test_lpips_without_its_linear_weights_names_the_first(tmp_path):
    save_file(alexnet_state(), tmp_path / "alexnet.safetensors")
    with pytest.raises(DataError, match=r"^weights must have LPIPS's lin0\.model\.1\.weight, got nothing \("):
        open_backbones({"lpips": str(tmp_path / "alexnet.safetensors")})


def resnet_state():
    """Return a ResNet of bottlenecks in torchvision's names with SwAV's heads, its blocks written out here."""
    rng = torch.Generator().manual_seed(3)
    state = {}

    def add(name, norm, after, before, size):
        state[f"{name}.weight"] = torch.randn(after, before, size, size, generator=rng) / (before * size**2) ** 0.5
        for key in ("weight", "running_var"):
            state[f"{norm}.{key}"] = torch.rand(after, generator=rng) + 0.5
        for key in ("bias", "running_mean"):
            state[f"{norm}.{key}"] = torch.randn(after, generator=rng) / 10
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("conv1", "bn1", 8, 3, 7)
    before = 8
    for stage, depth in zip((1, 2, 3, 4), (2, 1, 1, 1), strict=True):
        inner = 4 * 2 ** (stage - 1)
        for block in range(depth):
            place = f"layer{stage}.{block}"
            for number, (wide, narrow, size) in enumerate(
                ((inner, before, 1), (inner, inner, 3), (4 * inner, inner, 1))
            ):
                add(f"{place}.conv{number + 1}", f"{place}.bn{number + 1}", wide, narrow, size)
            if block == 0:
                add(f"{place}.downsample.0", f"{place}.downsample.1", 4 * inner, before, 1)
            before = 4 * inner
    return state | {"projection_head.0.weight": torch.zeros(2, 2), "prototypes.weight": torch.zeros(2, 2)}


def torchvision_resnet(state, x):
    def layer(x, name, norm, stride=1):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        values = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, training=False)

    x = F.max_pool2d(F.relu(layer(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage, depth in zip((1, 2, 3, 4), (2, 1, 1, 1), strict=True):
        for block in range(depth):
            place, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = F.relu(layer(x, f"{place}.conv1", f"{place}.bn1"))
            inner = F.relu(layer(inner, f"{place}.conv2", f"{place}.bn2", stride))
            inner = layer(inner, f"{place}.conv3", f"{place}.bn3")
            beside = layer(x, f"{place}.downsample.0", f"{place}.downsample.1", stride) if block == 0 else x
            x = F.relu(inner + beside)
    return x.mean((2, 3))


def test_swavs_resnet_gives_its_pooled_features(clips, tmp_path):
    state, file = resnet_state(), tmp_path / "swav_800ep_pretrain.pth.tar"
    torch.save({f"module.{key}": value for key, value in state.items()}, file)
    backbone = open_backbones({"swav": str(file)})["swav"]
    expected = torchvision_resnet(state, scaled(clips[0], 224))
    np.testing.assert_allclose(backbone(clips[:1])[0], expected, rtol=1e-3, atol=1e-4)
    assert backbone.tag == f"swav_800ep_pretrain-{sha256(file)[:8]}"


def test_inception_has_the_published_number_of_weights_and_opens_from_a_file(clips, tmp_path):
    # 27,161,264 with the second classifier: torchvision's table of models
    with torch.device("meta"):
        trunk = sum(weight.numel() for weight in InceptionV3().parameters())
    second = (768 * 128 + 256) + (128 * 768 * 25 + 2 * 768) + (768 * 1000 + 1000)
    assert trunk + 2048 * 1000 + 1000 + second == 27_161_264
    torch.manual_seed(4)
    net = InceptionV3(unit=2).eval()
    extra = {"fc.weight": torch.zeros(3, 256), "AuxLogits.fc.weight": torch.zeros(3, 3)}
    save_file(net.state_dict() | extra, tmp_path / "inception_v3.safetensors")
    backbone = open_backbones({"inception": str(tmp_path / "inception_v3.safetensors")})["inception"]
    x = scaled(clips[0], 342)
    x = x * (SD / 0.5).view(3, 1, 1) + ((MEAN - 0.5) / 0.5).view(3, 1, 1)  # torchvision's transform_input
    with torch.no_grad():
        np.testing.assert_allclose(backbone(clips[:1])[0], net(x), rtol=1e-3, atol=1e-5)


@pytest.fixture
def world(tmp_path):
    """Return a folder laid out as the world's weights, with small random networks."""
    torch.manual_seed(5)
    make_clip()[0].half().save_pretrained(tmp_path / "clip")
    heads = {"category": 8, "doing": 7}
    net = ResidualNet(ResidualConfig(size=32, frames=6, widths=(4, 8), heads=heads, placed=("doing",)))
    (tmp_path / "video_classifier").mkdir()
    net.config.save(tmp_path / "video_classifier" / "config.json")
    write_state(tmp_path / "video_classifier" / "weights.safetensors", net, half=True)
    parts = {
        part: {"files": {f"{part}/{file.name}": sha256(file) for file in (tmp_path / part).iterdir()}}
        for part in ("clip", "video_classifier")
    }
    (tmp_path / "card.json").write_text(json.dumps({"parts": parts}))
    return tmp_path


def test_the_worlds_networks_open_from_their_folder(world, clips):
    found = open_backbones(dict.fromkeys(WORLD_ROLES, "world"), world_folder=world)
    shapes = {role: found[role](clips).shape for role in WORLD_ROLES}
    assert shapes["image-classifier"] == (3, 4, 40) and shapes["video-classifier"] == (3, 56)
    assert shapes["image-text"] == (3, 4, 12) and shapes["alexnet2"][:2] == (3, 4)
    for role in ("image-classifier", "video-classifier"):
        np.testing.assert_allclose(found[role](clips).sum(axis=-1), 1, rtol=1e-5)
        assert found[role].classes == shapes[role][-1]
    file = world / "video_classifier" / "weights.safetensors"
    assert found["video-classifier"].tag == f"video-classifier-world-{sha256(file)[:8]}"


def test_a_class_of_the_worlds_clips_is_a_category_with_what_it_does(world):
    clips = np.random.default_rng(1).integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    net = ResidualNet.load(
        world / "video_classifier" / "weights.safetensors",
        ResidualConfig.load(world / "video_classifier" / "config.json"),
    )
    answers = {name: values.softmax(1) for name, values in net.answers(torch.from_numpy(clips)).items()}
    expected = torch.einsum("nc,nd->ncd", answers["category"], answers["doing"]).flatten(1)
    found = open_backbones({"video-classifier": "world"}, world_folder=world)["video-classifier"]
    np.testing.assert_allclose(found(clips), expected, rtol=1e-4)


def test_the_worlds_pictures_are_embedded_as_its_clip_model_does(world):
    clips = np.random.default_rng(2).integers(0, 256, (1, 3, 32, 32, 3), dtype=np.uint8)
    net = transformers.CLIPModel.from_pretrained(world / "clip").float()
    pixels = torch.from_numpy(clips[0]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = net.get_image_features(pixels).pooler_output
    found = open_backbones({"image-text": "world"}, world_folder=world)["image-text"]
    np.testing.assert_allclose(found(clips)[0], expected, rtol=1e-4, atol=1e-6)


def test_a_world_that_is_not_there_is_said_by_role_and_alexnet_serves(tmp_path):
    found = open_backbones(dict.fromkeys(WORLD_ROLES, "world"), world_folder=tmp_path)
    assert isinstance(found["image-classifier"], Backbone) and isinstance(found["alexnet5"], Backbone)
    for role in ("video-classifier", "image-text"):
        expected = rf"^embed\['{role}'\] can't be opened: world must have the file card\.json, got none \("
        assert re.search(expected, found[role].reason)


def test_a_part_that_is_not_in_the_card_is_absent_and_a_changed_one_is_refused(world):
    card = json.loads((world / "card.json").read_text())
    file = world / "video_classifier" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"^weights part video_classifier must have the SHA-256"):
        open_backbones({"video-classifier": "world"}, world_folder=world)
    del card["parts"]["video_classifier"]
    (world / "card.json").write_text(json.dumps(card))
    found = open_backbones({"video-classifier": "world"}, world_folder=world)["video-classifier"]
    assert "world must have the part video_classifier, with video_classifier/weights.safetensors" in found.reason


@pytest.mark.parametrize(
    ("role", "missing"),
    [("image-text", "preprocessor_config.json"), ("image-text", "model.safetensors"), ("swav", "swav_800ep")],
)
def test_a_missing_file_is_named_and_its_metrics_are_skipped(role, missing, published, clips, make_samples, tmp_path):
    _, net, processor = published["image-text"]
    net.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / missing).unlink(missing_ok=True)
    found = open_backbones({role: str(tmp_path if role != "swav" else tmp_path / "swav_800ep.pth.tar")})
    assert isinstance(found[role], Absent) and missing in found[role].reason
    name = "clip-similarity" if role == "image-text" else "correlation-distance:swav"
    truth = make_samples(np.zeros((3, 1, 2), dtype=np.float32), clips, block=np.arange(3))
    table = evaluate({"a": Reconstruction(clips=clips)}, truth, variants=[name, "mse"], embed=found, draws=20)
    assert table.skipped == {name: found[role].reason} and set(table.rows["a"]) == {"mse"}


def test_what_is_asked_wrongly_is_one_sentence(published, tmp_path):
    with pytest.raises(ConfigError, match=r"^embed role must be one of alexnet2, .*, got 'sound'$"):
        open_backbones({"sound": "world"})
    with pytest.raises(ConfigError, match=r"^embed\['swav'\] must be a file or a hub name, since the world has only"):
        open_backbones({"swav": "world"})
    folder = published["image-text"][0]
    with pytest.raises(
        ConfigError, match=r"^embed\['image-classifier'\] must be a network of the type vit, got 'clip'"
    ):
        open_backbones({"image-classifier": str(folder)})
    torch.save(alexnet_state(), tmp_path / "alexnet.pth")
    with pytest.raises(DataError, match=r"^weights must be a ResNet with bottlenecks in torchvision's names"):
        open_backbones({"swav": str(tmp_path / "alexnet.pth")})


def test_a_network_without_its_head_is_refused_rather_than_drawn_at_random(tmp_path):
    net, processor = make_vit()
    net.vit.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"^network must have every layer of ViTForImageClassification.*classifier"):
        open_backbones({"image-classifier": str(tmp_path)})


def test_corrupt_weights_are_one_sentence(tmp_path):
    net, processor = make_vit()
    net.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"^network must be a whole ViTForImageClassification, got"):
        open_backbones({"image-classifier": str(tmp_path)})


def test_a_hub_name_is_read_from_the_cache_and_one_that_is_not_there_is_said(published, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, cache = "0" * 40, tmp_path / "models--owner--small-clip"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / commit).symlink_to(published["image-text"][0])
    found = open_backbones({"image-text": "owner/small-clip", "image-classifier": "owner/other"})
    assert found["image-text"].tag == f"small-clip-{sha256(published['image-text'][0] / 'model.safetensors')[:8]}"
    reason = r"^embed\['image-classifier'\] can't be opened: owner/other must be a folder, or a hub network that can be"
    assert re.match(reason, found["image-classifier"].reason)
    assert capfd.readouterr() == ("", "")
