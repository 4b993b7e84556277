"""The prior as a builder: scenes that an agent composes slot by slot."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from genesis_rl import visualize
from genesis_rl.checks import LARGEST, check_range
from genesis_rl.envs.compose_rewards import ComposedScene, SceneReward, evaluate, find_reward
from genesis_rl.models.base import LstmState, Noise
from genesis_rl.models.prior import NextSlot, SceneBuilder
from genesis_rl.perception import EncoderLike, as_encoder

Control = Literal["choose", "steer"]
Observation = dict[str, npt.NDArray[Any]]


class ComposeEnv(gym.Env[Any, Any]):
    """A scene that grows by one slot a step, each drawn from p(z_k | z_<k); K steps an episode.

    Actions: with control "choose" the number of a candidate, Discrete(M); with "steer" the noise
    that the next slot is drawn with, Box(-bound, bound, (D_m + D_c,), float32): 0 is the mode of
    the mask latents and, given them, of the component latents.

    Observations: a Dict of float32 arrays: ``slots`` (K, D_m + D_c), those so far, the others 0;
    ``placed`` (K,), 1 for those so far; with "choose" ``candidates`` (M, D_m + D_c) for the next,
    0 when none is left. By option ``image`` (S, S, 3) uint8, what `render` draws.

    Rewards: 0, and at the end what the reward function says of the scene.

    Info: ``log_p_step``, the log density under the prior, given those before, of the slot just
    placed, in nats, and ``log_p``, that of all so far. It is that of the prior as it was trained,
    whatever the temperature is.

    The scene so far is drawn over a checkerboard where no slot has taken a pixel yet; the last slot
    takes all that is left. In GENESIS-V2 slots compete for pixels, and those so far share all.

    The same seed gives the same candidates, bit for bit on a CPU.

    Example:
        >>> env = gym.make(
        ...     "genesis_rl/Compose-v0",
        ...     model="runs/eyes",
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
        model: EncoderLike,
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
        """Load the model and find the reward.

        Args:
            model: scene model with an autoregressive prior: path, hub id, or a SlotEncoder (also
                its ``spec``).
            reward: what a finished scene is worth: a callable that takes a `ComposedScene`;
                "objects", "goal" or "probe"; or "module:name"; see `find_reward`.
            reward_options: its options: ``number`` of objects, ``goal`` image, folder ``probe``
                and its ``answer``.
            control: "choose" among candidates, or "steer" the noise.
            candidates: M, at least 2.
            bound: largest size of a steered noise, in the prior's standard deviations.
            temperature: factor on the noise, chosen or steered.
            image: observe the frame so far, too.
            device: where the model runs; "auto" is CUDA if there is one.
            render_mode: "rgb_array" or None.

        Raises:
            TypeError: if the model or the reward is of no known kind.
            ValueError: for another bad value, or a model without such a prior.
        """
        if control not in get_args(Control):
            raise ValueError(f"control is {control!r}; wanted one of {get_args(Control)}.")
        if control == "choose" and candidates < 2:
            raise ValueError(f"candidates is {candidates}; wanted at least 2 to choose from.")
        if control == "choose":
            check_range("candidates", candidates, 2, LARGEST["candidates"])
        for name, value in (("bound", bound), ("temperature", temperature)):
            if not (value > 0 and np.isfinite(value)):
                raise ValueError(f"{name} is {value}; wanted a finite value > 0.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; wanted 'rgb_array' or None.")
        self._reward = find_reward(reward, reward_options)
        self.encoder = as_encoder(model, device=device)
        if not self.encoder.has_prior:
            raise ValueError(
                f"model is a {self.encoder.name}, which draws no slot given those before; wanted a "
                "model with such a prior: genesis, genesis_s or genesis_v2."
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
        self._placed = k  # as at the end of an episode: there is none yet
        self._slots = torch.zeros(k, width, device=self.encoder.device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with an empty scene.

        Args:
            seed: restarts the randomness.
            options: not used.

        Raises:
            ValueError: if the model's latents are not finite: the weights are broken.
        """
        super().reset(seed=seed, options=options)
        self._placed, self._log_p = 0, 0.0
        self._state: LstmState | None = None
        self._slots = torch.zeros_like(self._slots)
        self._draw_candidates()
        return self._observe(), {"log_p": 0.0, "log_p_step": 0.0}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Place the next slot.

        Raises:
            ValueError: for an action of another space, or a reward that is no finite number.
            RuntimeError: before the first reset, and after the last slot.
        """
        if self._placed == len(self._slots):
            raise RuntimeError("call reset() first")
        drawn, row = self._act(action)
        log_p = float(drawn.log_p[row])
        self._slots[self._placed] = torch.cat([drawn.z_m[row], drawn.z_c[row]])
        self._state, self._log_p = drawn.state, self._log_p + log_p
        self._placed += 1
        ends = self._placed == len(self._slots)
        if not ends:
            self._draw_candidates()
        reward = evaluate(self._reward, self.scene) if ends else 0.0
        info = {"log_p": self._log_p, "log_p_step": log_p}
        return self._observe(), reward, ends, False, info

    @property
    def scene(self) -> ComposedScene:
        """The scene, slots yet to come 0."""
        decoded = self.encoder.decode(self._slots[None])
        image = decoded.image[0].clamp(0, 1)
        return ComposedScene(
            self._slots.clone(), image, decoded.log_pi[0], self._log_p, self.encoder
        )

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the scene so far, (S, S, 3), S the model's image size."""
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing: pass render_mode='rgb_array' to gym.make")
            return None
        return self._draw()

    def _act(self, action: Any) -> tuple[NextSlot, int]:
        """The slots that an action may stand for, and which of them it means."""
        space, given = self.action_space, np.asarray(action)
        if isinstance(space, spaces.Discrete):
            if given.dtype.kind in "iu" and given.shape == () and 0 <= given < space.n:
                return self._candidates, int(given)
        elif given.dtype.kind in "iuf" and given.shape == space.shape:
            noise = given.astype(np.float32)
            if space.contains(noise):
                return self._next(noise[None]), 0
        raise ValueError(f"action must be of {space}, got {action!r}")

    def _draw_candidates(self) -> None:
        if isinstance(self.action_space, spaces.Discrete):
            shape = (int(self.action_space.n), self._slots.shape[1])
            self._candidates = self._next(self.np_random.standard_normal(shape, np.float32))

    @torch.inference_mode()
    def _next(self, noise: npt.NDArray[np.float32]) -> NextSlot:
        """Draw slots for the next place with given noise, (N, D_m + D_c)."""
        eps = torch.from_numpy(noise * np.float32(self.temperature)).to(self.encoder.device)
        previous = self._slots[self._placed - 1][None] if self._placed else None
        d_m = self.encoder.latent_sizes[0]
        drawn = self._builder.next_slot(Noise(eps[:, :d_m], eps[:, d_m:]), previous, self._state)
        if not bool(drawn.log_p.isfinite().all()):
            raise ValueError(
                "the model's latents are not finite; wanted weights of a sound training."
            )
        return drawn

    def _observe(self) -> Observation:
        placed = np.arange(len(self._slots)) < self._placed
        observation: Observation = {
            "slots": _host(self._slots),
            "placed": placed.astype(np.float32),
        }
        if self.control == "choose":
            ended = bool(placed.all())
            both = torch.cat([self._candidates.z_m, self._candidates.z_c], 1)
            observation["candidates"] = _host(torch.zeros_like(both) if ended else both)
        if self._image:
            observation["image"] = self._draw()
        return observation

    def _draw(self) -> npt.NDArray[np.uint8]:
        scene, count = self.encoder.decode(self._slots[None]), self._placed
        log_pi, colours = scene.log_pi[0, :count], scene.mu_x[0, :count]
        if not self.encoder.latent_sizes[0]:  # masks compete: of those that are there
            log_pi = log_pi.log_softmax(0)
        pi = log_pi.exp()
        return visualize.over_checkerboard((pi * colours).sum(0), pi.sum(0).clamp(0, 1))


def _host(values: Tensor) -> npt.NDArray[np.float32]:
    """A copy on the host."""
    array: npt.NDArray[np.float32] = values.cpu().numpy().copy()
    return array
