import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.training import TrainingLog


def looked(*steps: int) -> TrainingLog:
    log = TrainingLog(truth=np.zeros((2, 4, 4, 3), np.uint8))
    for step in steps:
        log = log.add(step, {"pixels": ("error", 1 / step)}, np.full((2, 4, 4, 3), step, np.uint8))
    return log


def test_a_log_is_kept_in_a_folder(tmp_path):
    log = looked(1, 5, 9)
    log.save(tmp_path)
    again = TrainingLog.load(tmp_path)
    assert again.steps.tolist() == [1, 5, 9] and again.samples[:, 0, 0, 0, 0].tolist() == [1, 5, 9]
    np.testing.assert_array_equal(again.curves["pixels"].values, log.curves["pixels"].values)
    assert again.curves["pixels"].panel == "error"
    assert TrainingLog.load(tmp_path / "nothing") is None


def test_a_log_up_to_a_step_has_nothing_of_later_ones():
    log = looked(1, 5, 9).until(5)
    assert log.steps.tolist() == log.curves["pixels"].steps.tolist() == [1, 5] and len(log.samples) == 2
    assert len(looked(1, 5, 9).until(0).samples) == 0


def test_a_damaged_log_is_one_sentence_with_its_file(tmp_path):
    looked(1).save(tmp_path)
    (tmp_path / "training.json").write_text('{"curves": ')
    with pytest.raises(DataError, match=r"training log must be whole, got .* \(.*training\.json\)"):
        TrainingLog.load(tmp_path)
