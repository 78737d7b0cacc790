"""CC2017 laid out by hand as it is published, small, and once at its real size."""

import warnings
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from scipy.io import savemat

from neuroreel.core.errors import ConfigError, DataError, FetchError, NeuroreelWarning
from neuroreel.core.sets import sample
from neuroreel.core.store import read_store
from neuroreel.core.video import write_video
from neuroreel.datasets import cards
from neuroreel.datasets.cc2017 import TR_S, cc2017_study, trim
from neuroreel.datasets.prepare import find_study, prepare

from .cifti_files import AFFINE, CORTEX, OTHERS, write_cifti

RNG = np.random.default_rng(17)
RUNS = {"seg1": (245, 2), "seg2": (245, 2), "test1": (245, 10), "test2": (246, 10)}


def series(volumes: int, columns: int) -> np.ndarray:
    """Column 0 counts volumes, so that a test can see which ones are left."""
    data = RNG.normal(100, 5, (volumes, columns)).astype(np.float32)
    data[:, 0] = np.arange(volumes)
    return data


def write_mni(file: Path, data: np.ndarray) -> None:
    volume = np.zeros((4, 3, 2, len(data)), dtype=np.float32)
    volume[1:3, 1, :] = data[:, :4].T.reshape(2, 2, -1) + 1
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), file)


def write_movie(file: Path, levels: np.ndarray) -> None:
    """A movie at 1 frame per second, each of them of one brightness."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_video(file, (np.full((16, 16, 3), level, dtype=np.uint8) for level in levels), 1.0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cc2017") / "10_4231_R7X63K3M/bundle/video_fmri_dataset"
    for segment, (volumes, repeats) in RUNS.items():
        write_movie(root / "stimuli" / f"{segment}.mp4", np.linspace(20, 230, 480))
        for repeat in range(1, repeats + 1):
            run, data = f"{segment}_{repeat}", series(volumes, CORTEX + OTHERS)
            place = root / "subject1/fmri" / segment
            write_cifti(place / "cifti" / f"{run}_Atlas.dtseries.nii", data)
            odd = run == "test1_9"
            write_mni(place / "mni" / (f"{run}.mni.nii.gz" if odd else f"{run}_mni.nii.gz"), data)
    return root


SOME = {"segments": tuple(RUNS), "subjects": (1,)}


@pytest.mark.parametrize(("volumes", "first"), [(245, 1), (246, 2)])
def test_the_trimming_leaves_240_volumes(volumes: int, first: int) -> None:
    kept = trim(np.arange(volumes, dtype=np.float32)[:, None])
    assert kept.shape == (240, 1) and kept[0] == first and volumes - 1 - kept[-1, 0] == 4


def test_the_cortex_is_read_run_by_run_with_the_tr_forced(published: Path) -> None:
    study = cc2017_study(published, **SOME)
    run = next(each for each in study.runs if each.run == "test2_1").load()
    assert len(study.runs) == 24 and run.bold.data.shape == (240, CORTEX)
    assert run.bold.tr_s == TR_S and run.bold.data[0, 0] == 2 and run.stimulus == "test2"
    assert run.video is not None and run.video.shape[0] == 480


def test_a_trimmed_volume_sits_at_movie_time_four_plus_two_i(published: Path) -> None:
    """245 volumes begin at 2 s and lose one, 246 begin at 0 s and lose two: both start at 4 s."""
    study = cc2017_study(published, **SOME)
    for name, began_s in (("seg1_1", 2.0), ("test2_1", 0.0)):
        bold = next(each for each in study.runs if each.run == name).load().bold
        first_number = float(bold.data[0, 0])
        assert bold.start_s == began_s + TR_S * first_number == 4.0


@pytest.mark.parametrize(("segment", "volumes", "began_s"), [("seg1", 245, 2.0), ("test2", 246, 0.0)])
def test_the_lag_isnt_counted_twice(tmp_path: Path, segment: str, volumes: int, began_s: float) -> None:
    """A scanner's voxel shows the movie's brightness 4 s late: the default window finds it, no other lag does."""
    levels = np.random.default_rng(0).integers(20, 230, 480)
    write_movie(tmp_path / "stimuli" / f"{segment}.mp4", levels)
    seen_s = began_s + TR_S * np.arange(volumes) - 4
    data = series(volumes, CORTEX + OTHERS)
    data[:, 1] = np.where((seen_s >= 0) & (seen_s < 480), levels[np.clip(seen_s, 0, 479).astype(int)], 100)
    write_cifti(tmp_path / f"subject1/fmri/{segment}/cifti/{segment}_1_Atlas.dtseries.nii", data)
    with pytest.warns(NeuroreelWarning, match=f"{segment}_2 .missing"):
        study = cc2017_study(tmp_path, segments=(segment,))
    run = study.runs[0].load()
    found = {}
    for lag_s in (-4.0, 0.0, study.window.first_lag_s, 8.0):
        taken = sample([run], study.window.model_copy(update={"first_lag_s": lag_s, "frames": 1}))
        found[lag_s] = np.corrcoef(taken.brain[:, 0, 1], taken.clips[:, 0].mean((1, 2, 3)))[0, 1]
    assert found[4.0] > 0.99 and all(abs(r) < 0.3 for lag_s, r in found.items() if lag_s != 4.0)


def test_an_odd_name_is_read_and_said(published: Path) -> None:
    with pytest.warns(NeuroreelWarning, match=r"files are read though not named .*test1_9\.mni\.nii\.gz as"):
        study = cc2017_study(published, data="mni", **SOME)
    run = next(each for each in study.runs if each.run == "test1_9").load()
    assert run.bold.data.shape == (240, 4) and run.bold.space.kind == "volume"
    np.testing.assert_array_equal(run.bold.space.index[0], [1, 1, 0])


def test_a_missing_and_a_broken_run_are_named_and_left_out(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "video_fmri_dataset"
    for repeat in (1, 2):
        write_cifti(root / f"subject2/fmri/seg1/cifti/seg1_{repeat}_Atlas.dtseries.nii", series(245, 20))
    write_cifti(root / "subject2/fmri/seg2/cifti/seg2_1_Atlas.dtseries.nii", series(200, 20))
    cut = root / "subject2/fmri/seg1/cifti/seg1_2_Atlas.dtseries.nii"
    cut.write_bytes(cut.read_bytes()[:-500])
    with pytest.warns(NeuroreelWarning) as said:
        study = cc2017_study(tmp_path, segments=("seg1", "seg2"), videos=False)
    assert [each.run for each in study.runs] == ["seg1_1"]
    text = str(said[0].message)
    assert "seg1_2 (broken" in text and "must be 245 or 246, got 200" in text and "seg2_2 (missing)" in text


def test_a_volume_that_is_cut_off_is_left_out(published: Path, tmp_path: Path) -> None:
    place = tmp_path / "subject1/fmri/seg1/mni"
    for repeat in (1, 2):
        write_mni(place / f"seg1_{repeat}_mni.nii.gz", series(245, 20))
    cut = place / "seg1_1_mni.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-3000])
    with pytest.warns(NeuroreelWarning, match="seg1_1 .broken: BOLD must be whole and readable"):
        study = cc2017_study(tmp_path, segments=("seg1",), videos=False, data="mni")
    assert [each.run for each in study.runs] == ["seg1_2"]


def test_the_movie_of_another_length_takes_its_segment_with_it(published: Path, tmp_path: Path) -> None:
    for segment, seconds in (("seg1", 480), ("seg2", 300)):
        write_movie(tmp_path / "stimuli" / f"{segment}.mp4", np.linspace(20, 230, seconds))
        for repeat in (1, 2):
            file = tmp_path / f"subject1/fmri/{segment}/cifti/{segment}_{repeat}_Atlas.dtseries.nii"
            write_cifti(file, series(245, 20))
    with pytest.warns(NeuroreelWarning, match=r"seg2 \(broken: movie must last 480 s, got 300 s"):
        study = cc2017_study(tmp_path, segments=("seg1", "seg2"))
    assert [each.run for each in study.runs] == ["seg1_1", "seg1_2"]


def test_nothing_found_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "video_fmri_dataset/subject1/fmri").mkdir(parents=True)
    rule = r"^runs of cc2017 must have 1 run or more that is whole, looked for .*/cifti/SEGMENT_N_Atlas\.dtseries\.nii"
    with pytest.raises(DataError, match=rule + r".*, got none \(subject1 seg1_1 \(missing\)"):
        cc2017_study(tmp_path)
    with pytest.raises(DataError, match="must hold video_fmri_dataset/ or be it"):
        cc2017_study(tmp_path / "video_fmri_dataset/subject1")


def test_unknown_settings_list_the_known_ones(published: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of data, late, mask, segments, subjects, videos"):
        cc2017_study(published, kind="cifti")
    with pytest.raises(ConfigError, match=r"^segment must be one of seg1, .*test5, got 'seg19'"):
        cc2017_study(published, segments=("seg19",))
    with pytest.raises(ConfigError, match=r"^subject must be one of 1, 2, 3, got '4'"):
        cc2017_study(published, subjects=(4,))


def test_the_run_that_began_late_is_left_out(tmp_path: Path) -> None:
    for repeat in range(1, 11):
        write_cifti(tmp_path / f"subject3/fmri/test2/cifti/test2_{repeat}_Atlas.dtseries.nii", series(246, 20))
    with pytest.warns(NeuroreelWarning, match=r"subject3 test2_9 \(recorded about 10 s late\)"):
        study = cc2017_study(tmp_path, segments=("test2",), videos=False)
    assert len(study.runs) == 9
    assert len(cc2017_study(tmp_path, segments=("test2",), videos=False, late=True).runs) == 10


@pytest.fixture
def matlab(tmp_path: Path) -> Path:
    """The two files of the authors' script: v5 with a struct, v7.3 with its axes the other way round."""
    home = tmp_path / "subject1/fmri"
    home.mkdir(parents=True)
    train = {f"data{repeat}": RNG.normal(size=(6, 240, 18)).astype(np.float32) for repeat in (1, 2)}
    savemat(home / "training_fmri.mat", {"fmri": train, "Rmat": np.zeros((6, 18))})
    with h5py.File(home / "testing_fmri.mat", "w") as file:
        for number in range(1, 6):
            file[f"fmritest/test{number}"] = RNG.normal(size=(10, 240, 6)).astype(np.float32)
    return tmp_path


def test_the_authors_matlab_files_are_read(matlab: Path) -> None:
    from scipy.io import loadmat

    study = cc2017_study(matlab, data="mat", videos=False)
    runs = {each.run: each for each in study.runs}
    assert len(runs) == 18 * 2 + 5 * 10
    ours = runs["seg7_2"].load().bold
    home = matlab / "subject1/fmri"
    np.testing.assert_array_equal(ours.data, loadmat(home / "training_fmri.mat")["fmri"]["data2"][0, 0][:, :, 6].T)
    with h5py.File(home / "testing_fmri.mat") as file:
        np.testing.assert_array_equal(runs["test3_10"].load().bold.data, file["fmritest/test3"][9])


def test_a_matlab_file_that_is_cut_off_is_named(matlab: Path) -> None:
    file = matlab / "subject1/fmri/testing_fmri.mat"
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.warns(NeuroreelWarning, match=r"testing_fmri\.mat \(broken: MATLAB file must be whole"):
        study = cc2017_study(matlab, data="mat", videos=False)
    assert len(study.runs) == 36 and not study.splits


def test_prepare_takes_the_folder_and_fits_on_the_segments(published: Path, tmp_path: Path) -> None:
    settings = [f"folder={published.parents[2]}", "segments=['seg1', 'test1']", "subjects=[1]"]
    data = read_store(prepare("cc2017", tmp_path / "out.zarr", settings=settings))
    split = data.split("published")
    train, test = split.cut(data.recording()).sets(data.window)
    assert {run.stimulus for run in train.runs} == {"seg1"} and {run.stimulus for run in test.runs} == {"test1"}
    assert test.truth.repeats[0] == 10 and train.samples.clips is not None
    first = train.samples
    assert first.lags_s[0] == 4.0 and first.onset_s[0] == 4.0


def test_without_a_folder_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cards.ENVIRONMENT, raising=False)
    with pytest.raises(FetchError, match=r"^data set cc2017 must be downloaded by hand .*folder=PATH.*got no"):
        find_study("cc2017")


@pytest.mark.heavy
def test_the_real_size_is_read(tmp_path: Path) -> None:
    """91,282 grayordinates and 245 volumes, of which 59,412 and 240 are kept."""
    file = tmp_path / "subject1/fmri/seg1/cifti/seg1_1_Atlas.dtseries.nii"
    data = series(245, 91282)
    write_cifti(file, data, cortex=59412)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NeuroreelWarning)
        study = cc2017_study(tmp_path, segments=("seg1",), videos=False)
    bold = study.runs[0].load().bold
    np.testing.assert_array_equal(bold.data, data[1:-4, :59412])
