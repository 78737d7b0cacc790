import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroreel import workflow
from neuroreel.core.errors import ConfigError, DataError, FetchError, NeuroreelWarning, StoreError
from neuroreel.core.sets import Window
from neuroreel.core.store import write_store
from neuroreel.core.system import RunFolder
from neuroreel.core.training import TrainingLog
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Space, Video
from neuroreel.datasets.cards import study
from neuroreel.preprocess.clean import CleanConfig
from neuroreel.systems import find_system
from neuroreel.workflow import (
    RunConfig,
    ScoringConfig,
    dataset_of,
    evaluate_run,
    evaluate_systems,
    fit_systems,
    hold_out_stimuli,
    load_systems,
    make_sets,
    networks_for,
    read_trainings,
    reconstruct_systems,
    sweep,
    voxel_scores,
)

TR_S = 2.0


def make_dataset(repeats: int = 3, *, scanner: bool = True, voxels: int = 30) -> Dataset:
    """Return two training movies and a test movie shown more often; voxels see pixels 4 s late, but for the last 10."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, voxels)) * (np.arange(voxels) < voxels - 10)
    runs = []
    for name, count, shown in (("one", 60, 1), ("two", 60, 1), ("test", 40, repeats)):
        pictures = rng.integers(0, 255, size=(count, 4, 4), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
        frames = np.repeat(pictures[..., None], 3, axis=3)
        signal = (pictures.reshape(count, -1) / 127.5 - 1) @ weights
        events = tuple(Event(TR_S * i, TR_S, "ab"[int(picture.mean() > 127)]) for i, picture in enumerate(pictures))
        for repeat in range(shown):
            data = np.zeros((count + 6, voxels))
            data[2 : count + 2] = signal
            data += 4 * rng.normal(size=data.shape)
            data = 1000 + 10 * data if scanner else data
            bold = Bold(data.astype(np.float32), TR_S, Space("columns", voxels), "01", f"{name}-{repeat + 1}")
            video = Video.from_frames(frames, name=name, fps=1 / TR_S)
            runs.append(Run(bold, name, video, events))
    return Dataset("planted", (Recording("planted", "01", tuple(runs)),), Window(first_lag_s=4.0, block_s=10.0))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "planted.zarr", make_dataset())


@pytest.fixture(scope="module")
def run(store: Path) -> Path:
    out = store.parent / "run"
    fit_systems(store, ["mean-frame", "ridge-latents"], out, RunConfig(seed=1))
    return out


def test_the_stimuli_shown_most_often_are_held_out() -> None:
    split = hold_out_stimuli(make_dataset().recordings[0])
    assert [part.run for part in split.test] == ["test-1", "test-2", "test-3"]
    assert "test" in split.reason
    assert [part.run for part in hold_out_stimuli(make_dataset(1).recordings[0]).test] == ["test-1"]
    one = replace(make_dataset().recordings[0], runs=make_dataset().recordings[0].runs[:1])
    alone = hold_out_stimuli(one)
    assert alone.train[0].stop_s == pytest.approx(88 - 12) and alone.test[0].start_s == pytest.approx(88)


@pytest.mark.parametrize("scanner", [True, False])
def test_voxels_in_a_scanners_units_are_scaled_with_the_moments_of_train(scanner: bool) -> None:
    sets = make_sets(make_dataset(scanner=scanner), RunConfig())
    sd = np.concatenate([each.bold.data for each in sets.cut.train]).std(0)
    assert np.allclose(sd, 1, atol=1e-3) == scanner
    assert not np.allclose(np.concatenate([each.bold.data for each in sets.cut.test]).std(0), 1, atol=1e-3)


def test_the_training_side_does_not_depend_on_what_the_test_runs_hold() -> None:
    dataset = make_dataset()
    other = make_dataset()
    for each in other.recordings[0].runs[2:]:
        each.bold.data[:] = np.random.default_rng(1).normal(500, 50, size=each.bold.data.shape)
    first, second = (make_sets(one, RunConfig()).train.samples.brain for one in (dataset, other))
    assert np.array_equal(first, second)


def test_a_run_goes_from_a_store_to_scores_that_stand_in_its_folder(run: Path) -> None:
    table = evaluate_run(run)
    ridge, mean = table.rows["ridge-latents"], table.rows["mean-frame"]
    for name in ("identification:pairwise", "frame-correlation", "category-accuracy"):
        score = ridge[name]
        assert score.chance_value is not None and score.low is not None and score.p is not None
        assert score.low > score.chance_value and score.p < 0.01
        assert score.ceiling is not None and score.mean < score.ceiling
    assert mean["identification:pairwise"].mean == pytest.approx(0.5)
    saved = json.loads((run / "scores.json").read_text())
    assert saved == table.to_dict()
    assert dataset_of(run) == "planted"
    about = json.loads((run / "run.json").read_text())
    assert about["split"]["reason"] and about["versions"]["numpy"] and about["config"]["seed"] == 1


def test_a_video_is_scored_by_its_motion_beside_the_same_without_motion(tmp_path: Path) -> None:
    dataset = make_dataset()
    moving = replace(
        dataset, window=dataset.window.model_copy(update={"frames": 3, "clip_s": 4.0, "height": 16, "width": 16})
    )
    store = write_store(tmp_path / "moving.zarr", moving)
    run = fit_systems(store, ["ridge-latents"], tmp_path / "run", RunConfig(embed={"image-text": "world"}))
    evaluate_run(run)
    saved = json.loads((run / "scores.json").read_text())
    row = {name.partition("@")[0]: one for name, one in saved["rows"]["ridge-latents"].items()}
    for name in ("epe:raw", "epe:over-flow", "direction-accuracy", "clip-consistency:all-pairs"):
        assert set(row[name]["controls"]) == {"static", "reversed", "frame-shuffled"}
    assert row["clip-consistency:adjacent"]["controls"]["static"] == pytest.approx(1)
    assert row["direction-accuracy"]["controls"]["static"] == 0 and row["mse"]["controls"] == {}
    assert "clip-consistency:gated-compat" in saved["skipped"]


def test_a_reconstruction_is_kept_and_made_anew_after_a_new_fit(run: Path, store: Path) -> None:
    first = reconstruct_systems(run)["ridge-latents"]
    file = run / "reconstructions" / "ridge-latents.npz"
    assert file.is_file()
    again = reconstruct_systems(run)["ridge-latents"]
    assert first.clips is not None and again.clips is not None and np.array_equal(first.clips, again.clips)
    fit_systems(store, ["ridge-latents"], run, RunConfig(seed=1))
    assert not file.exists()


def test_answers_of_chance_and_ceiling_are_kept_and_made_anew_after_a_new_fit(
    run: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run / "reconstructions" / "beside" / "ridge-latents"
    shutil.rmtree(folder.parent, ignore_errors=True)
    first = evaluate_run(run).to_dict()
    assert folder.is_dir()
    with monkeypatch.context() as nobody:
        nobody.setattr(workflow, "chance_answers", None)
        nobody.setattr(type(load_systems(run)["ridge-latents"]), "ceiling", None)
        again = evaluate_run(run).to_dict()
    assert json.dumps(again) == json.dumps(first)  # in the same order too
    fit_systems(store, ["ridge-latents"], run, RunConfig(seed=1))
    assert not folder.exists() and (folder.parent / "mean-frame").is_dir()


def test_a_run_folder_of_other_settings_is_refused_and_kept(run: Path, store: Path) -> None:
    before = (run / "run.json").read_text()
    with pytest.raises(DataError, match=r"^run folder's window must be that of this run"):
        fit_systems(store, ["mean-frame"], run, RunConfig(seed=1, window={"trs": 2}))
    assert (run / "run.json").read_text() == before


def test_how_a_run_is_scored_may_change_without_a_new_fit(run: Path, store: Path) -> None:
    other = RunConfig(seed=1, metrics=("mse",), embed={"alexnet2": "world"})
    fit_systems(store, ["mean-frame"], run, other)
    assert set(evaluate_run(run).variants) == {"mse"}
    anew = ScoringConfig(metrics=("two-way:alexnet2", "two-way:alexnet5"), embed={"alexnet5": "world"})
    assert [name.partition("@")[0] for name in evaluate_run(run, anew).variants] == list(anew.metrics or ())
    fit_systems(store, ["mean-frame"], run, RunConfig(seed=1))


def test_data_of_the_simulated_world_have_its_networks_and_others_have_none() -> None:
    other, config = make_dataset(), RunConfig(embed={"swav": "swav.pth", "image-text": ""})
    simulated = networks_for(replace(other, name="simulated"), config)
    assert simulated["image-classifier"] == simulated["video-classifier"] == simulated["alexnet5"] == "world"
    assert networks_for(other, config) == {"swav": "swav.pth", "image-text": ""}
    assert simulated["image-text"] == "" and "alexnet2" not in networks_for(other, RunConfig())
    few = networks_for(replace(other, name="simulated"), RunConfig(metrics=("mse", "two-way:alexnet2")))
    assert few == {"alexnet2": "world"}


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^run must be a folder that `neuroreel fit` wrote, got no run.json"):
        evaluate_run(tmp_path)


def test_logs_of_trainings_are_found_beside_the_systems(tmp_path: Path) -> None:
    log = TrainingLog().add(3, {"diversity": ("diversity", 0.5)}, np.zeros((1, 4, 4, 3), np.uint8))
    log.save(tmp_path / "systems" / "gan" / "log")
    found = read_trainings(tmp_path, ["ridge", "gan"])
    assert list(found) == ["gan"] and found["gan"].curves["diversity"].values.tolist() == [0.5]


def test_what_is_not_said_and_must_be_lists_what_there_is() -> None:
    dataset = make_dataset()
    two = replace(dataset, recordings=(dataset.recordings[0], replace(dataset.recordings[0], subject="02")))
    with pytest.raises(ConfigError, match=r"^subject must be given, one of 01, 02, got none \(planted\)$"):
        make_sets(two, RunConfig())
    with pytest.raises(ConfigError, match=r"^split must be one of , got 'x' \(planted\)$"):
        make_sets(dataset, RunConfig(split="x"))
    with pytest.raises(ConfigError, match=r"^config key must be one of at, average, .* got 'lag'"):
        make_sets(dataset, RunConfig(window={"lag": 1}))


def test_the_sweep_peaks_where_the_brain_knows_and_is_at_chance_before() -> None:
    found = sweep(make_sets(make_dataset(), RunConfig()), seed=0)
    assert found.best_lag_s == 4.0
    before = found.values[found.lags_s < 0]
    assert found.values.max() > 0.8 and np.all(np.abs(before - 0.5) < 0.15)


def test_voxels_are_scored_against_their_ceiling_and_blind_ones_are_at_chance() -> None:
    maps = {each.title: each.values for each in voxel_scores(make_sets(make_dataset(8), RunConfig()))}
    r = maps["encoding correlation on test"]
    assert np.median(r[:20]) > 0.5 and np.abs(np.median(r[20:])) < 0.2
    assert np.median(maps["noise ceiling"][:20]) > np.median(r[:20])


def test_cleaning_is_as_the_config_says() -> None:
    raw, flat = (
        make_sets(make_dataset(), RunConfig(scale="none", clean=CleanConfig(detrend_order=order, keep_mean=True)))
        for order in (0, 3)
    )
    assert raw.train.samples.brain.mean() == pytest.approx(1000, rel=0.01)
    assert flat.train.samples.brain.std() < raw.train.samples.brain.std()


def real(name: str) -> Dataset:
    """Return a real recording, or skip by name where it can't be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NeuroreelWarning)
            return study(name).load()
    except FetchError as error:
        pytest.skip(f"the recording {name} is not here: {error}")


def test_a_real_movie_is_read_from_v1() -> None:
    config = RunConfig(metrics=("frame-correlation", "identification:pairwise"))
    sets = make_sets(real("szinte2024"), config)
    assert len(sets.test.truth) == 50
    system = find_system("ridge-pixels")().fit(sets.train, run=RunFolder(Path()))
    scores = evaluate_systems({"ridge-pixels": system}, sets, config)[1].rows["ridge-pixels"]
    assert scores["frame-correlation"].mean >= 0.63
    assert scores["identification:pairwise"].mean >= 0.97
    rows = scores["identification:pairwise"].chance
    assert set(rows) == {"shuffled", "train-marginal", "mean-brain", "noise", "nearest-train", "analytic"}
    assert all(abs(value - 0.5) <= 0.06 for value in rows.values()), rows
    assert (scores["identification:pairwise"].p or 1) < 0.01


def test_eight_categories_are_read_from_a_real_slice() -> None:
    dataset = real("haxby2001-slice")
    right, blind = [], []
    for split in dataset.splits:
        sets = make_sets(dataset, RunConfig(split=split))
        truth = sets.test.truth.category
        system = find_system("ridge-latents")().fit(sets.train, run=RunFolder(Path()))
        order = np.random.default_rng(0).permutation(np.unique(truth))
        swapped = dict(zip(np.unique(truth), order, strict=True))  # whole categories change names: blocks stay blocks
        made = system.reconstruct(sets.test.brain)
        assert made.probabilities is not None
        named = np.array(made.categories)[made.probabilities.argmax(1)]
        right.append(named == truth)
        blind.append(named == np.array([swapped[name] for name in truth]))
    assert np.concatenate(right).mean() >= 0.47
    assert np.concatenate(blind).mean() < 0.25
