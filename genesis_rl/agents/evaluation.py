"""Evaluation of policies on fixed episodes: scores with confidence intervals, and a video."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_wrapper

from genesis_rl.agents.bundle import load_agent
from genesis_rl.agents.config import EvaluationConfig
from genesis_rl.agents.vec_obs import VecGenesisObs
from genesis_rl.perception.encoder import SlotEncoder
from genesis_rl.perception.preprocessing import as_nhwc_uint8
from genesis_rl.utils.files import write_json
from genesis_rl.utils.process import configure_cpu
from genesis_rl.visualization import Picture, mosaic, overlay_masks, save_animation

RESULT = "evaluation.json"
# Repetitions of an episode's last frame in the video.
_HOLD = 4
# Minimum height of a video in pixels, to which smaller frames are enlarged.
_MIN_HEIGHT = 128


class Policy(Protocol):
    """Policy of Stable-Baselines3: algorithms and their ``policy`` implement it."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """Return actions for a batch of observations, and the state of a recurrent policy.

        Args:
            observation: observations of N environments.
            state: the previous state; None at the start.
            episode_start: (N,), whether an observation is the first of an episode.
            deterministic: whether to return the most probable actions.
        """
        ...


class RandomPolicy:
    """Policy that samples actions uniformly from the action space."""

    def __init__(self, venv: VecEnv, *, seed: int = 0) -> None:
        """Create the policy.

        Args:
            venv: environments with the action space.
            seed: seed of the actions.
        """
        self._space = venv.action_space
        self._num_envs = venv.num_envs
        self._space.seed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """Sample an action for each environment."""
        return np.stack([self._space.sample() for _ in range(self._num_envs)]), None


class Episodes(NamedTuple):
    """Results of episodes, in the order of their seeds.

    Attributes:
        returns: undiscounted sums of rewards, (N,).
        lengths: numbers of steps, (N,).
        successes: final ``info["is_success"]``, (N,); None if the environment reports none.
    """

    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    successes: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Scores:
    """Scores of a policy.

    Attributes:
        episodes: number of episodes.
        success_rate: share of successful episodes; None if the environment reports none.
        success_interval: Wilson's 95 % confidence interval of the success rate.
        mean_return: mean undiscounted return.
        return_error: standard error of the mean return; None for a single episode.
        mean_length: mean length in steps.
    """

    episodes: int
    success_rate: float | None
    success_interval: tuple[float, float] | None
    mean_return: float
    return_error: float | None
    mean_length: float

    def __str__(self) -> str:
        """Format the scores in one line."""
        parts = []
        if self.success_rate is not None and self.success_interval is not None:
            low, high = self.success_interval
            parts.append(f"success {self.success_rate:.1%} (95% interval {low:.1%} to {high:.1%})")
        error = "" if self.return_error is None else f" ± {self.return_error:.2g}"
        parts.append(f"return {self.mean_return:.3g}{error}")
        parts.append(f"length {self.mean_length:.1f}, {self.episodes} episodes")
        return ", ".join(parts)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a rate.

    Args:
        successes: number of successes, in 0..trials.
        trials: number of trials, at least 1.

    Raises:
        ValueError: for other counts.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}.")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be in 0..{trials}, got {successes}.")
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score(episodes: Episodes) -> Scores:
    """Compute the scores of episodes."""
    n = len(episodes.returns)
    rate = interval = None
    if episodes.successes is not None:
        rate = float(episodes.successes.mean())
        interval = wilson_interval(int(episodes.successes.sum()), n)
    error = float(episodes.returns.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return Scores(
        n,
        rate,
        interval,
        float(episodes.returns.mean()),
        error,
        float(episodes.lengths.mean()),
    )


def evaluate_agent(config: EvaluationConfig) -> dict[str, Any]:
    """Evaluate a saved agent, and write evaluation.json and a video.

    Args:
        config: the settings.

    Returns:
        Content of evaluation.json: the scores of the agent with sampled actions ("agent") and,
        depending on the settings, with deterministic ones ("deterministic") and of a random policy
        ("random").

    Raises:
        ValueError: if the agent cannot be loaded.
    """
    configure_cpu(config.threads)
    load = partial(
        load_agent,
        device=config.device,
        encoder_device=config.encoder_device,
        trust_remote_code=config.trust_remote_code,
    )
    agent = load(config.folder, n_envs=min(config.n_envs, config.episodes), vec=config.vec)
    policies: dict[str, tuple[Policy, bool]] = {"agent": (agent.model, False)}
    if config.deterministic:
        policies["deterministic"] = agent.model, True
    if config.random:
        policies["random"] = RandomPolicy(agent.venv, seed=config.seed), False
    result: dict[str, Any] = {
        "env": agent.config.env,
        "steps": agent.metadata.get("steps"),
        "seed": config.seed,
    }
    with closing(agent.venv):
        for name, (policy, deterministic) in policies.items():
            episodes = run_episodes(
                agent.venv,
                policy,
                episodes=config.episodes,
                seed=config.seed,
                deterministic=deterministic,
            )
            result[name] = asdict(score(episodes))
    out = config.out or config.folder
    out.mkdir(parents=True, exist_ok=True)
    if config.video_episodes:
        video_agent = load(config.folder, info_keys=("frame", "masks"))
        with closing(video_agent.venv):
            record_video(
                video_agent.venv,
                video_agent.model,
                out / f"video.{config.video_format}",
                episodes=config.video_episodes,
                seed=config.seed,
            )
    write_json(out / RESULT, result)
    return result


def run_episodes(
    venv: VecEnv, policy: Policy, *, episodes: int, seed: int = 0, deterministic: bool = False
) -> Episodes:
    """Run episodes with the seeds seed, seed + 1, ...

    Environment i of n runs the episodes i, i + n, ... The evaluated episodes are therefore fixed
    beforehand, without a bias towards short ones, and depend neither on the policy nor (except for
    rounding in the encoder) on n.

    Args:
        venv: environments of `make_vec_env`.
        policy: the policy.
        episodes: number of episodes, at least 1.
        seed: seed of the first episode and of sampled actions.
        deterministic: whether to use deterministic actions.

    Raises:
        ValueError: if ``episodes`` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    n = venv.num_envs
    for i in range(n):
        venv.env_method("seed_episodes", seed + i, n, indices=i)
    current = np.arange(n)  # current episode of each environment
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    successes: list[bool | None] = [None] * episodes
    with _torch_seed(seed):
        observations, state, first = venv.reset(), None, np.ones(n, np.bool_)
        while (current < episodes).any():
            actions, state = policy.predict(observations, state, first, deterministic)
            observations, rewards, dones, infos = venv.step(actions)
            first = dones
            for i in np.flatnonzero(current < episodes).tolist():
                episode = int(current[i])
                returns[episode] += rewards[i]
                lengths[episode] += 1
                if dones[i]:
                    successes[episode] = infos[i].get("is_success")
                    current[i] += n
    reported = all(success is not None for success in successes)
    return Episodes(returns, lengths, np.array(successes, np.bool_) if reported else None)


@contextmanager
def _torch_seed(seed: int) -> Iterator[None]:
    """Seed PyTorch within the context, and restore its random state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def record_video(
    venv: VecEnv, policy: Policy, path: str | os.PathLike[str], *, episodes: int = 8, seed: int = 0
) -> None:
    """Write a video of episodes: the frames and, with an encoder, the slots' masks.

    Args:
        venv: one environment of `make_vec_env`, with "frame" and, with an encoder, "masks" among
            its ``info_keys``.
        policy: the policy; its actions are sampled.
        path: output file; a GIF for the suffix .gif, otherwise MP4.
        episodes: number of episodes, with the seeds seed, seed + 1, ...
        seed: seed of the first episode and of the actions.

    Raises:
        ValueError: if ``venv`` has several environments, or the infos lack frames or masks.
    """
    if venv.num_envs != 1:
        raise ValueError(f"venv must have 1 environment, got {venv.num_envs}.")
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    wrapper = unwrap_vec_wrapper(venv, VecGenesisObs)
    encoder = None if wrapper is None else wrapper.slot_encoder
    venv.env_method("seed_episodes", seed, 1)
    fps = int(venv.get_attr("metadata")[0].get("render_fps", 10))
    # Half the environment's frame rate, because episodes may be short.
    with _torch_seed(seed):
        save_animation(path, _pictures(venv, encoder, policy, episodes), fps=max(1, fps // 2))


def _pictures(
    venv: VecEnv, encoder: SlotEncoder | None, policy: Policy, episodes: int
) -> Iterator[Picture]:
    """Yield the frames with masks; the last frame of an episode is repeated."""
    observations, state = venv.reset(), None
    for _ in range(episodes):
        yield _picture(encoder, venv.reset_infos[0])
        first, done = np.ones(1, np.bool_), False
        while not done:
            actions, state = policy.predict(observations, state, first)
            observations, _rewards, first, infos = venv.step(actions)
            done = bool(first[0])
            picture = _picture(encoder, infos[0])
            yield from [picture] * (_HOLD if done else 1)


def _picture(encoder: SlotEncoder | None, info: dict[str, Any]) -> Picture:
    if "frame" not in info or (encoder is not None and "masks" not in info):
        raise ValueError(
            'venv must have info_keys ("frame", "masks") of make_vec_env, got infos with '
            f"{sorted(info)}."
        )
    frame = info["frame"]
    if encoder is None:
        return mosaic(frame[None, None], scale=-(-_MIN_HEIGHT // len(frame)))
    preprocessed = frame.shape[:2] == info["masks"].shape[-2:]  # as of several cameras
    if encoder.preprocessing.resize in ("crop", "letterbox") and not preprocessed:
        # The masks are those of the preprocessed frame.
        size, preprocessing = encoder.image_size, encoder.preprocessing
        frame = as_nhwc_uint8(frame, layout="HWC", image_size=size, preprocessing=preprocessing)[0]
    return overlay_masks(frame, info["masks"])
