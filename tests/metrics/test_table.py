import json

import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.scores import ScoreTable
from neuroreel.core.types import Reconstruction
from neuroreel.metrics import pixel
from neuroreel.metrics.embedded import Backbone, embedding_similarity
from neuroreel.metrics.identification import identify_pairwise, similarity_matrix
from neuroreel.metrics.registry import BACKBONES, GROUPS, METRICS
from neuroreel.metrics.table import evaluate, score

BLOCKS = np.arange(24) // 3
CATEGORIES = tuple("abcdefgh")
BLIND = [name for name, m in METRICS.items() if m.rank is not None or m.takes == "probabilities"]
CONSISTENCY = [name for name in METRICS if name.startswith("clip-consistency")]
KEYS = {"value", "chance", "ceiling", "normalised", "low", "high", "p"}


def frame_means(clips):
    """A small network of frames: colours of quarters as positive numbers that sum to 1."""
    n, frames, height, width, _ = clips.shape
    quarters = clips.reshape(n, frames, 2, height // 2, 2, width // 2, 3).mean(axis=(3, 5)).reshape(n, frames, 12)
    shares = np.exp((quarters - 128) / 10)
    wide = np.concatenate([shares, np.full((n, frames, 50), 1e-3)], axis=2)
    return wide / wide.sum(axis=2, keepdims=True)


NETWORKS = {role: Backbone(role, "12345678" * 8, frame_means) for role in BACKBONES}


@pytest.fixture
def clips(make_clips, mix):
    truth = make_clips(24, 3, 16, seed=0)
    return mix(truth, 0.6, seed=1), truth


@pytest.fixture
def opened(make_samples, clips):
    rng = np.random.default_rng(2)
    labels = rng.choice(CATEGORIES, 24)
    right = 0.5 * (labels[:, None] == np.array(CATEGORIES)) + 0.5 * rng.dirichlet(np.ones(8), 24)
    truth = make_samples(np.zeros((24, 1, 2), dtype=np.float32), clips[1], labels, BLOCKS)
    return truth, Reconstruction(clips=clips[0], probabilities=right, categories=CATEGORIES)


def arrays(metric, opened):
    truth, made = opened
    if metric.takes == "clips":
        return made.clips, truth.clips
    true = np.array([[label == name for name in CATEGORIES] for label in truth.category], dtype=float)
    return tuple(np.pad(side, ((0, 0), (0, 60))) for side in (made.probabilities, true))


def test_the_registry_names_every_metric_of_the_table_by_its_variant():
    expected = {"mse", "psnr", "pixcorr", "frame-correlation", "ssim:rgb-uniform7", "ssim:gray-gauss"}
    expected |= {"ssim:columns-compat", "identification:pairwise", "identification:top1", "identification:top5"}
    expected |= {"category-accuracy", "nway2:top1", "nway50:top1", "nway50:top3-compat", "nway-video50:top1"}
    expected |= {"epe:raw", "epe:over-flow", "direction-accuracy", "clip-consistency:adjacent", "lpips", "two-way:clip"}
    assert expected <= set(METRICS)
    assert {metric.group for metric in METRICS.values()} == set(GROUPS)


@pytest.mark.parametrize("variant", METRICS)
def test_every_metric_gives_one_value_a_clip_with_chance_and_ceiling(variant, opened):
    metric = METRICS[variant]
    predicted, truth = arrays(metric, opened)
    rows = {"noise": predicted[::-1]}
    one = score(variant, predicted, truth, BLOCKS, chance=rows, ceiling=truth, embed=NETWORKS, draws=200)
    assert one.values.shape == (24,)
    assert one.variant.startswith(variant)
    assert {"shuffled", "noise"} <= set(one.chance)
    assert one.low <= one.mean <= one.high
    assert one.p <= 0.05 or variant in CONSISTENCY
    assert set(one.controls) == ({"static", "reversed", "frame-shuffled"} if metric.controls else set())
    json.dumps(one.to_dict(), allow_nan=False)


@pytest.mark.parametrize("variant", [name for name in METRICS if name not in CONSISTENCY])
def test_the_truth_is_the_best_answer_of_every_metric_that_looks_at_it(variant, opened):
    metric = METRICS[variant]
    predicted, truth = arrays(metric, opened)
    perfect, other = (
        score(variant, given, truth, BLOCKS, embed=NETWORKS, draws=20).mean for given in (truth, predicted[::-1])
    )
    assert perfect > other if metric.higher_is_better else perfect < other


@pytest.mark.parametrize("variant", BLIND)
def test_an_answer_that_is_the_same_for_all_scores_the_analytic_chance(variant, opened):
    predicted, truth = arrays(METRICS[variant], opened)
    if METRICS[variant].takes == "clips":
        blind = np.broadcast_to(predicted[0], predicted.shape)
    else:
        blind = np.full(predicted.shape, 1 / predicted.shape[1])
    one = score(variant, blind, truth, BLOCKS, embed=NETWORKS, draws=20)
    assert one.mean == pytest.approx(one.chance["analytic"])
    assert one.chance["shuffled"] == pytest.approx(one.mean, rel=0.15)


def test_the_value_is_the_function_of_the_pixels(clips):
    for form in pixel.SSIM_FORMS:
        np.testing.assert_allclose(score(f"ssim:{form}", *clips, BLOCKS).values, pixel.ssim(*clips, form))
    np.testing.assert_allclose(score("mse", *clips, BLOCKS).values, pixel.mse(*clips))
    expected = identify_pairwise(similarity_matrix(*clips))
    np.testing.assert_allclose(score("identification:pairwise", *clips, BLOCKS).values, expected)


def test_a_metric_that_never_looks_at_the_truth_has_a_p_of_1_and_no_normalised_score(clips):
    one = score("clip-consistency:adjacent", *clips, BLOCKS, ceiling=clips[1], embed=NETWORKS, draws=50)
    assert one.p == 1
    assert one.chance["shuffled"] == pytest.approx(one.mean)
    assert one.controls["static"] == pytest.approx(1)
    assert one.controls["static"] > one.ceiling


def test_a_learned_metric_carries_the_name_and_hash_of_its_network(clips):
    one = score("nway50:top1", *clips, BLOCKS, embed=NETWORKS, draws=20)
    assert one.variant == "nway50:top1@image-classifier-12345678"
    with pytest.raises(DataError, match=r"embed\['lpips'\] must be a network, such as the one in lpips-v0.1-alex"):
        score("lpips", *clips, BLOCKS)


def test_features_of_any_space_can_be_identified():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((24, 10))
    one = score("identification:pairwise", truth + rng.standard_normal((24, 10)), truth, BLOCKS, space="latents")
    assert one.variant == "identification:pairwise@latents"
    assert 0.7 < one.mean < 1
    assert one.p < 0.01


def test_evaluate_measures_what_each_system_makes_and_names_what_it_skips(opened):
    truth, made = opened
    systems = {"both": made, "labels": Reconstruction(probabilities=made.probabilities, categories=CATEGORIES)}
    chance = {"both": {"nearest-train": [made]}, "labels": {"train-marginal": [made]}}
    table = evaluate(systems, truth, chance=chance, ceiling={"both": made, "labels": None}, draws=50)
    assert {"mse", "identification:pairwise", "direction-accuracy", "category-accuracy"} <= set(table.rows["both"])
    assert set(table.rows["labels"]) == {"category-accuracy", "nway-category2:top1", "nway-category2:top3-compat"}
    assert "google/vit-base-patch16-224/model.safetensors" in table.skipped["nway50:top1"]
    assert table.skipped["nway-category50:top1"] == "the categories must be at least 50, got 8"
    assert set(table.rows["both"]) | set(table.skipped) == set(METRICS)
    assert table.rows["both"]["mse"].chance["nearest-train"] == table.rows["both"]["mse"].ceiling


def test_evaluate_gives_the_numbers_of_score(opened):
    truth, made = opened
    table = evaluate({"one": made, "two": made}, truth, embed=NETWORKS, draws=50)
    for name in ("pixcorr", "identification:top1", "epe:raw", "nway2:top1", "ssim:gray-gauss"):
        alone = score(name, made.clips, truth.clips, BLOCKS, embed=NETWORKS, draws=50)
        for system in ("one", "two"):
            assert table.rows[system][alone.variant].to_dict() == alone.to_dict()


def test_what_is_the_same_for_several_systems_is_looked_at_once(opened, mix, make_clips):
    truth, made = opened
    seen = []

    def counted(clips):
        seen.append(clips.copy())
        return frame_means(clips)

    def answers(seed):
        own = [Reconstruction(clips=mix(made.clips, 0.5, seed=seed + k)) for k in range(3)]
        same = Reconstruction(clips=truth.clips[::-1].copy())  # of the training set: equal, but another array
        return own[0], {"mean-brain": own[1:2], "noise": own[2:], "nearest-train": [same]}

    given = {name: answers(seed) for name, seed in (("one", 5), ("two", 9))}
    network = Backbone("image-text", "12345678" * 8, counted)
    table = evaluate(
        {name: one for name, (one, _) in given.items()},
        truth,
        variants=["two-way:clip", "clip-similarity"],
        chance={name: rows for name, (_, rows) in given.items()},
        embed={"image-text": network},
        draws=50,
    )
    whole = [clips for clips in seen if clips.shape == truth.clips.shape]
    assert len(whole) == len({clips.tobytes() for clips in whole}) == 2 * 3 + 2  # the truth and what is nearest, once
    for name, (one, rows) in given.items():
        alone = score("two-way:clip", one.clips, truth.clips, BLOCKS, embed=NETWORKS, draws=50)
        assert table.rows[name][alone.variant].values.tolist() == alone.values.tolist()
        other = score("two-way:clip", rows["nearest-train"][0].clips, truth.clips, BLOCKS, embed=NETWORKS, draws=50)
        assert table.rows[name][alone.variant].chance["nearest-train"] == other.to_dict()["value"]


def test_the_table_is_the_json_that_programs_read(opened):
    truth, made = opened
    table = evaluate({"ours": made}, truth, variants=["frame-correlation", "identification:pairwise"], draws=50)
    plain = json.loads(json.dumps({"szinte2024": table.to_dict()["rows"]}, allow_nan=False))
    assert set(plain["szinte2024"]["ours"]) == {"frame-correlation", "identification:pairwise"}
    assert all(set(numbers) >= KEYS for numbers in plain["szinte2024"]["ours"].values())


def test_a_category_that_the_system_does_not_know_counts_as_a_wrong_answer(opened):
    truth, made = opened
    truth.category[:3] = "unheard of"
    truth.category[3] = ""
    values = evaluate({"s": made}, truth, variants=["category-accuracy"], draws=20).rows["s"]["category-accuracy"]
    assert values.values[:3].tolist() == [0, 0, 0]
    assert np.isnan(values.values[3])
    assert values.chance["analytic"] == pytest.approx(1 / 9)


def test_several_samples_per_clip_are_said_in_the_scores(opened):
    truth, made = opened
    many = Reconstruction(clips=made.clips, drawn=5, chosen_by="brain")
    one = evaluate({"s": many}, truth, variants=["mse"], draws=20).rows["s"]["mse"]
    assert (one.samples, one.chosen_by) == (5, "brain")


def test_small_and_single_frames_are_skipped_with_their_size(make_samples, make_clips):
    small = make_clips(24, 1, 9, seed=0)
    truth = make_samples(np.zeros((24, 1, 2), dtype=np.float32), small, block=BLOCKS)
    skipped = evaluate({"s": Reconstruction(clips=small)}, truth, draws=20).skipped
    assert skipped["ssim:gray-gauss"] == "the height of the clips must be at least 11, got 9"
    assert skipped["epe:raw"] == "the frames of the clips must be at least 2, got 1"
    assert skipped["category-accuracy"] == "a system must make probabilities, got none"
    assert "ssim:rgb-uniform7" not in skipped


def test_slow_metrics_test_a_part_of_the_clips_and_score_all(make_clips, mix):
    truth = make_clips(150, 1, 12, seed=0)
    one = score("ssim:gray-gauss", mix(truth, 0.6, seed=1), truth, np.arange(150) // 5, draws=200)
    assert one.values.shape == (150,)
    assert one.p == pytest.approx(1 / 201)


def test_wrong_names_and_blocks_are_refused(clips):
    with pytest.raises(ConfigError, match=r"metric must be one of category-accuracy, .* got 'ssim'"):
        score("ssim", *clips, BLOCKS)
    with pytest.raises(ConfigError, match=r"chance row must be one of mean-brain, .* got 'shuffled'"):
        score("mse", *clips, BLOCKS, chance={"shuffled": clips[0]})
    with pytest.raises(DataError, match="blocks must be at least 2, to have something to swap or draw, got 1"):
        score("mse", *clips, np.zeros(24))
    with pytest.raises(DataError, match=r"an answer must have the truth's shape .* \(mse\)"):
        score("mse", clips[0][:, :, :8], clips[1], BLOCKS)


def test_scores_seen_through_other_weights_do_not_stand_in_one_table(clips, opened):
    truth, made = opened
    tables = []
    for digits in ("12345678", "87654321"):
        embed = {"image-text": Backbone("clip", digits * 8, frame_means)}
        tables.append(evaluate({digits: made}, truth, variants=["clip-similarity"], embed=embed, draws=20))
    with pytest.raises(DataError, match=r"^clip-similarity must be measured with the same variants.*@clip-12345678"):
        ScoreTable({name: row for table in tables for name, row in table.rows.items()})


@pytest.mark.parametrize("held", [0, 2**27])
def test_parts_of_one_frame_at_a_time_give_the_mean_over_all_frames(held, clips, monkeypatch):
    monkeypatch.setattr("neuroreel.metrics.table.NUMBERS_HELD", held)
    predicted, truth = clips
    one = score("two-way:alexnet2", predicted, truth, BLOCKS, embed=NETWORKS, draws=20)
    alike = embedding_similarity(frame_means(predicted), frame_means(truth))
    np.testing.assert_allclose(one.values, identify_pairwise(alike))


def test_a_classifier_of_too_few_classes_and_too_small_frames_are_skipped_by_name(opened):
    truth, made = opened
    few = Backbone("small", "12345678" * 8, frame_means, classes=40, smallest=31)
    names = ["nway50:top1", "nway2:top1"]
    skipped = evaluate({"a": made}, truth, variants=names, embed={"image-classifier": few}, draws=20).skipped
    assert skipped["nway50:top1"] == "the classes of small must be at least 50, got 40"
    assert skipped["nway2:top1"] == "frames for small must have sides of at least 31 pixels, got 16 x 16"
