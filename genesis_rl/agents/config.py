"""Settings of an agent: environment, encoder, policy, algorithm and the run."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from genesis_rl.checkpoints.weights import rename_old_keys
from genesis_rl.envs.make import check_wrappers, parse_options
from genesis_rl.perception.preprocessing import Crop, Layout, as_crop
from genesis_rl.slots import MASK_GEOMETRY
from genesis_rl.utils.checks import (
    Checked,
    Count,
    EnvSeed,
    Must,
    Natural,
    NonNegative,
    Positive,
    PositiveShare,
    at_least,
    check_fields,
    check_parameters,
)

Obs = Literal["encoder", "genesis", "monet", "vae", "random", "state", "pixels", "feature_map"]
Algo = Literal["ppo", "sac", "td3", "recurrent_ppo"]
# Algorithms with a replay buffer, for Box actions.
OFF_POLICY = ("sac", "td3")
# Entries of a goal environment's observations for hindsight experience replay.
GOALS = ("achieved_goal", "desired_goal")
# Observations inferred by an encoder.
ENCODED = ("encoder", "genesis", "monet", "vae", "random")
# Observations that are frames.
PIXELS = ("pixels", "feature_map")
# NatureCNN's three convolutions reduce this size to a single cell.
_MIN_FRAME = 36
_EnvId = Annotated[str, Must("the id of a registered environment", bool)]
_Updates = Annotated[int, Must("at least 1, or -1", lambda value: value > 0 or value == -1)]
# Named sets of flags of agents/train.py. "published": the settings published with the results on
# the relational tasks, and Stable-Baselines3's defaults where none were published.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "published": {
        "n-envs": 4,
        "ppo.n-steps": 2048,
        "ppo.batch-size": 32,
        "ppo.learning-rate": 3e-4,
        "ppo.gamma": 0.99,
        "ppo.ent-coef": 0.01,
    },
    # Tasks that compare objects need smaller updates than ObjectGoal if the agent observes latents
    # instead of the ground-truth state.
    "relational": {"ppo.n-steps": 512, "ppo.batch-size": 512, "ppo.learning-rate": 3e-4},
    # Continuous actions and rewards below 1: PPO needs several times as many steps, and an initial
    # entropy coefficient of 1 drowns the rewards for thousands of updates. Every episode is another
    # scene: few updates on many scenes generalise better than many updates on few. Mask latents of
    # local masks contain the geometry, and without decoded masks frames are encoded three times as
    # fast.
    "robot": {
        "algo": "sac",
        "no-mask-geometry": None,
        "policy.layers": 1,
        "off-policy.learning-rate": 7e-4,
        "off-policy.gradient-steps": 2,
        "off-policy.ent-coef": "auto_0.05",
    },
}


def preset_flags(name: str, prefix: str = "") -> list[str]:
    """Return the flags of a preset, with a prefix before each name; None is a flag without value.

    Raises:
        ValueError: if the preset does not exist.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}.")
    pairs = PRESETS[name].items()
    return [
        part
        for flag, value in pairs
        for part in (f"--{prefix}{flag}", *([] if value is None else [str(value)]))
    ]


@dataclass(frozen=True)
class PolicyConfig:
    """Network from a set (slots, objects of the state, cells of a feature map) to features.

    The actor and the critic share the features. NatureCNN (obs pixels) has its own sizes.
    """

    extractor: Literal["transformer", "relation", "deep_sets", "mlp"] = "transformer"
    """transformer with a CLS token, relation network or deep sets over the set, or an MLP on its
    concatenated elements"""
    width: Count = 64
    """size of the features, and of the transformer's tokens or the hidden layers"""
    heads: Count = 4
    """attention heads of the transformer"""
    layers: Count = 2
    """transformer blocks, or hidden layers"""
    lstm_size: Count = 128
    """size of the LSTMs of actor and critic, for algo recurrent_ppo"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        check_parameters("policy", 12 * self.layers * self.width**2 + 8 * self.lstm_size**2)
        if self.extractor == "transformer" and self.width % self.heads:
            raise ValueError(f"heads must be a divisor of width {self.width}, got {self.heads}.")


@dataclass(frozen=True)
class PPOConfig(Checked):
    """Settings of PPO and RecurrentPPO, by the names of Stable-Baselines3.

    Of the settings tried with 16 environments, the defaults need the fewest steps on ObjectGoal.
    The preset "published" has the settings of the published results on the relational tasks.
    """

    n_steps: Count = 128
    """steps of each environment per rollout"""
    batch_size: Annotated[int, at_least(2)] = 256
    """transitions in a minibatch"""
    n_epochs: Count = 10
    """passes over a rollout per update"""
    learning_rate: Positive = 1e-3
    """Adam's learning rate"""
    gamma: PositiveShare = 0.95
    """discount factor"""
    gae_lambda: PositiveShare = 0.95
    """bias-variance trade-off of generalised advantage estimation"""
    ent_coef: NonNegative = 0.01
    """weight of the entropy bonus"""
    vf_coef: NonNegative = 0.5
    """weight of the value loss"""
    clip_range: Positive = 0.2
    """clipping range of the probability ratio"""
    max_grad_norm: Positive = 0.5
    """maximum gradient norm"""


@dataclass(frozen=True)
class OffPolicyConfig:
    """Settings of SAC and TD3, by the names of Stable-Baselines3."""

    buffer_size: Count = 100_000
    """transitions in the replay buffer, with two observations each"""
    learning_starts: Natural = 1_000
    """environment steps before the first update, with random actions; with her at least an episode
    of an environment, times n_envs"""
    batch_size: Count = 256
    """transitions per update"""
    learning_rate: Positive = 3e-4
    """Adam's learning rate"""
    gamma: PositiveShare = 0.95
    """discount factor"""
    tau: PositiveShare = 0.005
    """rate of the moving average of the target networks"""
    train_freq: Count = 1
    """steps of each environment between updates"""
    gradient_steps: _Updates = -1
    """updates after these steps; -1: one per transition"""
    net_arch: tuple[Count, ...] = (256, 256)
    """hidden layers of actor and critics, after the features extractor"""
    ent_coef: str = "auto"
    """entropy coefficient of sac: a number, auto (adapted, from 1), or adapted from another value,
    e.g. auto_0.1 for small rewards"""
    action_noise: NonNegative = 0.1
    """standard deviation of td3's exploration noise, for actions in [-1, 1]"""
    n_sampled_goal: Count = 4
    """relabelled transitions per recorded one, with her"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        check_parameters("net_arch", 6 * sum(a * b for a, b in pairwise(self.net_arch)))
        try:
            initial = 1.0 if self.ent_coef == "auto" else float(self.ent_coef.removeprefix("auto_"))
        except ValueError:
            initial = math.nan
        if not 0 < initial < math.inf:
            raise ValueError(
                f"ent_coef must be a number > 0, auto, or auto_NUMBER, got {self.ent_coef!r}."
            )


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Settings of an agent's training."""

    algo: Algo = "ppo"
    """algorithm of Stable-Baselines3: ppo, sac or td3 (continuous actions), or recurrent_ppo of the
    package sb3-contrib"""
    her: bool = False
    """hindsight experience replay, with sac or td3 in environments with goals; requires
    achieved_goal and desired_goal among keep"""
    obs: Obs = "encoder"
    """observations: slots of any encoder (encoder), of a GENESIS, MONet or VAE (genesis, monet,
    vae), or of the encoder's architecture with random weights (random); the environment's
    ground-truth state; frames through NatureCNN (pixels) or through a CNN whose feature map is
    pooled as a set (feature_map), both trained with the policy"""
    encoder: str | None = None
    """folder of a pretrained model, run directory or Hub id; for obs random also a preset of
    pretrain/train.py"""
    finetune: bool = False
    """train the encoder with the policy, by the agent's rewards; buffers then hold frames, and
    training takes several times as long"""
    env: _EnvId = "genesis_rl/ObjectGoal-v0"
    """id of a registered environment; module:id imports the module first"""
    env_options: str = "{}"
    """options of the environment as JSON, e.g. '{"num_objects": 3}'"""
    wrappers: tuple[str, ...] = ()
    """module:Class of wrappers around the environment, innermost first"""
    image_key: str | tuple[str, ...] | None = None
    """entry of a Dict observation with the image, or its path in nested Dicts, e.g. camera/rgb;
    several: the slots of all cameras; None: detected"""
    keep: tuple[str, ...] = ()
    """entries of a Dict observation, or their paths in nested Dicts, to observe beside slots or
    frames, e.g. observation achieved_goal desired_goal"""
    image_layout: Layout = "auto"
    """axis order of a frame, e.g. HWC; auto: inferred from its shape"""
    render: bool = False
    """use rendered frames, for environments whose observations contain none"""
    crop: Crop | None = None
    """region of interest of every frame in pixels, cut out before resizing: top, left, height and
    width"""
    frame_size: Annotated[int, at_least(_MIN_FRAME)] = 64
    """side in pixels to which frames are resized for obs pixels and feature_map"""
    mask_geometry: bool = MASK_GEOMETRY
    """append each slot's mask centroid and area to its features"""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """features extractor"""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """settings of ppo and recurrent_ppo"""
    off_policy: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    """settings of sac and td3"""
    total_timesteps: Count = 100_000
    """environment steps, rounded up to whole rollouts (PPO: of ppo.n_steps)"""
    max_minutes: Positive | None = None
    """time limit, including the evaluation at the end, which has fewer episodes if they would take
    more than half of it; training ends at this or at total_timesteps, whichever comes first"""
    n_envs: Count = 16
    """parallel environments"""
    vec: Literal["subproc", "dummy"] = "subproc"
    """one process per environment, or all environments in this process"""
    eval_every: Count = 20_000
    """environment steps between evaluations"""
    eval_episodes: Count = 50
    """episodes per evaluation"""
    eval_deterministic: bool = False
    """evaluate with deterministic actions instead of sampled ones, whose return PPO maximises"""
    seed: EnvSeed = 0
    """seed of environments, initial weights and actions"""
    device: str = "cpu"
    """device of the policy: cpu (usually the fastest), cuda or auto"""
    encoder_device: str = "auto"
    """device of the encoder: auto, cpu or cuda"""
    encoder_precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the encoder; bf16 is faster on hardware that supports it"""
    encoder_refine_steps: Natural = 0
    """gradient steps on the latents of each frame, for a better fit"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's default"""
    out: Path = Path("runs/agent")
    """run directory"""
    tensorboard: bool = True
    """write TensorBoard events"""
    wandb: bool = False
    """log to Weights & Biases"""
    progress: bool = True
    """show a progress bar"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        self._check_encoder()
        self._check_algo()
        as_crop(self.crop)
        _ = self.options
        check_wrappers(self.wrappers)

    def _check_encoder(self) -> None:
        """Check that an encoder is given exactly where obs needs one."""
        if self.obs in ENCODED and not self.encoder:
            raise ValueError(
                "encoder must be the folder of a pretrained model or a Hub id for obs "
                f"{self.obs!r}, got {self.encoder!r}. Observations without an encoder: state, "
                "pixels, feature_map."
            )
        if self.obs not in ENCODED and self.encoder is not None:
            raise ValueError(
                f"encoder must be None for obs {self.obs!r}, got {self.encoder!r}. Observations "
                f"with an encoder: {', '.join(ENCODED)}."
            )
        if self.finetune and self.obs not in ENCODED:
            raise ValueError(
                f"finetune must be False for obs {self.obs!r}, which has no encoder, got True. "
                f"Observations with an encoder: {', '.join(ENCODED)}."
            )
        if self.encoder_refine_steps and self.finetune:
            raise ValueError(
                f"encoder_refine_steps must be 0 with finetune, got {self.encoder_refine_steps}."
            )
        if self.obs == "state" and self.render:
            raise ValueError("render must be False for obs 'state', which has no frames, got True.")

    def _check_algo(self) -> None:
        """Check that observations and settings are those of the algorithm."""
        off = self.algo in OFF_POLICY
        if off and self.ppo != PPOConfig():
            raise ValueError(
                f"ppo must have its defaults for algo {self.algo!r}, got {self.ppo}. "
                "Use off_policy."
            )
        if not off and self.off_policy != OffPolicyConfig():
            raise ValueError(
                f"off_policy must have its defaults for algo {self.algo!r}, got {self.off_policy}. "
                "Use ppo."
            )
        if off and self.finetune:
            raise ValueError(f"finetune must be False for algo {self.algo!r}, got True.")
        if self.keep and (self.obs == "state" or self.finetune):
            raise ValueError(
                f"keep must be empty for obs state and for finetune, got {self.keep}. "
                f"Observations with kept entries: {', '.join((*ENCODED, *PIXELS))}."
            )
        slots = self.obs in ENCODED and not self.finetune
        if self.image_key is not None and not isinstance(self.image_key, str) and not slots:
            raise ValueError(
                f"image_key must be a single entry for obs {self.obs!r} and for finetune, got "
                f"{self.image_key}."
            )
        if self.her and not off:
            raise ValueError(
                f"her must be False for algo {self.algo!r}, got True. Algorithms with a replay "
                f"buffer: {', '.join(OFF_POLICY)}."
            )
        if self.her and not set(GOALS) <= set(self.keep):
            raise ValueError(f"keep must contain {' and '.join(GOALS)} with her, got {self.keep}.")

    @property
    def options(self) -> dict[str, Any]:
        """The environment's options."""
        return parse_options(self.env_options)

    @property
    def agent(self) -> "AgentConfig":
        """The settings without the fields of a subclass."""
        return AgentConfig(
            **{field.name: getattr(self, field.name) for field in fields(AgentConfig)}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the settings of `to_json`, also of an earlier version.

        Raises:
            ValueError: if an entry is missing, unknown or of another type.
        """
        if not isinstance(data, dict):
            raise ValueError(f"config must be an object of settings, got {type(data).__name__}.")
        values = rename_old_keys(data)
        try:
            values["policy"] = PolicyConfig(**values.get("policy", {}))
            values["ppo"] = PPOConfig(**values.get("ppo", {}))
            off_policy = dict(values.get("off_policy", {}))
            if "net_arch" in off_policy:
                off_policy["net_arch"] = tuple(off_policy["net_arch"])
            values["off_policy"] = OffPolicyConfig(**off_policy)
            for name in ("keep", "crop", "image_key"):
                if isinstance(values.get(name), list):
                    values[name] = tuple(values[name])
            values["out"] = Path(values.get("out", "."))
            values["wrappers"] = tuple(values.get("wrappers", ()))
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"config does not fit this version: {error}") from error


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AgentConfig):
    """Settings of agents/train.py."""

    resume: bool = False
    """resume the run in out from its last checkpoint: policy, optimiser, step, log, best evaluation
    and elapsed time, which max-minutes limits over all sessions; without a checkpoint, start at
    step 0. Steps after the checkpoint are lost. Environments start new episodes, and random number
    generators are seeded by seed and step: resuming twice from one checkpoint gives identical
    results, but not those of an uninterrupted run"""


#: Settings of the machine and of logging, which do not affect the trained agent.
MACHINE = ("out", "device", "encoder_device", "threads", "vec", "tensorboard", "wandb", "progress")


def check_same_settings(
    config: AgentConfig, stored: Mapping[str, Any], where: Path, *, ignore: Collection[str]
) -> None:
    """Check that a stored run has the given settings.

    Args:
        config: the settings.
        stored: the run's settings as of `AgentConfig.to_json`; settings missing there have their
            defaults.
        where: the run directory, for the message.
        ignore: names of settings that may differ.

    Raises:
        ValueError: naming the settings that differ.
    """
    current, previous = (_flat(c.to_json()) for c in (config, type(config).from_json(stored)))
    changed = "; ".join(
        f"{name} must be {previous[name]} as in the run in {where}, got {current[name]}"
        for name in current
        if name not in ignore and current[name] != previous[name]
    )
    if changed:
        raise ValueError(f"{changed}. Use the run's settings or another out.")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings, named like flags: ``ppo.gamma``."""
    flat = dict[str, Any]()
    for name, value in settings.items():
        nested = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": entry for key, entry in nested.items()} or {name: value}
    return flat


def with_obs(config: AgentConfig, obs: str) -> AgentConfig:
    """Return the settings with other observations; the ground-truth state keeps no entries.

    Args:
        config: the settings.
        obs: as ``AgentConfig.obs``, followed by the encoder where one is needed:
            "genesis=runs/encoder".

    Raises:
        ValueError: if it is unknown, its encoder is missing, or it takes no encoder.
    """
    name, _, encoder = obs.partition("=")
    keep = () if name == "state" else config.keep
    return replace(config, obs=cast("Obs", name), encoder=encoder or None, keep=keep)


def obs_label(obs: str) -> str:
    """Return a name for an obs of `with_obs`: "genesis-sprites" for "genesis=runs/sprites"."""
    name, _, encoder = obs.partition("=")
    return f"{name}-{Path(encoder).name}" if encoder else name


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation."""

    folder: Path
    """agent, or run directory of agents/train.py, whose best agent is evaluated"""
    episodes: Count = 200
    """episodes per policy"""
    seed: int = 10_000
    """seed of the first episode; episode i has seed + i"""
    random: bool = True
    """also evaluate a random policy on the same episodes"""
    deterministic: bool = True
    """also evaluate the agent with deterministic actions, besides sampled ones as in
    training"""
    video_episodes: Natural = 8
    """episodes in the video; 0: no video"""
    video_format: Literal["mp4", "gif"] = "mp4"
    """format of the video; GIF can be embedded in a README"""
    n_envs: Count = 8
    """parallel environments"""
    vec: Literal["subproc", "dummy"] = "dummy"
    """one process per environment, or all environments in this process"""
    device: str = "cpu"
    """device of the policy: cpu, cuda or auto"""
    encoder_device: str = "auto"
    """device of the encoder: auto, cpu or cuda"""
    threads: Count | None = None
    """CPU threads; None: PyTorch's default"""
    out: Path | None = None
    """output folder; None: folder"""
    trust_remote_code: bool = False
    """import the modules and read the paths named in the agent's settings"""

    def __post_init__(self) -> None:
        """Check values."""
        check_fields(self)
        if not 0 <= self.seed < 2**31 - self.episodes:
            raise ValueError(
                f"seed must be in 0..2**31 - 1 for every episode, got {self.seed} for "
                f"{self.episodes} episodes."
            )
