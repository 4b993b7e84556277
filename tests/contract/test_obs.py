"""GenesisObs: what it takes, what it gives, what it refuses."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from genesis_rl.envs.wrappers.obs import GenesisObs, GenesisVectorObs
from genesis_rl.envs.wrappers.rendering import RenderedObs
from genesis_rl.envs.wrappers.slot_obs import SlotObsOptions
from genesis_rl.models import Genesis
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import Preprocessing, Resize

MakeEnv = Callable[..., Any]
AssertSame = Callable[[Any, Any], None]
K, D_M, D_C = 3, 7, 2


def rollout(
    env: gym.Env[Any, Any], steps: int = 20, seed: int = 3
) -> list[tuple[Any, dict[str, Any]]]:
    """Observations and infos over steps and episode ends, actions cycling."""
    observation, info = env.reset(seed=seed)
    result = [(observation, info)]
    for step in range(steps):
        observation, _, terminated, truncated, info = env.step(step % 4)
        result.append((observation, info))
        if terminated or truncated:
            result.append(env.reset())
    return result


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_geometry", [False, True])
@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
def test_layouts(pixel_env: MakeEnv, encoder: Any, layout: Any, mask_geometry: bool) -> None:
    env: Any = GenesisObs(pixel_env(), encoder, layout=layout, mask_geometry=mask_geometry)
    d = D_M + D_C + 3 * mask_geometry
    for observation, info in rollout(env):
        assert env.observation_space.contains(observation)
        want = encoder.features(info["raw"], mask_geometry=mask_geometry)[0]
        if layout == "dict":
            parts = {"z_m": want[:, :D_M], "z_c": want[:, D_M : D_M + D_C]}
            if mask_geometry:
                parts["geometry"] = want[:, -3:]
            assert observation.keys() == parts.keys()
            for name, part in parts.items():
                np.testing.assert_allclose(observation[name], part, atol=1e-6)
        else:
            shape = (K, d) if layout == "set" else (K * d,)
            assert env.observation_space == spaces.Box(-np.inf, np.inf, shape, np.float32)
            np.testing.assert_allclose(observation, want.reshape(shape), atol=1e-6)


@pytest.fixture(scope="module")
def with_background(small_model: Callable[..., Any]) -> SlotEncoder:
    return SlotEncoder(small_model(compact=True, background="predicted", num_slots=4), device="cpu")


@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
@pytest.mark.parametrize("align", [False, True])
def test_objects_without_their_background(
    pixel_env: MakeEnv, with_background: SlotEncoder, layout: Any, align: bool
) -> None:
    options: dict[str, Any] = {"layout": layout, "align": align, "info_keys": ("masks",)}
    whole: Any = GenesisObs(pixel_env(), with_background, **options)
    objects: Any = GenesisObs(pixel_env(), with_background, background=False, **options)
    assert objects.observation_space != whole.observation_space
    for (full, info), (part, _) in zip(rollout(whole), rollout(objects), strict=True):
        assert objects.observation_space.contains(part)
        if layout == "dict":
            for name, value in part.items():
                np.testing.assert_array_equal(value, full[name][1:])
        else:
            rows = full.reshape(4, 14)
            np.testing.assert_array_equal(part, rows[1:] if layout == "set" else rows[1:].ravel())
            # The background stays first, whatever alignment does to the objects.
            z_b = with_background.features(info["raw"])[0, 0]
            np.testing.assert_allclose(rows[0], z_b, atol=1e-5)
        assert info["masks"].shape[0] == 4


def test_a_background_needs_an_encoder_with_one(pixel_env: MakeEnv, encoder: Any) -> None:
    with pytest.raises(ValueError, match=r"^background "):
        GenesisObs(pixel_env(), encoder, background=False)


def test_observations_follow_the_frame(pixel_env: MakeEnv, encoder: Any) -> None:
    observations = [observation for observation, _ in rollout(GenesisObs(pixel_env(), encoder))]
    assert np.abs(observations[0] - observations[1]).max() > 1e-3


@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
def test_keep_makes_a_dict(pixel_env: MakeEnv, encoder: Any, layout: Any) -> None:
    inner = pixel_env(entry="image")
    before = json.dumps(repr(inner.observation_space))
    env: Any = GenesisObs(inner, encoder, layout=layout, keep=["goal", "direction"])
    slots = {"z_m", "z_c", "geometry"} if layout == "dict" else {"slots"}
    assert set(env.observation_space.spaces) == slots | {"goal", "direction"}
    assert env.observation_space["goal"] == inner.observation_space["goal"]
    assert env.observation_space["goal"] is not inner.observation_space["goal"]
    assert env.observation_space["goal"].dtype == np.float64
    for observation, _ in rollout(env):
        assert env.observation_space.contains(observation)
    env.observation_space["goal"].low[:] = 0
    assert json.dumps(repr(inner.observation_space)) == before


def test_info_entries_on_request(pixel_env: MakeEnv, encoder: Any) -> None:
    assert {"frame", "masks"}.isdisjoint(rollout(GenesisObs(pixel_env(), encoder))[0][1])
    env: Any = GenesisObs(pixel_env(layout="CHW"), encoder, info_keys=("frame", "masks"))
    for _, info in rollout(env):
        np.testing.assert_array_equal(info["frame"], info["raw"])
        assert info["frame"].dtype == np.uint8
        assert info["masks"].shape == (K, 32, 32)
        assert info["masks"].dtype == np.float32
        np.testing.assert_allclose(info["masks"].sum(0), 1, atol=1e-5)


# ---- what environments deliver -------------------------------------------------------------------


@pytest.mark.parametrize("values", ["uint8", "unit", "byte"])
@pytest.mark.parametrize(
    ("layout", "channels", "named"),
    [
        ("HWC", 3, False),
        ("CHW", 3, False),
        ("CWH", 3, True),
        ("WHC", 3, True),
        ("HWC", 4, True),
        ("CHW", 4, True),
        ("SHWC", 3, True),
        ("SCHW", 3, True),
    ],
)
def test_colour_layouts_give_the_same_slots(
    pixel_env: MakeEnv,
    encoder: SlotEncoder,
    assert_same: AssertSame,
    layout: Any,
    channels: int,
    named: bool,
    values: str,
) -> None:
    inner = pixel_env(layout=layout, channels=channels, values=values)
    env: Any = GenesisObs(inner, encoder, image_layout=layout if named else "auto")
    assert_same(rollout(env, 5), rollout(GenesisObs(pixel_env(values=values), encoder), 5))


@pytest.mark.parametrize("values", ["unit", "byte"])
def test_floats_give_the_same_slots_as_bytes(
    pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame, values: str
) -> None:
    size = (32, 32)  # nothing is resized: bytes would be rounded
    env: Any = GenesisObs(pixel_env(values=values, size=size), encoder)
    assert_same(rollout(env, 5), rollout(GenesisObs(pixel_env(size=size), encoder), 5))


@pytest.mark.parametrize(
    ("layout", "named"),
    [("HW", False), ("WH", True), ("SHW", True), ("SWH", True), ("HWS", True)],
)
def test_grey_layouts_give_the_same_slots(
    pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame, layout: Any, named: bool
) -> None:
    env: Any = GenesisObs(
        pixel_env(layout=layout), encoder, image_layout=layout if named else "auto"
    )
    want = GenesisObs(pixel_env(layout="HWC", channels=1), encoder)
    assert_same(rollout(env, 5), rollout(want, 5))


@pytest.mark.parametrize("how", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(24, 40), (32, 32), (96, 64), (20, 50)])
def test_sizes_and_resizing(
    pixel_env: MakeEnv, tiny_genesis: Genesis, how: Resize, size: tuple[int, int]
) -> None:
    encoder = SlotEncoder(tiny_genesis, preprocessing=Preprocessing(how), device="cpu")
    env: Any = GenesisObs(pixel_env(size=size), encoder)
    for observation, info in rollout(env, 2):
        np.testing.assert_allclose(observation, encoder.features(info["raw"])[0], atol=1e-6)


@pytest.mark.parametrize(
    "entry", ["image", "pixels", "rgb", "screen", "observation.images.top", "camera"]
)
def test_the_frame_is_found_in_a_dict(
    pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame, entry: str
) -> None:
    got = rollout(GenesisObs(pixel_env(entry=entry), encoder), 5)
    assert_same(got, rollout(GenesisObs(pixel_env(), encoder), 5))


def nested(env: gym.Env[Any, Any], path: str = "sensors/camera/rgb") -> gym.Env[Any, Any]:
    """The frames of an environment in nested Dicts, beside a goal."""
    inner: Any = env.observation_space
    space: spaces.Space[Any] = inner
    for name in reversed(path.split("/")):
        space = spaces.Dict({name: space, "noise": spaces.Box(0, 255, (32, 32, 3), np.uint8)})

    def nest(frame: Any) -> Any:
        for name in reversed(path.split("/")):
            frame = {name: frame, "noise": np.full((32, 32, 3), 9, np.uint8)}
        return frame

    return gym.wrappers.TransformObservation(env, nest, space)


def test_a_path_leads_to_nested_frames(
    pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame
) -> None:
    env: Any = GenesisObs(nested(pixel_env()), encoder, image_key="sensors/camera/rgb")
    assert_same(rollout(env, 5), rollout(GenesisObs(pixel_env(), encoder), 5))
    # An entry may have such a name itself.
    flat = pixel_env(entry="camera/rgb")
    env = GenesisObs(flat, encoder, image_key="camera/rgb", keep=["goal"])
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_path_leads_to_nested_frames_of_vector_environments(
    pixel_env: MakeEnv, encoder: Any, mode: AutoresetMode
) -> None:
    path = "sensors/camera/rgb"
    makers = [lambda: nested(pixel_env())] * 2
    envs: Any = GenesisVectorObs(
        SyncVectorEnv(makers, autoreset_mode=mode), encoder, image_key=path
    )
    want: Any = GenesisVectorObs(SyncVectorEnv([pixel_env] * 2, autoreset_mode=mode), encoder)
    np.testing.assert_allclose(envs.reset(seed=3)[0], want.reset(seed=3)[0], atol=1e-6)
    for _ in range(6):
        one, two = envs.step([0, 1]), want.step([0, 1])
        np.testing.assert_allclose(one[0], two[0], atol=1e-6)
        done = one[2] | one[3]
        assert ("final_obs" in one[4]) == ("final_obs" in two[4])
        if "final_obs" in one[4]:
            for index in np.flatnonzero(done):
                last, wanted = (infos["final_obs"][index] for infos in (one[4], two[4]))
                np.testing.assert_allclose(last, wanted, atol=1e-6)
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
            want.reset(options={"reset_mask": done})


def test_float_frames_in_a_byte_space(
    pixel_env: MakeEnv, encoder: Any, assert_same: AssertSame
) -> None:
    """Miniworld's greyscale wrapper does so."""
    inner = pixel_env(values="byte")
    inner.observation_space = pixel_env().observation_space
    want = rollout(GenesisObs(pixel_env(values="byte"), encoder), 5)
    assert_same(rollout(GenesisObs(inner, encoder), 5), want)


def test_rendered_frames(
    pixel_env: MakeEnv, state_env: MakeEnv, encoder: Any, assert_same: AssertSame
) -> None:
    want = rollout(GenesisObs(pixel_env(), encoder))
    rendered = GenesisObs(state_env("rgb_array"), encoder, render=True)
    assert_same(rollout(rendered), want)
    added = gym.wrappers.AddRenderObservation(state_env("rgb_array"), render_only=False)
    env: Any = GenesisObs(added, encoder, keep=["state"])
    for observation, info in rollout(env):
        np.testing.assert_allclose(
            observation["slots"], encoder.features(info["raw"])[0], atol=1e-6
        )
        assert observation["state"].dtype == np.float64


def test_rendered_floats_are_refused(state_env: MakeEnv, encoder: Any) -> None:
    inner = state_env("rgb_array")
    env: Any = GenesisObs(inner, encoder, render=True)
    inner.render = lambda: np.ones((24, 40, 3), np.float32)
    with pytest.raises(TypeError, match=r"render\(\).*float32"):
        env.reset(seed=0)
    with pytest.raises(ValueError, match=r"render\(\).*float32"):
        RenderedObs(inner)


# ---- what is refused -----------------------------------------------------------------------------


class SpaceEnv(gym.Env[Any, Any]):
    """Nothing but an observation space."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2)


def box(*shape: Any, low: Any = 0, high: Any = 255, dtype: Any = np.uint8) -> Any:
    return spaces.Box(low, high, shape, dtype)


GRID = {"image": box(7, 7, 3), "direction": spaces.Discrete(4), "mission": spaces.Text(9)}

NESTED = spaces.Dict(camera=spaces.Dict(rgb=box(24, 40, 3)), goal=box(2))


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (box(4, dtype=np.float32), {}, r"^the observation .*AddRenderObservation"),
        (spaces.Discrete(5), {}, r"^the observation .*AddRenderObservation"),
        (spaces.Tuple([box(24, 40, 3)]), {}, r"^the observation "),
        (box(7, 7, 3), {}, r"^the observation .*RGBImgObsWrapper"),
        (spaces.Dict(GRID), {}, r"^entry 'image' .*RGBImgObsWrapper"),
        (spaces.Dict(GRID), {"image_key": "image"}, r"^entry 'image' .*RGBImgObsWrapper"),
        (spaces.Dict({**GRID, "image": box(25, 25, 3)}), {}, r"^entry 'image' .*RGBImgObsWrapper"),
        (box(24, 40, 3), {"image_key": "image"}, "image_key"),
        (spaces.Dict(image=box(24, 40, 3)), {"image_key": "rgb"}, "image_key.*image: Box"),
        (spaces.Dict(image=box(24, 40, 3), rgb=box(24, 40, 3)), {}, "image_key.*image, rgb"),
        (spaces.Dict(left=box(24, 40, 3), right=box(24, 40, 3)), {}, "image_key.*left, right"),
        (spaces.Dict(a=box(3), b=spaces.Discrete(2)), {}, "a: Box.*b: Discrete"),
        (box(4, 84, 84), {}, '"SHW".*image_layout'),
        (box(84, 84, 4), {}, 'image_layout="HWS"'),
        (box(4, 128, 64), {}, '"SWH".*width before height.*image_layout'),
        (box(84, 84, 12), {}, "4 stacked RGB.*Stack after encoding: VecFrameStack.*n_stack=4"),
        (box(6, 84, 84), {}, '2 stacked RGB.*Stack after encoding.*6.*grey.*image_layout="SHW"'),
        (box(84, 84, 9), {"image_layout": "HWC"}, 'Stack after encoding.*image_layout="HWS"'),
        (box(9, 84, 60), {"image_layout": "CWH"}, 'Stack after encoding.*image_layout="SWH"'),
        (box(4, 84, 84, 3), {}, 'image_layout="SHWC".*4 stacked RGB.*stack after encoding'),
        (box(4, 3, 84, 84), {}, 'image_layout="SCHW"'),
        (box(84, 84, 8), {}, "image_layout"),
        (box(24, 40, 3), {"image_layout": "CHW"}, "channels.* 24"),
        (box(24, 40, 3), {"image_layout": "HW"}, "2 axes"),
        (box(24, 40, 3), {"image_layout": "HCW"}, "image_layout"),
        (box(24, 40, 3, low=-np.inf, high=np.inf, dtype=np.float32), {}, r"^the observation "),
        (box(24, 40, 3, low=-1, high=1, dtype=np.float32), {}, "from -1 to 1"),
        (box(24, 40, 3, high=1, dtype=np.uint8), {}, "from 0 to 1"),
        (box(24, 40, 3, high=1, dtype=np.bool_), {}, r"^the observation "),
        (box(24, 40, 3, high=1000, dtype=np.int32), {}, "from 0 to 1000"),
        (box(24, 40, 3, high=10), {}, "from 0 to 10"),
        (box(24, 40, 3, high=10, dtype=np.float32), {}, "from 0 to 10"),
        (box(24, 40, 3, high=0.5, dtype=np.float32), {}, "from 0 to 0.5"),
        (NESTED, {"image_key": "camera/depth"}, "camera/rgb: Box.*goal: Box"),
        (NESTED, {"image_key": "camera"}, "entry 'camera'.*Dict"),
        (NESTED, {}, "camera/rgb: Box.*image_key"),
        (box(24, 40, 3), {"keep": ["goal"]}, "keep"),
        (spaces.Dict(image=box(24, 40, 3)), {"keep": ["goal"]}, "keep"),
        (spaces.Dict(image=box(24, 40, 3)), {"keep": ["image"]}, "info_keys"),
        (spaces.Dict(image=box(24, 40, 3), slots=box(2)), {"keep": ["slots"]}, "keep"),
        (box(24, 40, 3), {"layout": "list"}, "layout"),
        (box(24, 40, 3), {"info_keys": ["mask"]}, "info_keys"),
        (box(24, 40, 3), {"render": True}, 'render_mode="rgb_array"'),
        (box(24, 40, 3), {"device": "tpu"}, "tpu"),
    ],
)
def test_bad_spaces_and_options(
    encoder_path: str, space: spaces.Space[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GenesisObs(SpaceEnv(space), encoder_path, **{"device": "cpu", **options})


def test_strings_are_no_sequences_of_names(encoder: Any) -> None:
    with pytest.raises(TypeError, match="keep"):
        GenesisObs(SpaceEnv(box(24, 40, 3)), encoder, keep="goal")
    for value in (5, ["goal", 5]):
        with pytest.raises(TypeError, match="keep"):
            SlotObsOptions(keep=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="info_keys"):
        GenesisObs(SpaceEnv(box(24, 40, 3)), encoder, info_keys="frame")  # type: ignore[arg-type]


def test_a_size_the_model_cannot_take(pixel_env: MakeEnv, tiny_genesis: Genesis) -> None:
    encoder = SlotEncoder(tiny_genesis, preprocessing=Preprocessing("none"), device="cpu")
    with pytest.raises(ValueError, match="24 x 40"):
        GenesisObs(pixel_env(), encoder)
    GenesisObs(pixel_env(size=(32, 32)), encoder).reset(seed=0)


@pytest.mark.parametrize(
    ("values", "frame"),
    [
        ("uint8", np.zeros((48, 80, 3), np.uint8)),
        ("uint8", np.zeros((24, 40), np.uint8)),
        ("uint8", np.zeros((2, 2, 24, 40, 3), np.uint8)),
        ("unit", np.zeros((24, 40, 3), np.uint8)),
    ],
)
def test_frames_must_be_as_their_space(
    pixel_env: MakeEnv, encoder: Any, values: str, frame: Any
) -> None:
    env: Any = GenesisObs(pixel_env(values=values), encoder)
    env.reset(seed=0)
    env.unwrapped._observation = lambda: frame
    with pytest.raises(ValueError, match=r"^the observation .*uint8"):
        env.step(0)


class FilledEnv(SpaceEnv):
    """Frames of one value."""

    def __init__(self, space: Any, value: float) -> None:
        super().__init__(space)
        self.value = value

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        space: Any = self.observation_space
        return np.full(space.shape, self.value, space.dtype), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 0.0, False, False, {}


@pytest.mark.parametrize(
    ("high", "dtype", "value"),
    [(255, np.float32, 1), (255, np.float32, 10), (255, np.uint8, 1), (1, np.float32, 0.02)],
)
def test_almost_black_frames_are_reported_at_once(
    encoder: Any, high: int, dtype: Any, value: float
) -> None:
    env = GenesisObs(FilledEnv(box(24, 40, 3, high=high, dtype=dtype), value), encoder)
    with pytest.warns(UserWarning, match=f"up to {high}.*got at most {value}.*almost black"):
        env.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(0)  # once


def test_only_lasting_black_is_reported(encoder: Any) -> None:
    inner = FilledEnv(box(24, 40, 3), 0)
    env = GenesisObs(inner, encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(49):
            env.step(0)
        GenesisObs(FilledEnv(box(24, 40, 3), 11), encoder).reset()
    with pytest.warns(UserWarning, match="got at most 0"):
        env.step(0)


@pytest.mark.parametrize("value", [np.nan, 2.0])
def test_broken_frames(pixel_env: MakeEnv, encoder: Any, value: float) -> None:
    env: Any = GenesisObs(pixel_env(values="unit"), encoder)
    env.reset(seed=0)
    env.unwrapped._observation = lambda: np.full((24, 40, 3), value, np.float32)
    with pytest.raises(ValueError, match="NaN" if np.isnan(value) else r"\[0, 1\]"):
        env.step(0)


def test_an_encoder_that_is_none(pixel_env: MakeEnv, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        GenesisObs(pixel_env(), tmp_path)
    with pytest.raises(TypeError, match="int"):
        GenesisObs(pixel_env(), 3)  # type: ignore[arg-type]


def test_a_device_beside_a_loaded_encoder(pixel_env: MakeEnv, encoder: Any) -> None:
    GenesisObs(pixel_env(), encoder, device="cpu")
    with pytest.raises(ValueError, match="meta"):
        GenesisObs(pixel_env(), encoder, device="meta")


def test_not_an_environment(encoder: Any) -> None:
    with pytest.raises(TypeError, match=r"gymnasium\.Env"):
        GenesisObs(object(), encoder)  # type: ignore[arg-type]


# ---- checkers and specs --------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
@pytest.mark.parametrize("source", ["path", "memory"])
def test_gymnasium_check_env(
    encoder_path: str, tiny_genesis: Genesis, layout: Any, source: str
) -> None:
    inner = gym.make("Pixel-v0", render_mode="rgb_array", disable_env_checker=True)
    what = encoder_path if source == "path" else SlotEncoder(tiny_genesis, device="cpu")
    env: Any = GenesisObs(inner, what, layout=layout, info_keys=["frame", "masks"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unbounded spaces, and that the environment is wrapped
        check_env(env, skip_render_check=source == "memory", skip_close_check=source == "memory")


@pytest.mark.smoke
@pytest.mark.parametrize("layout", ["set", "flat", "dict"])
def test_sb3_check_env(encoder_path: str, layout: Any) -> None:
    env: Any = GenesisObs(
        gym.make("Pixel-v0", render_mode="rgb_array"), encoder_path, layout=layout
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sb3_check_env(env)
    unconventional = [w for w in caught if "unconventional shape" in str(w.message)]
    assert bool(unconventional) == (layout != "flat")


@pytest.mark.smoke
@pytest.mark.parametrize("through_json", [False, True])
def test_make_rebuilds_from_the_spec(
    encoder_path: str, assert_same: AssertSame, through_json: bool
) -> None:
    encoder = SlotEncoder(
        encoder_path, device="cpu", preprocessing=Preprocessing("letterbox"), batch_size=7
    )
    env: Any = GenesisObs(
        gym.make("Pixel-v0", entry="rgb"),
        encoder,
        layout="dict",
        mask_geometry=True,
        image_key="rgb",
        keep=("goal",),
        info_keys=("masks",),
    )
    again: Any
    if through_json:
        kwargs = json.loads(json.dumps(env.spec.additional_wrappers[-1].kwargs))
        again = GenesisObs(gym.make(env.env.spec), **kwargs)
    else:
        again = gym.make(env.spec)
    assert isinstance(again, GenesisObs)
    assert again.observation_space == env.observation_space
    assert again.slot_encoder.spec == encoder.spec
    assert_same(rollout(again), rollout(env))


def test_rebuilding_needs_a_path(tiny_genesis: Genesis) -> None:
    env: Any = GenesisObs(gym.make("Pixel-v0"), SlotEncoder(tiny_genesis, device="cpu"))
    with pytest.raises(TypeError, match="path"):
        gym.make(env.spec)


@pytest.mark.parametrize("layout", ["set", "flat"])
def test_object_goal(encoder_path: str, layout: Any, assert_same: AssertSame) -> None:
    inner = gym.make("genesis_rl/ObjectGoal-v0", max_episode_steps=15, disable_env_checker=True)
    env = GenesisObs(inner, encoder_path, layout=layout, mask_geometry=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env)
        sb3_check_env(env)
    assert env.spec is not None
    assert_same(rollout(gym.make(env.spec)), rollout(env))


def test_a_loaded_encoder_is_shared_and_recorded_as_plain_data(
    pixel_env: MakeEnv, encoder: Any
) -> None:
    env: Any = GenesisObs(pixel_env(), encoder)
    assert env.slot_encoder is encoder
    assert json.loads(json.dumps(env._saved_kwargs))["encoder"] == encoder.spec


def test_rendered_environments_are_rebuilt(encoder_path: str, assert_same: AssertSame) -> None:
    env: Any = GenesisObs(gym.make("State-v0", render_mode="rgb_array"), encoder_path, render=True)
    assert_same(rollout(gym.make(env.spec)), rollout(env))
