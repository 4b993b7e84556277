"""What lies between two practices: act in reality, and fit the world model anew."""

from pathlib import Path

from genesis_rl.agents.collect import collect_with_agent
from genesis_rl.agents.dreaming.config import DreamConfig
from genesis_rl.data.pack import Pack
from genesis_rl.data.transitions import join
from genesis_rl.envs.collect import CollectConfig
from genesis_rl.frames import Preprocessing
from genesis_rl.process import StoppedError
from genesis_rl.training.folder import REPORT
from genesis_rl.world_model import WorldModel, program
from genesis_rl.world_model.config import WorldTrainConfig


def go_round(config: DreamConfig, number: int, world: WorldModel) -> tuple[Path, Path]:
    """Record the agent in ``last/``, add that to what was there, and fit a new world model.

    Steps that are done already are not done again.

    Args:
        config: the settings.
        number: of the round, from 1.
        world: the world model before, whose shape and kind of slots the new one takes.

    Returns:
        The folders of the new world model and of all that is recorded.

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
                    world.config,
                    mask_geometry=world.form.mask_geometry,
                    align=world.form.aligned,
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


def _record(config: DreamConfig, folder: Path, number: int) -> None:
    """Record the agent as the first recording was made, with other seeds."""
    first = Pack.open(config.data / "train")
    how = first.preprocessing or Preprocessing()
    collect_with_agent(
        CollectConfig(
            agent=str(config.out / "last"),
            out=folder,
            steps=config.collect_steps,
            image_size=first.meta["image_size"][0],
            resize=how.resize,
            n_envs=config.num_envs,
            vec=config.vec,
            seed=(config.seed + number * 1_000_003) % 2**31,
            trust_remote_code=True,  # its settings are those of the command line
        )
    )
