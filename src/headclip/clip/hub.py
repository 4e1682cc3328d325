"""Folders of models on the Hugging Face hub: from the local cache, else downloaded, else one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from headclip.clip.files import HUGGINGFACE_WEIGHTS, OPEN_CLIP_WEIGHTS, read_json
from headclip.clip.tokenizer import TOKENIZER_FILES
from headclip.errors import BackboneError

_SETTINGS = ("config.json", "preprocessor_config.json", "open_clip_config.json")
_TIMEOUT = 15.0  # seconds for the first answer of the hub
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form organisation/model."""
    return _HUB_ID.fullmatch(name) is not None


def fetch(hub_id: str) -> Path:
    """The local folder with the files of a model; only files that loading needs are downloaded.

    The cache comes first and a complete copy in it is used as it is, so a run repeats with the same weights
    and needs no network. `HF_HOME`, `HF_HUB_OFFLINE` and `HF_TOKEN` have their usual meaning.

    Raises:
        BackboneError: huggingface_hub is not installed, the hub cannot be reached, or it has no such CLIP
            model. The message says which files to put where.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise BackboneError(_advice(hub_id, "huggingface_hub is not installed (pip install 'headclip[hub]')")) from None
    try:
        cached = Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
        if is_complete(cached):
            return cached
    except Exception:  # not in the cache, or the cache is unusable: the download below has the last word
        pass
    try:
        # model_info asks once; listing the repository's tree would retry for half a minute without a network.
        siblings = huggingface_hub.model_info(hub_id, timeout=_TIMEOUT).siblings or []
        return _download(hub_id, {file.rfilename for file in siblings}, huggingface_hub.hf_hub_download)
    except BackboneError:
        raise
    except errors.GatedRepoError:
        reason = "access has to be granted on its page first, and HF_TOKEN set"
    except errors.RepositoryNotFoundError:
        reason = "the hub has no model of that name, or it is private"
    except errors.OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except Exception as error:  # any failure of the network or the hub ends in the same advice
        reason = " ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    raise BackboneError(_advice(hub_id, f"it is not in the local cache and could not be downloaded ({reason})"))


def _download(hub_id: str, available: set[str], download: Callable[[str, str], str]) -> Path:
    local = {name: Path(download(hub_id, name)) for name in _SETTINGS if name in available}
    is_clip = "config.json" in local and is_clip_config(read_json(local["config.json"]))
    weights = weight_file(available, is_clip)
    if weights is None:
        raise BackboneError(
            f"'{hub_id}' on the hub is not a CLIP that can be loaded: it has neither a CLIP's config.json "
            "with model.safetensors nor open_clip_config.json with open_clip_model.safetensors"
        )
    for name in TOKENIZER_FILES:
        if name in available:
            download(hub_id, name)
    path = Path(download(hub_id, weights))
    if weights.endswith(".index.json"):
        for shard in sorted(set(read_json(path)["weight_map"].values())):
            download(hub_id, shard)
    return path.parent


def is_clip_config(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a CLIP in transformers; timm's repositories have one of their own."""
    return config.get("model_type") in ("clip", "clip_vision_model")


def weight_file(available: Collection[str], is_clip: bool) -> str | None:
    """The weight file of those available: Hugging Face layout if the config is CLIP's, else open_clip's."""
    candidates: tuple[str, ...] = HUGGINGFACE_WEIGHTS if is_clip else ()
    if "open_clip_config.json" in available:
        candidates += OPEN_CLIP_WEIGHTS
    return next((name for name in candidates if name in available), None)


def is_complete(folder: Path) -> bool:
    """Whether a folder has a configuration and the weights that belong to it."""
    available = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_clip = "config.json" in available and is_clip_config(read_json(folder / "config.json"))
    weights = weight_file(available, is_clip)
    if weights is None or not weights.endswith(".index.json"):
        return weights is not None
    return set(read_json(folder / weights)["weight_map"].values()) <= available


def _advice(hub_id: str, reason: str) -> str:
    files = "config.json, preprocessor_config.json, tokenizer.json and model.safetensors (or pytorch_model.bin)"
    if hub_id.startswith("timm/"):
        files = "open_clip_config.json, tokenizer.json and open_clip_model.safetensors"
    return (
        f"backbone '{hub_id}': {reason}. Download {files} from https://huggingface.co/{hub_id}/tree/main "
        "into one folder, and pass that folder as --backbone"
    )
