r"""Plan with a world model: an agent that needs no policy.

    python agents/plan.py runs/world --env genesis_rl/ObjectGoal-v0
    python agents/plan.py runs/world --env genesis_rl/ObjectGoal-v0 \
        --env-options '{"num_objects": 3}' --episodes 200 --horizon 8 --samples 256 --iterations 3

At each step, the cross-entropy method (iCEM) optimises a sequence of actions in rollouts of the
world model of pretrain/train_world_model.py, and the first action is executed. Writes plan.json
(success rate, return and time per action, with a random policy on the same episodes) and video.mp4
(video.gif with --video-format gif).
"""

import sys

import tyro

from genesis_rl.agents.evaluation import Scores
from genesis_rl.agents.planning_evaluation import PlanningConfig, evaluate_planning
from genesis_rl.utils.flags import program


@program("plan.py", tyro.conf.PositionalRequiredArgs[PlanningConfig], __doc__)
def main(config: PlanningConfig) -> int:
    """Evaluate planning; return the exit status."""
    result = evaluate_planning(config)
    for name in ("planning", "random"):
        if name in result:
            print(f"{name:14}{Scores(**result[name])}")
    print(f"{result['milliseconds_per_action']:.1f} ms per action; wrote {config.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
