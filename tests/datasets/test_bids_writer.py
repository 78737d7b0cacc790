"""What is written as BIDS derivatives is read back as it was, in all three forms."""

import json

import numpy as np
import pytest
from bids import BIDSLayout

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.study import Study
from neuroreel.core.types import Bold, Event, Recording, Run, Space, Video
from neuroreel.core.video import open_video, write_video
from neuroreel.datasets.bids import bids_study, read_bids
from neuroreel.datasets.bids_writer import grid_of, write_bids

RNG = np.random.default_rng(5)
AFFINE = np.array([[2.0, 0, 0, -40], [0, 2, 0, -30], [0, 0, 2, -20], [0, 0, 0, 1]])


def volume_space():
    index = np.argwhere(RNG.random((5, 6, 4)) < 0.3)
    index = np.unique(np.vstack([index, [[4, 5, 3]]]), axis=0)
    rois = {"V1": np.arange(len(index)) < 9, "early visual": np.arange(len(index)) < 14}
    return Space("volume", len(index), index, AFFINE, template="MNI152NLin2009cAsym", rois=rois)


def surface_space(template="fsaverage5", count=40):
    index = np.concatenate([np.sort(RNG.choice(10242, count, replace=False)) for _ in range(2)])
    rois = {
        "V1": np.arange(2 * count) % 5 == 0,
        "MT": np.arange(2 * count) % 5 == 1,
        "all early": np.arange(2 * count) < 50,
    }
    hemisphere = np.repeat(["L", "R"], count)
    return Space("surface", 2 * count, index, hemisphere=hemisphere, template=template, rois=rois)


def recording(space, subject="01", runs=("task-movie_run-01", "task-movie_run-02"), video=None, start_s=0.75):
    made = []
    for run in runs:
        bold = Bold(RNG.normal(100, 5, (9, space.size)).astype(np.float32), 1.5, space, subject, run, start_s)
        events = tuple(Event(4.0 * n, 4.0, f"animal{n}", f"a dog, {n} of them", f"scene-{n}") for n in range(3))
        confounds = {"trans_x": RNG.normal(size=9), "framewise_displacement": RNG.random(9)}
        made.append(Run(bold, "clip" if video is not None else "", video, events, confounds))
    return Recording("a study", subject, tuple(made))


def same(one, other):
    assert (one.dataset, one.subject) == (other.dataset, other.subject)
    for a, b in zip(one.runs, other.runs, strict=True):
        np.testing.assert_array_equal(a.bold.data, b.bold.data)
        assert (a.bold.run, a.bold.start_s, a.bold.space.template) == (
            b.bold.run,
            b.bold.start_s,
            b.bold.space.template,
        )
        assert b.bold.data.dtype == np.float32 and a.bold.tr_s == pytest.approx(b.bold.tr_s, abs=1e-6)
        np.testing.assert_array_equal(a.bold.space.index, b.bold.space.index)
        assert a.events == b.events and a.stimulus == b.stimulus
        assert a.bold.space.rois.keys() == b.bold.space.rois.keys()
        for name, mask in a.bold.space.rois.items():
            np.testing.assert_array_equal(mask, b.bold.space.rois[name])
        for name, values in a.confounds.items():
            np.testing.assert_array_equal(values, b.confounds[name])


@pytest.mark.parametrize(
    ("kind", "space"),
    [
        ("nifti", volume_space()),
        ("gifti", surface_space()),
        ("gifti", surface_space(count=10242)),
        ("cifti", surface_space("fsLR")),
        ("cifti", surface_space()),
    ],
)
def test_what_is_written_is_read_back_equal(tmp_path, kind, space):
    written = recording(space)
    write_bids(tmp_path / "out", [written], kind=kind)
    (read,) = read_bids(tmp_path / "out")
    same(written, read)
    if space.kind == "surface":
        np.testing.assert_array_equal(read.space.hemisphere, space.hemisphere)
    else:
        np.testing.assert_allclose(read.space.affine, AFFINE)


def test_vertices_go_into_a_volume_one_voxel_each_near_where_they_lie(tmp_path):
    space = surface_space(count=2000)
    written = recording(space)
    write_bids(tmp_path / "out", [written], kind="nifti")
    (read,) = read_bids(tmp_path / "out")
    index, affine, template = grid_of(space)
    order = np.lexsort(index.T[::-1])
    np.testing.assert_array_equal(read.runs[0].bold.data, written.runs[0].bold.data[:, order])
    np.testing.assert_array_equal(read.space.rois["MT"], space.rois["MT"][order])
    assert read.space.template == template == "MNI305"
    x_mm = (index @ affine[:3, :3].T + affine[:3, 3])[:, 0]
    assert np.mean(x_mm[space.hemisphere == "L"]) < -20 and np.mean(x_mm[space.hemisphere == "R"]) > 20


def test_crowded_vertices_take_the_nearest_free_voxel():
    space = Space("surface", 30, np.arange(30), hemisphere=np.repeat("L", 30), template="fsaverage5")
    index, affine, _ = grid_of(space, coordinates=RNG.normal(0, 0.2, (30, 3)))
    assert len(np.unique(index, axis=0)) == 30
    assert np.abs(index @ affine[:3, :3].T + affine[:3, 3]).max() <= 5


def test_the_movie_is_copied_and_decodes_to_the_same_frames(tmp_path):
    frames = RNG.integers(0, 255, (60, 16, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 5.0)
    video = open_video(tmp_path / "clip.mp4", name="clip")
    write_bids(tmp_path / "out", [recording(volume_space(), video=video)], kind="nifti")
    (read,) = read_bids(tmp_path / "out")
    shown = read.runs[1].video
    assert (tmp_path / "out/stimuli/clip.mp4").read_bytes() == (tmp_path / "clip.mp4").read_bytes()
    assert (shown.name, shown.fps, shown.shape, shown.start_s) == ("clip", 5.0, (60, 16, 32, 3), 0.0)
    np.testing.assert_array_equal(shown.frames(20, 30), video.frames(20, 30))


def test_a_video_in_memory_is_encoded_and_one_that_starts_late_stays_late(tmp_path):
    ramp = np.repeat(np.arange(0, 240, 6, dtype=np.uint8), 16 * 16 * 3).reshape(40, 16, 16, 3)
    video = Video.from_frames(ramp, name="grey ramp", fps=4.0, start_s=2.0)
    whole = recording(surface_space())
    runs = tuple(Run(run.bold, "grey ramp", video) for run in whole.runs)
    write_bids(tmp_path / "out", [Recording("a study", "01", runs)], kind="gifti")
    (read,) = read_bids(tmp_path / "out")
    assert read.runs[0].video.start_s == 2.0 and read.runs[0].video.shape == (40, 16, 16, 3)
    assert np.abs(read.runs[0].video.frames().astype(int) - ramp).mean() < 2


def test_events_that_name_no_scene_start_come_back_within_a_movie_that_began_before_them(tmp_path):
    frames = RNG.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    video = Video.from_frames(frames, name="m", fps=5.0, start_s=0.0)
    whole = recording(surface_space(), runs=("task-movie_run-1",), video=video)
    late = Run(whole.runs[0].bold, "m", video, (Event(6.0, 2.0, "dog"),))
    write_bids(tmp_path / "out", [Recording("a study", "01", (late,))], kind="cifti")
    (run,) = read_bids(tmp_path / "out")[0].runs
    assert run.video.start_s == 0.0 and run.events == late.events


def test_a_clock_far_from_the_first_volume_is_shifted_to_it(tmp_path):
    write_bids(tmp_path / "out", [recording(volume_space(), start_s=-1.5)], kind="nifti")
    (read,) = read_bids(tmp_path / "out")
    assert read.runs[0].bold.start_s == 0.0
    assert [event.onset_s for event in read.runs[0].events] == [1.5, 5.5, 9.5]


def test_pybids_finds_every_file_that_was_written(tmp_path):
    runs = ("ses-a_task-movie_run-1", "ses-a_task-movie_run-2", "ses-b_task-rest")
    space = surface_space()
    write_bids(
        tmp_path / "out", (recording(space, subject, runs) for subject in ("01", "02")), kind="gifti", name="Two"
    )
    layout = BIDSLayout(tmp_path / "out", validate=False, is_derivative=True)
    assert layout.get_subjects() == ["01", "02"] and layout.get_sessions() == ["a", "b"]
    assert sorted(layout.get_tasks()) == ["movie", "rest"]
    (bold,) = layout.get(subject="02", session="a", run=2, suffix="bold", extension=".func.gii", hemi="L")
    assert bold.get_metadata()["RepetitionTime"] == 1.5
    assert layout.get_nearest(bold.path, suffix="events", extension=".tsv", strict=False) is not None
    description = json.loads((tmp_path / "out/dataset_description.json").read_text())
    assert description["Name"] == "Two" and description["DatasetType"] == "derivative"


def test_run_names_without_bids_entities_become_tasks_and_bare_runs_get_the_task(tmp_path):
    names = ("film.A", "run-2", "ses-x_run-3")
    write_bids(tmp_path / "out", [recording(volume_space(), runs=names)], task="watch")
    read = bids_study(tmp_path / "out")
    assert [run.run for run in read.runs] == ["ses-x_task-watch_run-3", "task-filmA", "task-watch_run-2"]


def test_a_subject_is_taken_only_after_the_last_one_is_written(tmp_path):
    seen = []

    def subjects():
        for subject in ("01", "02"):
            seen.append(sorted(path.name for path in tmp_path.glob(".out*/sub-*")))
            yield recording(volume_space(), subject)

    write_bids(tmp_path / "out", subjects())
    assert seen == [[], ["sub-01"]]


def test_a_failed_write_leaves_nothing(tmp_path):
    def subjects():
        yield recording(volume_space())
        raise DataError("the second subject must be there, got none")

    with pytest.raises(DataError, match="second subject"):
        write_bids(tmp_path / "out", subjects())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recordings", "kind", "message"),
    [
        ([recording(volume_space())], "gifti", "space for gifti must be a surface with vertices"),
        ([recording(volume_space())], "minc", "kind must be one of cifti, gifti, nifti, got 'minc'"),
        ([recording(volume_space())] * 2, "nifti", r"subjects must have names that differ, got 01 \(a study\)"),
        (
            [recording(volume_space(), runs=("a.b", "ab"))],
            "nifti",
            "run names must differ in letters and digits, got task-ab",
        ),
        ([], "nifti", "recordings must be 1 or more, got 0"),
    ],
)
def test_what_can_not_be_written_is_one_sentence(tmp_path, recordings, kind, message):
    with pytest.raises((DataError, ConfigError), match=message):
        write_bids(tmp_path / "out", recordings, kind=kind)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_not_written_over_unless_asked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="output folder must be empty or not there yet, got files"):
        write_bids(tmp_path / "out", [recording(volume_space())])
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"
    write_bids(tmp_path / "out", [recording(volume_space())], overwrite=True)
    assert isinstance(bids_study(tmp_path / "out"), Study)
