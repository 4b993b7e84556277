"""Preprocessing recorded in packs and used by the models trained on them."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from genesis_rl.checkpoints.export import _metadata
from genesis_rl.checkpoints.loading import load_pretrained, save_pretrained
from genesis_rl.checkpoints.model_card import student_card
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import Transitions, join
from genesis_rl.envs.recording.collect import CollectConfig, collect
from genesis_rl.evaluation.runs import open_candidate, open_data
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing, as_preprocessing
from genesis_rl.training import PretrainConfig, Trainer
from genesis_rl.training.distillation import DistillConfig, distill
from genesis_rl.world_model.sequences import encode

BOX = Preprocessing("letterbox")


def mark(pack: Pack, **meta: Any) -> Pack:
    """Write entries into a pack's meta.json."""
    (pack.folder / "meta.json").write_text(json.dumps(pack.meta | meta))
    return Pack.open(pack.folder)


def resize_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text())["preprocessing"]["resize"]


# ---- the pack ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "resize"),
    [
        ({}, None),
        ({"resize": "crop"}, "crop"),
        ({"settings": {"resize": "letterbox"}}, "letterbox"),
        ({"resize": "none", "settings": {"resize": "stretch"}}, "none"),
        ({"settings": ["of another program"]}, None),
    ],
)
def test_a_pack_records_its_resize(pack: Pack, meta: dict[str, Any], resize: str | None) -> None:
    found = mark(pack, **meta).preprocessing
    assert (found and found.resize) == resize


def test_a_pack_records_its_crop(pack: Pack) -> None:
    settings = {"resize": "stretch", "crop": [4, 8, 16, 16]}
    found = mark(pack, resize="stretch", settings=settings, frame_size=[32, 48]).preprocessing
    assert found == Preprocessing("stretch", (4, 8, 16, 16), (32, 48))
    assert found is not None and as_preprocessing(found.to_json()) == found
    uncropped = mark(pack, resize="stretch", frame_size=[32, 48]).preprocessing
    assert uncropped == Preprocessing("stretch")


@pytest.mark.parametrize("value", ["zoom", 3, ["crop"]])
def test_a_pack_with_an_unknown_resize_is_refused(pack: Pack, value: Any) -> None:
    with pytest.raises(ValueError, match=r"meta\.json"):
        _ = mark(pack, resize=value).preprocessing


class Wide(gym.Env[Any, Any]):
    """Frames of 24 x 40 pixels; episodes of three steps."""

    observation_space = spaces.Box(0, 255, (24, 40, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 3
        return self.np_random.integers(256, size=(24, 40, 3), dtype=np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        frame = self.np_random.integers(256, size=(24, 40, 3), dtype=np.uint8)
        return frame, 0.0, self.left == 0, False, {}


def record(folder: Path, resize: Any) -> Path:
    settings: dict[str, Any] = {"image_size": 32, "steps": 24, "n_envs": 1, "vec": "dummy"}
    gym.register("Wide-v0", lambda **options: Wide())
    try:
        collect(CollectConfig(env="Wide-v0", out=folder, resize=resize, **settings))
    finally:
        del gym.registry["Wide-v0"]
    return folder


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_an_encoder_resizes_frames_as_its_recording(
    config: PretrainConfig, tmp_path: Path, resize: str
) -> None:
    data = record(tmp_path / "recording", resize)
    assert Pack.open(data / "train").meta["resize"] == resize
    trainer = Trainer(dataclasses.replace(config, data=str(data), steps=2))
    trainer.run()
    assert resize_of(trainer.folder.best) == resize_of(trainer.folder.last) == resize
    encoder = SlotEncoder(config.out, device="cpu")
    assert encoder.preprocessing == Preprocessing(resize)  # type: ignore[arg-type]


def test_recordings_of_different_resize_are_not_joined(tmp_path: Path) -> None:
    folders = [record(tmp_path / how, how) for how in ("crop", "letterbox")]
    with pytest.raises(ValueError, match=r"resize.* crop, letterbox"):
        join(folders, tmp_path / "both")


# ---- training ------------------------------------------------------------------------------------


def test_without_a_record_the_resize_stays_that_of_init(
    config: PretrainConfig, tiny: Genesis, tmp_path: Path
) -> None:
    save_pretrained(tiny, tmp_path / "start", preprocessing=BOX)
    follower = dataclasses.replace(config, init=str(tmp_path / "start"), steps=2)
    trainer = Trainer(follower)
    trainer.run()
    assert resize_of(trainer.folder.last) == "letterbox"
    resumed = Trainer(dataclasses.replace(follower, resume=True, steps=3))
    resumed.run()
    assert resize_of(resumed.folder.last) == "letterbox"


def test_a_resumed_run_uses_the_resize_of_its_pack(config: PretrainConfig, pack: Pack) -> None:
    Trainer(dataclasses.replace(config, steps=2)).run()
    mark(pack, resize="crop")
    resumed = Trainer(dataclasses.replace(config, resume=True, steps=3))
    assert resumed.model.preprocessing == Preprocessing("crop")


def test_data_of_another_resize_than_init_is_a_warning(
    config: PretrainConfig, pack: Pack, tiny: Genesis, tmp_path: Path
) -> None:
    mark(pack, resize="crop")
    save_pretrained(tiny, tmp_path / "start", preprocessing=BOX)
    with pytest.warns(UserWarning, match=r"^init .*'letterbox'.* data .*'crop'"):
        trainer = Trainer(dataclasses.replace(config, init=str(tmp_path / "start")))
    assert trainer.model.preprocessing == Preprocessing("crop")


def test_images_that_needed_no_resizing_keep_that_of_init(
    config: PretrainConfig, pack: Pack, tiny: Genesis, tmp_path: Path
) -> None:
    mark(pack, resize="none")
    save_pretrained(tiny, tmp_path / "start", preprocessing=BOX)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = Trainer(dataclasses.replace(config, init=str(tmp_path / "start")))
    assert trainer.model.preprocessing == BOX


# ---- models --------------------------------------------------------------------------------------


@pytest.fixture
def boxed(tiny: Genesis, tmp_path: Path) -> Path:
    """A model trained on letterboxed frames."""
    save_pretrained(tiny, tmp_path / "boxed", preprocessing=BOX)
    return tmp_path / "boxed"


def test_a_model_in_memory_keeps_its_resize(boxed: Path) -> None:
    model = load_pretrained(boxed, device="cpu").model
    assert SlotEncoder(model, device="cpu").preprocessing == BOX
    assert json.loads(_metadata("genesis", model, None)["preprocessing"])["resize"] == "letterbox"


def test_another_resize_than_the_models_is_a_warning(boxed: Path) -> None:
    with pytest.warns(UserWarning, match=r"^preprocessing .*letterbox.*crop"):
        encoder = SlotEncoder(boxed, device="cpu", preprocessing="crop")
    assert encoder.preprocessing == Preprocessing("crop")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        SlotEncoder(boxed, device="cpu", preprocessing="letterbox")


@pytest.mark.parametrize("value", ["crop", {"resize": "crop"}, Preprocessing("crop")])
def test_a_resize_is_named_in_any_form(value: Any, tiny: Genesis, tmp_path: Path) -> None:
    assert as_preprocessing(value) == Preprocessing("crop")
    save_pretrained(tiny, tmp_path / "model", preprocessing=value)
    assert resize_of(tmp_path / "model") == "crop"


@pytest.mark.parametrize("value", [3, {"size": 4}, ["crop"]])
def test_values_that_are_no_preprocessing_are_refused(value: Any, tiny: Genesis) -> None:
    with pytest.raises(TypeError, match=r"^preprocessing "):
        SlotEncoder(tiny, device="cpu", preprocessing=value)


def test_evaluation_on_images_of_another_resize_is_a_warning(boxed: Path, pack: Pack) -> None:
    mark(pack, resize="crop")
    candidate = open_candidate(str(boxed), "best", str(pack.folder), "{}", device="cpu")
    with pytest.warns(UserWarning, match=r"'crop'.*'letterbox'"):
        open_data(candidate, "test")


@pytest.mark.parametrize("resize", ["none", "letterbox", None])
def test_fitting_images_are_no_warning(boxed: Path, pack: Pack, resize: str | None) -> None:
    mark(pack, resize=resize)
    candidate = open_candidate(str(boxed), "best", str(pack.folder), "{}", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        open_data(candidate, "test")


def test_a_recording_of_another_resize_than_the_encoders_is_a_warning(
    boxed: Path, tmp_path: Path
) -> None:
    recorded = Transitions.open(record(tmp_path / "recording", "crop"))
    encoder = SlotEncoder(boxed, device="cpu")
    with pytest.warns(UserWarning, match="'crop'"):
        encode(recorded, encoder, align=False, cache=tmp_path / "cache")


def test_a_student_resizes_as_its_teacher(boxed: Path, pack: Pack, tmp_path: Path) -> None:
    mark(pack, resize="crop")
    config = DistillConfig(
        str(boxed),
        data=str(pack.folder),
        channels=(4, 4, 4),
        context_size=4,
        slot_size=4,
        steps=1,
        batch_size=2,
        eval_images=2,
        device="cpu",
        tensorboard=False,
        out=tmp_path / "student",
    )
    with pytest.warns(UserWarning, match=r"'crop'.* teacher .*'letterbox'"):
        report = distill(config)
    loaded = load_pretrained(tmp_path / "student", device="cpu")
    assert loaded.preprocessing == BOX
    card = student_card(report, loaded)
    assert "32 x 32 px (letterbox)" in card
