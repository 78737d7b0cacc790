import pytest

from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError


class Inner(Config):
    share: float = 0.5


class Outer(Config):
    scale: float | None = 2.0
    part: Inner | None = Inner()
    name: str = "own"
    title: str | None = "own"
    count: int = 1


def test_none_is_none_where_a_setting_may_be_none_and_no_text(tmp_path) -> None:
    found = Outer.read(None, ["scale=none", "part=none", "name=none", "title=none"])
    assert (found.scale, found.part, found.name, found.title) == (None, None, "none", "none")
    (tmp_path / "a.toml").write_text('scale = "none"\n[part]\nshare = 0.25\n')
    found = Outer.read(tmp_path / "a.toml")
    assert found.scale is None and found.part == Inner(share=0.25)
    found.save(tmp_path / "a.json")
    assert Outer.load(tmp_path / "a.json") == found


@pytest.mark.parametrize("setting", ["count=none", "scale=nothing", "part.share=none"])
def test_no_other_setting_is_none(setting: str) -> None:
    with pytest.raises(ConfigError, match="is wrong"):
        Outer.read(None, [setting])
