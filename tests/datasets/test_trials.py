from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import io

from neuroreel.core.errors import ConfigError, DataError, LeakageError
from neuroreel.core.store import read_store
from neuroreel.datasets.bdata import open_bdata
from neuroreel.datasets.feature_tables import read_features, write_decoded_features
from neuroreel.datasets.prepare import find_study, prepare

from .bdata_files import (
    NAMES,
    VOXELS,
    image_features,
    trials,
    write_feature73,
    write_hdf5,
    write_matlab5,
    write_matlab73,
)


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    return write_hdf5(tmp_path / "Subject1.h5", *trials())


@pytest.mark.parametrize(("name", "write"), [("Subject3.h5", write_hdf5), ("Subject3.mat", write_matlab73)])
def test_prepare_takes_a_subject_as_it_is_published(name: str, write, tmp_path: Path) -> None:
    dataset, keys, values = trials()
    found = read_store(prepare(write(tmp_path / name, dataset, keys, values), tmp_path / "out.zarr"))
    recording = found.recording("3")
    wanted = ["train-run-01", "train-run-02", "perception-run-01", "perception-run-02", "imagery-run-01"]
    assert found.name == "generic-object-decoding" and [run.bold.run for run in recording.runs] == wanted
    np.testing.assert_array_equal(recording.runs[1].bold.data, dataset[2:4, 3:].astype(np.float32))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in recording.space.rois.items()} == {
        name: list(voxels) for name, voxels in VOXELS.items()
    }
    np.testing.assert_array_equal(recording.space.measures["voxel_x"], np.arange(12) * 3.0)
    shown = [(event.stimulus, event.category, event.onset_s) for event in recording.run("train-run-01").events]
    assert shown == [(NAMES[0], "n01443537", 0.0), (NAMES[1], "n01443537", 9.0)]


def test_the_published_split_averages_repeats_and_keeps_categories_apart(subject: Path) -> None:
    study = find_study(subject)
    dataset, _, _ = trials()
    for name, rows, repeats in (("published", dataset[4:8], 2), ("published-imagery", dataset[8:10], 1)):
        assert not study.splits[name].shared_categories
        train, test = study.splits[name].cut(study.load().recording()).sets(study.window)
        assert train.samples.stimulus.tolist() == NAMES[:4] and test.truth.stimulus.tolist() == NAMES[4:]
        assert test.truth.repeats.tolist() == [repeats] * 2 and test.truth.brain.shape == (2, 1, 12)
        wanted = rows[:, 3:].reshape(-1, 2, 12).mean(0)
        np.testing.assert_allclose(test.truth.brain[:, 0], wanted, rtol=1e-5)
    same = study.splits["published"].model_copy(update={"train": study.splits["published"].test})
    with pytest.raises(LeakageError):
        same.cut(study.load().recording())


def test_voxels_are_chosen_by_an_expression(subject: Path) -> None:
    run = find_study(subject, ["voxels=V2 + FFA"]).load().recording().runs[0]
    assert run.bold.space.size == 7 and run.bold.space.rois["V1"].sum() == 0 and run.bold.space.rois["FFA"].sum() == 3
    with pytest.raises(
        ConfigError, match=r"^selection must name what the file has, ROI_FFA, .*, got 'V9' at position 1"
    ):
        find_study(subject, ["voxels=V9"])
    with pytest.raises(ConfigError, match=r"^voxels must select voxels; the regions are V1, V2, .*, got 'V1 & V2' "):
        find_study(subject, ["voxels=V1 & V2"])


def test_pictures_come_from_a_folder_and_a_missing_one_is_named(subject: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "test").mkdir(parents=True)
    for row, name in enumerate(NAMES):
        picture = np.zeros((40, 60, 3), dtype=np.uint8)
        picture[:, 10:50] = (0, 0, 40 * row)  # red, with margins that the square leaves out
        cv2.imwrite(str(tmp_path / "images" / ("test" if row > 3 else ".") / f"{name}.png"), picture)
    study = find_study(subject, [f"images={tmp_path / 'images'}", "image_size=8"])
    video = study.load().recording().run("perception-run-01").video
    assert video is not None and video.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(video.frames()[:, 4, 0], [[160, 0, 0], [200, 0, 0]])
    (tmp_path / "images" / f"{NAMES[0]}.png").unlink()
    with pytest.raises(DataError, match=rf"^pictures must all be in the folder .*, got no {NAMES[0]} \("):
        find_study(subject, [f"images={tmp_path / 'images'}"])


def test_damaged_pictures_and_odd_types_are_refused(subject: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in NAMES:
        (tmp_path / "images" / f"{name}.JPEG").write_bytes(b"no picture")
    run = find_study(subject, [f"images={tmp_path / 'images'}"]).runs[0].load()
    assert run.video is not None
    with pytest.raises(DataError, match=r"^picture must be an image that can be read, got damaged bytes \(.*JPEG\)$"):
        run.video.frames()
    dataset, keys, values = trials()
    dataset[3, 0] = 4
    with pytest.raises(
        DataError, match=r"^DataType must be one of 1 \(train\), 2 \(perception\), 3 \(imagery\), got \[4\]"
    ):
        find_study(write_hdf5(tmp_path / "odd.h5", dataset, keys, values))


@pytest.mark.parametrize("write", [write_hdf5, write_matlab5, write_matlab73])
def test_image_features_are_pictures_and_averages(write, tmp_path: Path) -> None:
    layers = {"cnn1": 4, "gist": 3}
    dataset, keys, values = image_features(layers)
    file = write(tmp_path / ("f.h5" if write is write_hdf5 else "f.mat"), dataset, keys, values)
    table = read_features(file, ["gist", "cnn1"])
    assert table.layers == ("gist", "cnn1") and list(table.names) == NAMES
    np.testing.assert_array_equal(table.of(NAMES[4:])["cnn1"], dataset[4:6, :4].astype(np.float32))
    assert table.categories == ("n01518878", "n01639765", "n02000001", "n02000002", "n02000003")
    np.testing.assert_array_equal(table.averages["gist"], dataset[6:, 4:7].astype(np.float32))
    with pytest.raises(ConfigError, match=r"^layer must be one of cnn1, gist, got 'cnn9' \("):
        read_features(file, ["cnn9"])
    with pytest.raises(DataError, match=r"^features must be known for every picture, got none of \['n0'\]$"):
        table.of(["n0"])


def test_a_folder_of_features_is_read_in_both_formats(tmp_path: Path) -> None:
    maps = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    for layer, scale in (("conv1", 1), ("conv2", 2)):
        (tmp_path / layer).mkdir()
        io.savemat(tmp_path / layer / "a.mat", {"feat": scale * maps})
        write_feature73(tmp_path / layer / "b.mat", scale * maps + 100)
    table = read_features(tmp_path)
    assert table.layers == ("conv1", "conv2") and table.names == ("a", "b") and not table.categories
    np.testing.assert_array_equal(table.pictures["conv2"], [2 * maps.ravel(), 2 * maps.ravel() + 100])
    (tmp_path / "conv2" / "a.mat").unlink()
    with pytest.raises(DataError, match=r"^files of conv2 must be of the same pictures as conv1, got a \("):
        read_features(tmp_path)


def test_bdpy_reads_a_folder_of_features_to_the_same_numbers(tmp_path: Path) -> None:
    features = pytest.importorskip("bdpy.dataform")
    for name, value in (("a", 1.0), ("b", 2.0)):
        features.save_feature(np.full((1, 2, 3), value) + np.arange(3), str(tmp_path), "conv1", name)
    theirs = features.Features(str(tmp_path))
    table = read_features(tmp_path)
    assert list(table.names) == theirs.labels and list(table.layers) == theirs.layers
    np.testing.assert_allclose(table.pictures["conv1"], theirs.get_features("conv1").reshape(2, -1))


def test_decoded_features_are_written_as_bdpy_reads_them(tmp_path: Path) -> None:
    dataform = pytest.importorskip("bdpy.dataform")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for roi, scale in (("V1", 1), ("VC", 10)):
        write_decoded_features(tmp_path, scale * values, ["n1_1", "n2_7"], layer="cnn1", subject="S1", roi=roi)
    theirs = dataform.DecodedFeatures(str(tmp_path))
    assert (theirs.layers, theirs.subjects, sorted(theirs.rois)) == (["cnn1"], ["S1"], ["V1", "VC"])
    np.testing.assert_array_equal(theirs.get(layer="cnn1", subject="S1", roi="VC", label="n2_7"), 10 * values[1:])
    with pytest.raises(DataError, match=r"^path must stay inside its folder, got '../x.mat'"):
        write_decoded_features(tmp_path, values, ["a", "../x"], layer="cnn1", subject="S1", roi="V1")


def test_a_matlab_file_that_is_no_bdata_says_what_it_holds(tmp_path: Path) -> None:
    io.savemat(tmp_path / "x.mat", {"stuff": np.zeros(3)})
    with pytest.raises(DataError, match=r"^BData must hold dataset or dataSet, got stuff \(.*x.mat\)$"):
        open_bdata(tmp_path / "x.mat")
    with pytest.raises(ConfigError, match=r"^config key must be one of image_size, images, label, .*, got 'roi'"):
        find_study(write_hdf5(tmp_path / "s.h5", *trials()), ["roi=V1"])
