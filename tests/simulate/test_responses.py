import numpy as np
import pytest

from neuroreel.core.types import Video
from neuroreel.simulate.cortex import AREAS, FIELD_DEG, make_cortex
from neuroreel.simulate.movies import make_movie
from neuroreel.simulate.responses import (
    DIRECTIONS,
    MIXTURE,
    ORIENTATIONS,
    RATE_HZ,
    Maps,
    Neurons,
    energy_and_colour,
    look_at,
    motion_energy,
    receptive_fields,
)
from neuroreel.simulate.ventral import VentralNetwork


@pytest.fixture(scope="module")
def movie():
    return make_movie("seen", minutes=4, size=64, fps=8, seed=1)


@pytest.fixture(scope="module")
def maps(movie):
    return look_at(movie.to_video(), movie)


@pytest.fixture(scope="module")
def neurons():
    return Neurons(make_cortex("01", scale=0.4, blind=40), seed=1)


@pytest.fixture(scope="module")
def answers(neurons, maps):
    return neurons.respond(maps)


def grating(angle_deg: float, phase: float, cycles: float = 8.0) -> np.ndarray:
    y, x = np.mgrid[:64, :64] / 64
    along = x * np.cos(np.radians(angle_deg)) - y * np.sin(np.radians(angle_deg))  # 90 degrees is up
    wave = 0.5 + 0.4 * np.cos(2 * np.pi * cycles * along - phase)
    return np.repeat(wave[None, :, :, None], 3, axis=3).astype(np.float32)


def movies_of_bars(rng: np.random.Generator, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames with one textured patch each, and its centres in degrees (times, xy)."""
    frames = np.full((times, 64, 64, 3), 0.5, dtype=np.float32)
    corner = rng.integers(0, 52, size=(times, 2))
    for frame, (row, column) in zip(frames, corner, strict=True):
        frame[row : row + 12, column : column + 12] = rng.random((12, 12, 1))
    middle = (corner + 6) / 64 * 2 * FIELD_DEG - FIELD_DEG
    return frames, np.column_stack([middle[:, 1], -middle[:, 0]])


@pytest.mark.parametrize("channel", range(ORIENTATIONS))
def test_contrast_energy_is_largest_for_contours_of_its_orientation(channel):
    contours = np.arange(ORIENTATIONS) * 180 / ORIENTATIONS
    frames = np.concatenate([grating(angle + 90, 0.3) for angle in contours])  # the wave runs across its contours
    energy = energy_and_colour(frames)[:, channel, 4:-4, 4:-4].mean((1, 2))
    assert energy.argmax() == channel
    assert energy[channel] > 2 * np.delete(energy, channel).max()


@pytest.mark.parametrize("direction", range(DIRECTIONS))
def test_motion_energy_is_largest_in_the_direction_of_the_motion(direction):
    angle = direction * 360 / DIRECTIONS
    moved = motion_energy(grating(angle, 0.6), grating(angle, 0.0))[0].mean((1, 2))
    assert moved.argmax() == direction
    assert moved[(direction + DIRECTIONS // 2) % DIRECTIONS] < 0.05 * moved[direction]


def test_a_still_picture_has_no_motion_and_a_grey_one_no_energy():
    still = grating(30, 0)
    assert not motion_energy(still, still).any()
    assert np.abs(energy_and_colour(np.full((1, 64, 64, 3), 0.4, np.float32))[:, : 2 * ORIENTATIONS]).max() < 1e-4


def test_maps_are_those_of_the_frames_on_show_four_times_a_second(movie, maps):
    assert all(len(part) == 4 * 60 * RATE_HZ for part in (*maps.parts, maps.meaning))
    time = 333
    frame = int(time / RATE_HZ * movie.fps)
    pictures = movie.frames(frame, frame + 1).astype(np.float32) / 255
    np.testing.assert_allclose(maps.parts[0][time], energy_and_colour(pictures)[0], atol=1e-5)
    np.testing.assert_allclose(maps.parts[4][time], VentralNetwork.trained().look(pictures)[2][0], atol=1e-4)
    assert [part.shape[-1] for part in maps.parts] == [16, 16, 16, 16, 8, 4]


def test_batches_and_frame_sizes_change_nothing_but_rounding(movie, maps):
    short = make_movie("seen", minutes=0.2, size=64, fps=8, seed=1)
    whole, pieces = look_at(short.to_video(), short), look_at(short.to_video(), short, batch=7)
    for a, b in zip(whole.parts, pieces.parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    large = make_movie("seen", minutes=0.2, size=128, fps=8, seed=1)
    for a, b in zip(whole.parts[:2], look_at(large.to_video(), large).parts[:2], strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def test_receptive_fields_sum_to_one_and_have_the_planted_centre(neurons):
    cortex, side = neurons.cortex, 16
    fields = receptive_fields(cortex, side)
    np.testing.assert_allclose(fields.sum(1), 1, rtol=1e-5)
    centres = (np.arange(side) + 0.5) / side * 2 * FIELD_DEG - FIELD_DEG
    rows = np.flatnonzero((cortex.area == "V1") & (np.hypot(cortex.x, cortex.y) < 5))
    weighted = fields.reshape(-1, side, side)[rows]
    np.testing.assert_allclose((weighted.sum(1) * centres).sum(1), cortex.x[rows], atol=0.15)
    np.testing.assert_allclose((weighted.sum(2) * -centres).sum(1), cortex.y[rows], atol=0.15)


@pytest.fixture(scope="module")
def mapped(neurons):
    """Centres of receptive fields as a mapping experiment finds them, (voxels, xy) degrees."""
    frames, places = movies_of_bars(np.random.default_rng(0), 600)
    moved = np.roll(frames, 1, axis=2)
    parts = (energy_and_colour(frames), motion_energy(frames, moved), *VentralNetwork.trained().look(frames))
    meaning = np.random.default_rng(1).normal(size=(600, neurons._meaning.shape[1])).astype(np.float32)
    values = neurons.respond(Maps(parts, meaning)).values
    weight = np.maximum(values**2 - np.median(values**2, axis=0), 0) ** 2  # a patch in the field, of either sign
    return weight.T @ places / weight.sum(0)[:, None].clip(1e-9)


@pytest.mark.parametrize("area", ["V1", "V2", "V3", "MT"])
def test_mapping_with_patches_recovers_the_planted_retinotopy(neurons, mapped, area):
    rows = neurons.cortex.rows(area)
    assert np.corrcoef(mapped[rows, 0], neurons.cortex.x[rows])[0, 1] > 0.8
    assert np.corrcoef(mapped[rows, 1], neurons.cortex.y[rows])[0, 1] > 0.8


def test_mt_prefers_the_planted_direction(neurons):
    angles = np.arange(24) * 15.0
    now, before = (np.concatenate([grating(angle, phase) for angle in angles]) for phase in (0.6, 0.0))
    parts = (energy_and_colour(now), motion_energy(now, before), *VentralNetwork.trained().look(now))
    meaning = np.zeros((24, neurons._meaning.shape[1]), np.float32)
    values = neurons.respond(Maps(parts, meaning)).values[:, neurons.cortex.rows("MT")]
    towards = np.angle(np.exp(1j * np.radians(angles)) @ values)
    error = np.angle(np.exp(1j * (towards - np.radians(neurons.direction_deg[neurons.cortex.rows("MT")]))))
    assert np.median(np.abs(np.degrees(error))) < 20


def test_mt_follows_the_directions_of_the_movie(movie, maps, neurons, answers):
    truth = movie.truth()
    frames = (np.arange(len(answers.values)) / RATE_HZ * movie.fps).astype(int)
    moving = np.hypot(truth["velocity_x"], truth["velocity_y"])[frames] > 0.05
    angle = np.arctan2(-truth["velocity_y"], truth["velocity_x"])[frames][moving]
    rows = neurons.cortex.rows("MT")
    match = np.cos(angle[:, None] - np.radians(neurons.direction_deg[rows]))
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(match.T, answers.values[moving][:, rows].T, strict=True)]
    assert np.mean(r) > 0.1


@pytest.mark.parametrize(("area", "preferred"), [("FFA", {"person", "animal"}), ("PPA", {"building", "furniture"})])
def test_ffa_prefers_faces_of_the_world_and_ppa_its_places(movie, neurons, answers, area, preferred):
    group = movie.truth()["group"][(np.arange(len(answers.values)) / RATE_HZ * movie.fps).astype(int)]
    mean = answers.values[:, neurons.cortex.rows(area)].mean(1)
    liked = np.isin(group, list(preferred))
    assert mean[liked].mean() > mean[~liked].mean() + 0.5


def test_responses_have_unit_variance_and_blind_vertices_none(neurons, answers):
    sd = answers.values.std(0)
    for area in AREAS:
        assert np.median(sd[neurons.cortex.rows(area)]) == pytest.approx(1, abs=0.25)
    assert not answers.values[:, neurons.cortex.area == "blind"].any()
    assert all(sum(shares) == pytest.approx(1) for shares in MIXTURE.values())


def test_moments_of_the_first_movie_hold_for_all_others(neurons, maps, answers):
    half = Maps(tuple(part[:700] for part in maps.parts), maps.meaning[:700])
    np.testing.assert_allclose(neurons.respond(half, answers.moments).values, answers.values[:700], atol=1e-4)


def test_late_areas_answer_alike_to_a_category_whatever_its_place(movie, neurons, answers):
    scenes = movie.scene_of((np.arange(len(answers.values)) / RATE_HZ * movie.fps).astype(int))
    held = {}
    for area in AREAS:
        values = answers.values[:, neurons.cortex.rows(area)]
        within = np.mean([values[scenes == scene].var(0).mean() for scene in np.unique(scenes)])
        held[area] = 1 - within / values.var(0).mean()
    assert min(held["FFA"], held["PPA"]) > held["V4"] > held["MT"]


def test_two_subjects_see_the_same_movie_with_other_neurons(maps, neurons):
    other = Neurons(make_cortex("02", scale=0.4, blind=40), seed=1)
    again = Neurons(make_cortex("01", scale=0.4, blind=40), seed=1)
    np.testing.assert_array_equal(again.direction_deg, neurons.direction_deg)
    assert not np.array_equal(other.direction_deg[:50], neurons.direction_deg[:50])


def test_a_video_slower_than_the_responses_is_looked_at_too():
    slow = make_movie("slow", minutes=0.2, size=32, fps=2, seed=1)
    video = Video.from_frames(slow.frames(), name="slow", fps=2)
    assert len(look_at(video, slow).meaning) == 48
