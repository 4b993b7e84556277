"""Edits of scenes slot by slot: put slots in, take them out, turn single latents, mix scenes.

Every function returns new slots and leaves its arguments alone. Where a model draws the masks from
the latents, ``decode`` finds the masks of the edited scene anew and the ``log_pi`` made here does
not count; MONet decodes with the masks that it is given, which is what they are made for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genesis_rl.slots import Decoded, Slots


def select(slots: Slots, index: Tensor | slice | list[int]) -> Slots:
    """Take scenes of a batch, as one indexes a tensor's first dimension."""
    return Slots(slots.z_m[index], slots.z_c[index], slots.log_pi[index])


def replace_slot(slots: Slots, slot: int, donor: Slots, *, donor_slot: int | None = None) -> Slots:
    """Put a slot of other scenes in the place of one slot.

    Its latents come from the donor, and so does its mask; the other slots share what that leaves
    as they shared it before:

        pi'_k = pi_donor,  pi'_j = (1 - pi_donor) pi_j / sum_{i != k} pi_i  for j != k.

    To swap two scenes' slots is to do this twice, each with the other as the donor; to resample a
    slot is to do it with a scene from ``model.sample``, which gives the slot's marginal prior.

    Args:
        slots: the scenes, of K slots.
        slot: k, the slot that is replaced, 0 to K - 1.
        donor: as many scenes, of the same widths and image size.
        donor_slot: the donor's slot; by default the one of the same number.

    Returns:
        Slots of the same shapes.

    Raises:
        ValueError: if a slot does not exist or the shapes differ.
    """
    source = slot if donor_slot is None else donor_slot
    _check_slot(slots.z_m, slot, "slot")
    _check_slot(donor.z_m, source, "donor_slot")
    for name in ("z_m", "z_c", "log_pi"):
        mine, theirs = getattr(slots, name)[:, 0].shape, getattr(donor, name)[:, 0].shape
        if mine != theirs:
            raise ValueError(
                f"donor.{name} has scenes of shape {tuple(theirs)}; wanted {tuple(mine)}."
            )
    z_m, z_c, log_pi = slots.z_m.clone(), slots.z_c.clone(), slots.log_pi.clone()
    z_m[:, slot], z_c[:, slot] = donor.z_m[:, source], donor.z_c[:, source]
    new = donor.log_pi[:, source]
    # A mask of exactly 1 leaves the others next to nothing, not a log of 0.
    left = torch.log1p(-new.exp().clamp_max(1 - torch.finfo(new.dtype).eps))
    others = [j for j in range(log_pi.shape[1]) if j != slot]
    log_pi[:, others] = left.unsqueeze(1) + _shares(log_pi[:, others])
    log_pi[:, slot] = new
    return Slots(z_m, z_c, log_pi)


def drop_slot(decoded: Decoded, slot: int) -> Decoded:
    """Take a slot out of scenes; the others share its pixels as they share the pixel anyway.

        pi'_j = pi_j / sum_{i != k} pi_i  for j != k

    This is done after decoding: no latent says that a slot is absent. What lay behind the slot
    shows as far as the other slots have painted it.

    Args:
        decoded: the scenes, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
        slot: k, the slot that goes, 0 to K - 1.

    Returns:
        Scenes of the K - 1 slots left, in their order. Without any slot left the image is black.

    Raises:
        ValueError: if the slot does not exist.
    """
    _check_slot(decoded.mu_x, slot, "slot")
    others = [j for j in range(decoded.mu_x.shape[1]) if j != slot]
    return Decoded(decoded.mu_x[:, others], _shares(decoded.log_pi[:, others]))


def set_latent(slots: Slots, slot: int, dimension: Tensor | int, value: Tensor | float) -> Slots:
    """Set one latent of one slot.

    Args:
        slots: the scenes, of K slots.
        slot: the slot, 0 to K - 1.
        dimension: the latent as ``Slots.features`` counts them, z_m before z_c, 0 to
            D_m + D_c - 1; one for all scenes or one for each, shape (B,), int64.
        value: what it becomes, one for all scenes or one for each, shape (B,).

    Returns:
        Slots of the same shapes, their masks as they were.

    Raises:
        ValueError: if the slot or a latent does not exist.
    """
    _check_slot(slots.z_m, slot, "slot")
    features = slots.features  # a new tensor
    dimensions = torch.as_tensor(dimension, device=features.device)
    if not ((dimensions >= 0) & (dimensions < features.shape[2])).all():
        raise ValueError(f"dimension is {dimension}; wanted 0 to {features.shape[2] - 1}.")
    scenes = torch.arange(len(features), device=features.device)
    features[scenes, slot, dimensions] = torch.as_tensor(value).to(features)
    width = slots.z_m.shape[2]
    return Slots(features[..., :width], features[..., width:], slots.log_pi)


def interpolate(first: Slots, second: Slots, weight: Tensor | float) -> Slots:
    """Mix scenes slot by slot: (1 - w) first + w second, of latents and of masks pi.

    Args:
        first: scenes, of K slots.
        second: as many scenes of the same shapes.
        weight: w in [0, 1], one for all scenes or one for each, shape (B,); 0 gives the first.

    Returns:
        Slots of the same shapes; masks that sum to 1 in both do so here.

    Raises:
        ValueError: if the shapes differ or a weight given as a number is not in [0, 1].
    """
    if first.features.shape != second.features.shape or first.log_pi.shape != second.log_pi.shape:
        raise ValueError(
            f"second has features {tuple(second.features.shape)} and masks "
            f"{tuple(second.log_pi.shape)}; wanted {tuple(first.features.shape)} and "
            f"{tuple(first.log_pi.shape)}."
        )
    if not isinstance(weight, Tensor) and not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}; wanted a value in [0, 1].")
    w = torch.as_tensor(weight, dtype=first.log_pi.dtype, device=first.log_pi.device)
    w = w.view(-1, 1, 1)
    masks = w[..., None, None]
    return Slots(
        torch.lerp(first.z_m, second.z_m, w.to(first.z_m.dtype)),
        torch.lerp(first.z_c, second.z_c, w.to(first.z_c.dtype)),
        torch.logaddexp(first.log_pi + torch.log1p(-masks), second.log_pi + masks.log()),
    )


def _shares(log_pi: Tensor) -> Tensor:
    """Masks (B, K, 1, H, W), K >= 0, in the same proportions, that sum to 1 over the slots."""
    # Where none has any mass the logs are equal, and so are the shares.
    return F.log_softmax(log_pi.clamp_min(torch.finfo(log_pi.dtype).min), dim=1)


def _check_slot(values: Tensor, slot: int, name: str) -> None:
    if not 0 <= slot < values.shape[1]:
        raise ValueError(f"{name} is {slot}; wanted 0 to {values.shape[1] - 1}.")
