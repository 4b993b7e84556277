"""Programs run in the process of the tests, and a scene model that needs no training."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genesis_rl.checkpoints.loading import save_pretrained
from genesis_rl.models import MODELS
from genesis_rl.models.base import BaseModel
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import Decoded, Slots
from genesis_rl.world_model import ActionSpec, SlotSpec, WorldModel, WorldModelConfig

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class QuadrantsConfig:
    image_size: int = 32
    num_slots: int = 4


class Quadrants(BaseModel):
    """A scene model whose four slots are the quadrants: place in z_m, mean colour in z_c."""

    model_name = "quadrants"
    config_class = QuadrantsConfig
    places: Tensor

    def __init__(self, config: QuadrantsConfig) -> None:
        super().__init__()
        self.config = config
        signs = torch.tensor([-1.0, 1.0])
        self.register_buffer("places", torch.cartesian_prod(signs, signs))

    @property
    def latent_sizes(self) -> tuple[int, int]:
        return 2, 3

    def infer(
        self, x: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Slots:
        b, half = len(x), self.config.image_size // 2
        colours = nn.functional.avg_pool2d(x, half).flatten(2).transpose(1, 2)
        return Slots(self.places.expand(b, 4, 2), colours, self._masks(b))

    def _masks(self, b: int) -> Tensor:
        """The quadrants as masks of b scenes, (b, 4, 1, S, S)."""
        half = self.config.image_size // 2
        mask = torch.eye(4).view(4, 2, 2).repeat_interleave(half, 1).repeat_interleave(half, 2)
        return mask.clamp(min=1e-6).log().expand(b, 1, *mask.shape).transpose(1, 2)

    def decode(self, slots: Slots) -> Decoded:
        size = self.config.image_size
        colours = slots.z_c[..., None, None].expand(-1, -1, 3, size, size)
        return Decoded(colours, self._masks(len(colours)))


@pytest.fixture
def quadrants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an encoder whose slots are the quadrants of a frame."""
    monkeypatch.setitem(MODELS, "quadrants", (QuadrantsConfig, Quadrants))
    save_pretrained(Quadrants(QuadrantsConfig()), tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def untrained_world(quadrants: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a world model of the quadrants with initial weights, without settings of a training.

    Its arguments are the number of discrete actions, and fields of SlotSpec or other actions.
    """

    def write(num_actions: int, **changes: Any) -> Path:
        fingerprint = SlotEncoder(quadrants, device="cpu").fingerprint
        spec: dict[str, Any] = {"encoder_fingerprint": fingerprint, "mask_geometry": False}
        spec |= changes
        torch.manual_seed(0)
        WorldModel(
            WorldModelConfig(width=8, layers=1, attention_heads=1, ensemble=2),
            spec.pop("actions", ActionSpec("discrete", n=num_actions)),
            SlotSpec(num_slots=4, latent_sizes=(2, 3), **spec),
        ).save_pretrained(tmp_path / "world")
        return tmp_path / "world"

    return write


@pytest.fixture
def run_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run a program's main: its path below the root and its flags to status, output and errors.

    Output and errors are without tyro's boxes, with single spaces between words.
    """

    def run(program: str, *flags: str) -> tuple[int, str, str]:
        main = runpy.run_path(str(ROOT / program))["main"]
        monkeypatch.setattr("genesis_rl.utils.process.LINE_SECONDS", 600.0)  # on slow machines too
        capsys.readouterr()
        try:
            status = main(list(flags))
        except SystemExit as stop:  # how tyro leaves
            status = stop.code
        out, errors = (" ".join(text.replace("│", " ").split()) for text in capsys.readouterr())
        return status, out, errors

    return run
