"""The files of a mapper in a local folder or in a repository of the Hugging Face Hub.

A local folder is read without the network. Every error of the hub's client becomes a `ValueError` that names the repository and
a remedy.
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

from interp_transfer.names import first_line

FILES = ("mapper.json", "mapper.safetensors")

# They include the HTTP client's own error, which is httpx's or httpx2's, depending on huggingface-hub's version.
_FAILURES: tuple[Any, ...] = (OSError, HFValidationError, *HfHubHTTPError.__bases__)


def local_folder(name: str) -> Path | None:
    """Return the folder of that name, or None if the name can only be a repository's.

    Raises:
        ValueError: for a path that does not exist, or is no folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {name!r}: give the folder of a mapper, or a repository's name ('user/name')")
    return None


def fetch(repo_id: str, *, revision: str | None = None, **options: Any) -> Path:
    """Return a folder with a mapper's two files, of one revision, from the hub or from its cache.

    The options are those of ``huggingface_hub.snapshot_download``.

    Raises:
        ValueError: for a repository that does not exist, is gated or private, cannot be reached or holds no mapper.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(f"cannot load a mapper from {repo_id!r}", repo_id, revision):
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES), **options))
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"the repository {repo_id!r} holds no mapper of interp_transfer ({' and '.join(missing)} missing): check its name "
            "and revision"
        )
    return folder


@contextmanager
def hub_errors(what: str, repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Raise errors of the hub's client as a ValueError that begins with ``what`` and ends with a remedy."""
    try:
        yield
    except _FAILURES as error:
        raise ValueError(f"{what}: {_remedy(error, repo_id, revision)}") from error


def _remedy(error: Exception, repo_id: str, revision: str | None) -> str:
    log_in = "log in (`hf auth login`) or give token="
    if isinstance(error, GatedRepoError):
        return f"it is gated; request access at https://huggingface.co/{repo_id}, then {log_in}"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}; name a branch, a tag or a commit, or leave revision out for the newest"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such folder, and no such repository unless it is private; check the name, or {log_in}"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"the hub refuses access; {log_in} of an account with permission"
    if isinstance(error, HFValidationError):
        return "this is not a valid repository name; give 'user/name', or the path of a folder"
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {first_line(error)}; try again later"
    if cause is None or isinstance(cause, OfflineModeIsEnabled):
        return (
            "the network is turned off and the hub's cache has no complete copy; unset HF_HUB_OFFLINE and local_files_only, or "
            "give the path of a downloaded folder"
        )
    return (
        f"the hub could not be reached ({first_line(cause)}); try again with a network, or give the path of a downloaded folder"
    )
