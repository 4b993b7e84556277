"""Files and folders appear whole or not at all, whatever happens meanwhile."""

from pathlib import Path

import pytest

from genesis_rl.files import new_file, new_folder, recover_folder


class Killed(BaseException):
    """Stands for a kill: nothing that cleans up may run after it."""


def write(folder: Path, text: str) -> None:
    with new_folder(folder) as temporary:
        (temporary / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write(folder, "one")
    (folder / "only in the old").touch()
    write(folder, "two")
    assert names(folder.parent) == ["folder"] and names(folder) == ["file"]
    assert (folder / "file").read_text() == "two"
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], exists: bool
) -> None:
    folder = tmp_path / "folder"
    if exists:
        write(folder, "old")
    with pytest.raises(error), new_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise error
    assert names(tmp_path) == (["folder"] if exists else [])
    assert not exists or (folder / "file").read_text() == "old"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder whose writer was killed between its two renames."""
    folder = tmp_path / "folder"
    write(folder, "old")
    folder.rename(tmp_path / "folder.old")
    (tmp_path / ".folder-abc").mkdir()
    return folder


def test_a_kill_between_the_renames_is_healed(killed: Path) -> None:
    assert recover_folder(killed) == killed
    assert (killed / "file").read_text() == "old"
    assert not killed.with_name("folder.old").exists()


def test_writing_after_a_kill_keeps_the_old_until_the_new_is_there(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.startswith(".folder-"):
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", fails)
        write(killed, "new")
    assert (recover_folder(killed) / "file").read_text() == "old"
    write(killed, "new")
    assert (killed / "file").read_text() == "new"
    assert not killed.with_name("folder.old").exists()


def test_remains_are_no_reason_to_go_back(tmp_path: Path) -> None:
    """A kill after the second rename: both are there, and the new one counts."""
    write(tmp_path / "folder.old", "old")
    write(tmp_path / "folder", "new")
    assert (recover_folder(tmp_path / "folder") / "file").read_text() == "new"
    assert recover_folder(tmp_path / "nothing") == tmp_path / "nothing"
    assert not (tmp_path / "nothing").exists()


def test_a_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    for text in ("one", "two"):
        with new_file(path) as temporary:
            assert temporary.suffix == ".json" and temporary.parent == path.parent
            temporary.write_text(text)
        assert path.read_text() == text and names(path.parent) == ["file.json"]


@pytest.mark.parametrize("exists", [False, True])
def test_an_exception_leaves_the_old_file(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "file"
    if exists:
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == (["file"] if exists else [])
    assert not exists or path.read_text() == "old"


def test_a_file_that_was_never_written_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), new_file(path):
        pass
    assert path.read_text() == "old"
