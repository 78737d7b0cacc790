import json
from pathlib import Path

import numpy as np
import pytest
from tests.generate.small_generators import write_stable_diffusion

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.scores import Lesions, ScoreCurve
from neuroreel.core.sets import TestSet, TrainingSet, Window
from neuroreel.core.store import write_store
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Dataset, Recording, Run, Space, Video
from neuroreel.probes import (
    Prober,
    attention_run,
    bottleneck,
    components_of,
    lesions,
    minutes,
    probe_run,
    reduced,
    repeats,
    shortened,
)
from neuroreel.report.record import read_probes
from neuroreel.systems import find_system
from neuroreel.workflow import RunConfig, fit_systems, load_systems, make_sets, report_run

TR_S, VOXELS, SHOWN = 2.0, 24, 4
EIGHT = np.arange(VOXELS) // 8


def make_dataset(noise: float = 1.0, test_noise: int = 0) -> Dataset:
    """Return pictures that 8 voxels see ("seeing") 4 s late; 8 are noise ("blind"), 8 have no region."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, VOXELS)) * (EIGHT == 0)
    rois = {"seeing": EIGHT == 0, "blind": EIGHT == 1, "nowhere": EIGHT > 5}
    runs = []
    for name, count, shown in (("one", 60, 1), ("two", 60, 1), ("test", 40, SHOWN)):
        pictures = rng.integers(0, 255, size=(count, 2, 2), dtype=np.uint8)
        frames = np.repeat(pictures.repeat(4, 1).repeat(4, 2)[..., None], 3, axis=3)
        for repeat in range(shown):
            data = np.zeros((count + 6, VOXELS))
            data[2 : count + 2] = (pictures.reshape(count, -1) / 127.5 - 1) @ weights
            own = np.random.default_rng([ord(name[0]), repeat, test_noise if name == "test" else 0])
            data += noise * own.normal(size=data.shape)
            bold = Bold(data.astype(np.float32), TR_S, Space("columns", VOXELS, rois=rois), "01", f"{name}-{repeat}")
            runs.append(Run(bold, name, Video.from_frames(frames, name=name, fps=1 / TR_S)))
    return Dataset("planted", (Recording("planted", "01", tuple(runs)),), Window(first_lag_s=4.0, block_s=10.0))


def prober(**more: object) -> Prober:
    kind = find_system("ridge-latents")
    settings = kind.Settings.build({"decoder": {"keep": [1.0], "per_target": True}})
    return Prober("ridge-latents", kind, settings, None, {}, **more)


def test_the_region_that_carries_the_signal_is_found_and_the_others_are_not_missed() -> None:
    found = lesions(make_sets(make_dataset(), RunConfig()), prober())
    assert found.regions == ("seeing", "blind") and found.voxels.tolist() == [8, 8]
    seeing, blind = 0, 1
    assert found.whole > 0.85 and found.chance == pytest.approx(0.5, abs=0.05)
    assert found.without_low[seeing] <= 0.5 <= found.without_high[seeing]
    assert found.only_low[blind] <= 0.5 <= found.only_high[blind]
    assert found.without[blind] == pytest.approx(found.whole, abs=0.03)
    assert found.only[seeing] >= found.whole - 0.02


def test_a_bottleneck_of_all_dimensions_is_no_bottleneck_and_one_of_few_costs() -> None:
    sets, probe = make_sets(make_dataset(), RunConfig()), prober()
    curve = bottleneck(sets, probe, [1, 4, 10_000])
    assert curve.x.tolist() == [1, 4, VOXELS]
    assert curve.values[0] < curve.values[1] - 0.05 and curve.values[2] > 0.85
    found = components_of(sets.train)
    full = probe("full", *reduced(sets.cut, found, VOXELS).sets(sets.window))
    assert np.allclose(full.values, probe("all", sets.train, sets.test).values)
    assert curve.values[2] == pytest.approx(full.mean)


def test_the_components_do_not_depend_on_what_the_test_runs_hold() -> None:
    brains = []
    for test_noise in (0, 1):
        sets = make_sets(make_dataset(test_noise=test_noise), RunConfig())
        train, test = reduced(sets.cut, components_of(sets.train), 3).sets(sets.window)
        brains.append((train.samples.brain, test.truth.brain))
    assert np.array_equal(brains[0][0], brains[1][0]) and not np.array_equal(brains[0][1], brains[1][1])
    centred = brains[1][1].reshape(-1, VOXELS) - components_of(sets.train).mean
    assert np.linalg.matrix_rank(centred, tol=1e-3 * np.abs(centred).max()) == 3


def test_less_training_scan_is_the_first_share_of_every_run_and_scores_less() -> None:
    dataset = make_dataset(noise=2.0)
    asked: list[int] = []

    def measure(point: str, train: TrainingSet, test: TestSet) -> object:
        asked.append(len(train.samples))
        return probe(point, train, test)

    probe = prober()
    curve = minutes(dataset, RunConfig(), measure, [1.1, 100.0])
    total = 2 * 66 * TR_S / 60
    assert curve.x == pytest.approx([1.1, total], abs=0.05) and asked[0] * 3 < asked[1]
    assert curve.values[0] < curve.values[1]
    split = shortened(make_sets(dataset, RunConfig()).cut, 0.5)
    assert [(part.start_s, part.stop_s) for part in split.train] == [(0.0, 66.0)] * 2
    assert split.test == make_sets(dataset, RunConfig()).cut.split.test


def test_more_test_repeats_score_more_with_the_same_fit() -> None:
    dataset, probe = make_dataset(noise=3.0), prober()
    sets = make_sets(dataset, RunConfig())
    system = probe.kind(probe.settings).fit(sets.train, run=RunFolder(Path()))
    curve = repeats(dataset, RunConfig(), lambda point, test: probe.score(system, sets.train.samples, test))
    assert curve.x.tolist() == [1, 2, SHOWN]
    assert curve.values[0] < curve.values[-1]
    assert curve.values[-1] == pytest.approx(probe.score(system, sets.train.samples, sets.test).mean)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probes")
    store = write_store(folder / "planted.zarr", make_dataset())
    return fit_systems(store, ["ridge-latents", "mean-frame"], folder / "run", RunConfig(seed=1))


def test_probes_of_a_run_folder_are_kept_and_shown_in_its_report(run: Path) -> None:
    curve = probe_run(run, "bottleneck", systems=["ridge-latents"], points=[2])["ridge-latents"]
    cut = probe_run(run, "lesions", systems=["ridge-latents"], metric="pixcorr")["ridge-latents"]
    assert isinstance(curve, ScoreCurve) and isinstance(cut, Lesions) and cut.variant == "pixcorr"
    assert (run / "probes" / "bottleneck-ridge-latents.png").read_bytes()[:4] == b"\x89PNG"
    kept = read_probes(run)
    assert kept.curves["bottleneck"]["ridge-latents"].to_dict() == curve.to_dict()
    assert kept.lesions["ridge-latents"].to_dict() == cut.to_dict()
    page = report_run(run).read_text()
    assert "How many brain dimensions are needed" in page and "Which regions carry it: ridge-latents" in page
    assert not list((run / "probes").glob("*/*/*/"))


def test_a_point_that_is_known_is_not_measured_again_but_with_other_settings_it_is(run: Path) -> None:
    def points() -> set[Path]:
        return set((run / "probes" / "repeats" / "ridge-latents").glob("*.json"))

    probe_run(run, "repeats", systems=["ridge-latents"], points=[1, 2])
    first = points()
    one = next(file for file in first if file.name.startswith("1-"))
    held = json.loads(one.read_text())
    held["scores"]["values"] = [0.25] * len(held["scores"]["values"])
    one.write_text(json.dumps(held))
    again = probe_run(run, "repeats", systems=["ridge-latents"], points=[1, 2])["ridge-latents"]
    assert isinstance(again, ScoreCurve) and again.values[0] == 0.25 and points() == first
    other = probe_run(run, "repeats", systems=["ridge-latents"], metric="mse", points=[1, 2])["ridge-latents"]
    assert isinstance(other, ScoreCurve) and other.variant == "mse" and len(points()) == 4


def test_a_new_fit_takes_the_old_results_with_it(run: Path) -> None:
    probe_run(run, "bottleneck", systems=["mean-frame"], points=[1])
    store = Path(json.loads((run / "run.json").read_text())["store"])
    fit_systems(store, ["mean-frame"], run, RunConfig(seed=1))
    assert "mean-frame" not in read_probes(run).curves.get("bottleneck", {})
    assert set(load_systems(run)) == {"ridge-latents", "mean-frame"}


def test_what_cannot_be_probed_is_one_sentence(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"^system must be one of mean-frame, ridge-latents, got 'x'"):
        probe_run(run, "bottleneck", systems=["x"])
    with pytest.raises(ConfigError, match=r"^region must be one of blind, nowhere, seeing, got 'V1'"):
        probe_run(run, "lesions", points=["V1"])
    with pytest.raises(ConfigError, match=r"^dimensions must be 1 or more, got 0"):
        probe_run(run, "bottleneck", points=[0])
    with pytest.raises(ConfigError, match=r"^metric must be one of "):
        probe_run(run, "bottleneck", metric="nothing")
    with pytest.raises(DataError, match=r"^embed\['image-text'\] must be a network.*\(clip-similarity\)$"):
        probe_run(run, "bottleneck", systems=["mean-frame"], metric="clip-similarity", points=[1])


def test_where_an_encoder_looks_is_kept_by_stage_beside_that_of_shuffled_pairs(tmp_path: Path) -> None:
    folder = write_stable_diffusion(tmp_path / "generator")
    store = write_store(tmp_path / "planted.zarr", make_dataset())
    sizes = "{patch=4, dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2, factors=0}"
    few = "{steps=2, batch=16}"
    settings = [f"generator={str(folder)!r}", f"masked={sizes}", f"pretraining={few}", f"tuning={few}", "steps=2"]
    fit_systems(
        store, ["mind-vis", "mean-frame"], tmp_path / "run", RunConfig(seed=1), overrides={"mind-vis": settings}
    )
    maps = attention_run(tmp_path / "run")["mind-vis"]
    assert list(maps.stages) == list(maps.shuffled) == ["masked modelling", "fitted"]
    assert maps.layers == (0, 1) and all(np.allclose(one.mean(1), 1, rtol=1e-4) for one in maps.stages.values())
    assert np.array_equal(maps.stages["masked modelling"], maps.shuffled["masked modelling"])  # no pairs are seen
    assert not np.array_equal(maps.stages["fitted"], maps.shuffled["fitted"])
    assert np.array_equal(read_probes(tmp_path / "run").attention["mind-vis"].stages["fitted"], maps.stages["fitted"])
    assert (tmp_path / "run" / "probes" / "attention_regions-mind-vis.png").is_file()
    with pytest.raises(ConfigError, match=r"^system mean-frame must have a masked encoder \(brain_\), got MeanFrame"):
        attention_run(tmp_path / "run", systems=["mean-frame"])


def test_shuffled_pairs_are_the_same_brains_beside_other_clips() -> None:
    train = make_sets(make_dataset(), RunConfig()).train
    torn = train.shuffled(0).samples
    assert np.array_equal(np.sort(torn.brain.sum((1, 2))), np.sort(train.samples.brain.sum((1, 2))))
    assert not (torn.brain == train.samples.brain).all((1, 2)).any()
    assert np.array_equal(torn.clips, train.samples.clips) and np.array_equal(torn.block, train.samples.block)
