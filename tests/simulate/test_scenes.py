from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.simulate.backgrounds import ASPECT, BACKGROUNDS
from neuroreel.simulate.captions import caption_of, parse_caption, place_of
from neuroreel.simulate.categories import CATEGORIES, GROUPS
from neuroreel.simulate.colours import COLOURS
from neuroreel.simulate.scenes import ACTIONS, DIRECTIONS, SHORTEST_S, Scene, draw_scene, make_scenes


def nine_seconds(categories: tuple[str, ...]) -> tuple[Scene, ...]:
    return make_scenes("a", duration_s=9, seed=0, categories=categories)


def many(n: int = 1200) -> list[Scene]:
    return [draw_scene(generator(0, "many", i), CATEGORIES[i % len(CATEGORIES)]) for i in range(n)]


def test_the_world_has_forty_categories_in_eight_groups_of_five():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 40
    assert [len(members) for members in GROUPS.values()] == [5] * 8


@pytest.mark.parametrize("duration_s", [4.0, 9.9, 10.1, 13.9, 61.0, 2400.0])
def test_scenes_last_4_to_10_s_and_fill_the_movie_without_a_gap(duration_s):
    scenes = make_scenes("a", duration_s=duration_s, seed=0)
    lengths = np.array([scene.duration_s for scene in scenes])
    ends = np.array([scene.onset_s for scene in scenes]) + lengths
    assert scenes[0].onset_s == 0
    np.testing.assert_allclose(ends[:-1], [scene.onset_s for scene in scenes[1:]], atol=1e-9)
    assert ends[-1] == pytest.approx(duration_s)
    assert lengths.min() >= 4 - 1e-9
    assert lengths.max() <= 10 + 1e-9


def test_the_same_seed_and_name_give_the_same_scenes_whatever_is_made_before():
    first = make_scenes("run-1", duration_s=120, seed=3)
    make_scenes("other", duration_s=60, seed=9)
    assert make_scenes("run-1", duration_s=120, seed=3) == first
    assert make_scenes("run-2", duration_s=120, seed=3) != first
    assert make_scenes("run-1", duration_s=120, seed=4) != first


def test_every_category_comes_once_before_any_comes_again():
    shown = [scene.category for scene in make_scenes("long", duration_s=900, seed=1)]
    assert set(shown[:40]) == set(CATEGORIES)
    assert set(shown[40:80]) == set(CATEGORIES)


def test_held_out_categories_never_appear():
    kept = tuple(c for c in CATEGORIES if c not in ("cat", "boat", "face"))
    shown = {scene.category for scene in make_scenes("train", duration_s=1200, seed=0, categories=kept)}
    assert shown == set(kept)


def test_colour_background_and_action_tell_nothing_of_the_group():
    scenes = many(4000)
    groups = [scene.group for scene in scenes]
    for name, values in (("colour", COLOURS), ("background", BACKGROUNDS), ("action", ACTIONS)):
        table = np.zeros((8, len(values)))
        for group, scene in zip(groups, scenes, strict=True):
            table[list(GROUPS).index(group), list(values).index(getattr(scene, name))] += 1
        assert table.min() > 0
        assert chi2_contingency(table).pvalue > 0.001, name


def test_every_action_direction_and_place_is_met():
    scenes = many()
    assert {scene.direction for scene in scenes if scene.action == "drift"} == set(DIRECTIONS)
    assert {scene.action for scene in scenes} == set(ACTIONS)
    assert len({place_of(scene.x, scene.y) for scene in scenes if scene.action != "drift"}) == 9


def test_objects_stay_in_the_frame_and_the_camera_within_the_panorama():
    long = [draw_scene(generator(0, "long", i), "boat", duration_s=40.0) for i in range(60)]
    for scene in many(400) + long:
        for time_s in np.linspace(0, scene.duration_s, 9):
            pose = scene.pose(time_s)
            for at in (pose.x, pose.y):
                assert 0.64 * pose.size <= at <= 1 - 0.64 * pose.size
            assert 0 <= pose.view <= ASPECT - 1


def test_a_drift_goes_where_its_direction_says():
    for scene in many(400):
        first, last = scene.pose(0), scene.pose(scene.duration_s)
        gone = np.array([last.x - first.x, last.y - first.y])
        if scene.action == "drift":
            np.testing.assert_array_equal(np.sign(np.round(gone, 6)), np.sign(DIRECTIONS[scene.direction]))
        elif scene.action in ("approach", "recede"):
            assert (last.size > 1.9 * first.size) == (scene.action == "approach")


def test_motion_is_smooth_except_where_a_ball_would_hit_the_floor():
    for scene in many(50):
        times = np.linspace(0, scene.duration_s, 2000)
        path = np.array([(p.x, p.y, p.size, p.angle / 360) for p in map(scene.pose, times)])
        speed = np.diff(path, axis=0) * (1999 / scene.duration_s)
        assert np.abs(speed).max() < 1.5
        if scene.action != "bounce":
            assert np.abs(np.diff(speed, axis=0)).max() < 0.01


def test_captions_can_be_read_back():
    for scene in many(1500):
        said = parse_caption(caption_of(scene))
        assert (said["category"], said["colour"], said["background"]) == (
            scene.category,
            scene.colour,
            scene.background,
        )
        assert (said["action"], said["direction"]) == (scene.action, scene.direction)
        assert said["place"] == ("" if scene.action == "drift" else place_of(scene.x, scene.y))
        assert said["pan"] == ("" if scene.pan == 0 else "left" if scene.pan < 0 else "right")


def test_a_caption_reads_like_a_sentence():
    scene = replace(many(1)[0], category="car", colour="orange", background="street", action="drift")
    still = replace(scene, action="still", direction="", x=0.2, y=0.2, size=0.6, pan=0.1)
    assert (
        caption_of(replace(scene, direction="right", size=0.4, pan=0))
        == "an orange car drives to the right on a street"
    )
    assert caption_of(still) == "a large orange car keeps still at the top left on a street, as the camera pans right"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_scenes("a", duration_s=3.0, seed=0), DataError, "duration_s must be 4.0 or more, got 3.0 (a)"),
        (lambda: make_scenes("a", duration_s=-1, seed=0), DataError, "duration_s must be > 0, got -1"),
        (
            lambda: nine_seconds(()),
            ConfigError,
            "categories must be 1 or more, got 0",
        ),
        (
            lambda: nine_seconds(("cat", "cat")),
            ConfigError,
            "must differ, got cat",
        ),
        (lambda: nine_seconds(("cow",)), ConfigError, "got 'cow'"),
        (lambda: parse_caption("a red car"), DataError, "caption must be one of the simulated world, got 'a red car'"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shortest_movie_is_one_scene():
    assert len(make_scenes("a", duration_s=SHORTEST_S, seed=0)) == 1
