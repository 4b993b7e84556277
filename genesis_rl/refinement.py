"""Refinement: a few gradient steps on the latents that an encoder has inferred.

An encoder gives every image's posterior by one pass, and so none exactly: the *amortisation gap*.
Semi-amortised inference (Kim et al., ICML 2018) starts from what the encoder gives and follows the
gradient of the image's own likelihood. No weight changes, and no label is needed.
"""

import torch
from torch import Tensor

from genesis_rl.checks import check_integer
from genesis_rl.slots import SceneModel, Slots

# Adam's. So few steps want short memories; and with an epsilon of a nat per unit a latent that the
# image hardly depends on stays where it is, instead of following the sign of a rounding error.
_BETAS, _EPS = (0.5, 0.9), 1.0
#: Step size of models that set none.
STEP_SIZE = 0.1


def refine(
    model: SceneModel, x: Tensor, slots: Slots, steps: int, *, step_size: float | None = None
) -> Slots:
    """Move latents so that their image becomes more likely: Adam on -log p(x | z_m, z_c).

    The prior has no part in it, so a few steps are meant, 3 to 20: after very many, slots begin to
    share what one of them explains well enough. What becomes of an image does not depend on the
    others of its batch. A step costs about three passes of the decoders.

    Args:
        model: a model of `genesis_rl.models` in eval mode, or a student; its weights and their
            gradients are left alone.
        x: images, (B, 3, H, W) in [0, 1].
        slots: of these images, as ``model.infer`` gives them.
        steps: updates; 0 gives the slots back.
        step_size: about the largest change of a latent in a step; None: the model's
            ``refine_step_size``.

    Returns:
        Slots with the masks that they decode to, without gradients. (A MONet's masks are no
        function of its latents and stay as they are.)

    Raises:
        ValueError: if ``steps`` or ``step_size`` is out of range.
        TypeError: if the model has no ``nll``, as models of other packages may not.
    """
    check_integer("steps", steps, 0)
    if step_size is None:
        step_size = float(getattr(model, "refine_step_size", STEP_SIZE))
    if not step_size > 0:
        raise ValueError(f"step_size must be greater than 0, got {step_size}.")
    if not steps:
        return slots
    nll_of = getattr(model, "nll", None)  # beyond the protocol
    if nll_of is None:
        raise TypeError(
            f"model is {type(model).__name__}, which has no nll(x, decoded); wanted one that says "
            "how likely an image is, or no refinement."
        )
    with torch.inference_mode(False), torch.enable_grad():
        # Clones, because tensors of inference mode have no place in a graph.
        x, log_pi = x.detach().clone(), slots.log_pi.detach().clone()
        z_m, z_c = (z.detach().clone().requires_grad_() for z in (slots.z_m, slots.z_c))
        latents = [z for z in (z_m, z_c) if z.shape[2]]
        adam = torch.optim.Adam(latents, step_size, betas=_BETAS, eps=_EPS)
        for _ in range(steps):
            nll = nll_of(x, model.decode(Slots(z_m, z_c, log_pi))).sum()
            for z, slope in zip(latents, torch.autograd.grad(nll, latents), strict=True):
                z.grad = slope
            adam.step()
    with torch.no_grad():
        refined = Slots(z_m.detach(), z_c.detach(), log_pi)
        return Slots(refined.z_m, refined.z_c, model.decode(refined).log_pi)
