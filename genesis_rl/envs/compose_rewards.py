"""What a composed scene is worth: ready-made rewards, and how one's own is found."""

import functools
import importlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from genesis_rl.alignment import SlotAligner
from genesis_rl.data.media import decode_image, read_image_file
from genesis_rl.metrics.scenes import evaluate_scenes
from genesis_rl.metrics.segmentation import segment
from genesis_rl.perception import SlotEncoder
from genesis_rl.probes import SceneProbe


class ComposedScene(NamedTuple):
    """A finished scene, as a reward sees it.

    Attributes:
        slots: (K, D_m + D_c) float32, both latents of each.
        image: (3, H, W), its frame, in [0, 1].
        log_pi: (K, 1, H, W), its masks, nats.
        log_p: log density of its slots under the prior, nats.
        encoder: the model, for what a reward wants to know of other frames.
    """

    slots: Tensor
    image: Tensor
    log_pi: Tensor
    log_p: float
    encoder: SlotEncoder


SceneReward = Callable[[ComposedScene], float]


class NumberOfObjects:
    """Pays for the number of objects that a scene shows, see `genesis_rl.metrics.scenes`."""

    def __init__(self, number: int | None = None) -> None:
        """Say how many are wanted.

        Args:
            number: pays 1 for a scene with as many, else 0; None pays the number itself.
        """
        if number is not None and number < 0:
            raise ValueError(f"number is {number}; wanted at least 0 objects, or None.")
        self.number = number

    def __call__(self, scene: ComposedScene) -> float:
        """Count."""
        found = int(evaluate_scenes(scene.image[None], segment(scene.log_pi[None])).objects[0])
        return float(found if self.number is None else found == self.number)


class GoalSlots:
    """Pays for being like a goal: minus the mean squared distance to its slots, paired at best."""

    def __init__(self, goal: str | os.PathLike[str] | npt.ArrayLike) -> None:
        """Take the goal.

        Args:
            goal: file of an image, an image (H, W, 3) of bytes, or slots (K, D_m + D_c) of floats.

        Raises:
            ValueError: if it is none of these.
        """
        if isinstance(goal, (str, os.PathLike)):
            try:
                goal = decode_image(read_image_file(Path(goal).expanduser()))
            except (OSError, ValueError) as error:
                raise ValueError(f"goal {goal} is no image that can be read: {error}") from error
        self._goal = np.asarray(goal)
        if self._goal.ndim not in (2, 3):
            raise ValueError(
                f"goal has shape {self._goal.shape}; wanted an image (H, W, 3) or slots (K, D)."
            )
        self._slots: tuple[str, npt.NDArray[np.float32]] | None = None

    def __call__(self, scene: ComposedScene) -> float:
        """Compare."""
        goal = self._of(scene.encoder)
        slots = scene.slots.cpu().numpy()
        aligner = SlotAligner(1, len(slots), [w for w in scene.encoder.latent_sizes if w])
        aligner.follow(goal[None], np.array([0]), np.array([True]))
        (order,) = aligner.follow(slots[None], np.array([0]), np.array([False]))
        return -float(np.square(slots[order] - goal).mean())

    def _of(self, encoder: SlotEncoder) -> npt.NDArray[np.float32]:
        """The goal's slots, inferred once for each model."""
        if self._slots is None or self._slots[0] != encoder.fingerprint:
            goal = encoder.features(self._goal)[0] if self._goal.ndim == 3 else self._goal
            self._slots = encoder.fingerprint, np.asarray(goal, np.float32)
        wanted = (encoder.num_slots, sum(encoder.latent_sizes))
        if self._slots[1].shape != wanted:
            raise ValueError(f"goal has shape {self._slots[1].shape}; wanted slots {wanted}.")
        return self._slots[1]


class ProbeSays:
    """Pays the probability that a trained probe gives an answer, such as that a tower stands."""

    def __init__(self, probe: str | os.PathLike[str], answer: int = 1) -> None:
        """Say which probe.

        Args:
            probe: folder of one question that pretrain/probe.py --heads wrote.
            answer: the class that is wanted.

        Raises:
            ValueError: if no probe lies there, or it has no such class.
        """
        self._folder, self._probe = probe, SceneProbe.load(probe, device="cpu")
        classes = self._probe.config.classes
        if answer not in classes:
            raise ValueError(f"answer is {answer}; {self._probe.config.question} has {classes}.")
        self._column = classes.index(answer)

    def __call__(self, scene: ComposedScene) -> float:
        """Ask the probe."""
        wanted, given = self._probe.config.encoder_fingerprint, scene.encoder.fingerprint
        if wanted != given:
            raise ValueError(
                f"probe {self._folder} was trained on the slots of another model ({wanted[:12]}) "
                f"than the one that composes ({given[:12]})."
            )
        return float(self._probe(scene.slots[None].cpu())[0, self._column])


#: Rewards by name. A saved agent may name these alone; add one's own before loading such an agent.
REWARDS: dict[str, type[Any]] = {
    "objects": NumberOfObjects,
    "goal": GoalSlots,
    "probe": ProbeSays,
}


def find_reward(reward: str | SceneReward, options: Mapping[str, Any] | None = None) -> SceneReward:
    """Take a reward as it is, or find the one that a string names.

    Args:
        reward: a callable that takes a `ComposedScene`; a name of `REWARDS`; or "module:name" of
            a function, or of a class whose instances are such callables.
        options: keyword arguments of the class, or further ones of the function.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is nothing of the name, or it does not take the options.
    """
    found: Any = reward
    if isinstance(reward, str):
        found = REWARDS.get(reward) or _named(reward)
    if not callable(found):
        raise TypeError(f"reward is {reward!r}; wanted a callable, or a string that names one.")
    if isinstance(found, type):
        try:
            found = found(**(options or {}))
        except TypeError as error:
            raise ValueError(f"reward_options do not fit reward {reward!r}: {error}.") from error
    elif options:
        found = functools.partial(found, **options)
    made: SceneReward = found
    return made


def evaluate(reward: SceneReward, scene: ComposedScene) -> float:
    """Ask for a scene's reward.

    Raises:
        ValueError: if it is no finite number.
    """
    given = reward(scene)
    try:
        value = float(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward gave {given!r}; wanted a number.") from error
    if not math.isfinite(value):
        raise ValueError(f"reward gave {value}; wanted a finite number.")
    return value


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    wanted = f"wanted {', '.join(REWARDS)}, or 'module:function'"
    if not (module and attribute):
        raise ValueError(f"reward is {name!r}; {wanted}.")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward is {name!r}; {wanted}: {error}.") from error
