"""The page in a real browser, from a file: what can be read, what plays, and that it asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from neuroreel.report.page import number, write_report
from neuroreel.report.record import Record

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt-get install chromium)")


@dataclass
class Seen:
    page: Any
    folder: Path
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(record: Record, bare: Record, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `test`")
    file = write_report([record, bare], tmp_path_factory.mktemp("report"))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        found = Seen(page, file.parent)
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.goto(file.as_uri())
        yield found
        browser.close()


def test_a_reader_finds_the_headings(seen: Seen) -> None:
    assert seen.page.title() == "movies, nothing measured · neuroreel"
    assert seen.page.locator("h2").all_inner_texts() == ["movies", "nothing measured"]
    parts = seen.page.locator("#movies h3").all_inner_texts()
    assert parts == ["Shown and reconstructed", "Scores", "Left out"]


def test_the_numbers_that_are_seen_are_those_of_the_record(seen: Seen, record: Record) -> None:
    for system, row in record.table.rows.items():
        for variant, score in row.items():
            line = seen.page.locator(f"tbody[data-variant='{variant}'] tr[data-system='{system}']")
            assert line.locator("td.value").inner_text() == number(score.mean)
            assert line.locator("td.chance summary").inner_text() == number(score.chance_value)
            assert line.locator("td.ceiling").inner_text() == number(score.ceiling)
            assert line.locator("td.normalised").inner_text() == number(score.normalised)


def test_all_chance_rows_open_on_a_click(seen: Seen) -> None:
    cell = seen.page.locator("td.chance").first
    assert not cell.locator("li").first.is_visible()
    cell.locator("summary").click()
    assert cell.locator("li").first.is_visible()
    assert [line.split() for line in cell.locator("li b").all_inner_texts()] == [["0.410"], ["0.500"]]
    assert cell.locator("li span").first.inner_text() == "answers to other clips (shuffled)"


def test_the_movie_plays(seen: Seen) -> None:
    seen.page.locator("video").scroll_into_view_if_needed()
    times = []
    while len(times) < 240 and (not times or abs(times[-1] - times[0]) < 0.4):
        times.append(seen.page.evaluate("document.querySelector('video').currentTime"))
        seen.page.wait_for_timeout(250)
    assert abs(times[-1] - times[0]) >= 0.4
    state = seen.page.evaluate(
        "(() => { const v = document.querySelector('video');"
        " return [v.duration, v.readyState, v.videoWidth, v.error, v.paused]; })()"
    )
    assert state[0] == pytest.approx(48 / 8, abs=0.2)
    assert state[1] >= 2 and state[2] > 600 and state[3] is None and state[4] is False


def test_every_picture_is_drawn(seen: Seen) -> None:
    sizes = seen.page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(sizes) == len(list(seen.folder.glob("*.png")))
    assert all(complete and width > 100 and height > 50 for complete, width, height in sizes)


def test_where_it_comes_from_is_folded_away_and_hostile_text_is_only_text(seen: Seen) -> None:
    more = seen.page.locator("#movies details.more")
    assert not more.locator("dl").first.is_visible()
    more.locator("summary").click()
    assert "<script>document.title='owned'</script>" in more.inner_text()


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_no_screen_has_to_be_scrolled_sideways(seen: Seen, width: int) -> None:
    seen.page.set_viewport_size({"width": width, "height": 800})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(seen: Seen) -> None:
    assert seen.errors == []
    assert all(address.startswith(("file:", "data:")) for address in seen.requests)
    assert len([address for address in seen.requests if address.startswith("file:")]) == 1
