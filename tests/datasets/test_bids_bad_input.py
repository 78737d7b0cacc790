"""Broken BIDS folders: each fault is one sentence with the name, the rule, the value got and the file."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Bold, Event, Recording, Run, Space
from neuroreel.core.video import open_video, write_video
from neuroreel.datasets.bids import bids_study, read_bids
from neuroreel.datasets.bids_writer import write_bids

RNG = np.random.default_rng(3)
TRS = 10
RUN = "sub-01/func/sub-01_task-movie_run-1"
NIFTI = f"{RUN}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
RIGHT = f"{RUN}_hemi-R_space-fsaverage5_bold.func.gii"
CIFTI = f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii"


def spaces(kind):
    if kind == "nifti":
        index = np.argwhere(np.ones((9, 8, 7)))
        return Space("volume", len(index), index, np.diag([3.0, 3, 3, 1]), template="MNI152NLin2009cAsym")
    template = "fsaverage5" if kind == "gifti" else "fsLR"
    return Space("surface", 60, np.tile(np.arange(30), 2), hemisphere=np.repeat(["L", "R"], 30), template=template)


@pytest.fixture(params=["nifti"])
def folder(request, tmp_path):
    """A good folder of one subject with two runs of one movie, to be broken."""
    space = spaces(request.param)
    write_video(tmp_path / "film.mp4", RNG.integers(0, 255, (80, 16, 16, 3), dtype=np.uint8), 4.0)
    video = open_video(tmp_path / "film.mp4", name="film")
    runs = []
    for name in ("task-movie_run-1", "task-movie_run-2"):
        bold = Bold(RNG.normal(size=(TRS, space.size)).astype(np.float32), 2.0, space, "01", name)
        runs.append(Run(bold, "film", video, (Event(0.0, 20.0, "dog"),), {"trans_x": np.arange(TRS, dtype=float)}))
    return write_bids(tmp_path / "good", [Recording("good", "01", tuple(runs))], kind=request.param)


def sentence(folder, kind=DataError, **choice):
    """Return the one sentence with which reading fails."""
    with pytest.raises(kind) as error:
        read_bids(folder, **choice)
    text = str(error.value)
    assert "\n" not in text and ", got " in text
    return text


def edit(folder, name, change):
    file = folder / name
    file.write_text(change(file.read_text()))
    return file


def save_with(folder, data=None, tr_s=None, affine=None):
    image = nibabel.load(folder / NIFTI)
    data = image.get_fdata(dtype=np.float32) if data is None else data
    made = nibabel.Nifti1Image(data, image.affine if affine is None else affine)
    made.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        made.header.set_zooms((3, 3, 3, 2.0 if tr_s is None else tr_s))
    nibabel.save(made, folder / NIFTI)


def test_the_good_folder_is_read(folder):
    (one,) = read_bids(folder)
    assert one.runs[0].bold.data.shape == (TRS, 504) and one.runs[0].video.shape[0] == 80


@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
def test_truncated_nifti(folder, share):
    whole = (folder / NIFTI).read_bytes()
    (folder / NIFTI).write_bytes(whole[: int(share * len(whole))])
    text = sentence(folder)
    assert text.startswith("BOLD must be whole and readable, got ") and text.endswith(f"({folder / NIFTI})")


def test_nifti_whose_gzip_is_whole_but_whose_volumes_are_cut_off(folder):
    inside = gzip.decompress((folder / NIFTI).read_bytes())
    (folder / NIFTI).write_bytes(gzip.compress(inside[: len(inside) // 2]))
    assert sentence(folder).startswith("BOLD must be whole and readable, got not enough data in file (")


@pytest.mark.parametrize("content", [b"", b"not an image at all", gzip.compress(b"neither is this" * 100)])
def test_file_that_is_no_nifti(folder, content):
    (folder / NIFTI).write_bytes(content)
    text = sentence(folder)
    assert text.startswith("BOLD must be whole and readable, got ") and text.endswith(f"({folder / NIFTI})")


@pytest.mark.parametrize("folder", ["gifti", "cifti"], indirect=True)
def test_truncated_surface(folder):
    file = next(folder / name for name in (RIGHT, CIFTI) if (folder / name).exists())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    text = sentence(folder)
    assert text.startswith("BOLD must be whole and readable, got ") and text.endswith(f"({file})")


def test_one_volume_only(folder):
    save_with(folder, np.ones((9, 8, 7), dtype=np.float32))
    assert sentence(folder).startswith("BOLD must have the axes (x, y, z, trs), got shape (9, 8, 7) (")


def test_grid_of_the_bold_is_not_that_of_the_mask(folder):
    save_with(folder, np.ones((9, 8, 6, TRS), dtype=np.float32))
    assert sentence(folder).startswith("grid of the BOLD must be that of its mask (9, 8, 7), got (9, 8, 6) (")


def test_affine_of_the_bold_is_not_that_of_the_mask(folder):
    save_with(folder, affine=np.diag([2.0, 2, 2, 1]))
    assert sentence(folder).startswith("affine of the BOLD must be that of its mask, got 9.00 mm apart (")


def test_brain_masks_of_two_grids(folder):
    file = folder / NIFTI.replace("preproc_bold", "brain_mask")
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 8, 6), dtype=np.uint8), np.diag([3.0, 3, 3, 1])), file)
    text = sentence(folder)
    assert text.startswith(f"grid of the brain mask must be that of {file.name} (9, 8, 6), got (9, 8, 7) (")


def test_brain_mask_is_missing_or_empty(folder):
    file = folder / NIFTI.replace("preproc_bold", "brain_mask")
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 8, 7), dtype=np.uint8), np.diag([3.0, 3, 3, 1])), file)
    assert sentence(folder).startswith("brain mask must hold 1 voxel or more, got 0 (")
    file.unlink()
    rule = "brain mask must be beside the BOLD as *_desc-brain_mask.nii.gz, or be given as mask, got none"
    assert sentence(folder) == f"{rule} ({folder / NIFTI})"


def test_tr_of_the_header_differs_from_the_sidecar(folder):
    save_with(folder, tr_s=1.0)
    assert sentence(folder) == f"tr_s of the header must be that of the sidecar (2), got 1 ({folder / NIFTI})"


def test_tr_is_nowhere(folder):
    save_with(folder, tr_s=0.0)
    (folder / NIFTI.replace(".nii.gz", ".json")).write_text("{}")
    assert (
        sentence(folder) == f"tr_s must be in the header or the sidecar (RepetitionTime), got none ({folder / NIFTI})"
    )


@pytest.mark.parametrize(
    ("value", "got"), [(-2, "tr_s must be > 0, got -2.0"), ("2", "RepetitionTime must be a number of seconds, got '2'")]
)
def test_tr_of_the_sidecar_is_no_time(folder, value, got):
    (folder / NIFTI.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": value}))
    assert sentence(folder).startswith(f"{got} (")


def test_sidecar_is_no_json(folder):
    file = edit(folder, NIFTI.replace(".nii.gz", ".json"), lambda text: text[:20])
    text = sentence(folder)
    assert text.startswith("sidecar must be whole and readable, got ") and text.endswith(f"({file})")


def test_description_is_no_json(folder):
    edit(folder, "dataset_description.json", lambda text: text[:20])
    assert sentence(folder).startswith("dataset_description.json must be whole and readable, got ")


def test_confounds_of_another_length(folder):
    file = edit(folder, f"{RUN}_desc-confounds_timeseries.tsv", lambda text: text + "1.0\n")
    assert sentence(folder) == f"confounds must have as many entries as volumes of the BOLD (10), got 11 ({file})"


def test_confounds_that_are_no_numbers_or_not_there(folder):
    assert sentence(folder, ConfigError, confounds=("rot_x",)).startswith(
        "confound must be one of trans_x, got 'rot_x' ("
    )
    file = edit(folder, f"{RUN}_desc-confounds_timeseries.tsv", lambda text: text.replace("3.0", "high"))
    assert sentence(folder) == f"confound trans_x must be numbers, got 'high' ({file})"


def test_events_without_onset(folder):
    file = edit(folder, f"{RUN}_events.tsv", lambda text: text.replace("onset\t", "time\t", 1))
    text = sentence(folder)
    assert text.startswith("events must have the column onset, got time, duration, ") and text.endswith(f"({file})")


def test_events_that_are_empty_or_not_numbers(folder):
    file = edit(folder, f"{RUN}_events.tsv", lambda text: text.replace("0.0\t20.0", "soon\t20.0"))
    assert sentence(folder) == f"onset in line 2 must be a number of seconds, got 'soon' ({file})"
    file.write_text("")
    assert sentence(folder).startswith("table must be whole and readable, got No columns to parse")


def test_category_column_is_missing(folder):
    text = sentence(folder, category="animal")
    assert text.startswith("events must have the column animal, got onset, duration, trial_type, ")


def test_stimulus_file_is_missing(folder):
    (folder / "stimuli/film.mp4").unlink()
    assert sentence(folder) == f"stim_file must be in {folder / 'stimuli'}, got 'film.mp4' ({folder / RUN}_events.tsv)"
    (folder / "stimuli").rmdir()
    rule = "stim_file must be in a folder stimuli, to show film.mp4, got no such folder"
    assert sentence(folder) == f"{rule} ({folder / RUN}_events.tsv)"


def test_stimulus_file_outside_its_folder(folder):
    edit(folder, f"{RUN}_events.tsv", lambda text: text.replace("film.mp4", "../../film.mp4"))
    assert sentence(folder).startswith("path must stay inside its folder, got '../../film.mp4' (")


def test_stimulus_file_is_cut_off(folder):
    whole = (folder / "stimuli/film.mp4").read_bytes()
    (folder / "stimuli/film.mp4").write_bytes(whole[: len(whole) // 2])
    assert sentence(folder).endswith(f"({folder / 'stimuli/film.mp4'})")


def test_stimulus_file_of_an_unknown_codec(folder):
    file = folder / "stimuli/film.mp4"
    file.write_bytes(file.read_bytes().replace(b"avc1", b"zzzz"))
    assert sentence(folder) == f"video must be a whole video file that can be opened, got AttributeError ({file})"


def test_one_movie_that_starts_at_two_times(folder):
    edit(folder, f"{RUN}_events.tsv", lambda text: text + "8.0\t2.0\tcat\tn/a\tn/a\tfilm.mp4\t3.0\n")
    rule = "stim_onset of film.mp4 must put its start at one time, within a frame, got 5.000 s apart"
    assert sentence(folder).startswith(rule)


def test_fewer_volumes_than_the_stimulus_needs(folder):
    image = nibabel.load(folder / NIFTI)
    save_with(folder, image.get_fdata(dtype=np.float32)[..., :8])
    edit(folder, f"{RUN}_desc-confounds_timeseries.tsv", lambda text: "\n".join(text.split("\n")[:9]) + "\n")
    rule = "volumes of sub-01 run task-movie_run-1 must be 10 or more to last as long as the stimulus (20 s), got 8"
    assert sentence(folder) == f"{rule} ({folder / NIFTI})"


@pytest.mark.parametrize("folder", ["gifti"], indirect=True)
def test_hemispheres_of_different_lengths(folder):
    image = nibabel.load(folder / RIGHT)
    nibabel.save(nibabel.GiftiImage(darrays=image.darrays[:7], meta=image.meta), folder / RIGHT)
    text = sentence(folder)
    assert (
        text
        == f"volumes of the right hemisphere must have as many entries as the left one (10), got 7 ({folder / RIGHT})"
    )


@pytest.mark.parametrize("folder", ["gifti"], indirect=True)
def test_one_hemisphere_or_another_mesh(folder):
    image = nibabel.load(folder / RIGHT)
    small = [nibabel.gifti.GiftiDataArray(each.data[:2562]) for each in image.darrays]
    nibabel.save(nibabel.GiftiImage(darrays=small), folder / RIGHT)
    assert sentence(folder).startswith("vertices must have as many entries as fsaverage5 (10242), got 2562 (")
    (folder / RIGHT).unlink()
    assert sentence(folder).startswith("hemispheres must be L and R, got L (")


@pytest.mark.parametrize("folder", ["cifti"], indirect=True)
def test_two_runs_with_different_vertices(folder):
    image = nibabel.load(folder / CIFTI)
    axes = (image.header.get_axis(0), image.header.get_axis(1)[:50])
    made = nibabel.Cifti2Image(np.asarray(image.dataobj)[:, :50], header=axes)
    made.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
    nibabel.save(made, folder / CIFTI)
    assert sentence(folder).startswith(
        "voxels of run task-movie_run-2 must be as many as in run task-movie_run-1 (50), got 60"
    )


def test_roi_labels_on_another_grid(folder):
    (folder / "sub-01/anat").mkdir()
    file = folder / "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-ROIs_dseg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 5, 5), dtype=np.int16), np.eye(4)), file)
    assert sentence(folder) == f"grid of the ROI labels must be that of the BOLD (9, 8, 7), got (5, 5, 5) ({file})"


def test_atlas_on_another_space(folder):
    text = sentence(folder, ConfigError, atlas="glasser")
    assert text == "atlas glasser must be used on fsLR, got MNI152NLin2009cAsym"


def test_no_bold_says_what_was_looked_for(tmp_path):
    (tmp_path / "sub-01/func").mkdir(parents=True)
    (tmp_path / "sub-01/func/sub-01_task-movie_bold.nii.gz").write_bytes(b"raw")
    looked = "*_desc-preproc_bold.nii.gz, *_hemi-L_*_bold.func.gii or *_bold.dtseries.nii"
    assert sentence(tmp_path) == f"BIDS folder must hold BOLD named {looked}, got none ({tmp_path})"
    assert sentence(tmp_path / "x") == f"BIDS folder must be a folder that exists, got '{tmp_path / 'x'}'"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"subject": "07"}, "subject must be one of 01, got '07'"),
        ({"task": "rest"}, "task must be one of movie, got 'rest'"),
        ({"session": "1"}, "session must not be asked for where no file has one, got 1"),
        ({"run": "9"}, "run must be one of 1, 2, got '9'"),
        ({"form": "gifti"}, "space must be one of MNI152NLin2009cAsym (nifti), got space None, form 'gifti'"),
        (
            {"subjects": "01"},
            "config key must be one of atlas, category, confounds, desc, form, mask, raw, rois, ",
        ),
    ],
)
def test_choices_that_are_not_there(folder, choice, message):
    with pytest.raises(ConfigError) as error:
        bids_study(folder, **choice)
    assert str(error.value).startswith(message)
