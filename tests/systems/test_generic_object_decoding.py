import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from neuroreel.core.errors import ConfigError, DataError, FetchError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Segment, Split, TestSet, TrainingSet, Window, sample
from neuroreel.core.store import write_store
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Space
from neuroreel.datasets import cards
from neuroreel.datasets.feature_tables import read_features
from neuroreel.datasets.prepare import find_study
from neuroreel.systems.generic_object_decoding import (
    GenericObjectDecoding,
    GenericObjectDecodingConfig,
    decode_objects,
    object_figures,
)
from neuroreel.testing import check_system, planted_sets
from neuroreel.workflow import evaluate_run, fit_systems, open_run

from ..datasets.bdata_files import image_features, write_hdf5

LAYERS = {"cnn1": 12, "cnn8": 30}
SEEN, NOVEL, OTHER = 40, 8, 14
REGIONS = {"low": slice(0, 40), "high": slice(40, 80), "blind": slice(80, 120)}


def planted_dataset(folder: Path, noise: float = 0.5, seed: int = 0) -> tuple[Dataset, Path]:
    """Return an experiment with a planted map, and its feature file.

    Categories have patterns and pictures are near them; "low" voxels are random sums of cnn1's units, "high" ones of
    cnn8's, "blind" ones see nothing. Tested categories aren't in the training set.
    """
    rng = generator(seed, "planted objects")
    number = 1000001.0 + np.arange(SEEN + NOVEL + OTHER)
    pictures = [(c, i) for c in range(SEEN) for i in range(1, 9)] + [(SEEN + c, 1) for c in range(NOVEL)]
    kinds = [1] * 8 * SEEN + [2] * NOVEL + [3] * NOVEL + [4] * OTHER
    averages = np.concatenate([np.arange(SEEN, SEEN + NOVEL), np.arange(SEEN + NOVEL, len(number))])
    owners = np.array([c for c, _ in pictures])
    features, blocks = {}, []
    for layer, units in LAYERS.items():
        centres = rng.normal(size=(len(number), units))
        features[layer] = centres[owners] + 0.3 * rng.normal(size=(len(pictures), units))
        blocks.append(np.concatenate([features[layer], centres[averages]]))
    ids = np.concatenate([[number[c] + i * 1e-6 for c, i in pictures], np.full(len(averages), np.nan)])
    facts = np.array([ids, np.concatenate([number[owners], number[averages]]), kinds]).T
    keys, values = image_features(LAYERS)[1:]
    file = write_hdf5(folder / "ImageFeatures.h5", np.concatenate([*blocks, facts], axis=1), keys, values)

    voxels = np.zeros((len(pictures), 120))
    for region, layer in (("low", "cnn1"), ("high", "cnn8")):
        weights = rng.normal(size=(LAYERS[layer], 40)) / np.sqrt(LAYERS[layer])
        voxels[:, REGIONS[region]] = features[layer] @ weights
    masks = {name: np.isin(np.arange(120), np.arange(120)[part]) for name, part in REGIONS.items()}
    runs = []
    for name, rows in (("train", rng.permutation(8 * SEEN)), ("test", np.tile(np.arange(8 * SEEN, len(pictures)), 5))):
        bold = voxels[rows] + noise * rng.normal(size=(len(rows), 120))
        shown = [(f"n{int(number[c]):08d}", f"n{int(number[c]):08d}_{i}") for c, i in (pictures[row] for row in rows)]
        events = tuple(Event(9.0 * k, 9.0, category, "", picture) for k, (category, picture) in enumerate(shown))
        space = Space("columns", 120, rois=masks)
        runs.append(Run(Bold(bold.astype(np.float32), 9.0, space, "1", name), name, None, events))
    split = Split(
        name="novel",
        reason="tested categories are new",
        train=(Segment(run="train"),),
        test=(Segment(run="test"),),
        shared_categories=False,
    )
    window = Window(at="events", clip_s=9.0, first_lag_s=0.0, blocks="events")
    return Dataset("planted", (Recording("planted", "1", tuple(runs)),), window, {"novel": split}), file


def planted(folder: Path) -> tuple[TrainingSet, TestSet, Path]:
    dataset, file = planted_dataset(folder)
    return *dataset.split().cut(dataset.recording()).sets(dataset.window), file


def fitted(folder: Path, **settings: object) -> tuple[GenericObjectDecoding, TestSet]:
    train, test, file = planted(folder)
    config = GenericObjectDecodingConfig.build({"features": str(file), "alpha": 10.0, **settings})
    return GenericObjectDecoding(config).fit(train, run=RunFolder(folder / "run")), test


@pytest.mark.parametrize("decoder", ["ridge", "sparse"])
def test_a_planted_map_of_novel_categories_is_recovered(decoder: str, tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("low", "high", "blind"), decoder=decoder, n_iter=100)
    scores = {(each.roi, each.layer): each for each in decode_objects(system, test.truth)}
    assert test.truth.repeats.tolist() == [5] * NOVEL
    for roi, own, other in (("low", "cnn1", "cnn8"), ("high", "cnn8", "cnn1")):
        assert scores[roi, own].identification.mean() > 0.9
        assert np.median(scores[roi, own].image_profile) > 0.7
        assert abs(np.median(scores[roi, other].image_profile)) < 0.4
    for layer in LAYERS:
        assert abs(scores["blind", layer].identification.mean() - 0.5) < 0.25
    own = scores["high", "cnn8"]
    assert own.similarity.shape == (NOVEL, NOVEL + OTHER) and len(own.tested) == NOVEL


def test_the_numbers_are_the_papers_arithmetic(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("high",), layers=("cnn8",), voxels=10, alpha=3.0)
    train, _, file = planted(tmp_path)
    x, y = train.samples.brain[:, 0, 40:80].astype(float), read_features(file).of(train.samples.stimulus)["cnn8"]
    z = (x - x.mean(0)) / x.std(0, ddof=1)
    wanted = np.empty((NOVEL, LAYERS["cnn8"]))
    for unit in range(LAYERS["cnn8"]):
        target = (y[:, unit] - y[:, unit].mean()) / y[:, unit].std(ddof=1)
        best = np.argsort([-abs(stats.pearsonr(z[:, v], target)[0]) for v in range(40)])[:10]
        weights = np.linalg.solve(z[:, best].T @ z[:, best] + 3 * np.eye(10), z[:, best].T @ target)
        new = (test.truth.brain[:, 0, 40:80] - x.mean(0)) / x.std(0, ddof=1)
        wanted[:, unit] = new[:, best] @ weights * y[:, unit].std(ddof=1) + y[:, unit].mean()
    np.testing.assert_allclose(system.predict_features(test.brain)["high", "cnn8"], wanted, rtol=1e-4, atol=1e-4)


def test_averaging_repeats_before_or_after_decoding_is_the_same(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("low",))
    alone = sample(test.runs, test.window.model_copy(update={"average": False}))
    assert len(alone) == 5 * NOVEL
    a, b = (decode_objects(system, samples) for samples in (alone, test.truth))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one.similarity, other.similarity, atol=1e-5)
        np.testing.assert_allclose(one.image_profile, other.image_profile, atol=1e-4)


def test_candidates_are_the_tested_and_the_other_categories_of_the_table(tmp_path: Path) -> None:
    system, test = fitted(tmp_path)
    assert len(set(system.categories_)) == len(system.categories_) == NOVEL + OTHER
    answer = system.reconstruct(test.brain)
    assert answer.probabilities is not None and answer.categories == system.categories_
    named = np.array(answer.categories)[answer.probabilities.argmax(1)]
    assert np.mean(named == test.truth.category) > 0.8  # 1 of 22, none of them in the training set
    tested = decode_objects(system, test.truth, others=False)[0]
    assert tested.similarity.shape == (NOVEL, NOVEL) and tested.candidates == tested.tested


def test_patterns_can_be_compared_in_units_of_the_training_set(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("high",), layers=("cnn8",), compare="z")
    train, _, file = planted(tmp_path)
    y = read_features(file).of(train.samples.stimulus)["cnn8"]
    mean, sd = y.mean(0), y.std(0, ddof=1)
    predicted = system.predict_features(test.brain)["high", "cnn8"]
    scores = decode_objects(system, test.truth)[0]
    order = [scores.tested.index(name) for name in test.truth.category]
    wanted = np.corrcoef((predicted - mean) / sd, (system.averages_["cnn8"] - mean) / sd)[:NOVEL, NOVEL:]
    np.testing.assert_allclose(scores.similarity[order], wanted, atol=1e-5)


def test_saving_needs_no_file_of_features_to_decode(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("low", "high"), units=9)
    system.save(tmp_path / "saved")
    (tmp_path / "ImageFeatures.h5").unlink()
    again = GenericObjectDecoding.load(tmp_path / "saved")
    wanted, found = (each.predict_features(test.brain) for each in (system, again))
    assert set(found) == {(roi, layer) for roi in ("low", "high") for layer in LAYERS}
    assert all(np.array_equal(found[pair], wanted[pair]) and found[pair].shape[1] == 9 for pair in wanted)
    given, kept = (each.reconstruct(test.brain).probabilities for each in (system, again))
    assert given is not None and kept is not None and np.allclose(given, kept, rtol=1e-9)
    with pytest.raises(ConfigError, match=r"^file of features must be there .*, got '.*ImageFeatures.h5'$"):
        decode_objects(again, test.truth)


def test_decoded_features_are_files_of_the_laboratorys_layout(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("low",))
    system.write_features(tmp_path / "decoded", test.brain, test.truth.stimulus.tolist(), "Subject1")
    table = read_features(tmp_path / "decoded" / "cnn8" / "Subject1")
    found = table.of(test.truth.stimulus.tolist())["low"]
    np.testing.assert_allclose(found, system.predict_features(test.brain)["low", "cnn8"], rtol=1e-6)


def test_candidates_can_be_a_folder_of_pictures(tmp_path: Path) -> None:
    train, test = planted_sets()
    assert test.truth.clips is not None
    for row, category in enumerate(test.truth.category):
        (tmp_path / category).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / category / f"{row}.png"), test.truth.clips[row, 0])
        (tmp_path / "novel").mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / "novel" / "x.png"), np.full((16, 16, 3), 77, dtype=np.uint8))
    settings = {"extractor": "gist", "candidates": str(tmp_path)}
    config = GenericObjectDecodingConfig.build(settings)
    system = GenericObjectDecoding(config).fit(train, run=RunFolder(tmp_path / "run"))
    assert system.categories_ == ("circle", "novel", "square", "stripe")
    pictures = np.full((1, 1, 16, 16, 3), 77, dtype=np.uint8)
    np.testing.assert_allclose(system.averages_["gist"][1], system.describer_.of_clips(pictures, 1.0)["gist"][0])


@pytest.mark.parametrize("settings", [{"extractor": "codes"}, {"extractor": "gist", "compare": "z"}])
def test_it_keeps_the_protocol_with_any_features(settings: dict[str, object]) -> None:
    check_system(GenericObjectDecoding, GenericObjectDecodingConfig.build(settings))


def test_what_is_not_there_is_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ROI must be one of all, blind, high, low, got 'V9'$"):
        fitted(tmp_path, rois=("V9",))
    with pytest.raises(ConfigError, match=r"^layer must be one of cnn1, cnn8, got 'cnn9' \("):
        fitted(tmp_path, layers=("cnn9",))
    with pytest.raises(ConfigError, match=r"^extractor must be one of alexnet, codes, .*sift, got 'vgg'$"):
        train, _ = planted_sets()
        config = GenericObjectDecodingConfig(extractor="vgg")
        GenericObjectDecoding(config).fit(train, run=RunFolder(tmp_path))
    train, _, _ = planted(tmp_path)
    with pytest.raises(DataError, match=r"^training samples must have clips for alexnet, .*, got none$"):
        GenericObjectDecoding().fit(train, run=RunFolder(tmp_path))


def test_a_picture_without_features_is_named(tmp_path: Path) -> None:
    train, _, _ = planted(tmp_path)
    file = write_hdf5(tmp_path / "few.h5", *image_features(LAYERS))
    config = GenericObjectDecodingConfig(features=str(file))
    with pytest.raises(
        DataError, match=r"^features must be known for every picture, got none of \['n0.*'\] \(.*few.h5\)$"
    ):
        GenericObjectDecoding(config).fit(train, run=RunFolder(tmp_path))


def test_figures_say_what_the_scores_say(tmp_path: Path) -> None:
    system, test = fitted(tmp_path, rois=("low", "high"))
    scores = decode_objects(system, test.truth) + decode_objects(system, test.truth, "imagined")
    unit, accuracy, identification, similar = object_figures(scores, "high", "cnn8")
    best = next(each for each in scores if (each.roi, each.layer) == ("high", "cnn8"))
    assert f"correlation {np.nanmax(best.image_profile):.2f}" in unit.alt
    assert "low: cnn1, high: cnn8" in accuracy.alt and "seen" in identification.alt and "imagined" in identification.alt
    top = [np.array(best.candidates)[np.argsort(-row)[:5]] for row in best.similarity]
    hits = sum(name in found for name, found in zip(best.tested, top, strict=True))
    assert f"the true one is among the 5 most similar {hits} times" in similar.alt
    assert all(each.png.startswith(b"\x89PNG") and each.svg.startswith("<svg") for each in (unit, accuracy, similar))
    with pytest.raises(ConfigError, match=r"^ROI must be one of high, low, got 'V1'$"):
        object_figures(scores, "V1", "cnn8")


def test_the_workflow_scores_unseen_categories_from_a_store(tmp_path: Path) -> None:
    dataset, file = planted_dataset(tmp_path)
    store = write_store(tmp_path / "planted.zarr", dataset)
    settings = {"generic-object-decoding": [f"features={file}", 'rois=["high"]', "alpha=10"]}
    out = fit_systems(store, ["generic-object-decoding"], tmp_path / "run", overrides=settings)
    scores = evaluate_run(out).rows["generic-object-decoding"]
    score = scores["category-accuracy"]
    assert score.values.mean() > 0.5 and score.ceiling == 1.0  # 1 of 22 by chance
    assert open_run(out)[0].test.split.name == "novel"


@pytest.mark.heavy
def test_real_object_categories_are_decoded_from_one_slice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not os.environ.get(cards.ENVIRONMENT) and shared.is_dir():
        monkeypatch.setenv(cards.ENVIRONMENT, str(shared))
    try:
        dataset = find_study("haxby2001-slice").load()
    except FetchError as error:
        pytest.skip(str(error))
    right = []
    for split in dataset.splits.values():
        train, test = split.cut(dataset.recording()).sets(dataset.window)
        config = GenericObjectDecodingConfig(extractor="codes")
        answer = GenericObjectDecoding(config).fit(train, run=RunFolder(tmp_path)).reconstruct(test.brain)
        assert answer.probabilities is not None
        right.append(np.array(answer.categories)[answer.probabilities.argmax(1)] == test.truth.category)
    assert np.concatenate(right).mean() >= 0.47
