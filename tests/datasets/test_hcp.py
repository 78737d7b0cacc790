"""A folder of the Human Connectome Project laid out by hand as it is published, with real CIFTI files."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.store import read_store
from neuroreel.datasets.hcp import hcp_study
from neuroreel.datasets.prepare import find_study, prepare

from .cifti_files import CORTEX, OTHERS, write_cifti

REST, MOTOR = "rfMRI_REST1_LR", "tfMRI_MOTOR_LR"
FILES = {
    REST: ("_Atlas", "_Atlas_hp2000_clean", "_Atlas_MSMAll", "_Atlas_MSMAll_hp2000_clean"),
    MOTOR: ("_Atlas", "_Atlas_MSMAll"),
}


def write_run(folder: Path, subject: str, run: str, ending: str, level: float = 0.0, trs: int = 20) -> Path:
    """Write one run's file as the releases name it; its values lie about the level."""
    seed = [int(subject), *ending.encode(), *run.encode()]
    data = np.random.default_rng(seed).normal(level, 1, (trs, CORTEX + OTHERS)).astype(np.float32)
    file = folder / subject / "MNINonLinear" / "Results" / run / f"{run}{ending}.dtseries.nii"
    write_cifti(file, data, step_s=0.72)
    return file


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for subject in ("100307", "103414"):
        for run, endings in FILES.items():
            for number, ending in enumerate(endings):
                write_run(tmp_path, subject, run, ending, level=100 * number)
            place = tmp_path / subject / "MNINonLinear" / "Results" / run
            (place / f"{run}.nii.gz").write_bytes(b"a volume, which is passed over")
            write_run(tmp_path, subject, run, "_Atlas_1.6mm_MSMAll_hp2000_clean", level=900)
    return tmp_path


def test_the_cortex_of_the_best_file_of_every_run_is_read(published: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NeuroreelWarning)
        study = hcp_study(published)
    assert [(one.subject, one.run) for one in study.runs] == [
        (subject, run) for subject in ("100307", "103414") for run in (REST, MOTOR)
    ]
    rest, motor = (one.load() for one in study.runs[:2])
    assert rest.bold.data.shape == (20, CORTEX) and rest.bold.tr_s == pytest.approx(0.72)
    assert round(rest.bold.data.mean(), -2) == 300 and round(motor.bold.data.mean(), -2) == 100
    assert rest.video is None and rest.bold.space.template == "fsLR" and set(rest.bold.space.hemisphere) == {"L", "R"}


def test_other_alignment_cleaning_runs_and_subjects_are_chosen_by_settings(published: Path) -> None:
    study = hcp_study(published, aligned="MSMSulc", cleaned=False, runs=("rfMRI_*",), subjects=(103414,))
    (run,) = study.runs
    assert (run.subject, run.run, run.sources[0].name) == ("103414", REST, f"{REST}_Atlas.dtseries.nii")
    with pytest.raises(ConfigError, match=r"^subject must be one of 100307, 103414, got '7'"):
        hcp_study(published, subjects=(7,))
    with pytest.raises(ConfigError, match="must be one of aligned, cleaned, runs, subjects, got 'clean'"):
        hcp_study(published, clean=True)


def test_prepare_knows_the_folder_and_resting_state_goes_into_a_store(published: Path, tmp_path: Path) -> None:
    assert find_study(published).name == "hcp"
    data = read_store(prepare(published, tmp_path / "out.zarr", settings=["runs=['rfMRI_REST*']"]))
    assert [one.subject for one in data.recordings] == ["100307", "103414"]
    (run,) = data.recordings[1].runs
    assert run.bold.tr_s == pytest.approx(0.72) and run.video is None and run.bold.data.shape == (20, CORTEX)
    assert len(find_study(published / "100307").runs) == 2


def test_what_is_broken_or_missing_is_named_and_left_out(published: Path) -> None:
    results = published / "103414" / "MNINonLinear" / "Results"
    cut = results / REST / f"{REST}_Atlas_MSMAll_hp2000_clean.dtseries.nii"
    cut.write_bytes(cut.read_bytes()[:-200])
    (results / MOTOR / f"{MOTOR}_Atlas_MSMAll.dtseries.nii").unlink()
    write_run(published, "100307", "rfMRI_REST2_LR", "_Atlas_MSMAll_hp2000_clean")
    write_run(published, "103414", "tfMRI_WM_LR", "_Atlas_MSMAll")
    with pytest.warns(NeuroreelWarning) as said:
        study = hcp_study(published)
    assert [one.run for one in study.runs if one.subject == "103414"] == ["tfMRI_WM_LR"]
    text = str(said[0].message)
    assert f"103414 {REST} (broken: BOLD must be whole" in text and "103414 rfMRI_REST2_LR (missing)" in text
    assert f"103414 {MOTOR} (missing as MSMAll, there is {MOTOR}_Atlas.dtseries.nii)" in text


def test_nothing_found_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "100307" / "MNINonLinear" / "Results" / "rfMRI_REST1_LR").mkdir(parents=True)
    rule = r"^runs of the HCP folder must have 1 that is whole, looked for SUBJECT/MNINonLinear/Results/.*dtseries\.nii"
    with pytest.raises(DataError, match=rule + r", got none \(100307 rfMRI_REST1_LR \(missing as MSMSulc, there is no"):
        hcp_study(tmp_path)


def test_a_file_that_does_not_say_its_tr_is_one_sentence(tmp_path: Path) -> None:
    file = write_run(tmp_path, "100307", REST, "_Atlas")
    write_cifti(file, np.ones((4, CORTEX + OTHERS), dtype=np.float32), step_s=0.0)
    with pytest.raises(DataError, match=r"^tr_s must be in the header or the sidecar \(RepetitionTime\), got none"):
        hcp_study(tmp_path).runs[0].load()


@pytest.mark.heavy
def test_the_real_size_is_read(tmp_path: Path) -> None:
    """91,282 grayordinates and 1200 volumes are 438 MB a run; 40 volumes tell as much."""
    data = np.random.default_rng(0).normal(size=(40, 91282)).astype(np.float32)
    file = tmp_path / "100307/MNINonLinear/Results" / REST / f"{REST}_Atlas_MSMAll_hp2000_clean.dtseries.nii"
    write_cifti(file, data, cortex=59412, step_s=0.72)
    bold = hcp_study(tmp_path).runs[0].load().bold
    np.testing.assert_array_equal(bold.data, data[:, :59412])
