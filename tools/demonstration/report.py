"""The report of the demonstration: one page for readers who know RL, but not slots."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from genesis_rl.data import Pack
from genesis_rl.slots import SceneModel
from genesis_rl.training.validate import labelled_images
from genesis_rl.visualization import curves, save_png, to_pictures
from genesis_rl.visualization.report import Report

# Slots with a smaller share of the frame are described as empty.
_EMPTY = 1e-3
_SCORES = ("ari", "ari_fg", "msc", "same_colour_shared")
_BASELINES = {
    "one_slot": "no model: one slot for all pixels",
    "fixed_grid": "no model: a fixed grid",
    "colour_palette": "no model: one slot per true colour",
}
_PRIORS = {
    "real": "real scenes",
    "autoregressive": "GENESIS: each slot depends on those before",
    "independent": "for comparison: independent slots",
}
_WORLDS = {
    "demo": (
        "The task is Object Comparison (Yoon et al. 2023) with larger objects and steps: an agent, "
        "the red circle, moves up, left, down or right among three objects. Two of them are "
        "identical; the third differs in colour or in shape. Touching the odd one is a success "
        "(reward 1); touching another object ends the episode without reward. Which object "
        "differs can only be found by comparing them: each colour and shape occurs as both."
    ),
    "published": (
        "The task is Object Comparison by its published rules (Yoon et al. 2023): an agent, the "
        "red circle, moves among four objects. Three of them are identical; the fourth differs in "
        "colour or in shape. Touching the odd one is a success (reward 1); touching another object "
        "ends the episode without reward. From pixels a CNN stays near chance for millions of "
        "steps."
    ),
}
_NEXT = """\
# your own environment: record frames, train an encoder on them, train an agent on its slots
python envs/collect.py --env Reacher-v5 --render --crop auto --sticky 0.8 --out data/reacher
python pretrain/train.py --data data/reacher --out runs/reacher
python agents/train.py --env Reacher-v5 --render --encoder runs/reacher

# towers of blocks after ShapeStacks: train an encoder, predict whether a tower stands
python pretrain/train.py --preset towers
python pretrain/probe.py runs/towers

# a robot: multi-object Fetch with an encoder that comes with the package
python agents/train.py --env genesis_rl/FetchReachRed-v0 --encoder fetch \\
    --preset robot --keep proprioception"""


def describe_slots(model: SceneModel, test: Pack, out: Path) -> list[dict[str, Any]]:
    """Describe the slots of the first test scene from their latents alone.

    Writes ``scene.png``, the scene, and ``slot-1.png``, ..., the masked components.

    Returns:
        For each slot, in order: centroid ``x`` and ``y`` (0 = left, bottom), ``area`` (share of the
        frame) and mean ``colour`` (RGB, 0..255), all of the decoded slot.
    """
    image, _ = next(labelled_images(test, 1, torch.device("cpu")))
    with torch.inference_mode():
        slots = model.infer(image[:1])
        decoded = model.decode(slots)
        geometry = slots.mask_geometry()[0]
        pi = decoded.log_pi[0].exp()
        shares = pi * decoded.mu_x[0]
    colours = shares.sum((2, 3)) / pi.sum((2, 3)).clamp_min(1e-6)
    save_png(out / "scene.png", to_pictures(image[0]))
    rows = []
    for k, (row, column, area) in enumerate(geometry.tolist()):
        save_png(out / f"slot-{k + 1}.png", to_pictures(shares[k]))
        rows.append(
            {
                "x": (column + 1) / 2,
                "y": (1 - row) / 2,
                "area": area,
                "colour": [round(255 * level) for level in colours[k].clamp(0, 1).tolist()],
            }
        )
    return rows


def write_report(out: Path, figures: dict[str, Any]) -> Path:
    """Write report.html from the figures and the images in the folder; return its path."""
    page = Report("An agent that acts on objects instead of pixels")
    _introduction(page, out, figures)
    _slots(page, out, figures)
    if figures["imagined"]:
        _imagination(page, out, figures)
    _agents(page, out, figures)
    page.heading("Next").code(_NEXT)
    page.save(out / "report.html")
    return out / "report.html"


def _introduction(page: Report, out: Path, figures: dict[str, Any]) -> None:
    agents, pretraining = figures["agents"], figures["pretraining"]
    success, other = (agents[name]["agent"]["success_rate"] for name in ("slots", "pixels"))
    encoder = (
        f"the pretrained encoder {figures['encoder']}"
        if pretraining is None
        else f"an encoder that was trained for {pretraining['seconds'] / 60:.1f} minutes on "
        f"{pretraining['images']:,} frames without labels or rewards"
    )
    page.text(
        f"PPO on the objects of a scene succeeds in {success:.0%} of the episodes; PPO on its "
        f"pixels, trained for the same {agents['slots']['seconds'] / 60:.1f} minutes, in "
        f"{other:.0%}. The objects were found by {encoder}. All of it took "
        f"{figures['minutes']:.1f} minutes on {figures['threads']} CPU "
        f"thread{'s' * (figures['threads'] > 1)}."
    )
    page.heading("The frames").text(_WORLDS[figures["task"]])
    page.picture((out / "frames.png").read_bytes(), "First frames of episodes.")


def _slots(page: Report, out: Path, figures: dict[str, Any]) -> None:
    page.heading("What the slots contain").text(
        "GENESIS (Engelcke et al. 2020) is a variational autoencoder that describes a frame by "
        f"{figures['num_slots']} slots instead of one vector. Each slot has mask latents z_m, "
        "decoded to a mask, and component latents z_c, decoded to the colours under it; the masks "
        "sum to 1 at every pixel. Training maximises the evidence lower bound; there are no labels "
        "that assign objects to slots. The first test scene:"
    )
    page.picture((out / "scene.png").read_bytes(), "The scene.")
    page.table(
        ["slot", "mask times colours", "x", "y", "area", "mean colour"],
        [_slot(out, k, slot) for k, slot in enumerate(figures["slots"], 1)],
    )
    page.text(
        "Every number is of the decoded latents: x and y of the mask's centroid (0 = left, bottom; "
        "1 = right, top), its share of the frame, and its mean colour. The agent gets the latents "
        "of all slots as its observation, an array of shape (slots, latents)."
    )
    page.picture(
        (out / "decomposition.png").read_bytes(),
        "Test scenes: input, reconstruction, slots (one colour each), then the mask of each slot "
        "and its masked component.",
    )
    scores = figures["segmentation"]
    page.table(
        ["", "ARI", "ARI, objects only", "mSC", "pairs of one colour in one slot"],
        [
            [_BASELINES.get(name, name), *(_number(values[key]) for key in _SCORES)]
            for name, values in scores.items()
        ],
    ).text(
        f"{figures['test_scenes']} test scenes. The adjusted Rand index (ARI) compares the slots' "
        "masks with the true ones: 1 is best, 0 is chance. mSC is the mean overlap (intersection "
        "over union) of each true object with its best slot. The last column is the share of pairs "
        "of one colour whose pixels are in one slot: all, for a segmentation by colour."
    )


def _slot(out: Path, number: int, slot: dict[str, Any]) -> list[Any]:
    picture = (out / f"slot-{number}.png").read_bytes()
    if slot["area"] < _EMPTY:
        return [f"{number}: empty", picture, "", "", slot["area"], ""]
    swatch = np.full((8, 8, 3), slot["colour"], np.uint8)
    return [str(number), picture, slot["x"], slot["y"], slot["area"], swatch]


def _imagination(page: Report, out: Path, figures: dict[str, Any]) -> None:
    page.heading("Imagined scenes").text(
        "GENESIS is a generative model: its autoregressive prior samples new scenes slot by slot, "
        "each given those before, so that a new object can avoid those that exist. The scenes "
        "below are the first samples, not selected; the prior of the last row has been fitted "
        "to the same latents, but samples each slot independently."
    )
    page.picture(
        (out / "imagined.png").read_bytes(),
        "From top to bottom: " + "; ".join(_PRIORS.values()) + ".",
    )
    page.table(
        ["", "valid scenes (95 % interval)"],
        [
            [_PRIORS[name], _rate(values["valid"], values["interval"])]
            for name, values in figures["imagined"].items()
        ],
    ).text(
        "A scene is valid if it has as many objects as the training scenes and every object is one "
        "compact piece of one colour, not cut by the border. Environments that are imagined by the "
        "model start from such scenes."
    )


def _agents(page: Report, out: Path, figures: dict[str, Any]) -> None:
    slots, pixels = figures["agents"]["slots"], figures["agents"]["pixels"]
    page.heading("The agents").text(
        "Both agents are trained by PPO of Stable-Baselines3 with the same settings for the same "
        "time: one on slots, pooled by a small transformer, the other on pixels by NatureCNN, "
        "Stable-Baselines3's default network for images."
    )
    lines = {
        name: ([x for x, _ in agent["curve"]], [y for _, y in agent["curve"]])
        for name, agent in figures["agents"].items()
    }
    page.picture(
        curves({"success rate in training": lines}, xlabel="minutes", height=4), pixels=False
    )
    page.table(
        ["", "success rate (95 % interval)", "mean episode length", "steps", "minutes"],
        [
            _agent("slots", slots["agent"], slots),
            _agent("pixels", pixels["agent"], pixels),
            _agent("random actions", slots["random"], None),
        ],
    ).text(
        f"{figures['episodes']} episodes each, with the same scenes. Actions are sampled from the "
        "policy, as in training."
    )
    if (out / "agent" / "video.mp4").is_file():
        page.video(
            out / "agent" / "video.mp4",
            "The agent on slots: frame, slots, and what each slot contains.",
        )


def _agent(name: str, scores: dict[str, Any], agent: dict[str, Any] | None) -> list[Any]:
    rate = _rate(scores["success_rate"], scores["success_interval"])
    training = (f"{agent['steps']:,}", f"{agent['seconds'] / 60:.1f}") if agent else ("", "")
    return [name, rate, f"{scores['mean_length']:.1f}", *training]


def _rate(rate: float, interval: tuple[float, float]) -> str:
    return f"{rate:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
