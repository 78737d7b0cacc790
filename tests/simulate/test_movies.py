from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.simulate.backgrounds import BACKGROUNDS, TEXTURE_COLUMNS, draw_background, pink_noise
from neuroreel.simulate.captions import parse_caption
from neuroreel.simulate.categories import CATEGORIES, GROUP_OF, draw_sprite
from neuroreel.simulate.colours import COLOURS
from neuroreel.simulate.movies import Movie, make_movie, write_mp4
from neuroreel.simulate.rendering import Stage
from neuroreel.simulate.sampling import sample_clips, sample_frames, still
from neuroreel.simulate.scenes import Scene, draw_scene


def scenes_of(action: str, n: int) -> list[Scene]:
    drawn = (draw_scene(generator(5, "tests", i), CATEGORIES[i % 40]) for i in range(60 * n))
    return [scene for scene in drawn if scene.action == action][:n]


def lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((rgb.reshape(1, -1, 3) / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]


def short() -> Movie:
    return make_movie("a", minutes=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.fixture(scope="module")
def movie() -> Movie:
    return make_movie("a", minutes=0.7, size=64, fps=5, seed=2)


def test_a_frame_is_the_same_alone_or_in_a_run_and_in_any_order(movie):
    run = movie.frames(20, 60)
    again = make_movie("a", minutes=0.7, size=64, fps=5, seed=2)
    for frame in (55, 20, 41):
        np.testing.assert_array_equal(again.frames(frame, frame + 1)[0], run[frame - 20])


def test_rate_and_size_change_what_is_sampled_and_not_what_happens(movie):
    fast = make_movie("a", minutes=0.7, size=64, fps=15, seed=2)
    large = make_movie("a", minutes=0.7, size=128, fps=5, seed=2)
    np.testing.assert_array_equal(fast.frames(300, 301), movie.frames(100, 101))
    small = cv2.resize(large.frames(100, 101)[0], (64, 64), interpolation=cv2.INTER_AREA)
    assert psnr(small, movie.frames(100, 101)[0]) > 28
    assert (movie.n_frames, fast.n_frames) == (210, 630)


def test_the_mask_is_where_the_truth_says_and_as_large(movie):
    truth, masks = movie.truth(), movie.masks()
    middle = (np.arange(64) + 0.5) / 64
    for row in range(0, movie.n_frames, 7):
        mask = masks[row]
        centre = mask.sum(0) @ middle / mask.sum(), mask.sum(1) @ middle / mask.sum()
        np.testing.assert_allclose(centre, (truth["x"][row], truth["y"][row]), atol=0.008)
        seen = max(np.ptp(np.flatnonzero(mask.max(k) > 0.5)) + 1 for k in (0, 1)) / 64
        if truth["action"][row] not in ("rotate", "bounce"):
            assert seen == pytest.approx(truth["size"][row], abs=0.05)


def test_the_mask_is_what_differs_from_the_background():
    for scene in scenes_of("still", 6):
        stage = Stage(scene, 64)
        mask = stage.mask(1.0)
        bare = stage._panorama[:, round(stage.scene.pose(1.0).view * 128) :][:, :128]
        bare = cv2.resize(bare, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
        changed = np.abs(stage.frame(1.0) - bare).max(-1) > 40
        assert np.mean(changed[mask > 0.95]) > 0.7
        assert not changed[cv2.dilate(mask, np.ones((7, 7))) == 0].any()


def test_most_of_an_objects_coloured_pixels_have_its_named_colour():
    palette, right = lab(np.array(list(COLOURS.values()))), []
    for category in CATEGORIES:
        for k, colour in enumerate(COLOURS):
            sprite = draw_sprite(category, colour, look=3, pixels=128)
            pixels = lab(sprite.rgba[..., :3][sprite.cover == 255])
            chroma = np.hypot(pixels[:, 1], pixels[:, 2])
            pixels = pixels[(pixels[:, 0] > 25) & (chroma > 38 if colour != "white" else True)]
            away = (pixels[:, None] - palette) * (0.4, 1, 1)
            right.append(np.bincount(np.argmin((away**2).sum(-1), axis=1), minlength=8).argmax() == k)
    assert np.mean(right) > 0.97


@pytest.mark.parametrize(
    ("action", "step_s"), [("drift", 0.4), ("approach", 1.5), ("recede", 1.5), ("rotate", 0.4), ("bounce", 0.2)]
)
def test_flow_takes_a_frame_to_the_next_one(action, step_s):
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).astype(np.float32)
    for scene in scenes_of(action, 4):
        stage = Stage(scene, 256)
        time_s = 0.1 * scene.period_s if action == "bounce" else 1.0
        before, after = stage.frame(time_s).astype(np.float32), stage.frame(time_s + step_s).astype(np.float32)
        warped = cv2.remap(after, grid + stage.flow(time_s, step_s), None, cv2.INTER_LINEAR)
        inner = cv2.erode(stage.mask(time_s), np.ones((5, 5))) > 0.95
        without, with_flow = (np.abs(frame - before)[inner].mean() for frame in (after, warped))
        assert with_flow < 0.35 * without, scene


def test_flow_of_the_background_is_the_cameras_pan():
    panned = [s for s in scenes_of("still", 30) if s.pan and s.background in ("street", "room", "forest")][:4]
    for scene in panned:
        stage = Stage(scene, 128)
        before, after = (cv2.cvtColor(stage.frame(t), cv2.COLOR_RGB2GRAY).astype(float) for t in (1.0, 1.5))
        away = cv2.GaussianBlur(
            1 - cv2.dilate(np.maximum(stage.mask(1.0), stage.mask(1.5)), np.ones((31, 31))), (0, 0), 5
        )
        shifts = np.arange(-12, 13)
        cost = [np.mean(away * np.abs(np.roll(before, s, 1) - after))[()] for s in shifts]
        flow = stage.flow(1.0, 0.5)[stage.mask(1.0) == 0]
        assert shifts[int(np.argmin(cost))] == pytest.approx(flow[:, 0].mean(), abs=0.75)
        assert np.all(flow[:, 1] == 0)


def test_farnebacks_estimate_of_a_drift_agrees_with_the_flow():
    for scene in scenes_of("drift", 8):
        stage = Stage(scene, 128)
        before, after = (cv2.cvtColor(stage.frame(t), cv2.COLOR_RGB2GRAY) for t in (2.0, 2.2))
        seen = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 25, 5, 7, 1.5, 0)
        inner = cv2.erode(stage.mask(2.0), np.ones((3, 3))) > 0.9
        known, seen = (np.median(f[inner], axis=0) for f in (stage.flow(2.0, 0.2), seen))
        assert known @ seen / np.linalg.norm(known) / np.linalg.norm(seen) > 0.9, scene


def test_truth_velocity_is_what_the_flow_shows(movie):
    truth = movie.truth()
    rows = np.flatnonzero((truth["action"] == "drift") & np.isin(truth["group"], ("tool", "food", "furniture")))[::9]
    assert len(rows) > 2
    for row in rows:
        flow = movie.flow(int(row))[movie.masks(row, row + 1)[0] > 0.5].mean(0) * 5 / 64
        np.testing.assert_allclose(flow, (truth["velocity_x"][row], truth["velocity_y"][row]), atol=1e-3)


def test_events_and_truth_say_the_same_and_captions_can_be_parsed(movie):
    truth, events = movie.truth(), movie.events()
    for i, event in enumerate(events):
        shown = (truth["time_s"] >= event.onset_s - 1e-6) & (truth["time_s"] < event.onset_s + event.duration_s - 1e-6)
        assert set(truth["scene"][shown]) == {i}
        assert set(truth["category"][shown]) == {event.category} == {parse_caption(event.caption)["category"]}
        assert set(truth["caption"][shown]) == {event.caption}


def test_a_video_of_the_movie_reads_its_frames(movie):
    video = movie.to_video()
    assert (video.name, video.fps, video.shape) == ("a", 5, (210, 64, 64, 3))
    np.testing.assert_array_equal(video.frames(7, 9), movie.frames(7, 9))


def test_an_mp4_decodes_to_the_same_movie(movie, tmp_path):
    done: list[int] = []
    path = write_mp4(tmp_path / "a.mp4", movie, progress=done.append)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", 5.0)
        assert stream.codec_context.pix_fmt == "yuv420p"
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert decoded.shape == movie.shape
    assert psnr(decoded, movie.frames()) > 30
    assert done[-1] == movie.n_frames
    assert len(done) == len(movie.scenes)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(movie, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(path, movie, progress=stop)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_backgrounds_have_the_same_view_at_every_resolution_and_differ_by_look():
    for background in BACKGROUNDS:
        small, large = draw_background(background, 1, 64), draw_background(background, 1, 128)
        half = cv2.resize(large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert psnr(small, half) > 20
        assert psnr(draw_background(background, 2, 64), small) < 30


def test_the_texture_falls_as_one_over_f():
    power = np.mean(np.abs(np.fft.rfft(pink_noise(0, power=1.0), axis=1)) ** 2, axis=0)[4:200]
    slope = np.polyfit(np.log(np.arange(4, 200)), np.log(power), 1)[0]
    assert slope == pytest.approx(-1, abs=0.35)  # a line through an isotropic field with power 1 / f^2
    assert pink_noise(0).shape[1] == TEXTURE_COLUMNS


def test_objects_of_one_category_vary_and_categories_differ():
    def small(category: str) -> np.ndarray:
        return cv2.resize(still(category, background="sky"), (16, 16), interpolation=cv2.INTER_AREA).astype(float)

    for category in CATEGORIES:
        shapes = {draw_sprite(category, "red", look).cover.tobytes() for look in range(3)}
        assert len(shapes) == 3
    assert np.abs(small("cat") - small("car")).mean() > 5


def test_samples_are_balanced_labelled_and_the_same_for_the_same_seed():
    frames, truth = sample_frames(80, size=32, seed=4, per_scene=2)
    again, _ = sample_frames(80, size=32, seed=4, per_scene=2)
    np.testing.assert_array_equal(frames, again)
    assert set(Counter(truth["category"]).values()) == {2}
    assert all(GROUP_OF[c] == g for c, g in zip(truth["category"], truth["group"], strict=True))
    assert set(Counter(truth["scene"]).values()) == {2}
    assert not np.array_equal(frames, sample_frames(80, size=32, seed=5, per_scene=20)[0])


def test_clips_move_and_hold_out_categories():
    clips, truth = sample_clips(12, frames=4, size=32, fps=4, seed=0, categories=("cat", "boat"))
    assert clips.shape == (12, 4, 32, 32, 3)
    assert set(truth["category"]) == {"cat", "boat"}
    moving = truth["action"] != "still"
    assert np.all(np.abs(clips[moving, 0].astype(int) - clips[moving, 3]).max(axis=(1, 2, 3)) > 10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_movie("a", minutes=0), DataError, "minutes must be > 0, got 0 (a)"),
        (lambda: make_movie("a", minutes=0.05), DataError, "duration_s must be 4.0 or more, got 3.0 (a)"),
        (
            lambda: make_movie("a", minutes=1, size=63),
            DataError,
            "an even whole number of 16 or more, got 63 (a)",
        ),
        (lambda: make_movie("a", minutes=1, fps=float("nan")), DataError, "fps must be > 0, got nan (a)"),
        (lambda: make_movie("a", minutes=1, categories=("cow",)), ConfigError, "category must be one of apple, baby"),
        (
            lambda: short().frames(5, 1000),
            DataError,
            "frames must lie within 0..900, got 5..1000 (a)",
        ),
        (lambda: short().flow(900), DataError, "frames must lie within 0..900, got 900..901 (a)"),
        (
            lambda: write_mp4(Path("/nowhere/a.mp4"), short()),
            DataError,
            "folder of the movie must exist",
        ),
        (
            lambda: write_mp4("a.mp4", short(), crf=99),
            DataError,
            "crf must be a whole number from 0 to 51",
        ),
        (lambda: still("cat", colour="beige"), ConfigError, "colour must be one of blue, green"),
        (lambda: draw_sprite("cat", "red", 0, 100), DataError, "pixels must be a multiple of 32, got 100"),
        (lambda: still("cat", object_size=2), DataError, "object_size must be at most 0.9, got 2"),
        (lambda: sample_frames(0), DataError, "n must be a whole number of 1 or more, got 0"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
