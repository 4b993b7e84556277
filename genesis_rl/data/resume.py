"""Resumable writer of packs."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl.data.pack import DAMAGE, PackWriter
from genesis_rl.utils.files import PARTIAL, json_text, new_file

_JOURNAL = "journal.json"


class ResumablePackWriter(PackWriter):
    """Write a pack into a private folder next to its destination, kept when interrupted.

    A later writer of the same folder with the same meta resumes from the last checkpoint; with
    different meta it starts over.

    Attributes:
        state: the caller's state, JSON data; saved at checkpoints.
    """

    state: dict[str, Any]

    def checkpoint(self) -> None:
        """Flush all data written so far, and `state`, to disk.

        Raises:
            OSError: if the disk is full.
        """
        if self._temporary is None:
            raise RuntimeError("ResumablePackWriter must be used as a context manager.")
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            fresh = {name: parts[self._kept :] for name, parts in self._factors.items()}
            if any(fresh.values()):
                with new_file(self._temporary / f"factors-{self._parts:06}.npz") as path:
                    joined = {name: np.concatenate(parts) for name, parts in fresh.items()}
                    np.savez(path, **joined)  # type: ignore[arg-type]
                self._parts += 1
                self._kept += len(next(iter(fresh.values())))
            journal = {
                "key": self._key,
                "written": self.written,
                "sizes": {name: file.tell() for name, file in self._files.items()},
                "parts": self._parts,
                "state": self.state,
            }
            with new_file(self._temporary / _JOURNAL) as path:
                path.write_text(json_text(journal), encoding="utf-8")
        except OSError as error:
            raise self._explain(error) from error

    def _make_temporary(self, private: Path) -> Path:
        folder = private / PARTIAL
        key = [self.meta, self.image_size, self._with_masks]
        self._key = json.loads(json.dumps(key))  # as after reading: lists for tuples
        self.state = {}
        self._parts = self._kept = 0  # files of factors, and chunks in them
        if not self._restore(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        return folder

    def _restore(self, folder: Path) -> bool:
        """Restore the state of an interrupted writer; return whether that was possible."""
        try:
            journal = json.loads((folder / _JOURNAL).read_text(encoding="utf-8"))
            if journal["key"] != self._key:
                return False
            if any((folder / name).stat().st_size < n for name, n in journal["sizes"].items()):
                return False
            factors: dict[str, list[Any]] = {}
            for part in range(journal["parts"]):
                with np.load(folder / f"factors-{part:06}.npz", allow_pickle=False) as file:
                    for name in file.files:
                        factors.setdefault(name, []).append(file[name])
        except DAMAGE:
            return False
        self.written, self.state = journal["written"], journal["state"]
        self._factors, self._parts = factors, journal["parts"]
        self._kept = self._parts
        return True

    def _finish(self) -> None:
        if self._temporary is not None:
            for path in self._temporary.iterdir():
                if path.is_dir():  # left by a killed writer
                    shutil.rmtree(path)
                elif path.name not in self._files:  # the journal and its parts
                    path.unlink()
        super()._finish()
