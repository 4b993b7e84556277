"""Imagined scenes: their options and batched simulation, independent of the batch size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genesis_rl.data.cache import Split
from genesis_rl.data.transitions import Transitions
from genesis_rl.envs.imagination import randomness
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.slots import check_shape
from genesis_rl.utils.checks import Count, NonNegative, Positive, Share, check_fields
from genesis_rl.world_model import ActionSpec, WorldModel
from genesis_rl.world_model.sequences import encode

Start = Literal["prior", "data", "mixture"]
DataFrames = Literal["first", "all"]
Ensemble = Literal["head", "mean"]
Termination = Literal["sample", "threshold"]
# Streams of a scene's random numbers.
_CHOICES, _NOISE, _POOL = 0, 1, 2


@dataclass(frozen=True)
class ImaginationOptions:
    """Options of imagined rollouts: initial scenes, noise, termination and truncation."""

    start: Start = "prior"
    """initial scenes: samples of the encoder's prior (prior), recorded frames (data), or both
    (mixture)"""
    prior_share: Share = 0.5
    """probability of a sample of the prior in a mixture"""
    data: str | None = None
    """folder of a recording (envs/collect.py), for data and mixture"""
    data_split: Split = "train"
    """split of the recording"""
    data_frames: DataFrames = "first"
    """recorded frames: the first of each episode, or all except the last"""
    prior_scenes: Count | None = None
    """size of a fixed pool of prior samples, the same for all seeds; None: a new sample per
    episode, whose mask decoding may take longer than the episode"""
    temperature: Positive = 1.0
    """factor on the prior's standard deviations; lower values give more probable scenes"""
    model_temperature: Positive = 1.0
    """factor on the world model's standard deviations; policies exploit errors of the model more
    easily at low temperatures"""
    ensemble: Ensemble = "head"
    """predictions of one head of the ensemble, sampled per episode, or of their mean"""
    termination: Termination = "sample"
    """sample the termination, or terminate at a probability above 0.5"""
    horizon: Count = 100
    """steps after which an episode is truncated"""
    max_uncertainty: Positive | None = None
    """uncertainty of the world model above which an episode is truncated"""
    uncertainty_penalty: NonNegative = 0.0
    """factor on the uncertainty that is subtracted from the reward"""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if (self.start == "prior") != (self.data is None):
            expected = "None" if self.start == "prior" else "a recording"
            raise ValueError(f"data must be {expected} for start {self.start!r}, got {self.data}.")


def recorded_starts(options: ImaginationOptions, encoder: SlotEncoder, world: WorldModel) -> Tensor:
    """Return the initial scenes of a recording.

    The slots of the recording are cached, as for the training of world models.

    Args:
        options: ``data``, ``data_split`` and ``data_frames``.
        encoder: the encoder.
        world: the world model, which defines the features of slots.

    Returns:
        (M, K, D) float32 on the CPU.

    Raises:
        ValueError: if the recording has no steps, its action space is not the world model's, or
            its frames do not match the encoder.
    """
    recording = Transitions.open(Path(str(options.data)), options.data_split)
    spec = ActionSpec.from_json(recording.action_space)
    if spec != world.action_spec:
        raise ValueError(
            f"data must have the world model's action space, {world.action_spec.to_json()}, got "
            f"{recording.pack.folder} with {spec.to_json()}."
        )
    is_last = np.zeros(len(recording.first), np.bool_)
    is_last[recording.episodes[:, 1]] = True
    selected = (recording.first if options.data_frames == "first" else ~is_last) & ~is_last
    if not selected.any():
        raise ValueError(f"data must contain steps, got none in {recording.pack.folder}.")
    features = encode(recording, encoder, align=world.slot_spec.aligned)[selected]
    return torch.from_numpy(features[..., : world.slot_spec.num_features].copy())


class ImaginedStep(NamedTuple):
    """Result of a step of n scenes; all (n,).

    Attributes:
        reward: expected reward minus the uncertainty penalty, float32.
        terminated: whether the episode is terminated, bool.
        truncated: whether it is truncated, by the horizon, ``uncertain`` or ``non_finite``, bool.
        uncertainty: ensemble standard deviation of the world model, float32.
        uncertain: whether the uncertainty is above ``max_uncertainty``, bool.
        non_finite: whether the prediction is not finite, which leaves the scene unchanged, bool.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    uncertainty: Tensor
    uncertain: Tensor
    non_finite: Tensor


class ImaginedScenes:
    """N imagined scenes in the latent space of an encoder, with the dynamics of a world model.

    The random numbers of a scene depend only on its seed, episode and step. N scenes in a batch
    therefore equal N single ones up to rounding, and on a CPU the same seed gives bit-identical
    rollouts.

    Attributes:
        encoder: the frozen encoder.
        world: the world model.
        options: the options.
        n_envs: N.
        features: (N, K, D), slots of the current scenes.
        from_prior: (N,) bool, whether the episode's initial scene is a sample of the prior.
        device: device of all tensors.
    """

    def __init__(
        self,
        encoder: SlotEncoder,
        world: WorldModel,
        options: ImaginationOptions | None = None,
        *,
        n_envs: int = 1,
    ) -> None:
        """Create the scenes; call `seed` and `reset` before the first `step`.

        Args:
            encoder: the frozen encoder.
            world: world model of the encoder's slots, on the same device.
            options: the options.
            n_envs: N.

        Raises:
            ValueError: if the models do not match, the encoder has no prior to start from, or the
                recording is invalid.
        """
        self.encoder, self.world = encoder, world
        self.options = options or ImaginationOptions()
        self.n_envs, self.device = n_envs, encoder.device
        if encoder.fingerprint != world.encoder_fingerprint:
            raise ValueError(
                "encoder must be the one of the world model's training, with fingerprint "
                f"{world.encoder_fingerprint[:12]}, got {encoder.fingerprint[:12]}."
            )
        sizes, spec = (encoder.num_slots, encoder.latent_sizes), world.slot_spec
        if (spec.num_slots, spec.latent_sizes) != sizes:
            raise ValueError(
                f"world_model must have num_slots {sizes[0]} and latent_sizes {sizes[1]} as its "
                f"encoder, got {spec.num_slots} and {spec.latent_sizes}; restore its config.json."
            )
        if self.options.start != "data" and not encoder.has_prior:
            raise ValueError(
                f"start must be 'data' for {encoder.name}, which has no autoregressive prior, got "
                f"{self.options.start!r}."
            )
        self._recorded: Tensor | None = None
        if self.options.data is not None:
            self._recorded = recorded_starts(self.options, encoder, world).to(self.device)
        self._pool: Tensor | None = None
        if self.options.start != "data" and self.options.prior_scenes is not None:
            numbers = torch.arange(self.options.prior_scenes, device=self.device)
            self._pool = self._novel(randomness.make_keys(numbers, torch.full_like(numbers, _POOL)))
        n = n_envs
        self.features = torch.zeros(n, spec.num_slots, spec.num_features, device=self.device)
        self.from_prior = torch.zeros(n, dtype=torch.bool, device=self.device)
        self._seeds, self._episodes, self._steps, self._heads = torch.zeros(
            4, n, dtype=torch.int64, device=self.device
        )

    def seed(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """Seed the random numbers of scenes.

        Args:
            rows: (n,) int64, indices of the scenes.
            seeds: n integers >= 0.
        """
        words = [np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] for seed in seeds]
        self._seeds[rows] = torch.from_numpy(np.array(words).view(np.int64)).to(self.device)
        self._episodes[rows] = 0

    @torch.inference_mode()
    def reset(self, rows: Tensor, slots: Tensor | None = None) -> None:
        """Start new episodes.

        Args:
            rows: (n,) int64, indices of the scenes, at least one.
            slots: (n, K, D), initial scenes, instead of those of the options.

        Raises:
            ValueError: if ``slots`` has another shape or is not finite.
        """
        self._episodes[rows] += 1
        self._steps[rows] = 0
        choices = randomness.bits(self._keys(rows, _CHOICES), 4)
        self._heads[rows] = randomness.below(choices[:, 0], self.world.config.ensemble)
        if slots is not None:
            check_shape(slots, (len(rows), *self.features.shape[1:]), "slots")
            if not bool(slots.isfinite().all()):
                raise ValueError("slots must be finite, got NaN or inf.")
            self.features[rows] = slots.to(self.features)
            self.from_prior[rows] = False
            return
        share = {"prior": 1.0, "data": 0.0, "mixture": self.options.prior_share}
        novel = randomness.uniform(choices[:, 1]) < share[self.options.start]
        self.from_prior[rows] = novel
        if self._pool is not None:
            pick = randomness.below(choices[:, 3], len(self._pool))
            self.features[rows[novel]] = self._pool[pick[novel]]
        elif bool(novel.any()):
            self.features[rows[novel]] = self._novel(self._keys(rows[novel], _NOISE))
        if self._recorded is not None:
            pick = randomness.below(choices[:, 2], len(self._recorded))
            self.features[rows[~novel]] = self._recorded[pick[~novel]]

    @torch.inference_mode()
    def step(self, rows: Tensor, actions: Tensor) -> ImaginedStep:
        """Step scenes.

        Args:
            rows: (n,) int64, indices of the scenes.
            actions: (n,) int64 or (n, A) float32.

        Raises:
            ValueError: for actions of another space.
        """
        options = self.options
        self._steps[rows] += 1
        before = self.features[rows]
        noise = randomness.normal(self._keys(rows, _NOISE), before[0].numel()).view_as(before)
        prediction = self.world.step(
            before,
            actions,
            noise=options.model_temperature * noise,
            head=self._heads[rows] if options.ensemble == "head" else None,
        )
        after = prediction.features
        scalars = torch.stack([prediction.reward, prediction.terminated, prediction.uncertainty], 1)
        non_finite = ~(after.flatten(1).isfinite().all(1) & scalars.isfinite().all(1))
        self.features[rows] = torch.where(non_finite[:, None, None], before, after)
        reward, probability, uncertainty = torch.where(non_finite[:, None], 0, scalars).unbind(1)
        if options.termination == "sample":
            sample = randomness.uniform(randomness.bits(self._keys(rows, _CHOICES), 1)[:, 0])
            terminated = sample < probability
        else:
            terminated = probability > 0.5
        uncertain = torch.zeros_like(non_finite)
        if options.max_uncertainty is not None:
            uncertain = uncertainty > options.max_uncertainty
        return ImaginedStep(
            reward - options.uncertainty_penalty * uncertainty,
            terminated,
            (self._steps[rows] >= options.horizon) | uncertain | non_finite,
            uncertainty,
            uncertain,
            non_finite,
        )

    def _novel(self, keys: Tensor) -> Tensor:
        """Sample a scene of the prior for each key."""
        spec = self.world.slot_spec
        shape = len(keys), spec.num_slots, sum(spec.latent_sizes)
        noise = randomness.normal(keys, shape[1] * shape[2]).view(shape)
        return self.encoder.sample(
            self.options.temperature * noise, mask_geometry=spec.mask_geometry
        )

    def _keys(self, rows: Tensor, purpose: int) -> Tensor:
        """Return the keys of the scenes' random numbers at their current step."""
        parts = self._seeds[rows], self._episodes[rows], self._steps[rows]
        return randomness.make_keys(*parts, torch.full_like(rows, purpose))


# 64-bit constants as signed integers, because PyTorch has no unsigned arithmetic; it wraps around.
