"""Scene composition: an agent builds a scene from the prior, slot by slot, for a reward.

Rewards of composed scenes are named functions or custom ones, see `find_reward`.
"""

import functools
import importlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from genesis_rl import visualization
from genesis_rl.data.readers.media import decode_image, read_image_file
from genesis_rl.evaluation.metrics.imagined import evaluate_scenes
from genesis_rl.evaluation.metrics.segmentation import segment
from genesis_rl.evaluation.probes import SceneProbe
from genesis_rl.models.base import LstmState
from genesis_rl.models.prior import NextSlot, SceneBuilder
from genesis_rl.perception.alignment import SlotAligner
from genesis_rl.perception.encoder import EncoderLike, SlotEncoder, as_encoder
from genesis_rl.slots import Noise
from genesis_rl.utils.checks import LARGEST, check_range

Control = Literal["choose", "steer"]
Observation = dict[str, npt.NDArray[Any]]


class ComposedScene(NamedTuple):
    """A finished scene, the argument of a reward function.

    Attributes:
        slots: (K, D_m + D_c) float32, mask and component latents.
        image: (3, H, W), decoded frame in [0, 1].
        log_pi: (K, 1, H, W), log masks in nats.
        log_p: log density of the slots under the prior, in nats.
        encoder: the model, e.g. to encode other frames.
    """

    slots: Tensor
    image: Tensor
    log_pi: Tensor
    log_p: float
    encoder: SlotEncoder


SceneReward = Callable[[ComposedScene], float]


class ObjectCountReward:
    """Reward from the number of objects in the scene, see `evaluate_scenes`."""

    def __init__(self, number: int | None = None) -> None:
        """Set the target number.

        Args:
            number: reward 1 for a scene with this number of objects, else 0; None: the reward is
                the number itself.

        Raises:
            ValueError: for a negative number.
        """
        if number is not None and number < 0:
            raise ValueError(f"number must be >= 0 or None, got {number}.")
        self.number = number

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        count = int(evaluate_scenes(scene.image[None], segment(scene.log_pi[None])).objects[0])
        return float(count if self.number is None else count == self.number)


class GoalReward:
    """Negative mean squared distance to a goal's slots, in the best one-to-one matching."""

    def __init__(self, goal: str | os.PathLike[str] | npt.ArrayLike) -> None:
        """Load the goal.

        Args:
            goal: image file, uint8 image (H, W, 3), or float slots (K, D_m + D_c).

        Raises:
            ValueError: for any other goal.
        """
        if isinstance(goal, (str, os.PathLike)):
            try:
                goal = decode_image(read_image_file(Path(goal).expanduser()))
            except (OSError, ValueError) as error:
                raise ValueError(f"goal must be a readable image, got {goal}: {error}") from error
        self._goal = np.asarray(goal)
        if self._goal.ndim not in (2, 3):
            raise ValueError(
                f"goal must be an image (H, W, 3) or slots (K, D), got shape {self._goal.shape}."
            )
        self._slots: tuple[str, npt.NDArray[np.float32]] | None = None

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        goal = self._goal_slots(scene.encoder)
        slots = scene.slots.cpu().numpy()
        aligner = SlotAligner(1, len(slots), [w for w in scene.encoder.latent_sizes if w])
        aligner.follow(goal[None], np.array([0]), np.array([True]))
        (order,) = aligner.follow(slots[None], np.array([0]), np.array([False]))
        return -float(np.square(slots[order] - goal).mean())

    def _goal_slots(self, encoder: SlotEncoder) -> npt.NDArray[np.float32]:
        """Return the goal's slots, inferred once per encoder."""
        if self._slots is None or self._slots[0] != encoder.fingerprint:
            goal = self._goal
            if goal.ndim == 3:
                (goal,) = encoder.features(goal, mask_geometry=False)
            self._slots = encoder.fingerprint, np.asarray(goal, np.float32)
        shape = (encoder.num_slots, sum(encoder.latent_sizes))
        if self._slots[1].shape != shape:
            raise ValueError(f"goal must be slots {shape}, got shape {self._slots[1].shape}.")
        return self._slots[1]


class ProbeReward:
    """Probability of a class by a trained probe, for example that a tower is stable."""

    def __init__(self, probe: str | os.PathLike[str], answer: int = 1) -> None:
        """Load the probe.

        Args:
            probe: folder of one probe, written by pretrain/probe.py --heads.
            answer: class whose probability is the reward.

        Raises:
            ValueError: if the folder contains no probe, or the probe has no such class.
        """
        self._folder, self._probe = probe, SceneProbe.load(probe, device="cpu")
        classes = self._probe.config.classes
        if answer not in classes:
            raise ValueError(f"answer must be in {classes}, got {answer}.")
        self._column = classes.index(answer)

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        expected, actual = self._probe.config.encoder_fingerprint, scene.encoder.fingerprint
        if expected != actual:
            raise ValueError(
                f"probe {self._folder} must be trained on the slots of the encoder {actual[:12]}, "
                f"got {expected[:12]}."
            )
        return float(self._probe(scene.slots[None].cpu())[0, self._column])


#: Rewards by name. Saved agents may refer to these only: add custom ones before loading an agent.
REWARDS: dict[str, type[Any]] = {
    "objects": ObjectCountReward,
    "goal": GoalReward,
    "probe": ProbeReward,
}


def find_reward(reward: str | SceneReward, options: Mapping[str, Any] | None = None) -> SceneReward:
    """Return a reward function, resolving a string by name.

    Args:
        reward: a callable of a `ComposedScene`; a name in `REWARDS`; or "module:name" of such a
            function, or of a class whose instances are such callables.
        options: keyword arguments of the class or the function.

    Raises:
        TypeError: for a reward of another type.
        ValueError: for an unknown name, or options that the class does not accept.
    """
    resolved: Any = reward
    if isinstance(reward, str):
        resolved = REWARDS.get(reward) or _named(reward)
    if not callable(resolved):
        raise TypeError(f"reward must be a callable or the name of one, got {reward!r}.")
    if isinstance(resolved, type):
        try:
            resolved = resolved(**(options or {}))
        except TypeError as error:
            raise ValueError(
                f"reward_options must be arguments of reward {reward!r}, got {options}: {error}."
            ) from error
    elif options:
        resolved = functools.partial(resolved, **options)
    scene_reward: SceneReward = resolved
    return scene_reward


def evaluate_reward(reward: SceneReward, scene: ComposedScene) -> float:
    """Compute a scene's reward.

    Raises:
        ValueError: if it is not a finite number.
    """
    result = reward(scene)
    try:
        value = float(result)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward must return a number, got {result!r}.") from error
    if not math.isfinite(value):
        raise ValueError(f"reward must return a finite number, got {value}.")
    return value


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    message = f"reward must be one of {', '.join(REWARDS)}, or 'module:function', got {name!r}"
    if not (module and attribute):
        raise ValueError(f"{message}.")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{message}: {error}.") from error


class ComposeEnv(gym.Env[Any, Any]):
    """Composition of a scene from slots sampled from p(z_k | z_<k), one per step; K steps.

    Actions: with control "choose" the index of a candidate, Discrete(M); with "steer" the noise
    of the next sample, Box(-bound, bound, (D_m + D_c,), float32): 0 is the mode of the mask
    latents and, given them, of the component latents.

    Observations: a Dict of float32 arrays: ``slots`` (K, D_m + D_c), 0 for slots not placed yet;
    ``placed`` (K,), 1 for placed slots; with "choose" ``candidates`` (M, D_m + D_c) for the next
    slot, 0 after the last one. With image=True also ``image`` (S, S, 3) uint8, as `render`.

    Rewards: the reward function's value of the finished scene, 0 before.

    Termination: after K steps.

    Info: ``log_p_step``, the log density of the last slot under the prior, given the slots before
    it, in nats, and ``log_p``, their sum. Both are at temperature 1.

    Frames show a checkerboard where no slot covers a pixel yet; the last slot covers the rest. In
    GENESIS-V2 slots compete for pixels, and the placed slots cover the whole frame.

    Equal seeds give equal candidates, bit for bit on a CPU.

    Example:
        >>> env = gym.make(
        ...     "genesis_rl/Compose-v0",
        ...     encoder="sprites-fast",
        ...     reward="objects",
        ...     reward_options={"number": 3},
        ... )  # doctest: +SKIP
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]  # gym.Env declares it for instances
        "render_modes": ["rgb_array"],
        "render_fps": 2,
    }

    def __init__(
        self,
        encoder: EncoderLike,
        reward: str | SceneReward,
        *,
        reward_options: Mapping[str, Any] | None = None,
        control: Control = "choose",
        candidates: int = 8,
        bound: float = 3.0,
        temperature: float = 1.0,
        image: bool = False,
        device: str = "auto",
        render_mode: str | None = None,
    ) -> None:
        """Load the encoder and the reward.

        Args:
            encoder: model with an autoregressive prior: path, hub id, or a SlotEncoder (also its
                ``spec``).
            reward: reward of a finished scene: a callable of a `ComposedScene`; "objects", "goal"
                or "probe"; or "module:name"; see `find_reward`.
            reward_options: options of the reward: ``number`` of objects, ``goal`` image, or
                ``probe`` folder and ``answer``.
            control: "choose" among candidates, or "steer" the noise.
            candidates: M, at least 2.
            bound: maximum absolute noise with "steer", in standard deviations of the prior.
            temperature: factor on the noise.
            image: add the frame to the observations.
            device: device of the model; "auto" is CUDA if available.
            render_mode: "rgb_array" or None.

        Raises:
            TypeError: for an encoder or a reward of another type.
            ValueError: for an invalid value, or a model without an autoregressive prior.
        """
        if control not in get_args(Control):
            raise ValueError(f"control must be one of {get_args(Control)}, got {control!r}.")
        if control == "choose":
            check_range("candidates", candidates, 2, LARGEST["candidates"])
        for name, value in (("bound", bound), ("temperature", temperature)):
            if not (value > 0 and np.isfinite(value)):
                raise ValueError(f"{name} must be finite and > 0, got {value}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}.")
        self._reward = find_reward(reward, reward_options)
        self.encoder = as_encoder(encoder, device=device)
        if not self.encoder.has_prior:
            raise ValueError(
                "encoder must have an autoregressive prior (genesis, genesis_s, genesis_v2), got "
                f"{self.encoder.name}."
            )
        self._builder = cast("SceneBuilder", self.encoder.model)
        self.control, self.temperature, self._image = control, temperature, image
        self.render_mode = render_mode
        k, width, side = (
            self.encoder.num_slots,
            sum(self.encoder.latent_sizes),
            self.encoder.image_size,
        )
        parts: dict[str, spaces.Space[Any]] = {
            "slots": spaces.Box(-np.inf, np.inf, (k, width), np.float32),
            "placed": spaces.Box(0, 1, (k,), np.float32),
        }
        if control == "choose":
            self.action_space = spaces.Discrete(candidates)
            parts["candidates"] = spaces.Box(-np.inf, np.inf, (candidates, width), np.float32)
        else:
            self.action_space = spaces.Box(-bound, bound, (width,), np.float32)
        if image:
            parts["image"] = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.observation_space = spaces.Dict(parts)
        self._placed = k  # as after an episode's end: step() needs a reset
        self._slots = torch.zeros(k, width, device=self.encoder.device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reset to an empty scene.

        Args:
            seed: seed of the random generator.
            options: not used.

        Raises:
            ValueError: if the model samples latents that are not finite.
        """
        super().reset(seed=seed, options=options)
        self._placed, self._log_p = 0, 0.0
        self._state: LstmState | None = None
        self._slots = torch.zeros_like(self._slots)
        self._sample_candidates()
        return self._observe(), {"log_p": 0.0, "log_p_step": 0.0}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Place the next slot.

        Raises:
            ValueError: for an action outside the action space, or a reward that is not finite.
            RuntimeError: before the first reset, and after the last slot.
        """
        if self._placed == len(self._slots):
            raise RuntimeError("call reset() first")
        samples, row = self._select(action)
        log_p = float(samples.log_p[row])
        self._slots[self._placed] = torch.cat([samples.z_m[row], samples.z_c[row]])
        self._state, self._log_p = samples.state, self._log_p + log_p
        self._placed += 1
        terminated = self._placed == len(self._slots)
        if not terminated:
            self._sample_candidates()
        reward = evaluate_reward(self._reward, self.scene) if terminated else 0.0
        info = {"log_p": self._log_p, "log_p_step": log_p}
        return self._observe(), reward, terminated, False, info

    @property
    def scene(self) -> ComposedScene:
        """The scene; slots not placed yet are 0."""
        decoded = self.encoder.decode(self._slots[None])
        image = decoded.image[0].clamp(0, 1)
        return ComposedScene(
            self._slots.clone(), image, decoded.log_pi[0], self._log_p, self.encoder
        )

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Render the placed slots, (S, S, 3); S is the model's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() returns None without render_mode='rgb_array'")
            return None
        return self._draw()

    def _select(self, action: Any) -> tuple[NextSlot, int]:
        """Return samples of the next slot, and the row that the action selects."""
        space, array = self.action_space, np.asarray(action)
        if isinstance(space, spaces.Discrete):
            if array.dtype.kind in "iu" and array.shape == () and 0 <= array < space.n:
                return self._candidates, int(array)
        elif array.dtype.kind in "iuf" and array.shape == space.shape:
            noise = array.astype(np.float32)
            if space.contains(noise):
                return self._next(noise[None]), 0
        raise ValueError(f"action must be in {space}, got {action!r}.")

    def _sample_candidates(self) -> None:
        if isinstance(self.action_space, spaces.Discrete):
            shape = (int(self.action_space.n), self._slots.shape[1])
            self._candidates = self._next(self.np_random.standard_normal(shape, np.float32))

    @torch.inference_mode()
    def _next(self, noise: npt.NDArray[np.float32]) -> NextSlot:
        """Sample the next slot by given noise, (N, D_m + D_c)."""
        eps = torch.from_numpy(noise * np.float32(self.temperature)).to(self.encoder.device)
        previous = self._slots[self._placed - 1][None] if self._placed else None
        d_m = self.encoder.latent_sizes[0]
        samples = self._builder.next_slot(Noise(eps[:, :d_m], eps[:, d_m:]), previous, self._state)
        if not bool(samples.log_p.isfinite().all()):
            raise ValueError("encoder must sample finite latents, got NaN or infinity.")
        return samples

    def _observe(self) -> Observation:
        placed = np.arange(len(self._slots)) < self._placed
        observation: Observation = {
            "slots": _host(self._slots),
            "placed": placed.astype(np.float32),
        }
        if self.control == "choose":
            done = bool(placed.all())
            both = torch.cat([self._candidates.z_m, self._candidates.z_c], 1)
            observation["candidates"] = _host(torch.zeros_like(both) if done else both)
        if self._image:
            observation["image"] = self._draw()
        return observation

    def _draw(self) -> npt.NDArray[np.uint8]:
        scene, count = self.encoder.decode(self._slots[None]), self._placed
        log_pi, colours = scene.log_pi[0, :count], scene.mu_x[0, :count]
        if not self.encoder.latent_sizes[0]:  # competing masks: normalise over the placed slots
            log_pi = log_pi.log_softmax(0)
        pi = log_pi.exp()
        return visualization.over_checkerboard((pi * colours).sum(0), pi.sum(0).clamp(0, 1))


def _host(values: Tensor) -> npt.NDArray[np.float32]:
    """Return a copy on the CPU."""
    array: npt.NDArray[np.float32] = values.cpu().numpy().copy()
    return array
