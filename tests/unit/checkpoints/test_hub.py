"""What is fetched from the Hub and pushed to it; nothing here touches the network."""

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import HfApi

from genesis_rl.checkpoints import hub
from genesis_rl.checkpoints.hub import download, is_repository, push_folder


class Commit(NamedTuple):
    commit_url: str


class FakeApi:
    """Stands for HfApi: notes what it is asked, if the real one would understand it."""

    asked: list[tuple[str, Any, dict[str, Any]]]
    broken = ""

    def __init__(self, **options: Any) -> None:
        self.note("api", None, options)

    def note(self, what: str, name: Any, options: dict[str, Any]) -> None:
        if what == self.broken:
            raise ConnectionError("401 Unauthorized")
        self.asked.append((what, name, options))

    def create_repo(self, repo_id: str, **options: Any) -> None:
        inspect.signature(HfApi.create_repo).bind(self, repo_id, **options)
        self.note("repo", repo_id, options)

    def create_branch(self, repo_id: str, **options: Any) -> None:
        inspect.signature(HfApi.create_branch).bind(self, repo_id, **options)
        self.note("branch", repo_id, options)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> Commit:
        inspect.signature(HfApi.upload_folder).bind(
            self, repo_id=repo_id, folder_path=folder_path, **options
        )
        files = sorted(path.name for path in Path(folder_path).iterdir())
        self.note("upload", repo_id, options | {"files": files})
        return Commit(f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    class Fresh(FakeApi):
        asked: list[tuple[str, Any, dict[str, Any]]] = []  # noqa: RUF012 - one for each test

    monkeypatch.setattr(hub, "HfApi", Fresh)
    return Fresh


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_folder_is_pushed(folder: Path, api: type[FakeApi]) -> None:
    assert push_folder(str(folder), "me/model.v1") == "https://hub/me/model.v1/commit/1"
    assert api.asked == [
        ("api", None, {"token": None}),
        ("repo", "me/model.v1", {"private": None, "exist_ok": True}),
        (
            "upload",
            "me/model.v1",
            {
                "commit_message": "Push model using genesis_rl",
                "revision": None,
                "create_pr": None,
                "files": ["config.json"],
            },
        ),
    ]


def test_options_reach_the_hub(folder: Path, api: type[FakeApi]) -> None:
    push_folder(
        folder,
        "me/model",
        commit_message="Say it",
        private=True,
        token="secret",
        branch="next",
        create_pr=True,
    )
    asked = {what: options for what, _, options in api.asked}
    assert asked["api"] == {"token": "secret"}
    assert asked["repo"]["private"] is True
    assert asked["branch"] == {"branch": "next", "exist_ok": True}
    assert asked["upload"]["revision"] == "next" and asked["upload"]["create_pr"] is True
    assert asked["upload"]["commit_message"] == "Say it"


@pytest.mark.parametrize("name", ["model", "a/b/c", "me/", "me/my model", "", "../model/x"])
def test_what_is_no_repository_is_refused(name: str, folder: Path, api: type[FakeApi]) -> None:
    assert not is_repository(name)
    with pytest.raises(ValueError, match=r"^repo_id "):
        push_folder(folder, name)
    assert api.asked == []


@pytest.mark.parametrize("step", ["api", "repo", "branch", "upload"])
def test_a_refusal_says_what_to_do(step: str, folder: Path, api: type[FakeApi]) -> None:
    api.broken = step
    with pytest.raises(ValueError, match=r"'me/model': 401 Unauthorized .*hf auth login") as caught:
        push_folder(folder, "me/model", branch="next")
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_downloads_take_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert download("me/model", ["a"], revision="v1", local_files_only=True) == tmp_path
    assert asked == [
        ("me/model", {"allow_patterns": ["a"], "revision": "v1", "local_files_only": True})
    ]
