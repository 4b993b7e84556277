"""Rewards of composed scenes, by name or as custom functions."""

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

from genesis_rl.data.readers.media import decode_image, read_image_file
from genesis_rl.evaluation.metrics.imagined import evaluate_scenes
from genesis_rl.evaluation.metrics.segmentation import segment
from genesis_rl.evaluation.probes import SceneProbe
from genesis_rl.perception.alignment import SlotAligner
from genesis_rl.perception.encoder import SlotEncoder


class ComposedScene(NamedTuple):
    """A finished scene, the argument of a reward function.

    Attributes:
        slots: (K, D_m + D_c) float32, mask and component latents.
        image: (3, H, W), decoded frame in [0, 1].
        log_pi: (K, 1, H, W), log masks in nats.
        log_p: log density of the slots under the prior, in nats.
        encoder: the model, e.g. to encode other frames.
    """

    slots: Tensor
    image: Tensor
    log_pi: Tensor
    log_p: float
    encoder: SlotEncoder


SceneReward = Callable[[ComposedScene], float]


class ObjectCountReward:
    """Reward from the number of objects in the scene, see `evaluate_scenes`."""

    def __init__(self, number: int | None = None) -> None:
        """Set the target number.

        Args:
            number: reward 1 for a scene with this number of objects, else 0; None: the reward is
                the number itself.

        Raises:
            ValueError: for a negative number.
        """
        if number is not None and number < 0:
            raise ValueError(f"number must be >= 0 or None, got {number}.")
        self.number = number

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        count = int(evaluate_scenes(scene.image[None], segment(scene.log_pi[None])).objects[0])
        return float(count if self.number is None else count == self.number)


class GoalReward:
    """Negative mean squared distance to a goal's slots, in the best one-to-one matching."""

    def __init__(self, goal: str | os.PathLike[str] | npt.ArrayLike) -> None:
        """Load the goal.

        Args:
            goal: image file, uint8 image (H, W, 3), or float slots (K, D_m + D_c).

        Raises:
            ValueError: for any other goal.
        """
        if isinstance(goal, (str, os.PathLike)):
            try:
                goal = decode_image(read_image_file(Path(goal).expanduser()))
            except (OSError, ValueError) as error:
                raise ValueError(f"goal must be a readable image, got {goal}: {error}") from error
        self._goal = np.asarray(goal)
        if self._goal.ndim not in (2, 3):
            raise ValueError(
                f"goal must be an image (H, W, 3) or slots (K, D), got shape {self._goal.shape}."
            )
        self._slots: tuple[str, npt.NDArray[np.float32]] | None = None

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        goal = self._goal_slots(scene.encoder)
        slots = scene.slots.cpu().numpy()
        aligner = SlotAligner(1, len(slots), [w for w in scene.encoder.latent_sizes if w])
        aligner.follow(goal[None], np.array([0]), np.array([True]))
        (order,) = aligner.follow(slots[None], np.array([0]), np.array([False]))
        return -float(np.square(slots[order] - goal).mean())

    def _goal_slots(self, encoder: SlotEncoder) -> npt.NDArray[np.float32]:
        """Return the goal's slots, inferred once per encoder."""
        if self._slots is None or self._slots[0] != encoder.fingerprint:
            goal = self._goal
            if goal.ndim == 3:
                (goal,) = encoder.features(goal, mask_geometry=False)
            self._slots = encoder.fingerprint, np.asarray(goal, np.float32)
        shape = (encoder.num_slots, sum(encoder.latent_sizes))
        if self._slots[1].shape != shape:
            raise ValueError(f"goal must be slots {shape}, got shape {self._slots[1].shape}.")
        return self._slots[1]


class ProbeReward:
    """Probability of a class by a trained probe, for example that a tower is stable."""

    def __init__(self, probe: str | os.PathLike[str], answer: int = 1) -> None:
        """Load the probe.

        Args:
            probe: folder of one probe, written by pretrain/probe.py --heads.
            answer: class whose probability is the reward.

        Raises:
            ValueError: if the folder contains no probe, or the probe has no such class.
        """
        self._folder, self._probe = probe, SceneProbe.load(probe, device="cpu")
        classes = self._probe.config.classes
        if answer not in classes:
            raise ValueError(f"answer must be in {classes}, got {answer}.")
        self._column = classes.index(answer)

    def __call__(self, scene: ComposedScene) -> float:
        """Return the reward."""
        expected, actual = self._probe.config.encoder_fingerprint, scene.encoder.fingerprint
        if expected != actual:
            raise ValueError(
                f"probe {self._folder} must be trained on the slots of the encoder {actual[:12]}, "
                f"got {expected[:12]}."
            )
        return float(self._probe(scene.slots[None].cpu())[0, self._column])


#: Rewards by name. Saved agents may refer to these only: add custom ones before loading an agent.
REWARDS: dict[str, type[Any]] = {
    "objects": ObjectCountReward,
    "goal": GoalReward,
    "probe": ProbeReward,
}


def find_reward(reward: str | SceneReward, options: Mapping[str, Any] | None = None) -> SceneReward:
    """Return a reward function, resolving a string by name.

    Args:
        reward: a callable of a `ComposedScene`; a name in `REWARDS`; or "module:name" of such a
            function, or of a class whose instances are such callables.
        options: keyword arguments of the class or the function.

    Raises:
        TypeError: for a reward of another type.
        ValueError: for an unknown name, or options that the class does not accept.
    """
    resolved: Any = reward
    if isinstance(reward, str):
        resolved = REWARDS.get(reward) or _named(reward)
    if not callable(resolved):
        raise TypeError(f"reward must be a callable or the name of one, got {reward!r}.")
    if isinstance(resolved, type):
        try:
            resolved = resolved(**(options or {}))
        except TypeError as error:
            raise ValueError(
                f"reward_options must be arguments of reward {reward!r}, got {options}: {error}."
            ) from error
    elif options:
        resolved = functools.partial(resolved, **options)
    scene_reward: SceneReward = resolved
    return scene_reward


def evaluate_reward(reward: SceneReward, scene: ComposedScene) -> float:
    """Compute a scene's reward.

    Raises:
        ValueError: if it is not a finite number.
    """
    result = reward(scene)
    try:
        value = float(result)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward must return a number, got {result!r}.") from error
    if not math.isfinite(value):
        raise ValueError(f"reward must return a finite number, got {value}.")
    return value


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    message = f"reward must be one of {', '.join(REWARDS)}, or 'module:function', got {name!r}"
    if not (module and attribute):
        raise ValueError(f"{message}.")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{message}: {error}.") from error
