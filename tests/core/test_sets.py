from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from neuroreel.core.errors import ConfigError, DataError, LeakageError
from neuroreel.core.sets import Cut, Split, TestSet, TrainingSet, Window, require_training, resize, sample
from neuroreel.core.types import Bold, Event, Recording, Run, Space, Video


def make_run(name: str, *, stimulus: str = "", trs: int = 30, tr_s: float = 2.0, fps: float = 1.0, **more: Any) -> Run:
    """Return a run whose volume i holds i, and whose frame i shows i."""
    data = np.repeat(np.arange(trs, dtype=np.float32)[:, None], 3, axis=1)
    frames = np.arange(int(trs * tr_s * fps), dtype=np.uint8)[:, None, None, None]
    video = Video.from_frames(np.broadcast_to(frames, (len(frames), 4, 6, 3)), name=stimulus or name, fps=fps)
    return Run(Bold(data, tr_s, Space("columns", 3), "01", name), stimulus or name, video, **more)


def make_split(train: list[dict[str, Any]], test: list[dict[str, Any]], **more: Any) -> Split:
    return Split.build({"name": "s", "reason": "a test", "train": train, "test": test, **more})


def recording(*runs: Run) -> Recording:
    return Recording("d", "01", runs)


def test_windows_hold_the_volumes_at_the_lag_and_clips_the_frames_on_show() -> None:
    samples = sample([make_run("a")], Window(clip_s=4.0, frames=2, first_lag_s=4.0, trs=2))
    assert np.array_equal(samples.onset_s[:3], [0, 4, 8])
    assert np.array_equal(samples.brain[1, :, 0], [4, 5])  # 4 s + 4 s of lag = volume 4
    assert samples.clips is not None
    assert np.array_equal(samples.clips[1, :, 0, 0, 0], [4, 6])
    assert np.allclose(samples.lags_s, [4, 6])


def test_no_window_reaches_over_the_end_of_its_run_or_before_its_start() -> None:
    samples = sample([make_run("a", trs=10)], Window(first_lag_s=4.0, trs=3))
    assert samples.onset_s.max() == 10.0  # volumes 7, 8, 9
    early = sample([make_run("a", trs=10)], Window(first_lag_s=-4.0, trs=1))
    assert early.onset_s.min() == 4.0
    with pytest.raises(DataError, match=r"^runs must hold a clip whose window fits, .* got none in a$"):
        sample([make_run("a", trs=3)], Window(first_lag_s=20.0))


def test_the_parts_of_one_run_are_trimmed_and_keep_their_clock() -> None:
    split = make_split([{"run": "a", "stop_s": 20.0}], [{"run": "a", "start_s": 40.0}])
    train, test = split.cut(recording(make_run("a"))).sets(Window(first_lag_s=4.0))
    assert train.samples.brain.max() == 9
    assert np.array_equal(train.samples.onset_s, np.arange(0, 16, 2))
    assert test.truth.onset_s.min() == 40.0
    assert test.truth.brain[0, 0, 0] == 22


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 20))
def test_two_parts_of_a_run_nearer_than_the_gap_never_pass(stop_s: float, start_s: float, gap_s: float) -> None:
    split = make_split([{"run": "a", "stop_s": stop_s}], [{"run": "a", "start_s": start_s}], gap_s=gap_s)
    try:
        cut = split.cut(recording(make_run("a")))
    except (LeakageError, DataError):
        return
    assert cut.test[0].bold.start_s - cut.train[0].bold.stop_s >= gap_s - 1e-6


def test_an_overlap_names_the_runs() -> None:
    runs = recording(make_run("a"), make_run("b"))
    split = make_split([{"run": "a"}, {"run": "b"}], [{"run": "b", "start_s": 10.0}])
    with pytest.raises(LeakageError, match=r"must lie 12 s or more apart in a run, got an overlap in b \(s\)$"):
        split.cut(runs)


def test_the_same_movie_in_two_runs_is_a_leak() -> None:
    runs = recording(make_run("a", stimulus="m"), make_run("b", stimulus="m"))
    with pytest.raises(LeakageError, match=r"same part of one movie in runs a and b"):
        make_split([{"run": "a"}], [{"run": "b"}]).cut(runs)


def test_a_tested_picture_or_a_held_out_category_must_not_be_trained_on() -> None:
    def run(name: str, *stimuli: str) -> Run:
        events = tuple(Event(2.0 * i, 2.0, s[0], "", s) for i, s in enumerate(stimuli))
        return Run(Bold(np.zeros((9, 2), np.float32), 2.0, Space("columns", 2), "01", name), "", None, events)

    window = Window(at="events", first_lag_s=2.0)
    with pytest.raises(LeakageError, match=r"a tested picture must not be in the training set, got c2 in runs a"):
        make_split([{"run": "a"}], [{"run": "b"}]).cut(recording(run("a", "c1", "c2"), run("b", "c2"))).sets(window)
    apart = make_split([{"run": "a"}], [{"run": "b"}], shared_categories=False)
    with pytest.raises(LeakageError, match=r"a tested category must not be in the training set, got c in runs a"):
        apart.cut(recording(run("a", "c1", "d1"), run("b", "c2"))).sets(window)


def test_sets_can_only_come_from_a_split() -> None:
    train, test = make_split([{"run": "a"}], [{"run": "b"}]).cut(recording(make_run("a"), make_run("b"))).sets(Window())
    with pytest.raises(LeakageError, match="a TrainingSet must come from a split"):
        TrainingSet(test.truth, test.runs, test.window, test.split)
    with pytest.raises(LeakageError, match="a TestSet must come from a split"):
        TestSet(train.samples, train.runs, train.window, train.split)
    with pytest.raises(LeakageError, match=r"^fit must be handed a TrainingSet, got TestSet$"):
        require_training(test)
    with pytest.raises(LeakageError):
        Cut(train.split, train.runs, train.runs)


def test_a_part_of_a_test_set_is_one_too() -> None:
    split = make_split([{"run": "a"}], [{"run": "b"}])
    _, test = split.cut(recording(make_run("a"), make_run("b"))).sets(Window())
    part = test.take(np.arange(0, len(test.truth), 2))
    assert isinstance(part, TestSet) and part.runs is test.runs
    np.testing.assert_array_equal(part.brain.onset_s, test.truth.onset_s[::2])


def test_the_brain_side_of_a_test_set_holds_nothing_of_the_truth() -> None:
    events = (Event(0.0, 60.0, "face", "a face", "f1"),)
    runs = recording(make_run("a"), make_run("b", events=events))
    brain = make_split([{"run": "a"}], [{"run": "b"}]).cut(runs).sets(Window())[1].brain
    assert brain.clips is None
    assert not brain.category.any() and not brain.caption.any() and not brain.stimulus.any()


def test_repeats_of_one_movie_are_averaged_and_counted() -> None:
    first, second = make_run("a", stimulus="m"), make_run("b", stimulus="m")
    second.bold.data[:] += 10
    samples = sample([first, second], Window(first_lag_s=0.0))
    assert len(samples) == 30 and set(samples.repeats) == {2}
    assert samples.brain[3, 0, 0] == 8
    assert len(sample([first, second], Window(first_lag_s=0.0, average=False))) == 60


def test_a_movie_that_starts_late_in_one_run_is_no_repeat_in_step_but_the_same_movie() -> None:
    first, late = make_run("a", stimulus="m"), make_run("b", stimulus="m")
    assert late.video is not None
    late = replace(late, video=replace(late.video, start_s=10.0))
    assert set(sample([first, late], Window(first_lag_s=0.0)).repeats) == {1}
    split = make_split([{"run": "a", "stop_s": 30.0}], [{"run": "b", "start_s": 30.0}])  # movie 0-30 s and 20-50 s
    with pytest.raises(LeakageError, match="same part of one movie in runs a and b"):
        split.cut(recording(first, late))


def test_a_function_is_mapped_over_one_run_at_a_time() -> None:
    cut = make_split([{"run": "a"}], [{"run": "b"}]).cut(recording(make_run("a"), make_run("b")))
    seen: list[str] = []
    mapped = cut.map(lambda run: seen.append(run.bold.run) or run)  # type: ignore[func-returns-value]
    assert seen == ["a", "b"] and mapped == cut


def test_holding_out_takes_whole_blocks_from_the_end_of_each_run() -> None:
    runs = recording(make_run("a"), make_run("b"), make_run("c"))
    window = Window(first_lag_s=0.0, block_s=10.0)
    train, _ = make_split([{"run": "a"}, {"run": "b"}], [{"run": "c"}]).cut(runs).sets(window)
    fit, held = train.hold_out(0.2)
    assert isinstance(held, TrainingSet)
    assert not np.intersect1d(fit.samples.block, held.samples.block).size
    assert set(held.samples.run) == {"a", "b"} and held.samples.onset_s.min() == 50.0


def test_only_events_leaves_out_clips_that_reach_beyond_one() -> None:
    run = make_run("a", events=(Event(4.0, 7.0, "bar"),))
    samples = sample([run], Window(clip_s=2.0, first_lag_s=0.0), only_events=True)
    assert np.array_equal(samples.onset_s, [4, 6, 8])
    assert set(samples.category) == {"bar"}


@pytest.mark.parametrize(("sides", "counts"), [("neither", (30, 30)), ("test", (30, 3)), ("both", (3, 3))])
def test_events_are_asked_for_on_the_side_that_the_window_says(sides: str, counts: tuple[int, int]) -> None:
    runs = recording(*(make_run(name, events=(Event(4.0, 7.0, "bar"),)) for name in "ab"))
    window = Window.build({"only_events": sides, "first_lag_s": 0.0})
    train, test = make_split([{"run": "a"}], [{"run": "b"}]).cut(runs).sets(window)
    assert (len(train.samples), len(test.truth)) == counts


def test_frames_shrink_by_area() -> None:
    frames = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    frames[:, :2, :2] = 100
    assert np.array_equal(resize(frames, 2, 2)[0, :, :, 0], [[100, 0], [0, 0]])
    assert resize(frames, 4, 4) is frames


def test_wrong_settings_are_one_sentence_with_the_known_keys() -> None:
    with pytest.raises(ConfigError, match=r"^config key must be one of at, average, .*, got 'lag'$"):
        Window.build({"lag": 3})
    with pytest.raises(ConfigError, match=r"^config key must be one of run, start_s, stop_s, got 'train.0.end'$"):
        make_split([{"run": "a", "end": 3}], [{"run": "b"}])
    with pytest.raises(ConfigError, match=r"^trs is wrong: .* greater than or equal to 1, got 0$"):
        Window.build({"trs": 0})
    with pytest.raises(ConfigError, match=r"^run must be one of a, got 'z' \(sub-01\)$"):
        make_split([{"run": "z"}], [{"run": "a"}]).cut(recording(make_run("a")))
    with pytest.raises(DataError, match=r"^segment of run a must hold a volume within 0 to 60 s, got 70.0 to None s$"):
        make_split([{"run": "a", "start_s": 70.0}], [{"run": "a"}]).cut(recording(make_run("a")))
