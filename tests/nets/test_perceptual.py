from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroreel.core.errors import ConfigError, FetchError
from neuroreel.nets.perceptual import open_clip_embedding, open_perceptual

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}


def pictures(n: int = 3, side: int = 64, seed: int = 0) -> torch.Tensor:
    """Smooth pictures (n, 3, side, side) from -1 to 1."""
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (side, side), mode="bilinear")


def small_vgg() -> nn.Sequential:
    """The first layers of a VGG as torchvision lists them, two stages of narrow ones."""
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    c = [nn.Conv2d(before, after, 3, padding=1) for before, after in ((3, 4), (4, 4), (4, 8), (8, 8))]
    return nn.Sequential(c[0], relu, c[1], relu, pool, c[2], relu, c[3], relu, pool)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    import transformers

    text = {**SMALL, "vocab_size": 99}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    transformers.CLIPImageProcessorPil().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videomae(tmp_path_factory) -> Path:
    import transformers

    folder = tmp_path_factory.mktemp("videomae")
    config = transformers.VideoMAEConfig(**SMALL, image_size=16, patch_size=8, num_frames=4, num_labels=5)
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil().save_pretrained(folder)
    return folder


def test_a_picture_is_nearer_to_itself_the_less_it_is_blurred():
    loss, true = open_perceptual("world"), pictures()
    noisy = [true + share * torch.randn(true.shape, generator=torch.Generator().manual_seed(1)) for share in (0.1, 0.5)]
    apart = [loss(made, true).mean() for made in (true, *noisy, pictures(seed=5))]
    assert apart[0] == 0
    assert 0 < apart[1] < apart[2] and apart[1] < apart[3]


def test_gradients_reach_the_pictures_and_leave_the_network_alone():
    loss, true = open_perceptual("world"), pictures()
    made = pictures(seed=1).requires_grad_()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.train()
    loss(made, true).mean().backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in loss.parameters()) and not loss.net.training
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_descending_it_brings_a_picture_to_another():
    loss, true = open_perceptual("world", ("conv1", "conv2")), pictures(1, 32)
    made = torch.zeros_like(true).requires_grad_()
    optimiser = torch.optim.Adam([made], lr=0.05)
    for _ in range(15):
        optimiser.zero_grad()
        loss(made, true).sum().backward()
        optimiser.step()
    assert loss(made, true) < 0.6 * loss(torch.zeros_like(true), true)


def test_a_vgg_is_looked_at_before_every_pooling(tmp_path):
    theirs = small_vgg()
    torch.save({f"features.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "vgg.pth")
    loss, (one, two) = open_perceptual(str(tmp_path / "vgg.pth")), (pictures(), pictures(seed=1))

    def expected(stop: int) -> torch.Tensor:
        mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        seen = [theirs[:stop](((x + 1) / 2 - mean.view(3, 1, 1)) / sd.view(3, 1, 1)) for x in (one, two)]
        return (F.normalize(seen[0]) - F.normalize(seen[1])).square().sum(1).mean((1, 2))

    torch.testing.assert_close(loss(one, two), (expected(4) + expected(9)) / 2, rtol=1e-3, atol=1e-5)


def test_weights_of_channels_weigh_as_lpips_has_them(tmp_path):
    from neuroreel.nets.alexnet import CONVS, LAYOUTS, LEARNT, AlexNet, AlexNetConfig

    net = AlexNet.seeded(AlexNetConfig(layout="torchvision", size=224, width=0.0625, hidden=8, n_classes=5), 0)
    names = LAYOUTS["torchvision"].names
    own = (
        (f"{names[layer]}.{key}", value) for layer in LEARNT for key, value in getattr(net, layer).named_parameters()
    )
    state = {key: value.detach() for key, value in own}
    torch.save(state, tmp_path / "plain.pth")
    half = {f"lin{i}.model.1.weight": torch.full((1, net.shapes[name][0], 1, 1), 0.5) for i, name in enumerate(CONVS)}
    torch.save(state | half, tmp_path / "lpips.pth")
    plain, weighted = (open_perceptual(str(tmp_path / f"{name}.pth")) for name in ("plain", "lpips"))
    pair = pictures(), pictures(seed=1)
    torch.testing.assert_close(weighted(*pair), plain(*pair) / 2)


def test_clip_and_videomae_are_opened_from_their_folders(clip, videomae):
    made = pictures(2, 24).requires_grad_()
    like = open_perceptual(str(clip))(made, pictures(2, 24, seed=1))
    seen = open_clip_embedding(str(videomae))(torch.stack([made] * 6, 1))
    assert like.shape == (2,) and (like > 0).all()
    assert seen.shape == (2, 16)
    (like.sum() + seen.sum()).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0


def test_the_worlds_classifier_tells_a_clip_from_its_reverse():
    clips = torch.stack([pictures(2, 32, seed=frame) for frame in range(6)], 1)
    see = open_clip_embedding("world")
    assert (see(clips) - see(clips.flip(1))).norm() > 0.1 * see(clips).norm()


def test_a_network_that_is_none_is_one_sentence(clip, tmp_path):
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"perceptual network must be torchvision's AlexNet or VGG.*got some\.weight"):
        open_perceptual(str(tmp_path / "other.pth"))
    with pytest.raises(ConfigError, match=r"layer must be one of .* got 'conv9'"):
        open_perceptual("world", ("conv9",))
    with pytest.raises(ConfigError, match=r"video network must be 'world', .* of the type videomae, got 'clip'"):
        open_clip_embedding(str(clip))
    with pytest.raises(FetchError, match="nobody/nothing must be a folder, or a hub network"):
        open_perceptual("nobody/nothing")
