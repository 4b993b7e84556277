"""Rounds of recording an agent in the real environment and refitting the world model."""

from pathlib import Path

from genesis_rl.agents.collect import collect_with_agent
from genesis_rl.agents.imagination.config import ImaginationConfig
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import join
from genesis_rl.envs.recording.collect import CollectConfig
from genesis_rl.perception.preprocessing import Preprocessing
from genesis_rl.training.folder import REPORT
from genesis_rl.utils.process import StoppedError
from genesis_rl.world_model import WorldModel, program
from genesis_rl.world_model.config import WorldTrainConfig


def record_and_refit(
    config: ImaginationConfig, number: int, world_model: WorldModel
) -> tuple[Path, Path]:
    """Record the agent in ``last/`` and fit a new world model to all recorded data.

    Completed steps are not repeated.

    Args:
        config: the settings.
        number: number of the round, from 1.
        world_model: the previous world model, whose config and slot spec the new one has.

    Returns:
        The folders of the new world model and of all recorded data.

    Raises:
        StoppedError: after SIGINT or SIGTERM.
    """
    folders = [config.out / f"round-{n}" for n in range(1, number + 1)]
    home = folders[-1]
    try:
        if not (home / "recording").exists():
            _record(config, home / "recording", number)
        if not (home / "data").exists():
            join([config.data, *(folder / "recording" for folder in folders)], home / "data")
        if not (home / "world" / REPORT).exists():
            program.train_world_model(
                WorldTrainConfig(
                    str(config.out / "last" / "encoder"),
                    home / "data",
                    world_model.config,
                    mask_geometry=world_model.slot_spec.mask_geometry,
                    align=world_model.slot_spec.aligned,
                    steps=config.fit_steps,
                    device=config.encoder_device,
                    threads=config.threads,
                    seed=config.seed,
                    out=home / "world",
                    resume=True,
                    tensorboard=config.tensorboard,
                )
            )
    except StoppedError as error:
        raise StoppedError(f"stopped in {home}", error.status) from error
    return home / "world", home / "data"


def _record(config: ImaginationConfig, folder: Path, number: int) -> None:
    """Record the agent with the settings of the first recording and other seeds."""
    first = Pack.open(config.data / "train")
    preprocessing = first.preprocessing or Preprocessing()
    collect_with_agent(
        CollectConfig(
            agent=str(config.out / "last"),
            out=folder,
            steps=config.collect_steps,
            image_size=first.meta["image_size"][0],
            resize=preprocessing.resize,
            n_envs=config.n_envs,
            vec=config.vec,
            seed=(config.seed + number * 1_000_003) % 2**31,
            trust_remote_code=True,  # the settings come from the command line
        )
    )
