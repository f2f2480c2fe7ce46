"""Where a mapper comes from: a folder on this machine, or a repository of the Hugging Face Hub.

A folder never touches the network. Whatever goes wrong with a repository becomes one `ValueError` that names it and says
what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

FILES = ("mapper.json", "mapper.safetensors")

# The HTTP client's own error among them, which is httpx's or httpx2's as huggingface-hub's version has it.
_FAILURES: tuple[Any, ...] = (OSError, HFValidationError, *HfHubHTTPError.__bases__)


def local_folder(name: str) -> Path | None:
    """The folder of that name, or None for what can only be a repository.

    Raises:
        ValueError: for what is written like a path and leads nowhere.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {name!r}: give the folder of a mapper, or a repository's name ('user/name')")
    return None


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Download a mapper's files, or find them in the hub's cache, both of one revision.

    Raises:
        ValueError: for a repository that does not exist, is gated or private, cannot be reached or holds no mapper.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"cannot load a mapper from {repo_id!r}", repo_id, revision):
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                allow_patterns=list(FILES),
            )
        )
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"the repository {repo_id!r} holds no mapper of interp_transfer ({' and '.join(missing)} missing): check its name "
            "and revision"
        )
    return folder


@contextmanager
def hub_errors(what: str, repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the hub's client raises into a ValueError that begins with ``what`` and ends with a remedy."""
    try:
        yield
    except _FAILURES as error:
        raise ValueError(f"{what}: {_remedy(error, repo_id, revision)}") from error


def _remedy(error: Exception, repo_id: str, revision: str | None) -> str:
    log_in = "log in (`hf auth login`) or give token="
    if isinstance(error, GatedRepoError):
        return f"it is gated; ask for access at https://huggingface.co/{repo_id}, then {log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; name a branch, a tag or a commit, or leave revision out for the newest"
    if isinstance(error, RepositoryNotFoundError):
        return f"it is no folder here, and the hub has no such repository, or a private one; check the name, or {log_in}"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"the hub refuses; {log_in} of one that may do this"
    if isinstance(error, HFValidationError):
        return "that is no repository's name; give 'user/name', or the path of a folder"
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(error, HfHubHTTPError):
        return f"the hub answers {str(error).strip().splitlines()[0]}; try again later"
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return (
            "the network is turned off and the hub's cache has no whole copy; unset HF_HUB_OFFLINE and local_files_only, or "
            "give the path of a downloaded folder"
        )
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    return f"the hub could not be reached ({first}); try again with a network, or give the path of a downloaded folder"
