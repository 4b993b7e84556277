"""File names, splits and label maps of ShapeStacks (Groth et al., ECCV 2018).

    splits/<subset>/{train,eval,test}.txt           scenarios, one per line
    recordings/<scenario>/rgb-*.png                 images
    iseg/<scenario>/iseg-*.map                      instance labels
    mjcf/env_*.xml, world_*.xml, assets.xml         scene descriptions
    meta/simulation.json                            simulation results, in rendered trees

A scenario's folder is named after its environment file, `env_<family>-<difficulty>-h=...`; the name
of an image contains its modality, textures, light and camera.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.data.readers.media import decode_image
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
