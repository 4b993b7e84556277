r"""Train a PPO agent in imagination and evaluate it in the real environment.

    python agents/train_in_imagination.py --encoder runs/encoder --world-model runs/world \
        --data data/goal
    python agents/train_in_imagination.py --encoder runs/encoder --world-model runs/world \
        --data data/goal --rounds 3
    python agents/train_in_imagination.py --encoder runs/encoder --world-model runs/world \
        --data data/goal --seeds 0 1 2 --summary results/imagination.json

Imagined rollouts start in scenes of the encoder's prior or in recorded frames, and follow the world
model. env, env-options and PPO are settings of the agent, as in agents/train.py; agents/evaluate.py
evaluates the run directory. --rounds adds rounds of recording the agent in the real environment,
refitting the world model and further training. --seeds compares with PPO on as many real steps. The
same command resumes an interrupted run.
"""

import sys

from genesis_rl.agents.imagination import ImaginationConfig, ImaginationTrainer, compare
from genesis_rl.agents.learning import TrainingError
from genesis_rl.training import NonFiniteError
from genesis_rl.utils.flags import program
from genesis_rl.utils.process import StoppedError
from genesis_rl.utils.tables import as_text


def train(config: ImaginationConfig) -> None:
    """Train one agent and print the metrics of its best evaluation."""
    trainer = ImaginationTrainer(config)
    metrics = trainer.run()
    steps = f"{trainer.model.num_timesteps} imagined steps, {trainer.real_steps} real steps"
    if trainer.stopped:
        raise StoppedError(f"stopped after {steps}", trainer.stop_status)
    best = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    print(f"{config.out}: {steps}; best: {best}")


def train_and_compare(config: ImaginationConfig) -> None:
    """Train and evaluate all agents of the comparison, and print the table."""
    summary = compare(config, report=lambda line: print(line, flush=True))
    print(as_text(summary["tables"]))


@program(
    "train_in_imagination.py",
    ImaginationConfig,
    __doc__,
    advice="the same command resumes",
    failures=(TrainingError, NonFiniteError),
)
def main(config: ImaginationConfig) -> int:
    """Train; return the exit status."""
    (train_and_compare if config.seeds else train)(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
