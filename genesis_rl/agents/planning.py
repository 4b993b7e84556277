"""Planning with a world model: model-predictive control by the cross-entropy method (iCEM)."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genesis_rl.envs.imagination import randomness
from genesis_rl.slots import check_shape
from genesis_rl.utils.checks import (
    Count,
    NonNegative,
    PartialShare,
    PositiveShare,
    Share,
    check_fields,
)
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.evaluation import open_loop

# Weight of the uniform distribution in a fit to discrete actions, and smallest standard deviation
# relative to the initial one, so that a distribution never collapses to a point.
_UNIFORM, _MIN_STD = 0.04, 0.05


@dataclass(frozen=True, kw_only=True)
class PlannerOptions:
    """Options of the cross-entropy method; the names in brackets are those of iCEM."""

    horizon: Count = 8
    """planned steps"""
    samples: Count = 256
    """action sequences per iteration (N)"""
    iterations: Count = 3
    """iterations per action"""
    elites: Count = 32
    """best sequences, to which the distribution is fitted (K); at most samples"""
    kept_share: Share = 0.3
    """share of the elites that are evaluated again in the next iteration and, shifted by a step,
    at the next action (xi)"""
    noise_beta: NonNegative = 2.0
    """exponent of the noise's power spectrum over the steps (beta): 0 is white noise, higher values
    repeat actions more often"""
    momentum: PartialShare = 0.1
    """weight of the previous distribution in a fit (alpha)"""
    gamma: PositiveShare = 0.95
    """discount factor of predicted rewards"""
    uncertainty_penalty: NonNegative = 0.0
    """coefficient of the uncertainty, which is subtracted from predicted rewards"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if self.elites > self.samples:
            raise ValueError(f"elites must be at most samples, {self.samples}, got {self.elites}.")

    @property
    def kept(self) -> int:
        """Number of kept elites."""
        return round(self.kept_share * self.elites)


class Plan(NamedTuple):
    """The plans of B environments, which `Planner.predict` carries between steps.

    Attributes:
        parameters: (B, H, P), distribution of the actions at each step: the probabilities of P
            discrete actions, or the means and standard deviations of P / 2 components of a box.
        kept: (B, kept, H) int64 or (B, kept, H, A) float32, the best sequences, best first.
        steps: (B,) int64, steps since the start of the episode.
    """

    parameters: Tensor
    kept: Tensor
    steps: Tensor


class Planner:
    """Model-predictive control with a world model: at each step, plan and execute the first action.

    The plan maximises the discounted sum of predicted rewards, each weighted by the probability
    that the episode has not terminated before, in rollouts of the ensemble's mean. It is optimised
    by the cross-entropy method with the improvements of iCEM (Pinneri et al., CoRL 2020,
    arXiv:2008.06389): coloured noise, and elites that are kept between iterations and, shifted by
    a step, between actions. Actions of a box are Gaussian. Discrete actions are categorical, with
    coloured Gumbel noise, so that actions are correlated over time.

    It implements `genesis_rl.agents.evaluation.Policy`. The random numbers of an environment depend
    only on the seed and the step of its episode, so plans do not depend on the batch.

    Attributes:
        world_model: the world model.
        options: the options.
        seconds: total wall-clock time of all predictions.
        actions: number of all predicted actions.
    """

    def __init__(
        self, world_model: WorldModel, options: PlannerOptions | None = None, *, seed: int = 0
    ) -> None:
        """Create the planner.

        Args:
            world_model: world model in eval mode.
            options: the options; None for the defaults.
            seed: seed of the sampled actions, in 0..2**63 - 1.
        """
        self.world_model = world_model
        self.options = options or PlannerOptions()
        self.seconds, self.actions = 0.0, 0
        self._seed = seed
        self._device = world_model.change_scale.device
        self._sampler = _SAMPLERS[world_model.action_spec.kind](
            world_model.action_spec, self._device
        )
        self._filter = coloured_filter(self.options.horizon, self.options.noise_beta).to(
            self._device
        )

    @torch.inference_mode()
    def predict(
        self,
        observation: Any,
        state: Plan | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Plan]:
        """Plan, and return the first action of the best sequence and the plan.

        Args:
            observation: (B, K, D), slots in the world model's form.
            state: the previous plan; None at the start.
            episode_start: (B,), whether an observation is the first of an episode; None for none.
            deterministic: ignored; the action depends only on the seed and the arguments.

        Returns:
            Actions, (B,) int64 or (B, A) float32, and the plan.

        Raises:
            ValueError: if the observations are not those of the world model, or the previous plan
                is of another number of environments.
        """
        began = time.perf_counter()
        features = torch.as_tensor(np.asarray(observation, np.float32)).to(self._device)
        spec, options = self.world_model.slot_spec, self.options
        check_shape(features, (None, spec.num_slots, spec.num_features), "observation")
        start, fresh = self._start(state, episode_start, len(features))
        parameters, kept, steps = start
        for iteration in range(options.iterations):
            noise = self._noise(steps, iteration)
            sequences = self._sampler.sample(parameters, noise)
            usable = torch.full_like(fresh, iteration > 0) | ~fresh
            mask = usable.view(-1, *[1] * (sequences.ndim - 1))
            count = kept.shape[1]
            sequences[:, :count] = torch.where(mask, kept, sequences[:, :count])
            best = self.returns(features, sequences).topk(options.elites, dim=1).indices
            elites = sequences[torch.arange(len(features), device=self._device)[:, None], best]
            fitted = self._sampler.fit(elites)
            parameters = torch.lerp(fitted, parameters, options.momentum)
            kept = elites[:, :count]
        actions: npt.NDArray[Any] = elites[:, 0, 0].cpu().numpy()
        self.seconds += time.perf_counter() - began
        self.actions += len(actions)
        return actions, Plan(parameters, kept, steps)

    def returns(self, features: Tensor, sequences: Tensor) -> Tensor:
        """Compute the predicted returns of action sequences.

        Args:
            features: (B, K, D), slots.
            sequences: (B, N, H) int64 or (B, N, H, A) float32, actions.

        Returns:
            (B, N), sums of gamma^t p_t r_t, with the expected reward r_t minus the uncertainty
            penalty, and the probability p_t that the episode has not terminated before step t; -inf
            for predictions that are not finite.
        """
        b, n, horizon = sequences.shape[:3]
        rollout = open_loop(
            self.world_model, features.repeat_interleave(n, 0), sequences.flatten(0, 1)
        )
        alive = (1 - rollout.terminated).cumprod(1).roll(1, 1)
        alive[:, 0] = 1
        discount = self.options.gamma ** torch.arange(horizon, device=features.device)
        reward = rollout.reward - self.options.uncertainty_penalty * rollout.uncertainty
        values = (discount * alive * reward).sum(1)
        return torch.where(values.isfinite(), values, -torch.inf).view(b, n)

    def _start(self, plan: Plan | None, first: Any, b: int) -> tuple[Plan, Tensor]:
        """Return the plans at the start of a step, and which of them are new, (B,) bool."""
        options, sampler = self.options, self._sampler
        initial = sampler.initial.expand(b, options.horizon, -1)
        if plan is None:
            shape = b, options.kept, options.horizon, *sampler.action_shape
            kept = torch.zeros(shape, dtype=sampler.dtype, device=self._device)
            steps = torch.zeros(b, dtype=torch.int64, device=self._device)
            return Plan(initial, kept, steps), torch.ones_like(steps, dtype=torch.bool)
        if len(plan.steps) != b:
            raise ValueError(f"state must be of {b} environments, got {len(plan.steps)}.")
        fresh = torch.zeros(b, dtype=torch.bool, device=self._device)
        if first is not None:
            fresh |= torch.as_tensor(np.asarray(first, np.bool_)).to(self._device)
        # The last step is planned anew; the kept sequences repeat their last action.
        shifted = torch.cat([plan.parameters[:, 1:], initial[:, -1:]], 1)
        parameters = torch.where(fresh[:, None, None], initial, sampler.widen(shifted))
        kept = torch.cat([plan.kept[:, :, 1:], plan.kept[:, :, -1:]], 2)
        return Plan(parameters, kept, torch.where(fresh, 0, plan.steps + 1)), fresh

    def _noise(self, steps: Tensor, iteration: int) -> Tensor:
        """Sample coloured noise, (B, N, H, A) with standard normal entries."""
        length, width = self._filter.shape[1], self.world_model.action_spec.width
        parts = torch.full_like(steps, self._seed), steps, torch.full_like(steps, iteration)
        samples = self.options.samples
        white = randomness.normal(randomness.make_keys(*parts), samples * length * width)
        return torch.einsum("hl,bnla->bnha", self._filter, white.view(-1, samples, length, width))


def coloured_filter(horizon: int, beta: float) -> Tensor:
    """Return the linear map (H, 2 H) from white noise to noise with power spectrum f^-beta.

    The noise is that of Timmer and Koenig (1995), as in iCEM, with a period of 2 H: its second half
    is cut off, since the end of a period is correlated with its start.
    """
    length = 2 * horizon
    frequencies = torch.fft.rfftfreq(length).clamp(min=1 / length)
    amplitudes: Tensor = frequencies ** (-beta / 2)
    kernel = torch.fft.irfft(amplitudes.to(torch.complex64), n=length)
    offsets = torch.arange(horizon)[:, None] - torch.arange(length)
    normalised: Tensor = kernel / torch.linalg.vector_norm(kernel)
    return normalised[offsets % length]


class _Categorical:
    """Sequences of discrete actions."""

    action_shape: tuple[int, ...] = ()
    dtype = torch.int64

    def __init__(self, spec: ActionSpec, device: torch.device) -> None:
        self.spec = spec
        self.initial = torch.full((spec.n,), 1 / spec.n, device=device)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Sample sequences (B, N, H) by the Gumbel-max trick, with noise (B, N, H, A)."""
        uniform = torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6)
        gumbel: Tensor = -(-uniform.log()).log()
        return (parameters.log()[:, None] + gumbel).argmax(-1) + self.spec.start

    def fit(self, elites: Tensor) -> Tensor:
        """Fit the distribution (B, H, A) to elites (B, E, H)."""
        actions = elites - self.spec.start
        shares = torch.nn.functional.one_hot(actions, self.spec.n).float().mean(1)
        return shares.lerp(self.initial.expand_as(shares), _UNIFORM)

    def widen(self, parameters: Tensor) -> Tensor:
        """Mix the plan's distribution with the initial one in equal parts."""
        return (parameters + self.initial) / 2


class _Gaussian:
    """Sequences of vectors within the bounds of a box."""

    dtype = torch.float32

    def __init__(self, spec: ActionSpec, device: torch.device) -> None:
        self.action_shape: tuple[int, ...] = (spec.width,)
        self.low, self.high = (torch.tensor(side, device=device) for side in (spec.low, spec.high))
        bounded = (self.high - self.low).isfinite()
        mean = torch.where(bounded, (self.low + self.high) / 2, 0).clamp(self.low, self.high)
        # As in iCEM, half of the distance to the bounds.
        self.std = torch.where(bounded, (self.high - self.low) / 4, 1)
        self.initial = torch.cat([mean, self.std])

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Sample sequences (B, N, H, A) with noise (B, N, H, A)."""
        mean, std = parameters[:, None].chunk(2, -1)
        return (mean + std * noise).clamp(self.low, self.high)

    def fit(self, elites: Tensor) -> Tensor:
        """Fit the distribution (B, H, 2 A) to elites (B, E, H, A)."""
        std = elites.std(1, correction=0).maximum(_MIN_STD * self.std)
        return torch.cat([elites.mean(1), std], -1)

    def widen(self, parameters: Tensor) -> Tensor:
        """Keep the plan's means, with the initial standard deviations."""
        mean = parameters.chunk(2, -1)[0]
        return torch.cat([mean, self.std.expand_as(mean)], -1)


_SAMPLERS: dict[str, type[_Categorical | _Gaussian]] = {
    "discrete": _Categorical,
    "box": _Gaussian,
}
