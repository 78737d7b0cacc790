"""Video to features: networks, filter banks, latents."""

from types import MappingProxyType

from neuroreel.features.alexnet import AlexNetExtractor
from neuroreel.features.extractor import Extractor
from neuroreel.features.gist import GistExtractor
from neuroreel.features.hmax import HmaxExtractor
from neuroreel.features.motion_energy import MotionEnergyExtractor
from neuroreel.features.sift import SiftExtractor

EXTRACTORS: MappingProxyType[str, type[Extractor]] = MappingProxyType(
    {kind.name: kind for kind in (AlexNetExtractor, GistExtractor, HmaxExtractor, MotionEnergyExtractor, SiftExtractor)}
)

__all__ = [
    "EXTRACTORS",
    "AlexNetExtractor",
    "Extractor",
    "GistExtractor",
    "HmaxExtractor",
    "MotionEnergyExtractor",
    "SiftExtractor",
]
