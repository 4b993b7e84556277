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
from collections.abc import Sequence

import tyro

from genesis_rl.agents.evaluation import Scores
from genesis_rl.agents.planning_evaluation import PlanningConfig, evaluate_planning
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("plan.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate planning; return the exit status."""
    settings = tyro.conf.PositionalRequiredArgs[PlanningConfig]
    try:
        config = parse_flags(settings, argv, __doc__)
        result = evaluate_planning(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("plan.py", error, settings)
        return 2
    for name in ("planning", "random"):
        if name in result:
            print(f"{name:14}{Scores(**result[name])}")
    print(f"{result['milliseconds_per_action']:.1f} ms per action; wrote {config.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
