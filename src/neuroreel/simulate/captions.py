"""What happens in a scene in plain English, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable

from neuroreel.core import checks
from neuroreel.simulate.categories import CATEGORIES, GROUP_OF
from neuroreel.simulate.colours import COLOURS
from neuroreel.simulate.scenes import Scene

VERBS = {
    "duck": "waddles",
    "fish": "swims",
    "car": "drives",
    "truck": "drives",
    "boat": "sails",
    "plane": "flies",
    "rocket": "flies",
}
GROUP_VERBS = {"animal": "walks", "person": "walks"}
SLIDES = "glides"

WAYS = {
    "right": "to the right",
    "left": "to the left",
    "up": "up",
    "down": "down",
    "up right": "up and to the right",
    "up left": "up and to the left",
    "down right": "down and to the right",
    "down left": "down and to the left",
}
DOINGS = {
    ("approach", ""): "comes closer",
    ("recede", ""): "moves away",
    ("rotate", "clockwise"): "turns clockwise",
    ("rotate", "anticlockwise"): "turns anticlockwise",
    ("bounce", ""): "bounces up and down",
    ("still", ""): "keeps still",
}
PLACES = {
    "top left": "at the top left",
    "top": "at the top",
    "top right": "at the top right",
    "left": "on the left",
    "middle": "in the middle",
    "right": "on the right",
    "bottom left": "at the bottom left",
    "bottom": "at the bottom",
    "bottom right": "at the bottom right",
}
SETTINGS = {
    "sky": "in the sky",
    "meadow": "over a meadow",
    "sea": "over the sea",
    "desert": "in a desert",
    "snow": "in the snow",
    "street": "on a street",
    "room": "in a room",
    "forest": "in a forest",
    "night": "at night",
    "space": "in space",
}
PANS = {"left": ", as the camera pans left", "right": ", as the camera pans right"}


def place_of(x: float, y: float) -> str:
    """Return which of nine places a position in frames is, one of PLACES."""
    row = "top" if y < 0.43 else "bottom" if y > 0.57 else ""
    column = "left" if x < 0.43 else "right" if x > 0.57 else ""
    return f"{row} {column}".strip() or "middle"


def size_word(size: float) -> str:
    """Return "small", "large", or nothing for what lies between."""
    return "small" if size < 0.34 else "large" if size > 0.48 else ""


def drift_verb(category: str) -> str:
    """Return how a category gets from one place to another."""
    return VERBS.get(category, GROUP_VERBS.get(GROUP_OF[category], SLIDES))


def caption_of(scene: Scene) -> str:
    """Return one sentence: size, colour, category, what it does, where, and what the camera does.

    The place is that at half time and is said of all that doesn't drift, for a drift its direction is.
    """
    described = " ".join(word for word in (size_word(scene.size), scene.colour, scene.category) if word)
    article = "an" if described[0] in "aeiou" else "a"
    if scene.action == "drift":
        doing = f"{drift_verb(scene.category)} {WAYS[scene.direction]}"
    else:
        doing = f"{DOINGS[scene.action, scene.direction]} {PLACES[place_of(scene.x, scene.y)]}"
    pan = "" if scene.pan == 0 else PANS["right" if scene.pan > 0 else "left"]
    return f"{article} {described} {doing} {SETTINGS[scene.background]}{pan}"


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def parse_caption(caption: str) -> dict[str, str]:
    """Return what a caption of the world says.

    Returns
    -------
    size ("small", "large" or ""), colour, category, action, direction, place, background and pan by name; the place
    is empty for a drift, and so is what wasn't said.

    Raises
    ------
    DataError : the text isn't a caption of the world.
    """
    verbs = {drift_verb(category) for category in CATEGORIES}
    pattern = (
        rf"an? (?:(?P<size>small|large) )?(?P<colour>{_any(COLOURS)}) (?P<category>{_any(CATEGORIES)}) "
        rf"(?:(?:{_any(verbs)}) (?P<way>{_any(WAYS.values())})|(?P<doing>{_any(DOINGS.values())}) "
        rf"(?P<place>{_any(PLACES.values())})) (?P<setting>{_any(SETTINGS.values())})(?P<pan>{_any(PANS.values())})?"
    )
    found = re.fullmatch(pattern, caption)
    checks.require(found is not None, "caption", "must be one of the simulated world", repr(caption))
    said = {key: value or "" for key, value in found.groupdict().items()} if found else {}
    back = {phrase: pair for pair, phrase in DOINGS.items()}
    ways = {phrase: ("drift", way) for way, phrase in WAYS.items()}
    action, direction = ways[said["way"]] if said["way"] else back[said["doing"]]
    return {
        "size": said["size"],
        "colour": said["colour"],
        "category": said["category"],
        "action": action,
        "direction": direction,
        "place": {phrase: place for place, phrase in PLACES.items()}.get(said["place"], ""),
        "background": {phrase: name for name, phrase in SETTINGS.items()}[said["setting"]],
        "pan": {phrase: way for way, phrase in PANS.items()}.get(said["pan"], ""),
    }
