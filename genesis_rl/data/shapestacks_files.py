"""Names, splits and label maps of ShapeStacks (Groth et al., ECCV 2018) on disk.

    splits/<subset>/{train,eval,test}.txt           scenarios, one a line
    recordings/<scenario>/rgb-*.png                 images
    iseg/<scenario>/iseg-*.map                      instance labels
    mjcf/env_*.xml, world_*.xml, assets.xml         scene descriptions
    meta/simulation.json                            outcomes of simulations, in rendered trees

A scenario's folder is named after its environment file, `env_<family>-<difficulty>-h=..` and so on;
an image after what it shows.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from genesis_rl.data.media import decode_image
from genesis_rl.files import new_file

SIZE = 224  # side of the images in pixels
CROP = 196  # side of their central part, which readers keep

#: Names of the split files by our names of the splits.
SPLIT_FILES = {"train": "train.txt", "validation": "eval.txt", "test": "test.txt"}

#: Families of shapes in the subsets of the published data.
SUBSETS = {"default": ("blocks", "ccs"), "blocks_all": ("blocks",), "ccs_all": ("ccs",)}

#: What became of a rendered tree's towers in simulation.
SIMULATION_FILE = "meta/simulation.json"

_STEP = 32  # grey levels from one label to the next in a map
_DIMMED = 76  # value of a full colour in a segmentation image: 0.3 * 255
_BLACK, _WHITE = (0, 0, 0), (1, 1, 1)
_RED, _GREEN, _BLUE = (1, 0, 0), (0, 1, 0), (0, 0, 1)
_YELLOW, _CYAN, _MAGENTA = (1, 1, 0), (0, 1, 1), (1, 0, 1)

#: Colours of labels 0 to 7 in the images: the number of the shape from the bottom (iseg); what
#: the part of the tower does (vseg: stable, violating, above that one, further above).
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
    r"-c=(?P<colours>\w+)-cam_(?P<camera>\d+)-(?P<eyes>mono|stereo)-(?P<frame>\d+)"
    r"\.(?P<suffix>png|map)"
)


@dataclass(frozen=True)
class Scenario:
    """What the name of a scenario tells."""

    family: str
    """"blocks" (cuboids) or "ccs" (cuboids, cylinders, spheres)"""
    height: int
    """number of shapes"""
    vcom: int = 0
    """number of the shape, from the bottom, that violates the centre-of-mass rule; 0 = none"""
    vpsf: int = 0
    """number of the shape that violates the planar-surface rule; 0 = none"""
    variation: int = 1
    """running number"""
    difficulty: str = "easy"
    """easy or hard"""

    def __str__(self) -> str:
        """Build the name of the scenario's folder."""
        return f"env_{self.stem}"

    @property
    def stem(self) -> str:
        """The name without `env_`, as in the name of the world file."""
        return (
            f"{self.family}-{self.difficulty}-h={self.height}"
            f"-vcom={self.vcom}-vpsf={self.vpsf}-v={self.variation}"
        )

    @property
    def stable(self) -> bool:
        """Whether the tower is stable by its construction."""
        return self.vcom == 0 and self.vpsf == 0

    @classmethod
    def parse(cls, name: str) -> "Scenario":
        """Read a name.

        Raises:
            ValueError: if it is not a scenario's.
        """
        match = _SCENARIO.fullmatch(name)
        if not match:
            raise ValueError(
                f"{name!r} is not the name of a scenario;"
                " wanted env_<family>-<difficulty>-h=<H>-vcom=<I>-vpsf=<J>-v=<N>"
            )
        found = match.groupdict()
        family, difficulty = found.pop("family"), found.pop("difficulty")
        return cls(family, difficulty=difficulty, **{key: int(n) for key, n in found.items()})


@dataclass(frozen=True)
class View:
    """What the name of an image or of a label map tells."""

    modality: str
    """rgb, iseg, vseg or depth"""
    camera: int
    """1 to 16"""
    wall: int = 0
    """index of the walls' texture"""
    floor: int = 0
    """index of the floor's texture"""
    light: int = 0
    """number of the light that casts shadows"""
    colours: str = "original"
    """how the shapes got their colours: original, shuffle, random or unique"""
    eyes: str = "mono"
    """mono or stereo"""
    frame: int = 0
    """0 = before anything falls"""
    suffix: str = "png"
    """png, or map for labels"""

    def __str__(self) -> str:
        """Build the name of the file."""
        return (
            f"{self.modality}-w={self.wall}-f={self.floor}-l={self.light}-c={self.colours}"
            f"-cam_{self.camera}-{self.eyes}-{self.frame}.{self.suffix}"
        )

    @classmethod
    def parse(cls, name: str) -> "View":
        """Read a name.

        Raises:
            ValueError: if it is not a recording's.
        """
        match = _VIEW.fullmatch(name)
        if not match:
            raise ValueError(
                f"{name!r} is not the name of a recording;"
                " wanted <modality>-w=<W>-f=<F>-l=<L>-c=<C>-cam_<N>-mono-<T>.png"
            )
        found = match.groupdict()
        words = {key: found.pop(key) for key in ("modality", "colours", "eyes", "suffix")}
        return cls(**words, **{key: int(n) for key, n in found.items()})  # type: ignore[arg-type]


def label_map(camera: int) -> View:
    """Name of the file with a camera's instance labels, whatever its images look like."""
    return View("iseg", camera, suffix="map")


def read_split(path: Path) -> list[str]:
    """Read a list of scenarios; a missing newline at the end does no harm.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: naming the file, if it is empty or not text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path} lists no scenarios")
    return names


def write_split(path: Path, names: Iterable[str]) -> None:
    """Write a list of scenarios, each with a newline behind: the original reader needs it."""
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
        ValueError: if the bytes are no PNG, a damaged one, or hold other values.
    """
    red = decode_image(data)[..., 0]
    if (red % _STEP).any():
        raise ValueError(f"it holds values that are no multiples of {_STEP}")
    labels: npt.NDArray[np.uint8] = red // _STEP
    return labels


def decode_segmentation(data: bytes, modality: str) -> npt.NDArray[np.uint8]:
    """Decode a segmentation image, whose edges are blurred, to labels (H, W) in 0..7.

    Args:
        data: content of an `iseg-*.png` or `vseg-*.png`.
        modality: "iseg" or "vseg", which give the same colours other meanings.

    Raises:
        ValueError: if the bytes are no image, or a damaged one.
    """
    image = decode_image(data).astype(np.int64)
    codes = _DIMMED * np.array(CODES[modality])  # (8, 3)
    distances = ((image[:, :, None] - codes) ** 2).sum(-1)
    labels: npt.NDArray[np.uint8] = distances.argmin(-1).astype(np.uint8)
    return labels
