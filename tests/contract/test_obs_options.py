"""Options of all wrappers: crop, several cameras, kept paths, rendered frames, refusal of depth."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from genesis_rl.agents.observations import VecFrames
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.envs.wrappers.frame_source import find_frames
from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.envs.wrappers.slot_obs import SlotObsCodec, SlotObsOptions
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import as_crop

MakeEnv = Callable[..., Any]
H, W = 24, 40
K, D = 3, 12  # of the encoder: slots, features
CROP = (4, 10, 16, 20)


class Cameras(gym.Env[Any, Any]):
    """Two cameras of other sizes and layouts, and joints, in nested Dicts; episodes of 4 steps."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Dict(
            {
                "front": spaces.Dict({"rgb": spaces.Box(0, 255, (H, W, 3), np.uint8)}),
                "wrist": spaces.Box(0, 1, (3, 32, 32), np.float32),
                "robot": spaces.Dict({"joints": spaces.Box(-1, 1, (5,), np.float64)}),
            }
        )

    def _observation(self) -> dict[str, Any]:
        self.picture: npt.NDArray[np.uint8] = self.np_random.integers(0, 256, (H, W, 3), np.uint8)
        return {
            "front": {"rgb": self.picture},
            "wrist": self.np_random.random((3, 32, 32), np.float32),
            "robot": {"joints": self.np_random.uniform(-1, 1, 5)},
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self._observation(), 0.0, False, self._steps == 4, {}

    def render(self) -> Any:
        return self.picture


def test_a_crop_equals_cropped_frames(pixel_env: MakeEnv, encoder: SlotEncoder) -> None:
    top, left, height, width = CROP
    for layout in ("HWC", "CWH"):
        env = GenesisObs(
            pixel_env(layout=layout),
            encoder,
            image_layout=layout,
            crop=[*CROP],
            info_keys=("frame",),
        )
        cut = TransformObservation(
            pixel_env(),
            lambda frame: frame[top : top + height, left : left + width],
            spaces.Box(0, 255, (height, width, 3), np.uint8),
        )
        slots, info = env.reset(seed=3)
        np.testing.assert_array_equal(slots, GenesisObs(cut, encoder).reset(seed=3)[0])
        assert info["frame"].shape == (height, width, 3)


@pytest.fixture
def cropping(encoder_path: str) -> SlotEncoder:
    """An encoder trained on a recording that was cropped."""
    preprocessing = {"resize": "stretch", "crop": [*CROP], "frame_size": [H, W]}
    return SlotEncoder(encoder_path, device="cpu", preprocessing=preprocessing)


@pytest.mark.filterwarnings("ignore:preprocessing should be")
def test_the_crop_of_the_recording_is_the_default(
    pixel_env: MakeEnv, encoder: SlotEncoder, cropping: SlotEncoder
) -> None:
    def envs(made: SlotEncoder, **crop: Any) -> list[Any]:
        rendered = GenesisObs(pixel_env("rgb_array"), made, render=True, **crop)
        return [GenesisObs(pixel_env(), made, **crop), rendered]

    for default, given in zip(envs(cropping), envs(encoder, crop=CROP), strict=True):
        np.testing.assert_array_equal(default.reset(seed=3)[0], given.reset(seed=3)[0])
    whole, plain = envs(cropping, crop=(0, 0, H, W))[0], envs(encoder)[0]
    np.testing.assert_array_equal(whole.reset(seed=3)[0], plain.reset(seed=3)[0])
    default, given = (
        VecGenesisObs(DummyVecEnv([pixel_env]), made, crop=crop)
        for made, crop in ((cropping, None), (encoder, CROP))
    )
    assert default.slot_settings["crop"] == [*CROP] == given.slot_settings["crop"]
    default.seed(3), given.seed(3)
    np.testing.assert_array_equal(default.reset(), given.reset())
    frames = VecFrames(DummyVecEnv([pixel_env]), size=16, preprocessing=cropping.preprocessing)
    assert frames.frame_settings["crop"] == CROP


@pytest.mark.filterwarnings("ignore:preprocessing should be")
def test_frames_of_another_size_than_recorded_are_refused(encoder_path: str) -> None:
    preprocessing = {"resize": "stretch", "crop": [*CROP], "frame_size": [H, 2 * W]}
    cropping = SlotEncoder(encoder_path, device="cpu", preprocessing=preprocessing)
    space = spaces.Box(0, 255, (H, W, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frames must have 24 x 80 pixels.*got 24 x 40"):
        SlotObsCodec(cropping, space, SlotObsOptions())
    rendered = SlotObsCodec(cropping, space, SlotObsOptions(), rendered=True)
    with pytest.raises(ValueError, match=r"frames must have 24 x 80 pixels.*got 24 x 40"):
        rendered.encode(None, np.zeros((H, W, 3), np.uint8))


@pytest.mark.parametrize(
    ("crop", "error", "message"),
    [
        ((0, 0, H + 1, W), ValueError, "within the frame of 24 x 40"),
        ((0, 30, 8, 11), ValueError, "columns 30 to 41"),
        ((0, 0, 0, 8), ValueError, "height and width of at least 1"),
        ((-1, 0, 8, 8), ValueError, "top and left of at least 0"),
        ((0, 0, 8), ValueError, "top, left, height, width"),
        ("all", TypeError, "must be integers"),
        ((0.5, 0, 8, 8), TypeError, "must be integers"),
    ],
)
def test_bad_crops(
    crop: Any, error: type[Exception], message: str, pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    with pytest.raises(error, match=message):
        GenesisObs(pixel_env(), encoder, crop=crop)
    with pytest.raises(error, match=message):
        GenesisObs(pixel_env("rgb_array"), encoder, crop=crop, render=True).reset()


def test_a_crop_of_numpy_integers_is_plain() -> None:
    crop = as_crop(list(np.array(CROP)))
    assert crop is not None and crop == CROP
    assert [type(number) for number in crop] == [int] * 4


def test_slots_of_several_cameras_are_concatenated(encoder: SlotEncoder) -> None:
    options: dict[str, Any] = {"keep": ("robot/joints",), "info_keys": ("frame", "masks")}
    env = GenesisObs(Cameras(), encoder, image_key=["front/rgb", "wrist"], **options)
    single = [
        GenesisObs(Cameras(), encoder, image_key=k, **options) for k in ("front/rgb", "wrist")
    ]
    assert env.observation_space["slots"].shape == (2 * K, D + 2)  # type: ignore[index]
    got, info = env.reset(seed=1)
    want = [one.reset(seed=1) for one in single]
    for _ in range(3):
        assert env.observation_space.contains(got)
        slots = got["slots"].reshape(2, K, D + 2)
        for camera, (one, one_info) in enumerate(want):
            np.testing.assert_allclose(slots[camera, :, :D], one["slots"], atol=1e-5)
            assert (slots[camera, :, D:] == np.eye(2)[camera]).all()
            np.testing.assert_array_equal(got["robot/joints"], one["robot/joints"])
            size = encoder.image_size
            masks = info["masks"].reshape(2, K, size, 2, size)
            np.testing.assert_allclose(masks[camera, :, :, camera], one_info["masks"], atol=1e-5)
            assert not masks[camera, :, :, 1 - camera].any()
        assert info["frame"].shape == (size, 2 * size, 3)
        got, *_, info = env.step(0)
        want = [(o, i) for o, *_, i in (one.step(0) for one in single)]
    named = GenesisObs(
        Cameras(), encoder, layout="dict", image_key=["front/rgb", "wrist"]
    ).observation_space
    assert {name: box.shape[-1] for name, box in named.items()} == {  # type: ignore[attr-defined]
        "z_m": 7,
        "z_c": 2,
        "geometry": 3,
        "camera": 2,
    }


def test_the_spec_rebuilds_the_options(encoder_path: str) -> None:
    env = GenesisObs(
        gym.make("Pixel-v0", entry="image"), encoder_path, crop=CROP, image_key=["image"]
    )
    assert env.spec is not None
    again = gym.make(env.spec)
    np.testing.assert_array_equal(again.reset(seed=2)[0], env.reset(seed=2)[0])


def test_several_cameras_in_one_batch(encoder: SlotEncoder, count_passes: list[int]) -> None:
    options: dict[str, Any] = {"image_key": ["front/rgb", "wrist"], "layout": "flat"}
    envs = SyncVectorEnv([Cameras] * 2)
    batched = GenesisVectorObs(envs, encoder, **options)
    singles = [GenesisObs(Cameras(), encoder, **options) for _ in range(2)]
    got, _ = batched.reset(seed=4)
    assert count_passes == [4]
    assert batched.observation_space.contains(got)
    for _ in range(3):
        count_passes.clear()
        got, *_ = batched.step(np.zeros(2, np.int64))
        assert count_passes == [4]
    for i, single in enumerate(singles):
        single.reset(seed=4 + i)
        for _ in range(3):
            want, *_ = single.step(0)
        np.testing.assert_allclose(got[i], want, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_key": ("front/rgb", "front/rgb")}, "different ones"),
        ({"image_key": ()}, "different ones"),
        ({"image_key": ("front/rgb", "side")}, "got 'side'"),
        ({"image_key": "front/rgb", "keep": ["front/rgb"]}, "encoded entry, got 'front/rgb'"),
        ({"image_key": "front/rgb", "keep": ["joints"]}, r"robot/joints.*got \['joints'\]"),
    ],
)
def test_bad_entries(options: dict[str, Any], message: str, encoder: SlotEncoder) -> None:
    with pytest.raises(ValueError, match=message):
        GenesisObs(Cameras(), encoder, **options)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_rendered_vector_environments(
    mode: AutoresetMode, state_env: MakeEnv, pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    def make(cls: MakeEnv, **options: Any) -> GenesisVectorObs:
        envs = SyncVectorEnv([lambda: cls("rgb_array")] * 2, autoreset_mode=mode)
        return GenesisVectorObs(envs, encoder, crop=CROP, **options)

    rendered, observed = make(state_env, render=True), make(pixel_env)
    assert rendered.observation_space == observed.observation_space
    got, want = rendered.reset(seed=5)[0], observed.reset(seed=5)[0]
    for _ in range(12):
        np.testing.assert_allclose(got, want, atol=1e-5)
        results = [envs.step(np.zeros(2, np.int64)) for envs in (rendered, observed)]
        (got, *_), (want, *_) = results
        done = results[0][2] | results[0][3]
        if mode == AutoresetMode.DISABLED and done.any():
            got, want = (
                envs.reset(options={"reset_mask": done})[0] for envs in (rendered, observed)
            )


@pytest.mark.parametrize("vectorise", [DummyVecEnv, SubprocVecEnv])
def test_rendered_environments_of_stable_baselines3(
    vectorise: Callable[..., Any], state_env: MakeEnv, pixel_env: MakeEnv, encoder: SlotEncoder
) -> None:
    kwargs = {} if vectorise is DummyVecEnv else {"start_method": "fork"}
    rendered: Any = VecGenesisObs(
        vectorise([lambda: state_env("rgb_array")] * 2, **kwargs), encoder, render=True
    )
    observed: Any = VecGenesisObs(DummyVecEnv([pixel_env] * 2), encoder)
    for venv in (rendered, observed):
        venv.seed(5)
    got, want = rendered.reset(), observed.reset()
    ends = 0
    for _ in range(20):
        np.testing.assert_allclose(got, want, atol=1e-5)
        before = got
        got, _, dones, infos = rendered.step(np.zeros(2, np.int64))
        want, _, same_dones, _ = observed.step(np.zeros(2, np.int64))
        assert (dones == same_dones).all()
        for i in np.flatnonzero(dones):  # the slots of the frame before
            last = infos[i]["terminal_observation"]
            np.testing.assert_allclose(np.sort(last, 0), np.sort(before[i], 0), atol=1e-5)
            ends += 1
    rendered.close()
    assert ends > 2


def test_rendering_needs_the_mode(state_env: MakeEnv, encoder: SlotEncoder) -> None:
    with pytest.raises(ValueError, match="render_mode must be 'rgb_array'"):
        VecGenesisObs(DummyVecEnv([state_env]), encoder, render=True)
    with pytest.raises(ValueError, match="render_mode must be 'rgb_array'"):
        GenesisVectorObs(SyncVectorEnv([state_env]), encoder, render=True)
    envs = SyncVectorEnv([lambda: state_env("rgb_array")], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match=r"NEXT_STEP or DISABLED .*AddRenderObservation"):
        GenesisVectorObs(envs, encoder, render=True)


DEPTH = spaces.Box(0, 1, (48, 64), np.float32)


@pytest.mark.parametrize(
    ("space", "key"),
    [
        (spaces.Dict({"depth": DEPTH}), None),
        (spaces.Dict({"camera": spaces.Dict({"Depth": DEPTH})}), "camera/Depth"),
        (spaces.Dict({"depth": spaces.Box(0, 255, (48, 64, 1), np.uint8)}), "depth"),
        (spaces.Box(0, 255, (48, 64, 4), np.uint8), None),
        (spaces.Box(0, 255, (4, 48, 64), np.uint8), None),
        (spaces.Box(0, np.inf, (48, 64), np.float32), None),
        (spaces.Box(0, 10, (48, 64, 1), np.float32), None),
    ],
)
def test_depth_is_refused(space: spaces.Space[Any], key: str | None) -> None:
    with pytest.raises(ValueError, match="depth"):
        find_frames(space, key=key, layout="auto")


def test_depth_as_a_grey_image_needs_a_layout() -> None:
    space = spaces.Dict({"rgb": spaces.Box(0, 255, (48, 64, 3), np.uint8), "depth": DEPTH})
    assert find_frames(space, key=None, layout="auto").key == "rgb"
    assert find_frames(space, key="depth", layout="HW").layout == "HW"
