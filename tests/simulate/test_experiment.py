import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.store import read_store
from neuroreel.datasets.bids import bids_study
from neuroreel.datasets.bids_tables import read_tsv
from neuroreel.datasets.prepare import prepare
from neuroreel.preprocess.clean import CleanConfig, clean_run
from neuroreel.preprocess.repeats import split_half_ceiling
from neuroreel.simulate.cortex import AREA_TABLE, AREAS
from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment
from neuroreel.workflow import RunConfig, make_sets

SMALL = ExperimentConfig(minutes=1.5, test_minutes=1.5, segment_minutes=1, scale=0.25, blind=40, fps=4, size=32, seed=1)
TINY = SMALL.model_copy(update={"minutes": 0.3, "test_minutes": 0.3, "test_repeats": 2, "train_repeats": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return simulate_experiment(tmp_path_factory.mktemp("simulated") / "sim", SMALL)


@pytest.fixture(scope="module")
def dataset(folder):
    return read_store(prepare(str(folder), folder.with_name("sim.zarr")))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def ceilings(recording, test: str = "test") -> np.ndarray:
    repeats = [run for run in recording.runs if run.stimulus.startswith(test)]
    order = 1 + int(repeats[0].bold.n_trs * repeats[0].bold.tr_s // 150)
    config = CleanConfig(detrend_order=order, confounds=("motion-6",))
    return split_half_ceiling(np.stack([clean_run(run.bold, config, run.confounds).data for run in repeats]))


def test_a_simulated_subject_goes_in_by_the_same_door_as_anybody(dataset):
    recording = dataset.recordings[0]
    assert len(recording.runs) == 2 * 2 + 10
    assert {*AREAS, "blind"} <= set(recording.space.rois)
    assert (recording.space.kind, recording.space.template) == ("surface", "fsaverage5")
    run = next(run for run in recording.runs if "train1" in run.stimulus)
    assert run.video.shape == (240, 32, 32, 3) and run.events[0].caption and "trans_x" in run.confounds


def test_the_ceilings_of_the_files_are_those_asked(dataset):
    recording = dataset.recordings[0]
    found = ceilings(recording)
    assert np.median(found[recording.space.rois["V1"]]) == pytest.approx(AREA_TABLE["V1"].ceiling, abs=0.05)
    asked = sum(recording.space.rois[name] * AREA_TABLE[name].ceiling for name in AREAS)
    seeing = ~recording.space.rois["blind"]
    assert np.median(found[seeing]) == pytest.approx(np.median(asked[seeing]), abs=0.05)


def test_the_workflow_holds_out_the_test_movie_and_takes_its_repeats_together(dataset):
    sets = make_sets(dataset, RunConfig())
    assert set(sets.test.truth.repeats) == {10} and set(sets.train.samples.repeats) == {2}
    assert all("test" in name for name in sets.test.truth.stimulus)
    assert not any("test" in name for name in sets.train.samples.stimulus)


def test_the_truth_lies_beside_in_the_order_of_the_vertices(folder, dataset):
    table = read_tsv(folder / "truth" / "sub-01_vertices.tsv")
    space = dataset.recordings[0].space
    np.testing.assert_array_equal(np.array(table["vertex"], dtype=int), space.index)
    np.testing.assert_array_equal(np.array(table["area"]) == "V4", space.rois["V4"])
    scenes = read_tsv(folder / "truth" / "movie-train1_scenes.tsv")
    events = next(run for run in dataset.recordings[0].runs if "train1" in run.stimulus).events
    assert list(scenes["category"]) == [event.category for event in events]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    first, again = (digests(simulate_experiment(tmp_path / name, TINY)) for name in "ab")
    assert first == again
    other = digests(simulate_experiment(tmp_path / "c", TINY.model_copy(update={"seed": 9})))
    assert all(first[name] != other[name] for name in first if "dtseries" in name or ".mp4" in name)


@pytest.mark.parametrize("kind", ["gifti", "nifti"])
def test_other_kinds_of_files_hold_the_same_numbers(tmp_path, kind):
    config = TINY.model_copy(update={"rest_minutes": 1.0, "subjects": 2})
    cifti = bids_study(simulate_experiment(tmp_path / "cifti", config)).load()
    other = bids_study(simulate_experiment(tmp_path / kind, config.model_copy(update={"kind": kind}))).load()
    for ours, theirs in zip(cifti.recordings, other.recordings, strict=True):
        assert len(ours.runs) == len(theirs.runs) == 1 + 2 + 1
        rows = [np.sort(each.runs[0].bold.data[0]) for each in (ours, theirs)]
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
        assert {name: mask.sum() for name, mask in ours.space.rois.items() if name in AREAS} == {
            name: mask.sum() for name, mask in theirs.space.rois.items() if name in AREAS
        }


def test_resting_state_is_a_run_without_a_stimulus_that_no_clip_is_taken_from(tmp_path):
    config = TINY.model_copy(update={"rest_minutes": 1.0})
    dataset = bids_study(simulate_experiment(tmp_path / "sim", config)).load()
    rest = next(run for run in dataset.recordings[0].runs if "rest" in run.bold.run)
    assert rest.video is None and rest.events == () and rest.bold.n_trs == 30
    assert not any("rest" in name for name in make_sets(dataset, RunConfig()).train.samples.run)


def test_a_finished_folder_is_left_as_it_is(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    said = []
    assert simulate_experiment(folder, SMALL, progress=lambda *step: said.append(step)) == folder
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*")} and not said


def test_a_folder_of_something_else_is_one_sentence_and_stays(folder, tmp_path):
    with pytest.raises(DataError, match=r"output folder must be .*this experiment, got one with seed = 1 \("):
        simulate_experiment(folder, SMALL.model_copy(update={"seed": 2}))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="got other files"):
        simulate_experiment(tmp_path, TINY)
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(DataError, match=r"got a simulation\.json that can't be read"):
        simulate_experiment(tmp_path, TINY)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    def stop(done: int, total: int, text: str) -> None:
        if "subject" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_experiment(tmp_path / "sim", TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_says_what_is_done_and_ends(tmp_path):
    said = []
    simulate_experiment(tmp_path / "sim", TINY, progress=lambda *step: said.append(step))
    assert [done for done, _, _ in said] == sorted(done for done, _, _ in said)
    assert said[-1][0] == said[-1][1] and "test" in " ".join(text for _, _, text in said)
    assert json.loads((tmp_path / "sim" / "simulation.json").read_text())["config"]["seed"] == 1
    shutil.rmtree(tmp_path / "sim")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"minutes": -1}, "minutes is wrong: input should be greater than 0, got -1"),
        ({"minutes": float("inf")}, "minutes is wrong: input should be a finite number, got inf"),
        ({"minuts": 3}, "config key must be one of blind, ceilings, fps, kind"),
        ({"kind": "mgh"}, "kind is wrong: input should be 'cifti', 'gifti' or 'nifti', got 'mgh'"),
        ({"scale": 50}, "scale is wrong: input should be less than or equal to 3"),
        ({"ceilings": {"V1": 2}}, "ceilings is wrong: ceiling of V1 must lie between 0 and 1, got 2.0"),
        ({"ceilings": {"V9": 0.5}}, "area of a ceiling must be one of FFA, LO"),
        ({"test_repeats": 1}, "test_repeats must be train_repeats"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, text):
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.build(settings)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"size": 33}, "size must be an even whole number"), ({"train_categories": ["unicorn"]}, "unicorn")],
)
def test_a_movie_that_can_t_be_is_one_sentence_before_anything_is_written(tmp_path, settings, text):
    with pytest.raises((ConfigError, DataError), match=text):
        simulate_experiment(tmp_path / "sim", ExperimentConfig.build(TINY.model_dump() | settings))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_the_whole_experiment_has_the_ceilings_asked_in_every_area(tmp_path):
    config = ExperimentConfig(minutes=40, test_minutes=8, fps=8)
    recording = bids_study(simulate_experiment(tmp_path / "sim", config)).load().recordings[0]
    found = ceilings(recording)
    asked = read_tsv(tmp_path / "sim" / "truth" / "sub-01_vertices.tsv")
    asked = np.array(asked["ceiling"], dtype=float)
    for area in AREAS:
        rows = recording.space.rois[area]
        assert np.mean(found[rows]) == pytest.approx(asked[rows].mean(), abs=0.05)
        assert np.median(found[rows]) == pytest.approx(asked[rows].mean(), abs=0.05)
    assert np.mean(found[recording.space.rois["blind"]] ** 2) < 0.06
