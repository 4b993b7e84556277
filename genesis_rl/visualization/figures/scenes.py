"""Figures of scenes from the prior (paper, figures 3 and 6 to 9)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genesis_rl.slots import Decoded, SceneModel
from genesis_rl.visualization import (
    Picture,
    colour_masks,
    flow,
    join,
    margin,
    over_checkerboard,
    to_pictures,
)
from genesis_rl.visualization.figures.cells import (
    label,
    masked_components,
    number_headings,
    row_slices,
    sheet,
)

TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
_FADE = 6  # frames of a component's fade-in
_HOLD = 12  # repetitions of the final frame


def scene_grid(images: Tensor) -> Picture:
    """Draw scenes in rows of eight (paper, figures 6, 7 and 9).

    Args:
        images: the scenes, shape (B, 3, H, W), in [0, 1].
    """
    pictures = to_pictures(images)
    rows = [sheet(pictures[part][None]) for part in row_slices(len(pictures))]
    return margin(join(rows, axis=0, gap=4))


def component_steps(decoded: Decoded) -> Picture:
    """Draw the generation steps of scenes, one scene per row (paper, figures 3 and 8).

    The columns are the final scene, its masks in the slots' colours, and the masked component of
    every step, pi_k * mu_x_k, over a checkerboard.

    Args:
        decoded: the scenes, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).
    """
    pi, shares = masked_components(decoded)
    overview = np.stack([to_pictures(shares.sum(1)), colour_masks(pi.squeeze(2))], axis=1)
    scene = sheet(overview, captions=["scene", "slots"])
    steps = sheet(over_checkerboard(shares, pi), captions=number_headings("step", shares.shape[1]))
    return margin(join([scene, steps], end=True))


@torch.inference_mode()
def temperature_sweep(
    model: SceneModel,
    count: int,
    *,
    generator: torch.Generator,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Picture:
    """Draw samples of the prior with the same noise at several temperatures, one per row.

    Args:
        model: the model, in eval mode.
        count: number of scenes, one per column.
        generator: random number generator on the model's device; every row starts from its state.
        temperatures: factors of every sigma of the prior; 0 is the prior's mean.
    """
    state = generator.get_state()
    rows = []
    for temperature in temperatures:
        generator.set_state(state)
        slots = model.sample(count, generator=generator, temperature=temperature)
        rows.append(to_pictures(model.decode(slots).image))
    return margin(
        sheet(
            np.stack(rows),
            rows=[f"temperature {temperature:g}" for temperature in temperatures],
        )
    )


def generation(decoded: Decoded) -> list[Picture]:
    """Animate the generation of scenes component by component (paper, figures 3 and 8).

    Args:
        decoded: the scenes, mu_x (B, K, 3, H, W) and log_pi (B, K, 1, H, W).

    Returns:
        The frames: each step fades in pi_k * mu_x_k.
    """
    pi, shares = masked_components(decoded)
    slots = pi.shape[1]
    frames = [_frame(shares, pi, torch.zeros(slots), f"step 0 of {slots}")]
    for step in range(slots):
        for fade in range(1, _FADE + 1):
            amount = (torch.arange(slots) < step).float()
            amount[step] = fade / _FADE
            frames.append(_frame(shares, pi, amount, f"step {step + 1} of {slots}"))
    return frames + frames[-1:] * _HOLD


def _frame(shares: Tensor, pi: Tensor, amount: Tensor, heading: str) -> Picture:
    """Draw a frame with the opacity of each slot, (K,)."""
    weights = amount.to(pi).view(1, -1, 1, 1, 1)
    scenes = over_checkerboard((weights * shares).sum(1), (weights * pi).sum(1))
    cells = [sheet(scene[None, None]) for scene in scenes]
    return margin(label(flow(cells, max_width=640, gap=8), heading))
