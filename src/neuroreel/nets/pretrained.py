"""Published networks by hub name or folder: found, their files named where they lack, opened whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuroreel.core.checks import require, sentence
from neuroreel.core.errors import DataError, FetchError
from neuroreel.core.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from torch import Tensor

WEIGHTS = "model.safetensors"
TOKENIZER = (
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
"""Files that a tokenizer of transformers may consist of."""


def find_network(name: str, files: Sequence[str] = ("config.json",), more: Sequence[str] = ()) -> Path:
    """Return the folder of a network of transformers or diffusers, fetched from the hub if it is in no folder.

    Parameters
    ----------
    name : a folder, or a hub name such as `openai/clip-vit-large-patch14`. `HF_HOME` says where fetched networks lie,
        `HF_HUB_OFFLINE=1` that nothing is to be fetched.
    files : what must be there besides the weights, which are `model.safetensors` or its shards.
    more : what else is to be fetched where the hub has it, such as `TOKENIZER`.

    Raises
    ------
    FetchError : the network, or one of its files, can't be had.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _fetch(name, (*files, *more))
    for file in files:
        require((folder / file).is_file(), name, f"must have the file {file}", "none", folder, FetchError)
    require(bool(_weights(folder)), name, f"must have the file {WEIGHTS}", "none", folder, FetchError)
    return folder


def network_digest(folder: Path) -> str:
    """Return the SHA-256 of a network's weights; of the digests of its shards, in order, where there are several."""
    return joint_digest(_weights(folder))


def joint_digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file; of the digests of the files, one behind the other, where there are several."""
    digests = [sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_settings(file: Path) -> dict[str, Any]:
    """Return what a JSON file of settings holds; DataError if it is none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(sentence("settings", "must be a JSON table", type(error).__name__, file)) from None


def read_network(kind: Any, folder: Path) -> Any:
    """Return a network of a class of diffusers or transformers, from its folder alone, in float32, not to be trained.

    Raises
    ------
    DataError : the weights are corrupt, or a layer of the network isn't among them (which would then be random).
    """
    from safetensors import SafetensorError

    with quiet():
        try:
            net, found = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(sentence("network", f"must be a whole {kind.__name__}", reason, folder)) from None
    for what in ("missing_keys", "mismatched_keys"):
        wrong = sorted(map(str, found[what]))
        rule = f"must have every layer of {kind.__name__}, in its shape"
        require(not wrong, "network", rule, f"{len(wrong)} without, first {(wrong or [''])[0]}", folder)
    return net.float().eval().requires_grad_(False)


def frame_processor(folder: Path, *, clips: bool = False) -> Callable[[np.ndarray], Tensor]:
    """Return the function that resizes and scales frames (n, h, w, 3) uint8 as preprocessor_config.json says.

    Parameters
    ----------
    clips : the frames are those of one clip, for a processor of videos.
    """
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")

    def prepare(frames: np.ndarray) -> Tensor:
        images = [list(frames)] if clips else list(frames)
        x = processor(images, return_tensors="pt", input_data_format="channels_last")["pixel_values"].float()
        return x[0] if clips else x

    return prepare


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a network's folder; DataError if there is none, or it isn't whole."""
    from transformers import AutoTokenizer

    with quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(sentence("tokenizer", "must be whole, and beside the weights", reason, folder)) from None


def _weights(folder: Path) -> list[Path]:
    """Return the file of weights, or its shards."""
    single = folder / WEIGHTS
    return [single] if single.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))


def _fetch(name: str, files: Sequence[str]) -> Path:
    """Return the folder of a hub network in the cache, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = [*files, WEIGHTS, f"{WEIGHTS}.index.json", "model-*-of-*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        rule = f"must be a folder, or a hub network that can be fetched, with {WEIGHTS}"
        raise FetchError(sentence(name, rule, type(error).__name__)) from None


@contextmanager
def quiet(library: Literal["transformers", "diffusers"] = "transformers") -> Iterator[None]:
    """Keep a library from telling on the console what it loads, and from drawing a bar for it."""
    logging = import_module(f"{library}.utils").logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
