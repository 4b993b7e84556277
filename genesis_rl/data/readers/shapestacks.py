"""ShapeStacks (Groth et al., ECCV 2018), downloaded or rendered: its files and their reader.

    splits/<subset>/{train,eval,test}.txt           scenarios, one per line
    recordings/<scenario>/rgb-*.png                 images
    iseg/<scenario>/iseg-*.map                      instance labels
    mjcf/env_*.xml, world_*.xml, assets.xml         scene descriptions
    meta/simulation.json                            simulation results, in rendered trees

A scenario's folder is named after its environment file, `env_<family>-<difficulty>-h=...`; the name
of an image contains its modality, textures, light and camera.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from genesis_rl.data.cache import Split
from genesis_rl.data.readers import DamagedRecord, FileReader, Record, missing_files
from genesis_rl.data.readers.media import decode_image, read_image_file
from genesis_rl.utils.checks import Count
from genesis_rl.utils.files import new_file

SIZE = 224  # side of the images in pixels
CROP = 196  # side of their central part, which readers return

#: Names of the split files by split.
SPLIT_FILES = {"train": "train.txt", "validation": "eval.txt", "test": "test.txt"}

#: Families of shapes in the subsets of the published data.
SUBSETS = {"default": ("blocks", "ccs"), "blocks_all": ("blocks",), "ccs_all": ("ccs",)}

#: Simulation results of a rendered tree's towers.
SIMULATION_FILE = "meta/simulation.json"

_STEP = 32  # difference in grey levels between consecutive labels of a map
_DIMMED = 76  # value of a full colour in a segmentation image: 0.3 * 255
_BLACK, _WHITE = (0, 0, 0), (1, 1, 1)
_RED, _GREEN, _BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)
_YELLOW, _CYAN, _MAGENTA = (1, 1, 0), (0, 1, 1), (1, 0, 1)

#: Colours of labels 0 to 7 in the images: index of the shape from the bottom (iseg); part of the
#: tower (vseg: stable, violating, directly above, further above).
CODES = {
    "iseg": (_BLACK, _RED, _GREEN, _BLUE, _YELLOW, _CYAN, _MAGENTA, _WHITE),
    "vseg": (_BLACK, _GREEN, _RED, _YELLOW, _BLUE, _CYAN, _MAGENTA, _WHITE),
}

_SCENARIO = re.compile(
    r"env_(?P<family>[a-z]+)-(?P<difficulty>[a-z]+)-h=(?P<height>\d+)"
    r"-vcom=(?P<vcom>\d+)-vpsf=(?P<vpsf>\d+)-v=(?P<variation>\d+)"
)
_VIEW = re.compile(
    r"(?P<modality>[a-z]+)-w=(?P<wall>\d+)-f=(?P<floor>\d+)-l=(?P<light>\d+)"
    r"-c=(?P<colours>\w+)-cam_(?P<camera>\d+)-(?P<camera_type>mono|stereo)-(?P<frame>\d+)"
    r"\.(?P<suffix>png|map)"
)
Maps = Literal["iseg", "vseg", "none"]

_ORIGIN = "http://shapestacks-file.robots.ox.ac.uk/static/download/v1/shapestacks"
_NAMED = 5  # missing scenarios listed in a message


@dataclass(frozen=True)
class Scenario:
    """Fields of a scenario's name."""

    family: str
    """"blocks" (cuboids) or "ccs" (cuboids, cylinders, spheres)"""
    height: int
    """number of shapes"""
    vcom: int = 0
    """index of the shape, from the bottom, that violates the centre-of-mass rule; 0 = none"""
    vpsf: int = 0
    """index of the shape that violates the planar-surface rule; 0 = none"""
    variation: int = 1
    """serial number"""
    difficulty: str = "easy"
    """easy or hard"""

    def __str__(self) -> str:
        """Return the name of the scenario's folder."""
        return f"env_{self.stem}"

    @property
    def stem(self) -> str:
        """Name without `env_`, as in the name of the world file."""
        return (
            f"{self.family}-{self.difficulty}-h={self.height}"
            f"-vcom={self.vcom}-vpsf={self.vpsf}-v={self.variation}"
        )

    @property
    def stable(self) -> bool:
        """Whether the tower is stable by construction."""
        return self.vcom == 0 and self.vpsf == 0

    @classmethod
    def parse(cls, name: str) -> "Scenario":
        """Parse the name of a scenario's folder.

        Raises:
            ValueError: if it has another form.
        """
        match = _SCENARIO.fullmatch(name)
        if not match:
            raise ValueError(
                "the name of a scenario must be env_<family>-<difficulty>-h=<H>-vcom=<I>-vpsf=<J>"
                f"-v=<N>, got {name!r}."
            )
        fields = match.groupdict()
        family, difficulty = fields.pop("family"), fields.pop("difficulty")
        return cls(family, difficulty=difficulty, **{key: int(n) for key, n in fields.items()})


@dataclass(frozen=True)
class View:
    """Fields of the name of an image or label map."""

    modality: str
    """rgb, iseg, vseg or depth"""
    camera: int
    """1 to 16"""
    wall: int = 0
    """index of the walls' texture"""
    floor: int = 0
    """index of the floor's texture"""
    light: int = 0
    """index of the light that casts shadows"""
    colours: str = "original"
    """colouring of the shapes: original, shuffle, random or unique"""
    camera_type: str = "mono"
    """mono or stereo"""
    frame: int = 0
    """index of the frame; 0 = before the simulation"""
    suffix: str = "png"
    """png, or map for labels"""

    def __str__(self) -> str:
        """Return the name of the file."""
        return (
            f"{self.modality}-w={self.wall}-f={self.floor}-l={self.light}-c={self.colours}"
            f"-cam_{self.camera}-{self.camera_type}-{self.frame}.{self.suffix}"
        )

    @classmethod
    def parse(cls, name: str) -> "View":
        """Parse the name of a file.

        Raises:
            ValueError: if it has another form.
        """
        match = _VIEW.fullmatch(name)
        if not match:
            raise ValueError(
                "the name of a recording must be <modality>-w=<W>-f=<F>-l=<L>-c=<C>-cam_<N>-mono"
                f"-<T>.png, got {name!r}."
            )
        fields = match.groupdict()
        words = {key: fields.pop(key) for key in ("modality", "colours", "camera_type", "suffix")}
        return cls(**words, **{key: int(n) for key, n in fields.items()})  # type: ignore[arg-type]


def label_map(camera: int) -> View:
    """Return the name of the file with a camera's instance labels."""
    return View("iseg", camera, suffix="map")


def read_split(path: Path) -> list[str]:
    """Read a list of scenarios; the last newline is optional.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is empty or not text; contains the path.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}.") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path} must list at least one scenario, got none.")
    return names


def write_split(path: Path, names: Iterable[str]) -> None:
    """Write a list of scenarios, each followed by a newline, as the original reader requires."""
    with new_file(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def encode_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image (H, W, 3) as PNG."""
    return bytes(cv2.imencode(".png", image[..., ::-1])[1])


def encode_map(labels: npt.NDArray[np.uint8]) -> bytes:
    """Encode labels (H, W) in 0..7 as the content of a `.map` file, an RGBA PNG of 32 * label."""
    grey = (labels * _STEP).astype(np.uint8)
    return bytes(cv2.imencode(".png", cv2.merge([grey, grey, grey, np.full_like(grey, 255)]))[1])


def decode_map(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a `.map` file to labels (H, W) in 0..7.

    Raises:
        ValueError: if the bytes are not a PNG, or it is damaged or has other values.
    """
    red = decode_image(data)[..., 0]
    if (red % _STEP).any():
        raise ValueError(f"its values must be multiples of {_STEP}")
    labels: npt.NDArray[np.uint8] = red // _STEP
    return labels


def decode_segmentation(data: bytes, modality: str) -> npt.NDArray[np.uint8]:
    """Decode a segmentation image with blurred edges to labels (H, W) in 0..7.

    Args:
        data: content of an `iseg-*.png` or `vseg-*.png`.
        modality: "iseg" or "vseg", whose colours have different meanings.

    Raises:
        ValueError: if the bytes are not an image, or it is damaged.
    """
    image = decode_image(data).astype(np.int64)
    codes = _DIMMED * np.array(CODES[modality])  # (8, 3)
    distances = ((image[:, :, None] - codes) ** 2).sum(-1)
    labels: npt.NDArray[np.uint8] = distances.argmin(-1).astype(np.uint8)
    return labels


@dataclass(frozen=True)
class ShapeStacks(FileReader):
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

    name = "shapestacks"

    def __post_init__(self) -> None:
        """Validate values."""
        super().__post_init__()
        if Path(self.subset).name != self.subset or not self.subset:
            raise ValueError(f"subset must be the name of a folder in splits, got {self.subset!r}.")

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
