import json

import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.scores import IdentificationCurve, LagSweep, Scores, ScoreTable


def scores(variant="ssim:rgb-uniform7", values=(0.2, 0.4, 0.6), **more):
    return Scores(variant, np.array(values), **more)


def test_the_mean_leaves_undefined_clips_out_and_counts_them():
    score = scores(values=(0.2, np.nan, 0.4))
    assert score.mean == pytest.approx(0.3)
    assert score.undefined == 1
    assert np.isnan(scores(values=(np.nan, np.nan)).mean)


def test_chance_is_the_best_of_the_trivial_answers():
    rows = {"shuffled": 0.1, "train-marginal": 0.25, "noise": float("nan")}
    assert scores(chance=rows).chance_value == 0.25
    assert scores("mse", chance=rows, higher_is_better=False).chance_value == 0.1
    assert scores().chance_value is None


def test_the_normalised_score_is_0_at_chance_and_1_at_the_ceiling():
    score = scores(values=(0.3, 0.5), chance={"analytic": 0.2}, ceiling=0.6, low=0.3, high=0.5)
    assert score.normalised == pytest.approx(0.5)
    assert score.normalised_interval == pytest.approx((0.25, 0.75))
    assert scores(chance={"analytic": 0.2}).normalised is None


def test_the_normalised_score_also_works_where_lower_is_better():
    error = {"variant": "mse", "higher_is_better": False, "chance": {"shuffled": 100.0}, "ceiling": 20.0}
    score = scores(values=(40.0,), low=20.0, high=60.0, **error)
    assert score.normalised == pytest.approx(0.75)
    assert score.normalised_interval == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize("ceiling", [0.2, 0.1, float("nan")])
def test_a_ceiling_no_better_than_chance_gives_no_normalised_score(ceiling):
    assert scores(chance={"analytic": 0.2}, ceiling=ceiling).normalised is None


def test_a_sample_chosen_with_the_truth_is_refused():
    with pytest.raises(DataError, match=r"chosen_by must not look at the truth.*got 'truth'"):
        scores(samples=5, chosen_by="truth")
    with pytest.raises(ConfigError, match="chosen_by must be one of average, brain, first, random"):
        scores(chosen_by="clip")


def test_unknown_chance_rows_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"chance row must be one of analytic, .*got 'luck'"):
        scores(chance={"luck": 0.5})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"values": np.zeros((2, 2))}, r"values must have the axes \(clips\)"),
        ({"values": []}, "values must hold at least one clip"),
        ({"values": [np.inf]}, "values must not be infinite"),
        ({"low": 0.6, "high": 0.4}, "the interval must have low <= high, got 0.6 to 0.4"),
        ({"p": 1.5}, "p must lie between 0 and 1, got 1.5"),
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"variant": ""}, "variant must name the metric"),
    ],
)
def test_what_is_no_score_is_refused_in_one_sentence(more, sentence):
    with pytest.raises(DataError, match=sentence):
        scores(**more)


def test_scores_keep_their_own_read_only_copy_of_the_values():
    values = np.array([0.1, 0.2])
    score = Scores("mse", values)
    values[0] = 9
    assert score.values[0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        score.values[0] = 9


def test_the_plain_form_is_json_without_nan():
    score = scores(values=(np.nan,), chance={"shuffled": float("nan"), "analytic": 0.5})
    plain = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert plain["value"] is None
    assert plain["chance"] == 0.5
    assert plain["rows"] == {"shuffled": None, "analytic": 0.5}
    assert set(plain) >= {"value", "chance", "ceiling", "normalised", "low", "high", "p", "rows"}


def test_a_table_of_mixed_variants_is_refused():
    rows = {"a": {"ssim:rgb-uniform7": scores()}, "b": {"ssim:gray-gauss": scores("ssim:gray-gauss")}}
    with pytest.raises(DataError, match=r"ssim must be .* got ssim:rgb-uniform7 for a and ssim:gray-gauss for b"):
        ScoreTable(rows)


def test_a_table_takes_systems_that_make_different_things():
    table = ScoreTable({"a": {"mse": scores("mse")}, "b": {"mse": scores("mse"), "psnr": scores("psnr")}})
    assert table.variants == ("mse", "psnr")


def test_a_table_refuses_scores_of_different_clips_or_directions():
    with pytest.raises(DataError, match=r"mse must be measured on the same clips .* got 1 for b and 3 for a"):
        ScoreTable({"a": {"mse": scores("mse")}, "b": {"mse": scores("mse", [1.0])}})
    with pytest.raises(DataError, match="mse must point the same way"):
        ScoreTable({"a": {"mse": scores("mse")}, "b": {"mse": scores("mse", higher_is_better=False)}})


def test_a_table_refuses_a_score_under_another_name():
    with pytest.raises(DataError, match=r"a score must stand under mse, got psnr \(a\)"):
        ScoreTable({"a": {"psnr": scores("mse")}})


def test_skipped_metrics_stand_in_the_table_by_name_with_their_reason():
    table = ScoreTable({"a": {"mse": scores("mse")}}, skipped={"lpips": "needs the weights alex.pth"})
    assert table.to_dict()["skipped"] == {"lpips": "needs the weights alex.pth"}
    assert table.to_dict()["rows"]["a"]["mse"]["value"] == pytest.approx(0.4)
    with pytest.raises(DataError, match="a skipped metric must not have scores, got mse"):
        ScoreTable({"a": {"mse": scores("mse")}}, skipped={"mse": "no"})


def test_a_reconstruction_without_its_motion_stands_beside_the_score_as_a_control():
    score = scores("clip-consistency:adjacent", controls={"static": 1.0, "reversed": 0.9})
    assert score.to_dict()["controls"] == {"static": 1.0, "reversed": 0.9}
    assert score.chance_value is None
    with pytest.raises(ConfigError, match="control must be one of frame-shuffled, reversed, static, got 'slow'"):
        scores(controls={"slow": 1.0})


def sweep(lags_s=(-2.0, 0.0, 2.0), values=(0.1, 0.5, 0.4), **more):
    return LagSweep(np.array(lags_s), np.array(values), np.zeros(3), np.ones(3), "frame-correlation", **more)


def test_a_lag_sweep_knows_its_best_lag_also_where_lower_is_better():
    assert sweep().best_lag_s == 0
    assert sweep(higher_is_better=False).best_lag_s == -2
    assert sweep(values=(np.nan, 0.2, 0.3)).best_lag_s == 2
    assert np.isnan(sweep(values=[np.nan] * 3).best_lag_s)


def test_a_lag_sweep_becomes_json_without_nan():
    plain = json.loads(json.dumps(sweep(values=(np.nan, 0.2, 0.3), chance=0.1).to_dict(), allow_nan=False))
    assert plain["values"] == [None, 0.2, 0.3]
    assert plain["lags_s"] == [-2, 0, 2]
    assert plain["chance"] == 0.1


def test_lags_that_do_not_rise_or_fit_are_refused():
    with pytest.raises(DataError, match=r"lags_s must rise, got \[0.0, 0.0, 2.0\] \(frame-correlation\)"):
        sweep(lags_s=(0.0, 0.0, 2.0))
    with pytest.raises(DataError, match=r"values must have as many entries as lags_s \(3\), got 2"):
        sweep(values=(0.1, 0.2))


def test_an_identification_curve_carries_its_chance():
    sizes = np.array([2, 10])
    curve = IdentificationCurve(sizes, np.array([0.9, 0.6]), np.zeros(2), np.ones(2), 1 / sizes, "identification:top1")
    assert json.loads(json.dumps(curve.to_dict()))["chance"] == [0.5, 0.1]
    with pytest.raises(DataError, match="candidates must rise"):
        IdentificationCurve(sizes[::-1], curve.values, curve.low, curve.high, curve.chance, curve.variant)
