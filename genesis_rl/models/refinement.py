"""Refinement: gradient steps on inferred latents, to reduce the amortisation gap.

Semi-amortised inference (Kim et al., ICML 2018): starting from the encoder's latents, a few steps
follow the gradient of the image's log likelihood. Weights do not change, and no labels are needed.
"""

import torch
from torch import Tensor

from genesis_rl.slots import SceneModel, Slots
from genesis_rl.utils.checks import check_integer

# Adam's betas: short moving averages, for few steps. Its epsilon: 1 nat per unit, so that rounding
# errors of a negligible gradient do not change a latent.
_BETAS, _EPS = (0.5, 0.9), 1.0


def refine(
    model: SceneModel, x: Tensor, slots: Slots, steps: int, *, step_size: float | None = None
) -> Slots:
    """Minimise -log p(x | z_m, z_c) over the latents by steps of Adam.

    The objective does not contain the prior, so that 3 to 20 steps are recommended: after many
    more, several slots begin to represent one object. Images of a batch are refined independently.
    A step costs about three passes of the decoders.

    Args:
        model: a model of `genesis_rl.models` in eval mode, or a student; its weights and their
            gradients are not changed.
        x: images, (B, 3, H, W) in [0, 1].
        slots: slots inferred from these images.
        steps: number of updates; 0 returns ``slots``.
        step_size: approximate largest change of a latent in a step; None: the model's
            ``refine_step_size``.

    Returns:
        Slots with their decoded masks, without gradients. (A MONet's masks are not a function of
        its latents and do not change.)

    Raises:
        ValueError: if ``steps`` or ``step_size`` is out of range.
    """
    check_integer("steps", steps, 0)
    if step_size is None:
        step_size = model.refine_step_size
    if not step_size > 0:
        raise ValueError(f"step_size must be greater than 0, got {step_size}.")
    if not steps:
        return slots
    with torch.inference_mode(False), torch.enable_grad():
        # Clones, because autograd cannot save inference tensors.
        x, log_pi = x.detach().clone(), slots.log_pi.detach().clone()
        z_m, z_c = (z.detach().clone().requires_grad_() for z in (slots.z_m, slots.z_c))
        latents = [z for z in (z_m, z_c) if z.shape[2]]
        adam = torch.optim.Adam(latents, step_size, betas=_BETAS, eps=_EPS)
        for _ in range(steps):
            nll = model.nll(x, model.decode(Slots(z_m, z_c, log_pi))).sum()
            for z, grad in zip(latents, torch.autograd.grad(nll, latents), strict=True):
                z.grad = grad
            adam.step()
    with torch.no_grad():
        refined = Slots(z_m.detach(), z_c.detach(), log_pi)
        return Slots(refined.z_m, refined.z_c, model.decode(refined).log_pi)
