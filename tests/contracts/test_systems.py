import pytest

from neuroreel.core.errors import ConfigError
from neuroreel.systems import find_system, system_names
from neuroreel.testing import check_system

BLIND = {"mean-frame", "no-brain"}


SLOW = {"encoder-decoder", "video-gan", "wen2018"}  # at their defaults; see their own tests at a small size
ELSEWHERE = {"mind-video", "mind-vis"}  # a generator of the world's scenes shows no planted shapes; see their own tests


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.heavy) if name in SLOW else name
        for name in system_names()
        if name not in ELSEWHERE
    ],
)
def test_every_system_keeps_the_protocol(name: str) -> None:
    check_system(find_system(name), learns=name not in BLIND)


def test_an_unknown_system_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^system must be one of .*mean-frame, .*ridge-pixels.*, got 'ridge'$"):
        find_system("ridge")
