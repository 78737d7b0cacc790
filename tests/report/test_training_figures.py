import io
from dataclasses import replace

import numpy as np
from matplotlib.image import imread

from neuroreel.core.training import Curve, TrainingLog
from neuroreel.report.page import make_section, render
from neuroreel.report.training_figures import curves_picture, samples_picture

RED, GREEN = (255, 0, 0), (0, 160, 0)


def make_log() -> TrainingLog:
    truth = np.zeros((3, 8, 8, 3), np.uint8) + np.array(RED, np.uint8)
    log = TrainingLog(truth=truth)
    for step in (1, 10, 20):
        log = log.add(step, {"diversity": ("diversity", step / 20)}, np.zeros_like(truth) + np.array(GREEN, np.uint8))
    losses = {name: Curve(np.arange(1, 21), np.linspace(2, 1, 20), "loss") for name in ("judges", "generator")}
    return replace(log, curves=log.curves | losses, final={"diversity": 0.9}, notes=("it has collapsed",))


def test_samples_stand_under_what_was_shown_look_by_look() -> None:
    drawn = samples_picture("gan", make_log())
    assert drawn is not None and all(word in drawn.svg for word in ("shown", "step 1", "step 10", "step 20"))
    image = imread(io.BytesIO(drawn.png))[..., :3]
    red, green = ((np.abs(image - np.array(colour) / 255) < 0.1).all(2).sum() for colour in (RED, GREEN))
    assert abs(green / red - 3) < 0.15
    assert "Warning: it has collapsed." in drawn.caption


def test_curves_have_a_panel_for_each_kind_and_a_diamond_for_what_is_kept() -> None:
    drawn = curves_picture("gan", make_log())
    assert drawn is not None and drawn.svg.count("step") >= 2
    assert all(word in drawn.svg for word in ("loss", "diversity", "judges", "generator"))
    assert "at the end diversity 0.9" in drawn.alt


def test_a_training_without_looks_has_no_pictures() -> None:
    assert samples_picture("gan", TrainingLog()) is None and curves_picture("gan", TrainingLog()) is None


def test_the_page_shows_how_a_system_was_trained_and_what_is_to_be_said_of_it(record) -> None:
    name = next(iter(record.reconstructions))
    shown = replace(record, trainings={name: make_log()})
    colours = dict.fromkeys(record.reconstructions, "#123456")
    section = make_section(shown, "movies", colours)
    assert [each.name for each in section.pictures[-2:]] == ["training_curves_1", "training_samples_1"]
    assert "it has collapsed" in render([section], colours)
