"""The Hugging Face Hub: what is fetched from it and pushed to it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from huggingface_hub import HfApi, snapshot_download

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class DownloadOptions(TypedDict, total=False):
    """What `huggingface_hub.snapshot_download` may be told, by its names."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


class PushOptions(TypedDict, total=False):
    """What a push may be told, by the names of `huggingface_hub.PyTorchModelHubMixin`."""

    commit_message: str
    private: bool | None
    token: str | None
    branch: str | None
    create_pr: bool | None


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository's id, "owner/name"."""
    return _REPOSITORY.fullmatch(name) is not None


def download(repo_id: str, files: Sequence[str], **options: Unpack[DownloadOptions]) -> Path:
    """Fetch files of a repository, or find them in the cache; return their folder.

    Raises:
        ValueError: if they cannot be had.
    """
    try:
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **options))
    except Exception as error:  # the Hub's client raises many kinds
        raise ValueError(
            f"encoder {repo_id!r} is no folder here, and not to be had from the Hub: {error}"
        ) from error


def push_folder(
    folder: str | os.PathLike[str], repo_id: str, **options: Unpack[PushOptions]
) -> str:
    """Upload a folder to a repository of models, which is made if missing.

    Args:
        folder: what to upload, all of it.
        repo_id: the repository, "owner/name".
        **options: commit_message; private: make a new repository private; token: instead of the
            one that ``hf auth login`` stored; branch: push there; create_pr: open a pull request.

    Returns:
        The commit's address.

    Raises:
        ValueError: if the id is malformed, or the Hub refuses.
    """
    if not is_repository(repo_id):
        raise ValueError(f"repo_id is {repo_id!r}; wanted a Hub id of form 'owner/name'.")
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
    except Exception as error:  # the Hub's client raises many kinds
        raise ValueError(
            f"cannot push to {repo_id!r}: {error} (is `hf auth login` done, with a token that may "
            "write?)"
        ) from error
    return str(commit.commit_url)
