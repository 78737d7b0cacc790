import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from neuroreel.core.errors import ConfigError, FetchError
from neuroreel.datasets import cards
from neuroreel.datasets.prepare import find_study

TEXT = b"a small file"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.txt").write_bytes(TEXT)
    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(cards.ENVIRONMENT, raising=False)


def make_card(address: str, text: bytes = TEXT, file: str = "a.txt") -> cards.Card:
    files = {file: hashlib.sha256(text).hexdigest()}
    return cards.Card("toy", "a toy", address, "toy", files, "CC0", "Doe 2020", 1, 1, 1, 1, 1.0)


def test_a_file_is_fetched_once_and_then_found_offline(server: str) -> None:
    folder = cards.fetch(make_card(server))
    assert (folder / "a.txt").read_bytes() == TEXT
    assert cards.fetch(make_card("http://127.0.0.1:9/")) == folder


def test_a_file_that_is_another_is_refused_and_not_kept(server: str) -> None:
    card = make_card(server, b"what it should be")
    with pytest.raises(
        FetchError, match=r"^file a.txt of toy must have the SHA-256 [0-9a-f]{12}\.\.\., got another one"
    ):
        cards.fetch(card)
    assert not (cards.cache_folder(card) / "a.txt").exists()


def test_offline_is_one_sentence_that_says_what_to_do() -> None:
    rule = r"^data set toy must be fetched once: go online, or set NEUROREEL_DATA to a folder that has toy/, got Conn"
    with pytest.raises(FetchError, match=rule):
        cards.fetch(make_card("http://127.0.0.1:9/"))


def test_the_folder_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cards.ENVIRONMENT, str(tmp_path / "mine"))
    (tmp_path / "mine" / "toy").mkdir(parents=True)
    with pytest.raises(FetchError, match=r"^file a.txt of toy must be there: set NEUROREEL_DATA"):
        cards.fetch(make_card("http://127.0.0.1:9/"))
    (tmp_path / "mine" / "toy" / "a.txt").write_bytes(TEXT)
    assert cards.fetch(make_card("http://127.0.0.1:9/")) == tmp_path / "mine" / "toy"
    (tmp_path / "mine" / "toy" / "a.txt").write_bytes(TEXT[::-1])
    with pytest.raises(FetchError, match=r"^file a.txt of toy must have the SHA-256 "):
        cards.fetch(make_card("http://127.0.0.1:9/"))


def test_a_card_cannot_write_outside_its_folder() -> None:
    with pytest.raises(Exception, match=r"^path must stay inside its folder, got '\.\./a.txt' \(toy\)$"):
        cards.fetch(make_card("http://127.0.0.1:9/", file="../a.txt"))


def test_an_unknown_setting_of_a_study_lists_the_known_ones(tmp_path: Path) -> None:
    _, read = cards.known("szinte2024")
    with pytest.raises(ConfigError, match=r"^setting of szinte2024 must be one of fixation, got 'fix'$"):
        read(tmp_path, fix=True)
    with pytest.raises(ConfigError, match=r"^setting fixation of szinte2024 must be bool, got 1$"):
        read(tmp_path, fixation=1)


def test_a_source_that_is_nothing_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^source must be a TOML file, a BIDS or HCP folder or one of cc2017"):
        find_study(tmp_path / "nothing.toml")
