import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.simulate.cortex import AREA_TABLE, AREAS, EARLY, ELSEWHERE, make_cortex


@pytest.fixture(scope="module")
def cortex():
    return make_cortex("01", seed=3)


def test_areas_are_apart_on_fsaverage5_and_about_as_large_as_the_table_says(cortex):
    space = cortex.space
    assert (space.kind, space.template) == ("surface", "fsaverage5")
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in space.rois.values()), 1)
    for name in AREAS:
        for side in ("L", "R"):
            count = np.count_nonzero(space.rois[name] & (space.hemisphere == side))
            assert 0.6 < count / AREA_TABLE[name].vertices < 1.6
    assert space.rois[ELSEWHERE].sum() == 300
    assert space.index.max() < 10242


@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_the_scale_is_that_of_the_areas(cortex, scale):
    other = make_cortex("01", seed=3, scale=scale)
    for name in AREAS:
        ratio = other.rows(name).size / cortex.rows(name).size
        assert ratio == pytest.approx(scale, rel=0.35)


def test_each_hemisphere_sees_the_other_side(cortex):
    early = np.isin(cortex.area, EARLY) & (np.abs(cortex.x) > 0.5)
    left = cortex.space.hemisphere == "L"
    assert np.all(cortex.x[early & left] > 0) and np.all(cortex.x[early & ~left] < 0)
    assert np.all(np.isnan(cortex.x[cortex.area == ELSEWHERE]))


def test_early_areas_are_retinotopic_gaze_at_the_pole_and_the_lower_field_above(cortex):
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    files = fetch_surf_fsaverage("fsaverage5")
    for side, name in (("L", "left"), ("R", "right")):
        rows = np.flatnonzero((cortex.area == "V1") & (cortex.space.hemisphere == side))
        place = load_surf_mesh(files[f"infl_{name}"]).coordinates[cortex.space.index[rows]]
        eccentricity = np.hypot(cortex.x, cortex.y)[rows]
        assert np.corrcoef(place[:, 1], np.log(eccentricity + 0.75))[0, 1] > 0.8
        assert np.corrcoef(place[:, 2], np.arctan2(cortex.y[rows], np.abs(cortex.x[rows])))[0, 1] < -0.6


def test_neighbours_in_v1_to_v3_see_neighbouring_places(cortex):
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    faces = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")["white_left"]).faces
    row = {int(v): i for i, v in enumerate(cortex.space.index) if cortex.space.hemisphere[i] == "L"}
    pairs = [(row.get(int(a)), row.get(int(b))) for a, b in faces[:, :2]]
    early = np.isin(cortex.area, EARLY)
    pairs = np.array([(a, b) for a, b in pairs if a is not None and b is not None and early[a] and early[b]])
    apart = np.hypot(*(at[pairs[:, 0]] - at[pairs[:, 1]] for at in (cortex.x, cortex.y)))
    eccentricity = np.hypot(cortex.x, cortex.y)[pairs].mean(1)
    assert len(pairs) > 200
    assert np.median(apart / (1 + eccentricity)) < 0.25


def test_fields_grow_with_eccentricity_and_with_the_hierarchy(cortex):
    eccentricity = np.hypot(cortex.x, cortex.y)
    for name in EARLY:
        rows = cortex.rows(name)
        slope = np.polyfit(eccentricity[rows], cortex.sd[rows], 1)[0]
        assert slope == pytest.approx(AREA_TABLE[name].slope, rel=0.3)
    medians = [np.median(cortex.sd[cortex.rows(name)]) for name in ("V1", "V2", "V3", "V4", "FFA")]
    assert medians == sorted(medians)


def test_another_subject_is_another_brain_and_the_same_one_is_the_same(cortex):
    again, other = make_cortex("01", seed=3), make_cortex("02", seed=3)
    np.testing.assert_array_equal(again.space.index, cortex.space.index)
    np.testing.assert_array_equal(again.sd, cortex.sd)
    ours, theirs = (set(each.space.index[each.rows("V1")]) for each in (cortex, other))
    assert 0.3 < len(ours & theirs) / len(ours | theirs) < 0.98


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"scale": 0.0}, DataError, "scale must lie within 0.1..3, got 0.0"),
        ({"ceilings": {"V1": 1.2}}, DataError, "ceiling of V1 must lie between 0 and 1, got 1.2"),
        ({"ceilings": {"V9": 0.5}}, ConfigError, "area of a ceiling must be one of FFA, LO, MT, PPA, V1, V2, V3, V4"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, error, text):
    with pytest.raises(error, match=text):
        make_cortex("01", **settings)
