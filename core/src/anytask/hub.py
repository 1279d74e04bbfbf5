"""From a model's name to its folder: bundled with the package, on disk, or on the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from anytask.errors import CheckpointError

logger = logging.getLogger(__name__)

BUNDLED = Path(str(files("anytask"))) / "models"
HUB_ID = re.compile(r"(?=.{1,96}\Z)\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
PASSING_TROUBLE = (408, 429)
"""HTTP status below 500 that says nothing of the model: the request took too long, or there were too many."""
MODULE_FOLDER = r"(?:\d+_[A-Za-z]+/)?"
SMALL_FILE = re.compile(
    MODULE_FOLDER
    + r"(?:modules|config|config_sentence_transformers|sentence_bert_config|tokenizer_config|tokenizer)\.json"
)
SPIECE_NAME = "spiece.model"
SPIECE = re.compile(MODULE_FOLDER + re.escape(SPIECE_NAME))
WEIGHTS = re.compile(
    rf"(?P<folder>{MODULE_FOLDER})(?P<name>model-int8|model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.json)?"
)


MODEL_CARD = "README.md"
"""What it says of a model doesn't change the model."""
CHECKPOINT_SUFFIXES = (".json", ".safetensors", ".bin", ".model")


def bundled_models() -> list[str]:
    """Names of the models inside the package; they need no network."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/modules.json"))


def needed_files(listing: list[str]) -> list[str]:
    """The files of a repository that loading reads: configuration, tokenizer, one form of each module's weights.

    safetensors are preferred to PyTorch files, tokenizer.json to spiece.model; other exports (ONNX, OpenVINO, Rust,
    TensorFlow) are left out.
    """
    needed = [name for name in listing if SMALL_FILE.fullmatch(name)]
    weights = [match for name in listing if (match := WEIGHTS.fullmatch(name))]
    for folder in {match["folder"] for match in weights}:
        here = [match for match in weights if match["folder"] == folder]
        safe = [match for match in here if ".safetensors" in match[0]]
        needed += [match[0] for match in safe or here]
    needed += [
        name
        for name in listing
        if SPIECE.fullmatch(name) and name.replace(SPIECE_NAME, "tokenizer.json") not in listing
    ]
    return sorted(needed)


def folder_identity(folder: Path) -> tuple[str, ...]:
    """Names, sizes and times of the files of a checkpoint's folder, which tell whether it is another one now."""
    return tuple(sorted(_identities(str(folder), depth=1)))


def _identities(folder: str, depth: int) -> Iterator[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.endswith(CHECKPOINT_SUFFIXES):
                with suppress(FileNotFoundError):  # replaced at this moment
                    stat = entry.stat()
                    yield f"{entry.path[len(folder) :]} {stat.st_size} {stat.st_mtime_ns}"
            elif depth and entry.is_dir():
                yield from (entry.name + inner for inner in _identities(entry.path, depth - 1))


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: a bundled name, else a folder on disk, else a hub id, downloaded or from the cache.

    Args:
        revision: branch, tag or commit on the hub.
        token: of a private repository; True takes the one that `hf auth login` stored.
        cache_dir: instead of the hub's own cache folder.
        local_files_only: don't go to the network; fail when the cache lacks the model.

    Raises:
        CheckpointError: there is no such model, or the hub can't be reached and the cache lacks it.
    """
    name = str(name_or_path)
    if name in bundled_models():
        return BUNDLED / name
    try:
        path = Path(name_or_path).expanduser()
        if path.is_dir():
            return path
        is_file = path.is_file()
    except (OSError, RuntimeError):  # longer than a path can be, or in the home of an unknown user
        is_file = False
    if is_file or isinstance(name_or_path, Path) or not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{name!r:.200}: {'a file' if is_file else 'nothing'} is there, expected the folder of a checkpoint. "
            f"Bundled models: {', '.join(bundled_models()) or 'none'}; hub models are given as owner/name"
        )
    return _from_hub(name, revision, token, cache_dir, local_files_only)


def _from_hub(
    repo_id: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> Path:
    from huggingface_hub import snapshot_download

    wanted: list[str] = []
    reason = "local_files_only is set"
    if not local_files_only:
        try:
            wanted = _wanted_files(repo_id, revision, token)
            return Path(
                snapshot_download(repo_id, revision=revision, token=token, cache_dir=cache_dir, allow_patterns=wanted)
            )
        except CheckpointError:
            raise
        except Exception as error:  # of huggingface_hub, of the HTTP library beneath it, or of the disk
            message = " ".join(str(error).split())[:400]
            if _is_refusal(error):
                raise CheckpointError(
                    f"{repo_id!r} is neither a bundled model ({', '.join(bundled_models()) or 'none'}), nor a folder "
                    f"here, and the hub gives no such model: {message}"
                ) from error
            reason = f"it can't be downloaded now ({type(error).__name__}: {message})"
    folder = _cached(repo_id, revision, cache_dir)
    if folder is not None:
        wanted = wanted or _known_files(repo_id, revision, cache_dir) or ["modules.json"]
    if folder is None or not all((folder / name).is_file() for name in wanted):
        extent = "not in" if folder is None else "only partly in"
        raise CheckpointError(
            f"{repo_id!r} is {extent} the cache{f' {cache_dir}' if cache_dir else ''} and {reason}. Download it once "
            f"with a network, give a folder, or use a bundled model ({', '.join(bundled_models()) or 'none'})"
        )
    if not local_files_only:
        logger.warning("%s: %s; the copy in the cache is used", repo_id, reason)
    return folder


def _wanted_files(repo_id: str, revision: str | None, token: str | bool | None) -> list[str]:
    """Names of the files on the hub that are to be downloaded."""
    from huggingface_hub import HfApi

    listing = HfApi(token=token).model_info(repo_id, revision=revision).siblings or []
    wanted = needed_files([file.rfilename for file in listing])
    if not wanted:
        raise CheckpointError(
            f"{repo_id!r} on the hub holds no file of a checkpoint, found "
            f"{', '.join(file.rfilename for file in listing[:8]) or 'nothing'}; expected a sentence-transformers model"
        )
    return wanted


def _cached(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> Path | None:
    """The folder of the files that were downloaded before, if any were."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, local_files_only=True))
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", None)  # without the files that were not needed
        return None if partial is None else Path(partial)
    except HFValidationError:
        return None


def _known_files(repo_id: str, revision: str | None, cache_dir: str | Path | None) -> list[str]:
    """Names of the files that were to be downloaded before; none where nobody has kept a listing.

    Other libraries may have put a part of the model into the cache, as transformers does with the encoder alone.
    """
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # older ones keep no listing
        return []
    try:
        tree = get_cached_repo_tree(repo_id, revision=revision, cache_dir=cache_dir)
    except CachedRepoTreeNotFoundError:
        return []
    return needed_files([file.path for file in tree])


def _is_refusal(error: Exception) -> bool:
    """Whether the hub has answered that there is no such model for this user, so that trying again is no use."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status: int = error.response.status_code
        return status < 500 and status not in PASSING_TROUBLE
    return isinstance(error, HFValidationError)
