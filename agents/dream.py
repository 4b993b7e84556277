r"""Train a PPO agent in imagination only, and see what it is worth in reality.

    python agents/dream.py --encoder runs/eyes --world-model runs/world --data data/goal
    python agents/dream.py --encoder runs/eyes --world-model runs/world --data data/goal --iterate 3
    python agents/dream.py --encoder runs/eyes --world-model runs/world --data data/goal \
        --seeds 0 1 2 --summary results/dream-object-goal.json

Dreams are scenes of the encoder's prior, or recorded ones, that the world model sets in motion. The
flags beside those of agents/train.py say how; env, env-options and the PPO are the real agent's.
agents/evaluate.py takes the folder that is written. With --iterate the agent is recorded in reality
between two practices, and the world model fitted anew. With --seeds it is compared with PPO that
takes as many steps in reality. The same command goes on where it was stopped.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.agents.dreaming import DreamConfig, DreamTrainer, compare
from genesis_rl.agents.learning import TrainingError
from genesis_rl.process import StoppedError, report_stop
from genesis_rl.text_tables import as_text
from genesis_rl.training import NonFiniteError


def practise(config: DreamConfig) -> None:
    """Train one agent and say how good it is."""
    trainer = DreamTrainer(config)
    figures = trainer.run()
    steps = f"{trainer.model.num_timesteps} steps in dreams, {trainer.real_steps} in reality"
    if trainer.stopped:
        raise StoppedError(f"stopped after {steps}", trainer.stop_status)
    best = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
    print(f"{config.out}: {steps}; best: {best}")


def contend(config: DreamConfig) -> None:
    """Train and score all agents of the comparison, and print the table."""
    summary = compare(config, report=lambda line: print(line, flush=True))
    print(as_text(summary["tables"]))


@report_stop("dream.py", "the same command resumes")
def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        config = tyro.cli(DreamConfig, args=argv, description=__doc__)
        (contend if config.seeds else practise)(config)
    except (TrainingError, NonFiniteError) as error:
        print(f"dream.py: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError) as error:
        print(f"dream.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
