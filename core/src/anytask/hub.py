"""From a model's name to its folder: bundled with the package, on disk, or on the Hugging Face hub."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from anytask.errors import CheckpointError

BUNDLED = Path(str(files("anytask"))) / "models"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MODULE_FOLDER = r"(?:\d+_[A-Za-z]+/)?"
SMALL_FILE = re.compile(
    MODULE_FOLDER
    + r"(?:modules|config|config_sentence_transformers|sentence_bert_config|tokenizer_config|tokenizer)\.json"
)
WEIGHTS = re.compile(
    rf"(?P<folder>{MODULE_FOLDER})(?P<name>model|pytorch_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.json)?"
)


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
    for name in listing:
        if re.fullmatch(MODULE_FOLDER + r"spiece\.model", name):
            if name.replace("spiece.model", "tokenizer.json") not in listing:
                needed.append(name)
    return sorted(needed)


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
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.is_file() or isinstance(name_or_path, Path) or not HUB_ID.fullmatch(name):
        found = "a file" if path.is_file() else "nothing"
        raise CheckpointError(
            f"{name!r}: {found} is there, expected the folder of a checkpoint. "
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
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    reason: Exception | None = None
    patterns: list[str] | None = None
    try:
        if not local_files_only:
            try:
                info = HfApi(token=token).model_info(repo_id, revision=revision)
                patterns = needed_files([sibling.rfilename for sibling in info.siblings or []])
            except (OfflineModeIsEnabled, OSError) as error:
                if (
                    isinstance(error, HfHubHTTPError)
                    and error.response is not None
                    and error.response.status_code < 500
                ):
                    raise
                reason, local_files_only = error, True
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=patterns,
                local_files_only=local_files_only,
            )
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{repo_id!r} is neither a bundled model ({', '.join(bundled_models()) or 'none'}), nor a folder here, "
            f"and the hub answered: {str(error).splitlines()[0]}"
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{repo_id!r} is not in the cache{f' {cache_dir}' if cache_dir else ''} and "
            + (f"the hub can't be reached ({type(reason).__name__})" if reason else "local_files_only is set")
            + f". Download it once with a network, give a folder, or use a bundled model ({', '.join(bundled_models())})"
        ) from error
