"""Edits of slots: replace and remove slots, set latents, interpolate scenes.

All functions return new slots and do not modify their arguments. A slot is an index from 0 to
K - 1; another one, or different shapes, raise ValueError. Models that decode the masks from the
latents ignore the edited ``log_pi``; MONet, which decodes with given masks, uses it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.slots import Decoded, Slots


def select(slots: Slots, index: Tensor | slice | list[int]) -> Slots:
    """Index the scenes of a batch as a tensor's first dimension."""
    return Slots(slots.z_m[index], slots.z_c[index], slots.log_pi[index])


def replace_slot(slots: Slots, slot: int, donor: Slots, *, donor_slot: int | None = None) -> Slots:
    """Replace a slot by a slot of other scenes.

    Latents and mask are the donor's; the masks of the other slots are rescaled:

        pi'_k = pi_donor,  pi'_j = (1 - pi_donor) pi_j / sum_{i != k} pi_i  for j != k.

    To swap slots of two scenes, replace each by the other. To resample a slot from its marginal
    prior, replace it by a slot of ``model.sample``.

    Args:
        slots: the scenes.
        slot: slot k to replace.
        donor: as many scenes, of the same widths and image size.
        donor_slot: the donor's slot; None: the same as ``slot``.
    """
    source = slot if donor_slot is None else donor_slot
    _check_slot(slots.z_m, slot, "slot")
    _check_slot(donor.z_m, source, "donor_slot")
    for name in ("z_m", "z_c", "log_pi"):
        expected, actual = getattr(slots, name)[:, 0].shape, getattr(donor, name)[:, 0].shape
        if expected != actual:
            raise ValueError(
                f"donor.{name} must have scenes of shape {tuple(expected)}, got {tuple(actual)}."
            )
    z_m, z_c, log_pi = slots.z_m.clone(), slots.z_c.clone(), slots.log_pi.clone()
    z_m[:, slot], z_c[:, slot] = donor.z_m[:, source], donor.z_c[:, source]
    new = donor.log_pi[:, source]
    # Avoid a log of 0 for the other slots where the mask is exactly 1.
    left = torch.log1p(-new.exp().clamp_max(1 - torch.finfo(new.dtype).eps))
    others = [j for j in range(log_pi.shape[1]) if j != slot]
    log_pi[:, others] = left.unsqueeze(1) + _shares(log_pi[:, others])
    log_pi[:, slot] = new
    return Slots(z_m, z_c, log_pi)


def drop_slot(decoded: Decoded, slot: int) -> Decoded:
    """Remove a slot from decoded scenes and renormalise the other masks.

        pi'_j = pi_j / sum_{i != k} pi_i  for j != k

    Slots are removed after decoding because no latent encodes that a slot is absent. The pixels of
    the slot show the other slots' components.

    Returns:
        Scenes of the other K - 1 slots in their order; a black image for K = 1.
    """
    _check_slot(decoded.mu_x, slot, "slot")
    others = [j for j in range(decoded.mu_x.shape[1]) if j != slot]
    return Decoded(decoded.mu_x[:, others], _shares(decoded.log_pi[:, others]))


def set_latent(slots: Slots, slot: int, dimension: Tensor | int, value: Tensor | float) -> Slots:
    """Set one latent of one slot.

    Args:
        slots: the scenes.
        slot: the slot.
        dimension: index of the latent in ``Slots.features``, z_m before z_c, 0 to D_m + D_c - 1;
            one for all scenes or one for each, shape (B,), int64.
        value: new value, one for all scenes or one for each, shape (B,).

    Returns:
        Slots with unchanged masks.

    Raises:
        ValueError: also if a latent does not exist.
    """
    _check_slot(slots.z_m, slot, "slot")
    features = slots.features  # a new tensor
    dimensions = torch.as_tensor(dimension, device=features.device)
    if not ((dimensions >= 0) & (dimensions < features.shape[2])).all():
        raise ValueError(f"dimension must be 0 to {features.shape[2] - 1}, got {dimension}.")
    scenes = torch.arange(len(features), device=features.device)
    features[scenes, slot, dimensions] = torch.as_tensor(value).to(features)
    width = slots.z_m.shape[2]
    return Slots(features[..., :width], features[..., width:], slots.log_pi)


def interpolate(first: Slots, second: Slots, weight: Tensor | float) -> Slots:
    """Interpolate latents and masks pi linearly: (1 - w) first + w second.

    Args:
        first: scenes, of K slots.
        second: as many scenes of the same shapes.
        weight: w in [0, 1], one for all scenes or one for each, shape (B,).

    Raises:
        ValueError: also if a weight given as a number is not in [0, 1].
    """
    if first.features.shape != second.features.shape or first.log_pi.shape != second.log_pi.shape:
        raise ValueError(
            f"second must have features {tuple(first.features.shape)} and masks "
            f"{tuple(first.log_pi.shape)}, got {tuple(second.features.shape)} and "
            f"{tuple(second.log_pi.shape)}."
        )
    if not isinstance(weight, Tensor) and not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}.")
    w = torch.as_tensor(weight, dtype=first.log_pi.dtype, device=first.log_pi.device)
    w = w.view(-1, 1, 1)
    masks = w[..., None, None]
    return Slots(
        torch.lerp(first.z_m, second.z_m, w.to(first.z_m.dtype)),
        torch.lerp(first.z_c, second.z_c, w.to(first.z_c.dtype)),
        torch.logaddexp(first.log_pi + torch.log1p(-masks), second.log_pi + masks.log()),
    )


def _shares(log_pi: Tensor) -> Tensor:
    """Normalise log masks (B, K, 1, H, W), K >= 0, over the slots."""
    # Clamping gives equal shares where all masks are 0.
    return F.log_softmax(log_pi.clamp_min(torch.finfo(log_pi.dtype).min), dim=1)


def _check_slot(values: Tensor, slot: int, name: str) -> None:
    if not 0 <= slot < values.shape[1]:
        raise ValueError(f"{name} must be 0 to {values.shape[1] - 1}, got {slot}.")
