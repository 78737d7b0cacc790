import pytest

from neuroreel.core.errors import ConfigError
from neuroreel.systems import find_system, system_names
from neuroreel.testing import check_system

BLIND = {"mean-frame", "no-brain"}


SLOW = {"encoder-decoder", "video-gan", "wen2018"}  # long at their defaults; their own tests hold them to the protocol at a small size
ELSEWHERE = {"mind-vis"}  # a generator that knows the world's scenes only can't show planted shapes; see its own tests


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
