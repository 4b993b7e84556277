"""The engine: N imagined scenes at once, each as it would be alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genesis_rl.imagination import randomness
from genesis_rl.imagination.options import DreamOptions
from genesis_rl.imagination.starts import recorded_starts
from genesis_rl.perception import SlotEncoder
from genesis_rl.slots import check_shape
from genesis_rl.world_model import WorldModel

# What a scene's random numbers are for.
_CHOICES, _NOISE, _POOL = 0, 1, 2


class DreamStep(NamedTuple):
    """What a step of n scenes brought; all (n,).

    Attributes:
        reward: expected reward less the penalty for uncertainty, float32.
        terminated: the episode has ended, bool.
        truncated: it is cut, by the horizon or for one of the two reasons below, bool.
        uncertainty: the world model's, float32.
        uncertain: it was above ``max_uncertainty``, bool.
        non_finite: the world model predicted what is no number; the scene stayed as it was, bool.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    uncertainty: Tensor
    uncertain: Tensor
    non_finite: Tensor


class Dream:
    """N scenes in the latent space of a scene model, moved by a world model.

    What a scene draws depends on its seed, its episode and its step alone: N scenes in a batch are
    the same as N single ones (as far as PyTorch's sums are), and on a CPU the same seed gives the
    same dream, bit for bit.

    Attributes:
        encoder: the frozen scene model.
        world: the world model.
        options: how scenes are dreamt.
        num_envs: N.
        features: (N, K, D), the scenes as they are; observations follow from them.
        from_prior: (N,) bool, which of the episodes started in a scene from the prior.
        device: of all tensors.
    """

    def __init__(
        self,
        encoder: SlotEncoder,
        world: WorldModel,
        options: DreamOptions | None = None,
        *,
        num_envs: int = 1,
    ) -> None:
        """Take the models; every scene is to be seeded, then reset, before it is stepped.

        Args:
            encoder: the frozen scene model.
            world: trained on its slots, on the same device.
            options: how scenes are dreamt.
            num_envs: N.

        Raises:
            ValueError: if the models do not fit each other, the scene model has no prior to start
                from, or a recording cannot be used.
        """
        self.encoder, self.world = encoder, world
        self.options = options or DreamOptions()
        self.num_envs, self.device = num_envs, encoder.device
        if encoder.fingerprint != world.encoder_fingerprint:
            raise ValueError(
                f"the world model knows the slots of the encoder {world.encoder_fingerprint[:12]}"
                f"..., not of {encoder.fingerprint[:12]}...; wanted the encoder that it was"
                " trained with."
            )
        made = (encoder.num_slots, encoder.latent_sizes)
        if (world.form.num_slots, world.form.latent_sizes) != made:
            raise ValueError(
                f"world_model must have num_slots {made[0]} and latent_sizes {made[1]} as its "
                f"encoder, got {world.form.num_slots} and {world.form.latent_sizes}; restore its "
                "config.json."
            )
        if self.options.start != "data" and not encoder.has_prior:
            raise ValueError(
                f"start is {self.options.start!r}, but {encoder.name} has no prior that draws"
                " scenes slot by slot; wanted start='data' (with data, a recording), which works"
                " with every model."
            )
        self._recorded: Tensor | None = None
        if self.options.data is not None:
            self._recorded = recorded_starts(self.options, encoder, world).to(self.device)
        self._pool: Tensor | None = None
        if self.options.start != "data" and self.options.prior_scenes is not None:
            numbers = torch.arange(self.options.prior_scenes, device=self.device)
            self._pool = self._novel(randomness.make_keys(numbers, torch.full_like(numbers, _POOL)))
        n = num_envs
        self.features = torch.zeros(
            n, world.form.num_slots, world.form.num_features, device=self.device
        )
        self.from_prior = torch.zeros(n, dtype=torch.bool, device=self.device)
        self._seeds, self._episodes, self._steps, self._heads = torch.zeros(
            4, n, dtype=torch.int64, device=self.device
        )

    def seed(self, rows: Tensor, seeds: Sequence[int]) -> None:
        """Restart the randomness of scenes.

        Args:
            rows: (n,) int64, which scenes.
            seeds: n whole numbers >= 0.
        """
        words = [np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] for seed in seeds]
        self._seeds[rows] = torch.from_numpy(np.array(words).view(np.int64)).to(self.device)
        self._episodes[rows] = 0

    @torch.inference_mode()
    def reset(self, rows: Tensor, slots: Tensor | None = None) -> None:
        """Start new episodes.

        Args:
            rows: (n,) int64, the scenes to start, at least one.
            slots: (n, K, D), where to start, in place of what the options say.

        Raises:
            ValueError: if slots are of another form or not finite.
        """
        self._episodes[rows] += 1
        self._steps[rows] = 0
        choices = randomness.bits(self._keys(rows, _CHOICES), 4)
        self._heads[rows] = randomness.below(choices[:, 0], self.world.config.ensemble)
        if slots is not None:
            check_shape(slots, (len(rows), *self.features.shape[1:]), "slots")
            if not bool(slots.isfinite().all()):
                raise ValueError("slots has values that are not finite; wanted numbers.")
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
    def step(self, rows: Tensor, actions: Tensor) -> DreamStep:
        """Move scenes on.

        Args:
            rows: (n,) int64, which.
            actions: (n,) int64 or (n, A) float32.

        Raises:
            ValueError: for actions of another space.
        """
        options = self.options
        self._steps[rows] += 1
        before = self.features[rows]
        noise = randomness.normal(self._keys(rows, _NOISE), before[0].numel()).view_as(before)
        ahead = self.world.step(
            before,
            actions,
            noise=options.model_temperature * noise,
            head=self._heads[rows] if options.ensemble == "head" else None,
        )
        single = torch.stack([ahead.reward, ahead.terminated, ahead.uncertainty], 1)
        lost = ~(ahead.features.flatten(1).isfinite().all(1) & single.isfinite().all(1))
        self.features[rows] = torch.where(lost[:, None, None], before, ahead.features)
        reward, end, uncertainty = torch.where(lost[:, None], 0, single).unbind(1)
        if options.termination == "sample":
            drawn = randomness.uniform(randomness.bits(self._keys(rows, _CHOICES), 1)[:, 0])
            terminated = drawn < end
        else:
            terminated = end > 0.5
        uncertain = torch.zeros_like(lost)
        if options.max_uncertainty is not None:
            uncertain = uncertainty > options.max_uncertainty
        return DreamStep(
            reward - options.uncertainty_penalty * uncertainty,
            terminated,
            (self._steps[rows] >= options.horizon) | uncertain | lost,
            uncertainty,
            uncertain,
            lost,
        )

    def _novel(self, keys: Tensor) -> Tensor:
        """Draw a scene from the prior for each of the keys."""
        form = self.world.form
        shape = len(keys), form.num_slots, sum(form.latent_sizes)
        noise = randomness.normal(keys, shape[1] * shape[2]).view(shape)
        return self.encoder.sample(
            self.options.temperature * noise, mask_geometry=form.mask_geometry
        )

    def _keys(self, rows: Tensor, purpose: int) -> Tensor:
        """Keys of the scenes' random numbers at their present step."""
        parts = self._seeds[rows], self._episodes[rows], self._steps[rows]
        return randomness.make_keys(*parts, torch.full_like(rows, purpose))
