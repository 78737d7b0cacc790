"""The page: whole, safe, and saying what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.scores import Lesions, ScoreCurve, Scores, ScoreTable
from neuroreel.core.types import Reconstruction
from neuroreel.report import page
from neuroreel.report.page import write_report
from neuroreel.report.record import Probed, Record

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """What a browser would see: tags with their attributes, and the text of each table row by (variant, system)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.cells: dict[tuple[str, str], dict[str, str]] = {}
        self._variant = self._system = self._cell = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.tags.append((tag, held))
        if tag == "tbody":
            self._variant = held["data-variant"] or ""
        if tag == "tr":
            self._system = held.get("data-system") or ""
        if tag == "td":
            self._cell = held["class"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "summary"):
            self._cell = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._cell:
            cells = self.cells.setdefault((self._variant, self._system), {})
            cells[self._cell] = cells.get(self._cell, "") + data.strip()


@pytest.fixture(scope="module")
def folder(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([record], tmp_path_factory.mktemp("report")).parent


def test_the_page_asks_for_nothing_outside_itself(folder: Path) -> None:
    reader = Reader((folder / "index.html").read_text())
    for tag, held in reader.tags:
        for name in ("src", "href", "poster", "srcset", "action"):
            address = held.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, name)
    assert not [tag for tag, _ in reader.tags if tag in ("script", "iframe", "object", "embed")]
    policy = next(held["content"] for tag, held in reader.tags if held.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'")


def test_the_table_holds_the_numbers_of_the_record(folder: Path, record: Record) -> None:
    cells = Reader((folder / "index.html").read_text()).cells
    for system, row in record.table.rows.items():
        for variant, score in row.items():
            said = cells[variant, system]
            shown = float(said["value"].replace(",", "").replace("−", "-"))
            assert shown == pytest.approx(score.mean, rel=1e-3)
            assert float(said["chance"]) == pytest.approx(score.chance_value, abs=5e-4)
            assert (said["ceiling"], said["p"]) == ("0.970", "0.004")
            assert said["interval"] == "0.200 to 0.950"


def test_every_figure_and_movie_lies_beside_the_page_too(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert {
        "index.html",
        "montage.mp4",
        "contact_sheet.png",
        "best_to_worst.png",
        "lag_sweep.png",
        "identification.png",
    } <= names
    assert {"scores_over_time.png", "confusion.png", "categories.png", "voxels_1.png", "regions_1.png"} <= names
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in folder.glob("*.png"))


def test_pictures_have_words_for_those_who_cant_see_them(folder: Path) -> None:
    reader = Reader((folder / "index.html").read_text())
    images = [held for tag, held in reader.tags if tag == "img"]
    assert len(images) == len(list(folder.glob("*.png")))
    assert all(len(held["alt"] or "") > 20 for held in images)
    assert all(held.get("aria-label") for tag, held in reader.tags if tag == "video")


def test_text_of_the_data_is_shown_and_never_run(record: Record, tmp_path: Path) -> None:
    truth = replace(record.truth, caption=np.full(8, HOSTILE), category=np.array([HOSTILE, "cat"] * 4))
    scores = {HOSTILE: record.table.rows["ridge & co"]}
    made = {HOSTILE: replace(record.reconstructions["ridge & co"], categories=(HOSTILE, "cat"))}
    table = ScoreTable(scores, {HOSTILE: HOSTILE})
    names = {"dataset": HOSTILE, "subject": HOSTILE, "provenance": {HOSTILE: [HOSTILE, {"deep": HOSTILE}]}}
    hostile = replace(record, truth=truth, reconstructions=made, table=table, curves={}, voxel_maps=(), **names)
    text = write_report([hostile, hostile], tmp_path / "report").read_text()
    reader = Reader(text)
    assert not [tag for tag, held in reader.tags if tag == "script" or "onerror" in held]
    assert "".join(reader.text).count(HOSTILE) >= 8
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", file.name) for file in (tmp_path / "report").iterdir())


def test_what_was_not_measured_is_named_with_its_reason(bare: Record, tmp_path: Path) -> None:
    reader = Reader(write_report([bare], tmp_path).read_text())
    text = "".join(reader.text)
    for name in ("movie", "contact sheet", "lag sweep", "identification curve", "voxel scores"):
        assert f"{name}: " in text
    assert "Subject 1 was shown 8 test volumes" in text
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_two_records_of_one_name_have_addresses_and_files_of_their_own(bare: Record, tmp_path: Path) -> None:
    reader = Reader(write_report([bare, bare], tmp_path).read_text())
    sections = [held["id"] for tag, held in reader.tags if tag == "section"]
    links = [held["href"] for tag, held in reader.tags if tag == "a"]
    assert sections == ["nothing-measured", "nothing-measured-2"]
    assert links == [f"#{name}" for name in sections]


def test_a_report_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^records must be 1 or more, got 0 \(.*\)$"):
        write_report([], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_report_leaves_other_files_of_its_folder_alone(bare: Record, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_report([bare], tmp_path)
    write_report([bare], tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_the_headline_says_what_the_best_system_reaches_and_what_a_guess_would(record: Record) -> None:
    lines = page.sentences(record, "identification:pairwise", page.best_system(record, "identification:pairwise"))
    assert lines[0].startswith("Subject 07 was shown 8 test clips (bus and cat), averaged over 10 showings.")
    assert "ridge & co, tells the true one from another in 80\u00a0% of all pairs" in lines[1]
    assert "a guess gives 50\u00a0%" in lines[1] and "97\u00a0%" in lines[1]


def test_lower_is_better_where_the_metric_is_an_error(record: Record) -> None:
    assert page.best_system(record, "mse") == "mean-frame"
    assert page.best_system(record, "identification:pairwise") == "ridge & co"
    assert page.best_system(record, None) is None


def test_no_system_is_marked_as_best_that_is_not_above_chance(record: Record, tmp_path: Path) -> None:
    worse = Scores("pixcorr", np.full(8, 0.1), chance={"shuffled": 0.3})
    low = replace(record, table=ScoreTable({"ridge & co": {"pixcorr": worse}}), voxel_maps=(), lag_sweep=None)
    reader = Reader(write_report([low], tmp_path).read_text())
    assert not [held for tag, held in reader.tags if tag == "tr" and held.get("class") == "best"]


def test_undefined_and_missing_numbers_are_dashes(record: Record, tmp_path: Path) -> None:
    empty = Scores("pixcorr", np.full(8, np.nan))
    made = {"x": Reconstruction()}
    only = replace(record, table=ScoreTable({"x": {"pixcorr": empty}}), reconstructions=made, curves={}, voxel_maps=())
    cells = Reader(write_report([only], tmp_path).read_text()).cells["pixcorr", "x"]
    assert {cells[name] for name in ("value", "chance", "ceiling", "normalised", "p")} == {"–"}


@pytest.mark.parametrize(
    ("value", "said"), [(0.98765, "0.988"), (-0.5, "−0.500"), (12.345, "12.3"), (5226.97, "5,227"), (None, "–")]
)
def test_numbers_read_easily(value: float | None, said: str) -> None:
    assert page.number(value) == said


@pytest.mark.parametrize(("value", "said"), [(0.0009, "< 0.001"), (0.0, "< 0.001"), (0.05, "0.050"), (None, "–")])
def test_no_p_value_is_zero(value: float | None, said: str) -> None:
    assert page.p_value(value) == said


def test_metrics_of_motion_stand_above_the_same_clips_without_their_motion(record: Record, tmp_path: Path) -> None:
    controls = {"static": 1.0, "reversed": 0.91, "frame-shuffled": 0.37}
    score = Scores("clip-consistency:adjacent", np.full(8, 0.8), chance={"shuffled": 0.5}, controls=controls)
    table = ScoreTable({"ridge & co": {score.variant: score}})
    moving = replace(record, table=table, voxel_maps=(), reconstructions={})
    text = write_report([moving], tmp_path).read_text()
    shown = re.findall(
        r'data-of="ridge &amp; co" data-control="(.*?)">.*?<td class="value">(.*?)</td>', text, re.DOTALL
    )
    assert shown == [(name, f"{value:.3f}") for name, value in controls.items()]
    assert "A still frame wins" in text and "the same, its frames shuffled" in text


def test_what_scores_depend_on_is_drawn_with_the_systems_together(bare: Record, tmp_path: Path) -> None:
    assert "<b>bottleneck</b>: not measured (neuroreel bottleneck)" in write_report([bare], tmp_path).read_text()
    two = {name: ScoreCurve(*columns(5), "brain dimensions kept", "pixcorr") for name in ("ridge", "mind-vis")}
    cut = Lesions(("V1", "late"), *columns(7, 2), 0.8, 0.7, 0.9, 0.5, "pixcorr")
    folder = write_report([replace(bare, probed=Probed({"bottleneck": two}, {"ridge": cut}))], tmp_path).parent
    text = (folder / "index.html").read_text()
    assert (folder / "bottleneck.png").is_file() and (folder / "lesions_1.png").is_file()
    assert text.count("How many brain dimensions are needed") == 1
    assert "Which regions carry it: ridge" in text and "<b>bottleneck</b>" not in text


def columns(count: int, length: int = 3) -> list[np.ndarray]:
    """Return so many columns that rise."""
    return list(np.linspace(1.0, 9.0, count * length).reshape(count, length))
