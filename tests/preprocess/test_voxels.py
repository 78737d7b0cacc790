import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.types import Space
from neuroreel.preprocess.voxels import bad_voxels, mask_bad_voxels, reproducibility, select_roi, take_voxels

RNG = np.random.default_rng(17)
SETS = {"V1": {0, 1, 2}, "V2": {2, 3}, "L_V3": {0}, "L_V3-d": {4, 5}, "d": {4}, "MT": {1, 5, 6}, "V": {7}}
SPACE = Space("columns", 8, rois={name: np.isin(np.arange(8), list(members)) for name, members in SETS.items()})


def segments(count: int, signal: np.ndarray, trs: int = 100) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two noisy repeats of each segment; the expected r of a voxel is signal / (signal + 1)."""
    shown = [np.sqrt(signal) * RNG.normal(size=(trs, signal.size)) for _ in range(count)]
    return tuple([s + RNG.normal(size=s.shape) for s in shown] for _ in range(2))


def test_bad_voxels_are_counted_by_reason_and_left_out_of_every_run(make_bold) -> None:
    data = [RNG.normal(size=(20, 6)) for _ in range(2)]
    data[0][3, 0], data[0][4, 1], data[1][:, 2], data[1][0, 0] = np.nan, np.inf, 5.0, np.nan
    runs = [make_bold(values, run=str(n), A=np.arange(6) % 2 == 0) for n, values in enumerate(data)]
    message = r"^3 of 6 voxels left out: 1 NaN, 1 infinite, 1 constant \(sub-01\)$"
    with pytest.warns(NeuroreelWarning, match=message):
        masked, kept = mask_bad_voxels(runs)
    assert kept.tolist() == [False, False, False, True, True, True]
    assert all(np.array_equal(run.data, whole.data[:, 3:]) for run, whole in zip(masked, runs, strict=True))
    assert masked[0].space.rois["A"].tolist() == [False, True, False]


def test_a_voxel_with_nan_and_infinity_has_one_reason() -> None:
    masks = bad_voxels(np.array([[np.nan, 1.0, 2.0], [np.inf, 1.0, 3.0]]))
    assert [mask.tolist() for mask in masks.values()] == [[True, False, False], [False] * 3, [False, True, False]]


def test_good_runs_come_back_as_they_are_and_all_bad_ones_are_refused(make_bold) -> None:
    good = make_bold(RNG.normal(size=(20, 3)))
    assert mask_bad_voxels([good])[0] == (good,)
    message = r"^voxels must hold at least one that varies and is finite, got 1 NaN, 1 constant \(sub-01\)$"
    with pytest.raises(DataError, match=message):
        mask_bad_voxels([make_bold(np.array([[np.nan, 1.0], [1, 1]]))])
    message = r"^voxels of run 2 must have as many entries as voxels of run 1 \(3\), got 4$"
    with pytest.raises(DataError, match=message):
        mask_bad_voxels([good, make_bold(np.ones((20, 4)), run="2")])


def test_a_mask_without_a_voxel_is_one_sentence(make_bold) -> None:
    with pytest.raises(DataError, match=r"^mask must choose at least one voxel, got 0 \(sub-01 run 1\)$"):
        take_voxels(make_bold(np.zeros((4, 2))), np.zeros(2, dtype=bool))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("V1", {0, 1, 2}),
        ("V1+V2", {0, 1, 2, 3}),
        ("V1 + V2 - MT", {0, 2, 3}),
        ("V1 - MT + MT", {0, 1, 2, 5, 6}),
        ("V1 + V2 & MT", {0, 1, 2}),
        ("(V1 + V2) & MT", {1}),
        ("MT - (V1 + L_V3-d)", {6}),
        (" L_V3-d&MT ", {5}),
        ("V + V1", {0, 1, 2, 7}),
        ("L_V3 - d", {0}),
    ],
)
def test_an_roi_expression_is_set_algebra(expression: str, expected: set[int]) -> None:
    assert set(np.flatnonzero(select_roi(SPACE, expression))) == expected


@settings(deadline=None)
@given(st.recursive(
    st.sampled_from(["V1", "V2", "MT", "V"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "&"]), inner),
    max_leaves=8,
))  # fmt: skip
def test_any_bracketed_expression_is_pythons_set_algebra(tree) -> None:
    def text(node) -> str:
        return node if isinstance(node, str) else f"({text(node[0])} {node[1]} {text(node[2])})"

    def members(node) -> set[int]:
        if isinstance(node, str):
            return SETS[node]
        left, right = members(node[0]), members(node[2])
        return {"+": left | right, "-": left - right, "&": left & right}[node[1]]

    if members(tree):
        assert set(np.flatnonzero(select_roi(SPACE, text(tree)))) == members(tree)
    else:
        with pytest.raises(DataError, match=r"must hold at least one voxel, got 0$"):
            select_roi(SPACE, text(tree))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("V4", r"^ROI must be one of L_V3, L_V3-d, MT, V, V1, V2, d, got 'V4' \(V4\)$"),
        ("V1 + V4 - MT", r"^ROI must be one of .*, got 'V4'"),
        ("V1 +", r"^ROI expression must have the name of an ROI at character 5, got 'V1 \+'$"),
        ("(V1 + V2", r"^ROI expression must close its bracket at character 9"),
        ("V1 + V2)", r"^ROI expression must end or go on with \+, - or & at character 8"),
        ("V1 V2", r"^ROI expression must end or go on with"),
        ("", r"^ROI expression must have the name of an ROI at character 1, got ''$"),
    ],
)
def test_an_expression_that_cannot_be_read_is_one_sentence(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select_roi(SPACE, expression)


def test_data_without_rois_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^ROI must be one of none, since the data has no ROIs, got 'V1'"):
        select_roi(Space("columns", 3), "V1")


def test_reproducibility_equals_scipys_r_and_t_test() -> None:
    first, second = segments(18, np.linspace(0, 2, 9))
    result = reproducibility(first, second)
    r = [
        [scipy.stats.pearsonr(x, y)[0] for x, y in zip(a.T, b.T, strict=True)]
        for a, b in zip(first, second, strict=True)
    ]
    test = scipy.stats.ttest_1samp(np.arctanh(r), 0, alternative="greater")
    np.testing.assert_allclose(result.r, r, atol=1e-10)
    np.testing.assert_allclose(result.t, test.statistic, rtol=1e-8)
    np.testing.assert_allclose(result.p, test.pvalue, rtol=1e-7, atol=1e-300)


def test_corrections_find_the_planted_voxels_and_keep_their_promise() -> None:
    signal = np.r_[np.zeros(1900), np.full(100, 1.0)]
    result = reproducibility(*segments(18, signal, trs=60))
    bonferroni, fdr, raw = (result.chosen(0.05, name) for name in ("bonferroni", "fdr", "none"))
    assert bonferroni[1900:].all() and bonferroni[:1900].sum() <= 1
    assert fdr[1900:].all() and fdr[:1900].sum() <= 0.12 * fdr.sum()
    assert 0.03 < raw[:1900].mean() < 0.07
    np.testing.assert_allclose(result.mean_r[1900:].mean(), 0.5, atol=0.02)


def test_constant_voxels_have_no_p_value_and_don_t_count_as_tests() -> None:
    first, second = segments(4, np.array([5.0, 5.0, 5.0]))
    second[2][:, 1] = 1.0
    result = reproducibility(first, second)
    assert np.isnan(result.p).tolist() == [False, True, False] and not result.chosen(0.05)[1]


def test_two_equal_repeats_are_as_reproducible_as_can_be() -> None:
    first, _ = segments(3, np.ones(2))
    result = reproducibility(first, first)
    assert np.all(result.p < 1e-6) and result.chosen().all()


def test_repeats_that_do_not_match_are_one_sentence() -> None:
    first, second = segments(3, np.ones(2))
    with pytest.raises(DataError, match=r"^segments of repeat 2 must have as many entries as those of repeat 1 \(3\)"):
        reproducibility(first, second[:2])
    with pytest.raises(DataError, match=r"^segments must be 2 or more for a t-test, got 1$"):
        reproducibility(first[:1], second[:1])
    with pytest.raises(
        DataError, match=r"^repeat 2 must have the shape \(100, 2\) of repeat 1, got \(99, 2\) \(segment 1"
    ):
        reproducibility(first, [second[0][:99], *second[1:]])
    with pytest.raises(ConfigError, match=r"^correction must be one of bonferroni, fdr, none, got 'holm'$"):
        reproducibility(first, second).chosen(correction="holm")
