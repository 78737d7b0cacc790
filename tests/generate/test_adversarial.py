import numpy as np
import pytest
import torch

from neuroreel.core.errors import DataError
from neuroreel.generate.adversarial import (
    AdversarialConfig,
    Adversaries,
    Generator,
    Judge,
    diversity,
    diversity_ratio,
    hinge_of_generator,
    hinge_of_judge,
    pick,
    smooth,
    stages,
)
from neuroreel.nets.weights import first_weights

SMALL = AdversarialConfig(widths=(16, 8), noise=4, frame_widths=(8, 8), clip_widths=(8, 8))


def small(shape: tuple[int, int, int] = (4, 16, 16), **more) -> Adversaries:
    with first_weights(0, "test"):
        return Adversaries(shape, 5, SMALL.model_copy(update=more))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_clip_of_eight_frames_grows_from_one_of_four_pixels():
    grown = stages(8, 64, 64, 4)
    assert grown.start == (1, 4, 4) and grown.longer == (True, True, True, False)
    assert stages(6, 48, 80, 4).start == (3, 6, 10)
    assert stages(1, 16, 16, 4) == stages(1, 16, 16, 2)


@pytest.mark.parametrize("shape", [(8, 64, 64), (2, 16, 16), (5, 24, 40), (1, 8, 8)])
def test_made_clips_have_the_shape_that_was_asked_for(shape):
    net = Generator(shape, 5, AdversarialConfig(noise=4))
    with torch.no_grad():
        assert net(random(2, 5), random(2, 4)).shape == (2, shape[0], 3, *shape[1:])


@pytest.mark.parametrize("size", [(45, 80), (16, 4), (7, 7)])
def test_sides_that_cannot_be_doubled_to_are_one_sentence(size):
    rule = rf"height and width of generated clips must be multiples of 2 and 8 or more, got {size[0]} x {size[1]}"
    with pytest.raises(DataError, match=rule):
        Generator((8, *size), 5, SMALL)


@torch.no_grad()
def test_a_generator_begins_as_the_linear_map_it_was_given_whatever_the_noise():
    net = small().generator
    plain, offset = random(4 * 4 * 4 * 3, 5), random(4 * 4 * 4 * 3)
    net.begin_with(plain, offset)
    code = random(3, 5)
    made = [net(code, random(3, 4) + shift) for shift in (0, 1)]
    assert torch.equal(*made)
    tiny = (code @ plain.T + offset).view(3, 4, 4, 4, 3).movedim(-1, 2)  # (n, frames, 3, h, w)
    torch.testing.assert_close(made[0][..., 0, 0], tiny[..., 0, 0])  # corners are held
    torch.testing.assert_close(made[0].mean((3, 4)), tiny.mean((3, 4)))


@torch.no_grad()
def test_no_weight_of_a_judge_lengthens_what_it_meets_by_more_than_one():
    judge = Judge(4, 16, 5, (8, 8)).train()
    for parameter in judge.parameters():
        parameter.mul_(7.0)
    for _ in range(60):  # the power iteration takes a step whenever it is asked
        judge(random(2, 4, 3, 16, 16), random(2, 5))
    judge.eval()
    weights = [layer.weight for layer in (*judge.convs, judge.plain, judge.told) if hasattr(layer, "weight")]
    largest = [float(torch.linalg.matrix_norm(weight.flatten(1), 2)) for weight in weights]
    assert len(largest) == 4
    np.testing.assert_allclose(largest, 1, atol=2e-3)


@torch.no_grad()
def test_a_judges_score_is_the_projection_formula_by_hand():
    judge = Judge(None, 16, 5, (8, 8)).eval()
    frames, code = random(3, 3, 16, 16), random(3, 5)
    phi = judge.convs(frames).mean((2, 3)).numpy()
    weights = [getattr(judge, name).weight.numpy() for name in ("plain", "told")]
    by_hand = phi @ weights[0][0] + judge.plain.bias.item() + ((code.numpy() @ weights[1].T) * phi).sum(1)
    np.testing.assert_allclose(judge(frames, code).numpy(), by_hand, rtol=1e-4)
    assert not torch.allclose(judge(frames, code), judge(frames, code.roll(1, 0)))


@torch.no_grad()
def test_the_clip_judge_tells_the_order_of_frames_and_the_frame_judge_does_not():
    net = small().eval()
    clips, code = random(3, 4, 3, 16, 16), random(3, 5)
    every = torch.arange(4).expand(3, 4)
    forth, back = net.scores(clips, code, every), net.scores(clips.flip(1), code, every)
    torch.testing.assert_close(forth["frame"], back["frame"])
    assert not torch.allclose(forth["clip"], back["clip"], rtol=1e-3)


def test_hinge_losses_are_the_numbers_by_hand():
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.25, 0.5])
    assert hinge_of_judge(real, made).tolist() == [0.0, 0.5 + 0.75, 2.0 + 1.5]
    assert hinge_of_generator(made).tolist() == [3.0, 0.25, -0.5]


def test_the_judges_turn_gives_the_generator_no_gradient_and_its_own_turn_does():
    net = small()
    told = random(2, 5), random(2, 4), torch.zeros(2, 1, dtype=torch.long)
    _, made, real = net(*told, random(2, 4, 3, 16, 16))
    sum(hinge_of_judge(real[name], made[name]).sum() for name in made).backward()
    assert all(value.grad is None for value in net.generator.parameters())
    assert all(value.grad is not None for value in net.judges.parameters())
    _, made, real = net(*told)
    sum(hinge_of_generator(score).sum() for score in made.values()).backward()
    assert real == {} and all(value.grad is not None for value in net.generator.parameters())


def test_a_clip_of_one_frame_or_a_config_without_it_has_no_clip_judge():
    assert set(small().judges) == {"frame", "clip"}
    assert set(small(temporal=False).judges) == set(small((1, 16, 16)).judges) == {"frame"}


def test_smoothing_leaves_a_plane_and_its_mean_and_takes_the_pattern_of_every_other_pixel():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    plane, pattern = (3 * x + y)[None, None, None], ((x % 2) * 2 - 1)[None, None, None]
    torch.testing.assert_close(smooth(plane)[..., 1:-1, 1:-1], plane[..., 1:-1, 1:-1])
    assert float(smooth(pattern)[..., 1:-1].abs().max()) == 0
    torch.testing.assert_close(smooth(random(1, 2, 3, 8, 8)).mean((3, 4)), random(1, 2, 3, 8, 8).mean((3, 4)))


def test_picked_frames_are_those_that_were_named():
    clips = torch.arange(12.0).view(2, 6, 1, 1, 1)
    assert pick(clips, torch.tensor([[0, 5], [2, 2]])).flatten(1).tolist() == [[0, 5], [8, 8]]


def test_diversity_is_the_mean_distance_of_pairs():
    features = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    apart = [np.linalg.norm(a - b) for number, a in enumerate(features) for b in features[:number]]
    assert diversity(features) == pytest.approx(np.mean(apart), rel=1e-5)
    assert diversity_ratio(features / 4, features) == pytest.approx(0.25, rel=1e-5)
    assert diversity_ratio(np.repeat(features[:1], 20, 0), features) < 1e-3
    assert diversity_ratio(features, np.zeros((3, 7))) == 1.0
    with pytest.raises(DataError, match="clips whose diversity is measured must be 2 or more, got 1"):
        diversity(features[:1])
