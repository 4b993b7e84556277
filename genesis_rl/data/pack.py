"""Packs: folders of memory-mapped uint8 images with instance masks.

A pack is a folder with

- `images.npy`: (N, H, W, 3) uint8,
- `masks.npy`: (N, H, W) uint8 instance labels, 0 = background (optional),
- `factors.npz`: arrays of N rows, the ground truth of every image (optional),
- `meta.json`: description of the pack, written last.

It is written into a private folder next to its destination (see `genesis_rl.utils.files`) and
renamed when complete, so a folder of the destination's name is a complete pack.
"""

import errno
import json
import os
import shutil
import time
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.perception.preprocessing import Preprocessing, as_preprocessing
from genesis_rl.utils.checks import LARGEST, check_range
from genesis_rl.utils.files import (
    PARTIAL,
    json_text,
    new_file,
    private_folder,
    read_json,
    replace_folder,
)

_FORMAT = 1
_LARGEST_ROW = 2**22  # bytes of an image's factors; typically a few hundred

#: Exceptions of numpy for a truncated, overwritten or invalid .npz.
DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
_JOURNAL = "journal.json"
_CHECKPOINT_SECONDS = 10.0  # between regular checkpoints


class Pack:
    """A dataset on disk, memory-mapped read-only.

    Attributes:
        folder: the pack's folder.
        images: (N, H, W, 3) uint8, memory-mapped.
        masks: (N, H, W) uint8 instance labels, 0 = background, memory-mapped; None without masks.
        meta: the content of meta.json.
    """

    def __init__(
        self,
        folder: Path,
        images: npt.NDArray[np.uint8],
        masks: npt.NDArray[np.uint8] | None,
        meta: dict[str, Any],
    ) -> None:
        """Use `Pack.open`, which validates the files."""
        self.folder = folder
        self.images = images
        self.masks = masks
        self.meta = meta

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __repr__(self) -> str:
        """Return a one-line description."""
        height, width = self.images.shape[1:3]
        masks = "with" if self.masks is not None else "without"
        return f"Pack({len(self)} images of {height}x{width}, {masks} masks, {self.folder})"

    def tensor(self, rows: slice | npt.NDArray[np.int64]) -> Tensor:
        """Return images (B, 3, H, W), float in [0, 1], on the CPU, channels last in memory."""
        images = torch.from_numpy(np.array(self.images[rows]))
        return images.permute(0, 3, 1, 2).float().div_(255)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing of the images from meta.json; None if unknown.

        Raises:
            ValueError: if meta.json contains an unknown resize.
        """
        settings = self.meta.get("settings")  # location in older recordings
        older = settings.get("resize") if isinstance(settings, dict) else None
        resize = self.meta.get("resize", older)
        try:
            if resize is None:
                return None
            crop = settings.get("crop") if isinstance(settings, dict) else None
            size = self.meta.get("frame_size")
            return as_preprocessing({"resize": resize, "crop": crop, "frame_size": size})
        except (TypeError, ValueError) as error:
            raise _broken(self.folder / "meta.json", str(error)) from error

    def check_preprocessing(self, preprocessing: Preprocessing, encoder: str) -> None:
        """Warn if an encoder resizes frames differently from these images.

        Args:
            preprocessing: the encoder's preprocessing.
            encoder: name of the encoder, for the message.
        """
        stored = self.preprocessing
        # Images of the right size are unchanged by any resize.
        if stored is None or stored.resize in ("none", preprocessing.resize):
            return
        warnings.warn(
            f"{self.folder} was created with resize {stored.resize!r}, but {encoder} uses"
            f" {preprocessing.resize!r}: slots of these images differ from slots of the original"
            " frames. Use one resize for both.",
            stacklevel=3,
        )

    @property
    def factors(self) -> dict[str, npt.NDArray[Any]]:
        """Ground truth by name, arrays of N rows; empty without factors.

        Raises:
            ValueError: if factors.npz cannot be read or has a wrong number of rows.
        """
        path = self.folder / "factors.npz"
        names = self.meta.get("factors", [])
        if not names:
            return {}
        try:
            _check_unpacked(path, len(self))
            with np.load(path, allow_pickle=False) as file:
                factors = {name: np.asarray(file[name]) for name in names}
        except DAMAGE as error:
            raise _broken(path, str(error)) from error
        for name, values in factors.items():
            if len(values) != len(self):
                raise _broken(path, f"{name} has {len(values)} rows for {len(self)} images")
        return factors

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Pack":
        """Open a pack and validate its files against meta.json.

        Args:
            folder: the pack's folder.

        Returns:
            The pack; images and masks are read from disk on access.

        Raises:
            ValueError: if the folder is not a complete pack; the message contains the file.
        """
        folder = Path(folder).expanduser()
        meta_path = folder / "meta.json"
        if not meta_path.is_file():
            raise ValueError(
                f"{folder} is not a pack: it has no meta.json, which is written last."
                " If it is the rest of an interrupted run, delete the folder"
            )
        try:
            meta = read_json(meta_path)
        except ValueError as error:
            raise _broken(meta_path, str(error)) from error
        if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
            raise ValueError(f"{meta_path} must have 'format' {_FORMAT}, which this version reads.")
        try:
            n = int(meta["num_images"])
            height, width = (int(side) for side in meta["image_size"])
            with_masks = bool(meta["masks"])
            for side in (height, width):
                check_range("image_size", side, 1, LARGEST["image_size"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _broken(meta_path, f"num_images, image_size or masks: {error!r}") from error
        images = _map(folder / "images.npy", (n, height, width, 3))
        masks = _map(folder / "masks.npy", (n, height, width)) if with_masks else None
        return cls(folder, images, masks, meta)


def _check_unpacked(path: Path, num_images: int) -> None:
    """Raise for an .npz whose decompressed size exceeds that of valid factors."""
    with zipfile.ZipFile(path) as file:
        size = sum(entry.file_size for entry in file.infolist())
    if size > num_images * _LARGEST_ROW + 2**20:
        raise ValueError(f"its arrays have {size:,} bytes for {num_images:,} images")


def _map(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Memory-map a .npy file of uint8 and validate its shape."""
    if not path.is_file():  # reading a pipe would block
        raise _broken(path, "not a regular file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _broken(path, str(error)) from error
    if array.dtype != np.uint8 or array.shape != shape:
        raise _broken(path, f"got {array.dtype}{array.shape}, meta.json has uint8{shape}")
    return np.asarray(array) if array.size == 0 else array


def _broken(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is missing, truncated or damaged ({reason}):"
        f" delete {path.parent} and generate the data again"
    )


class PackWriter:
    """Writer of a pack, image by image or in batches; removes all files if it fails.

    Attributes:
        written: number of images written so far.
        meta: JSON data to store in meta.json; can be changed until the end.

    Example:
        >>> with PackWriter("pack", num_images=2, image_size=8, masks=False) as writer:
        ...     writer.write(np.zeros((2, 8, 8, 3), np.uint8))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        num_images: int | None,
        image_size: int | tuple[int, int],
        *,
        masks: bool = True,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Initialise the writer; nothing is written before the `with` block.

        Args:
            folder: destination; must be empty or not exist.
            num_images: N, number of images; None: any number.
            image_size: (H, W), or one number for both.
            masks: whether the pack has masks.
            meta: JSON data to store in meta.json.

        Raises:
            ValueError: if the destination is not empty, or a size is below 1.
        """
        self.folder = Path(folder).expanduser()
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if (num_images is not None and num_images < 1) or len(size) != 2 or min(size) < 1:
            raise ValueError(
                f"num_images and image_size must be at least 1, got {num_images} and {image_size}."
            )
        self._check_unused()
        self.num_images = num_images
        self.image_size = size
        self.written = 0
        self.meta = dict(meta or {})
        self._with_masks = masks
        self._factors: dict[str, list[npt.NDArray[Any]]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._temporary: Path | None = None
        self._private = ExitStack()

    def _check_unused(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ValueError(f"{self.folder} must be empty or not exist; choose another folder.")

    def __enter__(self) -> Self:
        """Create the temporary folder.

        Raises:
            ValueError: if another process writes the pack.
            OSError: if the folder cannot be created or the disk has too little space.
        """
        parent = self.folder.parent
        needed = sum(prod(shape) for shape in self._shapes(self.num_images or 0).values())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(parent).free
            if free < needed:
                message = f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
                raise OSError(errno.ENOSPC, message)
            private = self._private.enter_context(private_folder(self.folder))
            self._check_unused()  # again: another process may have written it meanwhile
            self._temporary = self._make_temporary(private)
            for name, shape in self._shapes(self.written).items():
                path = self._temporary / name
                file = self._files[name] = path.open("r+b" if path.exists() else "wb")
                _write_header(file, shape)
                file.seek(prod(shape), os.SEEK_CUR)
                file.truncate()
        except OSError as error:
            self._discard()
            raise self._explain(error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def _make_temporary(self, private: Path) -> Path:
        """Create the subfolder of the private folder that is renamed when the pack is complete."""
        (private / "new").mkdir()
        return private / "new"

    def _shapes(self, num_images: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the memory-mapped files for a number of images."""
        shapes: dict[str, tuple[int, ...]] = {"images.npy": (num_images, *self.image_size, 3)}
        if self._with_masks:
            shapes["masks.npy"] = (num_images, *self.image_size)
        return shapes

    def write(
        self,
        images: npt.NDArray[np.uint8],
        masks: npt.NDArray[np.uint8] | None = None,
        **factors: npt.ArrayLike,
    ) -> None:
        """Append images.

        Args:
            images: (n, H, W, 3) uint8.
            masks: (n, H, W) uint8, if the pack has masks.
            **factors: ground truth, n rows each; the same names in every call.

        Raises:
            ValueError: for wrong shapes or dtypes, or more images than ``num_images``.
            OSError: if the disk is full.
        """
        n = len(images)
        _check("images", images, (n, *self.image_size, 3))
        if (masks is not None) != self._with_masks:
            kind = "an array" if self._with_masks else "None"
            raise ValueError(f"masks must be {kind}: the pack has masks={self._with_masks}.")
        if masks is not None:
            _check("masks", masks, (n, *self.image_size))
        if self.num_images is not None and self.written + n > self.num_images:
            raise ValueError(f"num_images must be {self.num_images}, got {self.written + n}.")
        if self.written and factors.keys() != self._factors.keys():
            raise ValueError(f"factors must be {sorted(self._factors)}, got {sorted(factors)}.")
        for name, values in factors.items():
            if np.shape(values)[:1] != (n,):
                raise ValueError(f"factor {name} must have {n} rows, got {np.shape(values)}.")
        try:
            self._files["images.npy"].write(np.ascontiguousarray(images).data)
            if masks is not None:
                self._files["masks.npy"].write(np.ascontiguousarray(masks).data)
        except OSError as error:
            raise self._explain(error) from error
        for name, values in factors.items():
            self._factors.setdefault(name, []).append(np.asarray(values))
        self.written += n

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Rename the complete pack, or remove the written files after an error."""
        try:
            if kind is None:
                self._finish()
        except OSError as problem:
            raise self._explain(problem) from problem
        finally:
            self._discard()

    def _finish(self) -> None:
        if self.num_images is not None and self.written != self.num_images:
            raise ValueError(f"num_images must be {self.num_images}, got {self.written}.")
        for name, shape in self._shapes(self.written).items():
            file = self._files[name]
            file.seek(0)
            _write_header(file, shape)
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if self._temporary is None:
            raise RuntimeError("PackWriter must be used as a context manager.")
        meta = {
            **self.meta,
            "format": _FORMAT,
            "num_images": self.written,
            "image_size": list(self.image_size),
            "masks": self._with_masks,
            "factors": sorted(self._factors),
        }
        if self._factors:
            joined = {name: np.concatenate(parts) for name, parts in self._factors.items()}
            np.savez(self._temporary / "factors.npz", **joined)  # type: ignore[arg-type]
        text = json_text(meta, indent=2) + "\n"
        (self._temporary / "meta.json").write_text(text, encoding="utf-8")
        replace_folder(self._temporary, self.folder)
        self._temporary = None

    def _discard(self) -> None:
        for file in self._files.values():
            file.close()
        self._temporary = None
        self._private.close()  # removes the folder

    def _explain(self, error: OSError) -> OSError:
        """Return the error with the pack's folder and advice."""
        reason = error.strerror or str(error)
        advice = "free space or set GENESIS_RL_DATA to another folder"
        return type(error)(error.errno, f"cannot write {self.folder}: {reason}; {advice}")


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file of uint8; its length is the same for all numbers of rows."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _check(name: str, array: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{name} must be uint8{shape}, got {array.dtype}{array.shape}.")


class ResumablePackWriter(PackWriter):
    """Write a pack into a private folder next to its destination, kept when interrupted.

    A later writer of the same folder with the same meta resumes from the last checkpoint; with
    different meta it starts over.

    Attributes:
        state: the caller's state, JSON data; saved at checkpoints.
    """

    state: dict[str, Any]
    _saved_at = 0.0

    def checkpoint_regularly(self) -> None:
        """Call `checkpoint`, at most once in ten seconds.

        Raises:
            OSError: if the disk is full.
        """
        if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
            self.checkpoint()

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
        self._saved_at = time.monotonic()

    def _make_temporary(self, private: Path) -> Path:
        folder = private / PARTIAL
        self._saved_at = time.monotonic()
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
