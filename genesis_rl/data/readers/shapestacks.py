"""Reader of ShapeStacks (Groth et al., ECCV 2018), downloaded or rendered."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from genesis_rl.data.cache import Split
from genesis_rl.data.convert import DamagedRecord, Record, missing_files
from genesis_rl.data.readers.media import decode_image, read_image_file
from genesis_rl.data.readers.shapestacks_files import (
    CROP,
    SIMULATION_FILE,
    SIZE,
    SPLIT_FILES,
    Scenario,
    View,
    decode_map,
    decode_segmentation,
    read_split,
)
from genesis_rl.utils.checks import Count, check_fields

Maps = Literal["iseg", "vseg", "none"]

_ORIGIN = "http://shapestacks-file.robots.ox.ac.uk/static/download/v1/shapestacks"
_NAMED = 5  # missing scenarios listed in a message


@dataclass(frozen=True)
class ShapeStacks:
    """ShapeStacks in its original layout.

    As in the official loader, images are cropped to their central 196 of 224 pixels and
    downsampled bilinearly with antialiasing, maps by nearest neighbour. Scenarios have the order of
    the split file, images of a scenario the order of the cameras.

    Factors: `stable`, 1 if stable by construction; `height`, 2 to 6; `camera`, 1 to 16; and
    `simulated_stable`, 1 if the tower did not collapse in simulation, for rendered trees with
    `meta/simulation.json`.
    """

    folder: Path
    """folder with splits, recordings and iseg"""
    split: Split
    """train, validation (eval.txt) or test"""
    subset: str = "default"
    """folder below splits: default, blocks_all or ccs_all"""
    maps: Maps = "iseg"
    """labels: iseg, the index of the shape from the bottom; vseg, the part of the tower (1 stable,
    2 violating, 3 the shape above it, 4 all shapes further above); none"""
    image_size: Count = 64
    """side of the images in pixels"""

    def __post_init__(self) -> None:
        """Validate values."""
        check_fields(self)
        if Path(self.subset).name != self.subset or not self.subset:
            raise ValueError(f"subset must be the name of a folder in splits, got {self.subset!r}.")

    @property
    def meta(self) -> dict[str, Any]:
        """Settings that determine the content, see `genesis_rl.data.convert.RecordReader`."""
        return {
            "dataset": "shapestacks",
            "split": self.split,
            "subset": self.subset,
            "maps": self.maps,
        }

    @property
    def masks(self) -> bool:
        """Whether the records have masks."""
        return self.maps != "none"

    def __len__(self) -> int:
        """Return the number of images, counting one for a missing scenario."""
        return sum(max(1, len(names)) for names in self._images.values())

    def records(self, start: int = 0) -> Iterator[Record | DamagedRecord]:
        """Yield the images from number ``start`` on.

        A listed scenario without images counts as one damaged record.

        Raises:
            FileNotFoundError: if the list, all images or all maps are missing.
            ValueError: if the list or the simulation results cannot be read.
        """
        if self.masks:
            self._require_maps()
        outcomes = self._outcomes()
        number = 0
        for scenario, names in self._images.items():
            if not names and number >= start:
                yield self._absent(scenario)
            for name in names[max(0, start - number) :]:
                yield self._read(scenario, name, outcomes)
            number += max(1, len(names))

    @cached_property
    def _images(self) -> dict[str, list[str]]:
        """Names of the images of every listed scenario."""
        path = self.folder / "splits" / self.subset / SPLIT_FILES[self.split]
        if not path.is_file():
            raise self._missing(path)
        images = {scenario: self._listing(scenario) for scenario in read_split(path)}
        if not any(images.values()):
            raise self._missing(self.folder / "recordings" / next(iter(images)))
        return images

    def _listing(self, scenario: str) -> list[str]:
        folder = self.folder / "recordings" / scenario
        if not folder.is_dir():
            return []
        names = (path.name for path in folder.iterdir())
        images = [n for n in names if n.startswith("rgb-") and n.endswith("-mono-0.png")]
        return sorted(images, key=lambda name: (len(name), name))  # camera 10 after camera 9

    def _outcomes(self) -> dict[str, dict[str, Any]] | None:
        """Return the simulation results by scenario; None if the tree has none."""
        path = self.folder / SIMULATION_FILE
        if not path.is_file():
            return None
        try:
            scenarios: dict[str, dict[str, Any]] = json.loads(path.read_bytes())["scenarios"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read: {error!r}") from error
        return scenarios

    def _read(
        self, scenario: str, name: str, outcomes: dict[str, dict[str, Any]] | None
    ) -> Record | DamagedRecord:
        """Read one image, its map and its labels."""
        path = self.folder / "recordings" / scenario / name
        try:
            camera = View.parse(name).camera
            image = _crop(decode_image(read_image_file(path)))
            factors = _labels(scenario, outcomes) | {"camera": camera}
        except (OSError, ValueError) as error:
            return DamagedRecord(str(path), error)
        small = np.asarray(image)
        if self.image_size != CROP:
            side = (self.image_size, self.image_size)
            small = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR))
        if not self.masks:
            return Record(small, None, factors, str(path))
        source = self._map(scenario, camera)
        try:
            if source is None:
                raise ValueError(f"it has no {self.maps} map")
            path, data = source, read_image_file(source)
            raw = source.suffix == ".png"
            labels = _crop(decode_segmentation(data, self.maps) if raw else decode_map(data))
        except (OSError, ValueError) as error:
            return DamagedRecord(str(path), error)
        nearest = np.arange(self.image_size) * CROP // self.image_size
        return Record(small, labels[nearest][:, nearest], factors, str(path))

    def _map(self, scenario: str, camera: int) -> Path | None:
        """Return the file of an image's labels: a map, or the segmentation image of one."""
        for folder in (self.maps, "recordings"):
            for suffix in ("map", "png"):
                name = str(View(self.maps, camera, suffix=suffix))
                path = self.folder / folder / scenario / name
                if path.is_file():
                    return path
        return None

    def _require_maps(self) -> None:
        """Raise if there are no maps."""
        scenario, names = next((s, names) for s, names in self._images.items() if names)
        folder = self.folder / self.maps
        if not folder.is_dir() and not any(
            self._map(scenario, View.parse(name).camera) for name in names
        ):
            raise self._missing(folder)

    def _absent(self, scenario: str) -> DamagedRecord:
        """Return the error of a scenario without images, listing further ones."""
        absent = [name for name, images in self._images.items() if not images]
        named = ", ".join(absent[:_NAMED])
        rest = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        path = self.folder / "splits" / self.subset / SPLIT_FILES[self.split]
        reason = f"{path} lists scenarios without images in recordings: {named}{rest}"
        return DamagedRecord(str(self.folder / "recordings" / scenario), reason)

    def _missing(self, path: Path) -> FileNotFoundError:
        return missing_files(
            path,
            f"{_ORIGIN}-meta.tar.gz (lists), -rgb.tar.gz (images) and, unless maps is none,"
            f" -{self.maps if self.masks else 'iseg'}.tar.gz (labels), unpack all in"
            f" {self.folder}, render your own with envs/render_shapestacks.py",
        )


def _labels(scenario: str, outcomes: dict[str, dict[str, Any]] | None) -> dict[str, int]:
    """Return the factors from the scenario's name and its simulation."""
    parsed = Scenario.parse(scenario)
    labels = {"stable": int(parsed.stable), "height": parsed.height}
    if outcomes is not None:
        if scenario not in outcomes:
            raise ValueError(f"{SIMULATION_FILE} does not have its scenario")
        labels["simulated_stable"] = int(not outcomes[scenario]["collapsed"])
    return labels


def _crop(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Crop the central part of an image or of labels.

    Raises:
        ValueError: if they do not have the size of a recording.
    """
    if pixels.shape[:2] != (SIZE, SIZE):
        height, width = pixels.shape[:2]
        raise ValueError(f"it must have {SIZE} x {SIZE} pixels, got {height} x {width}")
    first = (SIZE - CROP) // 2
    return pixels[first : first + CROP, first : first + CROP]
