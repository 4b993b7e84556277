"""Settings inferred from images: static and changing backgrounds, contrast, number and size."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from genesis_rl.data import Pack
from genesis_rl.data.pack import PackWriter
from genesis_rl.models import GenesisConfig
from genesis_rl.training import PretrainConfig, Trainer
from genesis_rl.training.auto import (
    component_areas,
    describe,
    infer_settings,
    measure_images,
    trained_background,
)

ROOT = Path(__file__).parents[3]
SIDE = 64
BASE = PretrainConfig(
    model=GenesisConfig(
        background="predicted",
        posterior="attention",
        mask_decoder="local",
        component_decoder="shaded",
        mixture="pixel",
    ),
    objective="elbo",
    trained_modules="objects",
    likelihood_stride=2,
    sigma_x_start=0.25,
    batch_size=4,
    steps=3,
)


def grey(_: int) -> npt.NDArray[Any]:
    return np.full((SIDE, SIDE, 3), 60, np.uint8)


def scenes(
    count: int = 40,
    *,
    side: int = 10,
    objects: int = 3,
    colour: float = 1.0,
    background: Callable[[int], npt.NDArray[Any]] = lambda _: np.full(
        (SIDE, SIDE, 3), 60, np.uint8
    ),
) -> npt.NDArray[np.uint8]:
    """Squares of different colours at random positions on a grid of cells."""
    rng = np.random.default_rng(0)
    images = np.stack([background(i) for i in range(count)])
    colours = 60 + colour * (np.eye(3) * 255 - 60)
    cells = SIDE // (side + 6)
    for image in images:
        for k, cell in enumerate(rng.permutation(cells**2)[:objects]):
            row, column = (2 + (side + 6) * int(v) for v in divmod(int(cell), cells))
            image[row : row + side, column : column + side] = colours[k % 3]
    return images


def shifted(number: int) -> npt.NDArray[Any]:
    """A room with textured walls seen by a moving camera."""
    texture = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return np.roll(np.kron(texture, np.ones((4, 4, 1), np.uint8)), 5 * number, (0, 1))


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Pack]:
    def write(images: npt.NDArray[np.uint8], name: str = "pack") -> Pack:
        shape = images.shape[1:]
        for split in ("train", "validation"):
            with PackWriter(tmp_path / name / split, len(images), shape[0], masks=False) as writer:
                writer.write(images)
        return Pack.open(tmp_path / name / "train")

    return write


def test_the_number_and_the_size_of_objects_are_measured(pack: Callable[..., Pack]) -> None:
    for side, count in ((8, 2), (12, 3), (8, 5)):
        found = measure_images(pack(scenes(side=side, objects=count), f"{side}-{count}"))
        assert found.static and found.shift == 0
        assert found.objects.count == count
        assert found.objects.side == pytest.approx(side, abs=0.5)
        assert found.objects.object_size == pytest.approx(2 * side / SIDE, rel=0.05)
        assert found.objects.num_slots > count
        assert found.objects.share == pytest.approx(count * side**2 / SIDE**2, rel=0.05)


def test_faint_objects_get_a_lower_threshold_and_deviation(pack: Callable[..., Pack]) -> None:
    strong = measure_images(pack(scenes(), "strong")).objects
    faint = measure_images(pack(scenes(colour=0.15), "faint")).objects
    assert (strong.threshold, strong.sigma_x) == (0.08, 0.12)
    assert faint.threshold < faint.contrast and faint.sigma_x < 0.06
    assert faint.count == strong.count and faint.share == pytest.approx(strong.share)


def grid(_: int) -> npt.NDArray[Any]:
    """Grey lines on black, as in a grid world."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[::4], image[:, ::4] = 100, 100
    return image


@pytest.mark.parametrize("share", [0.3, 0.8])  # of the images with a highlight at a pixel
def test_highlights_are_not_objects(pack: Callable[..., Pack], share: float) -> None:
    rng = np.random.default_rng(3)

    def view(number: int) -> npt.NDArray[Any]:
        image = grid(number)
        if rng.random() < share:
            lit = image[8:32, 20:44]
            lit[:] = lit + 0.3 * (255.0 - lit)
        return image

    found = measure_images(pack(scenes(40, objects=1, background=view)))
    assert found.static
    assert found.objects.highlight_opacity == pytest.approx(0.32, abs=0.01)
    assert found.objects.count == 1
    assert found.objects.side == pytest.approx(10, abs=0.5)
    assert "--model.highlight-opacity 0.3" in "\n".join(describe(found, found.objects, static=True))


def test_grey_objects_are_not_highlights(pack: Callable[..., Pack]) -> None:
    rng = np.random.default_rng(3)
    images = np.stack([grid(i) for i in range(40)])
    for image in images:
        row, column = rng.integers(0, SIDE - 12, 2)
        image[row : row + 12, column : column + 12] = 90
    found = measure_images(pack(images)).objects
    assert found.highlight_opacity == 0 and found.count >= 1


def test_given_shadows_are_not_objects(
    pack: Callable[..., Pack], tmp_path: Path, train_program: Any
) -> None:
    rng = np.random.default_rng(3)
    images = np.full((40, SIDE, SIDE, 3), (150, 130, 100), np.uint8)
    for image in images:
        row, column = rng.integers(0, SIDE - 16, 2)
        image[row + 4 : row + 14, column : column + 16] //= 2
        image[row : row + 10, column : column + 10] = (255, 0, 0)
    folder = pack(images).folder.parent
    num_slots = []
    for brightness in (1.0, 0.4):
        base = _base(folder)
        assert isinstance(base.model, GenesisConfig)
        model = replace(base.model, shadow_brightness=brightness)
        config, _, _ = infer_settings(replace(base, model=model), (_stage(folder),))
        num_slots.append(config.model.num_slots)
    assert num_slots[1] == 4 < num_slots[0]  # one object, two spare slots, the background
    flags = ["--data", str(folder), "--out", str(tmp_path / "run")]
    (config,) = train_program.parse([*flags, "--model.shadow-brightness", "0.4"]).stages
    assert (config.model.shadow_brightness, config.model.num_slots) == (0.4, 4)
    named = ["--preset", "towers", "--model.shadow-brightness", "0.7"]
    assert train_program.parse(named).stages[-1].model.shadow_brightness == 0.7


def test_backgrounds_that_change_are_predicted(pack: Callable[..., Pack]) -> None:
    colours = np.random.default_rng(2).integers(0, 255, (40, 3), dtype=np.uint8)
    rooms = measure_images(pack(scenes(background=shifted), "rooms"))
    walls = measure_images(
        pack(scenes(background=lambda i: np.tile(colours[i], (SIDE, SIDE, 1))), "walls")
    )
    assert not rooms.static and not walls.static


@pytest.mark.smoke
def test_components_are_separated_by_hue_and_by_gaps() -> None:
    image = torch.zeros(3, 16, 16)
    image[0, 2:6, 2:6] = image[1, 2:6, 6:9] = image[0, 10:14, 2:7] = 1.0
    gate = image.amax(0)
    assert sorted(component_areas(image, gate).tolist()) == [12, 16, 20]
    image[0, 0, 15] = gate[0, 15] = 1.0  # below the least area
    assert len(component_areas(image, gate)) == 3


def test_settings_of_a_static_camera_follow_from_the_images(pack: Callable[..., Pack]) -> None:
    data = pack(scenes(objects=4)).folder.parent
    config, before, notes = infer_settings(_base(data), (_stage(data),))
    model = config.model
    assert isinstance(model, GenesisConfig)
    assert before == () and model.background == "static"
    assert (model.num_slots, model.object_size, model.sigma_x) == (7, 0.31, 0.12)
    assert config.sigma_x_start == 0.25
    text = "\n".join(notes)
    for flag in ("--model.num-slots 7", "--model.object-size 0.31", "--model.background static"):
        assert flag in text
    assert "minutes" in text


def test_a_background_can_be_chosen(pack: Callable[..., Pack]) -> None:
    data = pack(scenes()).folder.parent
    config, before, notes = infer_settings(_base(data), (_stage(data),), "predicted")
    assert config.model.background == before[0].model.background == "predicted"  # type: ignore[union-attr]
    assert "after stage 1" in "\n".join(notes)
    with pytest.raises(ValueError, match=r"^model\.background"):
        infer_settings(_base(data), (_stage(data),), "none")


def test_the_background_can_be_recorded_without_objects(
    pack: Callable[..., Pack], train_program: Any
) -> None:
    """An object that hardly moves is part of the median image, but not of the empty scene."""
    images = scenes()
    images[:, 50:60, 50:60] = 250
    data = pack(images).folder.parent
    empty = pack(np.stack([grey(0)] * 20), "empty").folder.parent
    flags = ["--data", str(data), "--out", str(data / "run"), "--steps", "1", "--batch-size", "4"]
    flags += ["--eval-images", "4", "--threads", "1"]
    without = train_program.parse(flags).stages[-1]
    (config,) = train_program.parse([*flags, "--background-data", str(empty)]).stages
    assert config.model.num_slots > without.model.num_slots
    trainer = Trainer(config)
    assert float((trainer.model.background.image - 60 / 255).abs().max()) < 1e-6
    with pytest.raises(ValueError, match=r"^background_data "):
        train_program.parse(
            [*flags, "--background-data", str(empty), "--model.background", "predicted"]
        )
    small = pack(np.zeros((20, 32, 32, 3), np.uint8), "small").folder.parent
    with pytest.raises(ValueError, match=r"^background_data "):
        train_program.parse([*flags, "--background-data", str(small)])
    with pytest.raises(ValueError, match=r"^data "):
        train_program.parse(["--preset", "auto"])


def test_small_objects_are_pointed_out(pack: Callable[..., Pack]) -> None:
    found = measure_images(pack(scenes(side=3)))
    assert "    --image-size 128" in describe(found, found.objects, static=True)
    images = np.full((40, SIDE, SIDE, 3), 60, np.uint8)
    for number, image in enumerate(images):
        image[20 + number % 10 :][:3, 30 + number % 5 :][:, :3] = 250
    found = measure_images(pack(images, "corner"))
    top, left, height, width = found.region
    assert 18 <= top <= 20 and 28 <= left <= 30
    assert 32 <= top + height <= 34 and 37 <= left + width <= 39
    assert found.region_share == height * width / SIDE**2
    lines = describe(found, found.objects, static=True)
    assert f"    --crop {top} {left} {height} {width}" in lines
    spread = measure_images(pack(scenes(side=12), "spread"))
    assert not any("--crop" in line for line in describe(spread, spread.objects, static=True))


def test_images_without_objects_or_of_other_shapes_are_refused(pack: Callable[..., Pack]) -> None:
    equal = pack(np.full((40, SIDE, SIDE, 3), 60, np.uint8), "equal").folder.parent
    with pytest.raises(ValueError, match=r"^data"):
        infer_settings(_base(equal), ())
    odd = pack(np.zeros((40, 48, 48, 3), np.uint8), "odd").folder.parent
    with pytest.raises(ValueError, match=r"^image_size"):
        infer_settings(_base(odd), ())


def test_recordings_use_the_preset_by_default(
    pack: Callable[..., Pack], tmp_path: Path, train_program: Any
) -> None:
    data = str(pack(scenes()).folder.parent)
    flags = ["--data", data, "--out", str(tmp_path / "run"), "--model.num-slots", "9"]
    plan = train_program.parse(flags)
    (config,) = plan.stages
    assert (config.model.background, config.model.num_slots) == ("static", 9)
    assert config.out == tmp_path / "run"
    assert plan.notes
    named = train_program.parse([*flags[:2], "--preset", "multi-dsprites-small"])
    assert named.stages[0].model.background == "none" and not named.notes


@pytest.mark.parametrize("limit", [[], ["--stage-1.steps", "999", "--stage-1.max-minutes", "1e-9"]])
def test_objects_are_measured_against_the_trained_background(
    limit: list[str], pack: Callable[..., Pack], tmp_path: Path, train_program: Any
) -> None:
    data, out = str(pack(scenes(background=shifted)).folder.parent), tmp_path / "run"
    flags = ["--data", data, "--out", str(out), "--steps", "2", "--stage-1.steps", "2"]
    flags += ["--batch-size", "4", "--stage-1.batch-size", "4", "--eval-images", "4"]
    flags += ["--stage-1.eval-images", "4", "--threads", "1", "--log-every", "1", *limit]
    assert trained_background(out / "stage-1") is None
    first, provisional = train_program.parse(flags).stages
    assert train_program.train(first, last=False) == 0
    assert trained_background(out / "stage-1") is not None
    first_again, measured = train_program.parse(flags).stages
    assert first_again == first
    assert measured.model != provisional.model
    assert train_program.train(measured) == 0


def _base(data: Path) -> PretrainConfig:
    return replace(BASE, data=str(data))


def _stage(data: Path) -> PretrainConfig:
    return replace(_base(data), trained_modules="background", likelihood_stride=1)
