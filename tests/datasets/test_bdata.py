from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.datasets.bdata import BData, image_names, open_bdata

from .bdata_files import VOXELS, trials, write_hdf5, write_matlab5, write_matlab73

FORMATS = {
    "a.h5": write_hdf5,
    "b.h5": lambda *args: write_hdf5(*args, capital=True),
    "c.mat": write_matlab5,
    "d.mat": write_matlab73,
}


@pytest.fixture
def data(tmp_path: Path) -> BData:
    return open_bdata(write_hdf5(tmp_path / "Subject1.h5", *trials()))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_and_spelling_gives_the_same_matrix(name: str, tmp_path: Path) -> None:
    dataset, keys, values = trials()
    data = open_bdata(FORMATS[name](tmp_path / name, dataset, keys, values))
    assert data.keys == tuple(keys) and data.rows == len(dataset) and data.rois == tuple(VOXELS)
    np.testing.assert_array_equal(data.values, values)
    np.testing.assert_array_equal(data.columns("VoxelData = 1"), dataset[:, 3:])
    np.testing.assert_array_equal(data.columns("ROI_FFA = 1 | Run = 1"), dataset[:, [1, 12, 13, 14]])
    np.testing.assert_array_equal(data.column("Label"), dataset[:, 2])


# where BrainDecoderToolbox2's own tests say what an expression selects: their metadata and their answers
TOOLBOX = np.array(
    [[1] * 10, [5, 7, 9, 10, 2, 8, 1, 3, 4, 6], [1, 1, 1, *[0] * 7], [0, 0, 0, 1, 1, 0, 1, 1, 0, 0], [0, 1] * 5]
)


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("ROI_A = 1", [1, 2, 3]),
        ("ROI_A = 1 | ROI_B = 1", [1, 2, 3, 4, 5, 7, 8]),
        ("ROI_A==1 + ROI_B==1", [1, 2, 3, 4, 5, 7, 8]),
        ("ROI_B = 1 & ROI_C = 1", [4, 8]),
        ("ROI_A = 1 | ROI_B = 1 & ROI_C = 1", [2, 4, 8]),
        ("ROI_C = 1 & ROI_B = 1 | ROI_A = 1", [1, 2, 3, 4, 8]),
        ("ROI_C = 1 & (ROI_B = 1 | ROI_A = 1)", [2, 4, 8]),
        ("ROI_C = 1 - ROI_B = 1", [2, 6, 10]),
        ("ROI_C = 0 & ROI_A = 1", [1, 3]),
        ("Stat_P top 3", [3, 4, 6]),
        ("Stat_P top 5", [2, 3, 4, 6, 10]),
        ("Stat_P top 0", []),
        ("ROI_A = 1 & Stat_P top 5", [2, 3]),
        ("ROI_A = 1 | Stat_P top 3", [1, 2, 3, 4, 6]),
        ("Stat_P top 3 @ ROI_C = 1", [2, 4, 6]),
        ("Stat_P top 3 @ (ROI_A = 1 | ROI_C = 1)", [3, 4, 6]),
        ("Stat_P top 3 @ ROI_A = 1 | ROI_C = 1", [3, 4, 6]),
        ("'ROI_A' + B", [1, 2, 3, 4, 5, 7, 8]),
        ("ROI_* = 1", [1, 2, 3, 4, 5, 6, 7, 8, 10]),
    ],
)
def test_an_expression_selects_what_the_toolbox_says(expression: str, columns: list[int]) -> None:
    keys = ("VoxelData", "Stat_P", "ROI_A", "ROI_B", "ROI_C")
    data = BData(Path("x.h5"), keys, keys, TOOLBOX.astype(float), 3, lambda first, stop: np.zeros((3, stop - first)))
    assert (np.flatnonzero(data.select(expression)) + 1).tolist() == columns


@pytest.mark.parametrize(
    "expression",
    [
        "ROI_V1 = 1",
        "ROI_V1 + ROI_FFA",
        "ROI_VC - ROI_V1",
        "ROI_LVC & ROI_V2 | ROI_FFA",
        "ROI_V* = 1",
        "(ROI_VC - ROI_LVC)",
    ],
)
def test_bdpy_selects_the_same_voxels(expression: str, tmp_path: Path) -> None:
    bdpy = pytest.importorskip("bdpy")
    file = write_hdf5(tmp_path / "Subject1.h5", *trials())
    wanted = bdpy.BData(str(file)).select(expression, verbose=False)
    np.testing.assert_array_equal(open_bdata(file).columns(expression), wanted)


def test_a_file_that_bdpy_wrote_is_read_with_its_names_of_values(tmp_path: Path) -> None:
    bdpy = pytest.importorskip("bdpy")
    theirs = bdpy.BData()
    theirs.add(np.arange(6.0).reshape(3, 2), "VoxelData")
    theirs.add(np.array([1.0, 2.0, 1.0]), "stimulus_name")
    theirs.add_vmap("stimulus_name", {1: "n01443537_22563", 2: "n01621127_19020"})
    theirs.save(str(tmp_path / "x.h5"))
    data = open_bdata(tmp_path / "x.h5")
    np.testing.assert_array_equal(data.columns("VoxelData = 1"), np.arange(6.0).reshape(3, 2))
    assert data.labels["stimulus_name"] == {1.0: "n01443537_22563", 2.0: "n01621127_19020"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("ROI_V1 = ", r"^selection must have a number, got 'ROI_V1 = ' at position 10 \(.*Subject1.h5\)$"),
        ("ROI_V1 = 1 ROI_V2 = 1", r"^selection must go on with one of \+ \| & - @, got '.*' at position 12 "),
        ("(ROI_V1 = 1", r"^selection must close its bracket, got '\(ROI_V1 = 1' at position 12 "),
        ("ROI_V1 = 1 & | V2", r"^selection must have a name, got '.*' at position 14 "),
        ("ROI_V1 ? 1", r"^selection must be names, numbers and = == .*, got '.*' at position 8 "),
        ("", r"^selection must have a name, got '' at position 1 "),
        ("ROI_V9 = 1", r"^selection must name what the file has, ROI_FFA, ROI_LVC, ROI_V1, ROI_V2, ROI_VC, got "),
        ("ROI_* top 3", r"^selection must have one key before top, got 'ROI_\* top 3' at position 1 "),
    ],
)
def test_a_wrong_expression_says_where(expression: str, message: str, data: BData) -> None:
    with pytest.raises(ConfigError, match=message):
        data.select(expression)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_one_sentence(name: str, tmp_path: Path) -> None:
    file = FORMATS[name](tmp_path / name, *trials())
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"^[^\n]*got [^\n]*\(.*\)$"):
            open_bdata(file).columns("VoxelData = 1")


def _without(rows: slice) -> Callable[[Path], Path]:
    dataset, keys, values = trials()
    return lambda file: write_hdf5(file, dataset, keys, values[:, rows])


def test_metadata_that_does_not_fit_the_dataset_is_refused(tmp_path: Path) -> None:
    file = _without(slice(1, None))(tmp_path / "a.h5")
    with pytest.raises(DataError, match=r"^columns of the metadata must have as many .*\(15\), got 14 \(.*a.h5\)$"):
        open_bdata(file)
    with pytest.raises(DataError, match=r"^BData must be a file that exists, got 'none.h5'"):
        open_bdata(tmp_path / "none.h5")


def test_numbers_of_pictures_are_their_names() -> None:
    names, categories = image_names(np.array([1443537.022563, 13054560.000007]))
    assert names == ["n01443537_22563", "n13054560_7"] and categories == ["n01443537", "n13054560"]
    with pytest.raises(DataError, match=r"^image numbers must be category.image with 6 digits"):
        image_names(np.array([1443537.0225634]))
