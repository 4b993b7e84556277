"""Scene composition environment: an agent builds a scene from the prior, slot by slot."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from genesis_rl import visualization
from genesis_rl.envs.compose.rewards import ComposedScene, SceneReward, evaluate_reward, find_reward
from genesis_rl.models.base import LstmState
from genesis_rl.models.prior import NextSlot, SceneBuilder
from genesis_rl.perception.encoder import EncoderLike, as_encoder
from genesis_rl.slots import Noise
from genesis_rl.utils.checks import LARGEST, check_range

Control = Literal["choose", "steer"]
Observation = dict[str, npt.NDArray[Any]]


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
