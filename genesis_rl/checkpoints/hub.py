"""Downloads from and uploads to the Hugging Face Hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from huggingface_hub import HfApi, snapshot_download

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class DownloadOptions(TypedDict, total=False):
    """Options of `huggingface_hub.snapshot_download`."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class PushOptions(TypedDict, total=False):
    """Options of a push, named as in `huggingface_hub.PyTorchModelHubMixin`."""

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a repository id, "owner/name"."""
    return _REPOSITORY.fullmatch(name) is not None


def download(repo_id: str, files: Sequence[str], **options: Unpack[DownloadOptions]) -> Path:
    """Return the local folder of files of a repository, downloaded unless cached.

    Args:
        repo_id: the repository, "owner/name".
        files: names or patterns of the files.
        **options: see `DownloadOptions`.

    Raises:
        ValueError: if the download fails.
    """
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **options))
    except Exception as error:  # huggingface_hub raises many types
        raise ValueError(
            f"encoder must be a folder or a Hub id, got {repo_id!r}, which is not a folder and "
            f"cannot be downloaded: {error}"
        ) from error


def push_folder(
    folder: str | os.PathLike[str], repo_id: str, **options: Unpack[PushOptions]
) -> str:
    """Upload a folder to a model repository, which is created if missing.

    Args:
        folder: folder to upload with all its files.
        repo_id: the repository, "owner/name".
        **options: commit_message; private: make a new repository private; token: replaces the token
            stored by ``hf auth login``; branch: target branch; create_pr: open a pull request.

    Returns:
        URL of the commit.

    Raises:
        ValueError: if the id is malformed, or the upload fails.
    """
    if not is_repository(repo_id):
        raise ValueError(f"repo_id must be a Hub id of form 'owner/name', got {repo_id!r}.")
    branch = options.get("branch")
    try:
        api = HfApi(token=options.get("token"))
        api.create_repo(repo_id, private=options.get("private"), exist_ok=True)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=Path(folder),
            commit_message=options.get("commit_message", "Push model using genesis_rl"),
            revision=branch,
            create_pr=options.get("create_pr"),
        )
    except Exception as error:  # huggingface_hub raises many types
        raise ValueError(
            f"cannot push to {repo_id!r}: {error} Run `hf auth login` with a token that has write "
            "access."
        ) from error
    return str(commit.commit_url)
