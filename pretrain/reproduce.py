"""Score the models that come with the package again, and compare with the page of results.

    python pretrain/reproduce.py                    # all of them: some ten minutes on a CPU
    python pretrain/reproduce.py sprites-fast
    python pretrain/reproduce.py multi-dsprites multi-dsprites-sharp --out runs/again

Each file of results/ on such a model is measured by the settings it was measured with. Exit status
1 if a figure is further from the page's than --tolerance.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from genesis_rl.evaluation import format_score
from genesis_rl.process import report_stop
from genesis_rl.reproduction import claims, largest_difference, measure
from genesis_rl.results import TOLERANCE

_SHOWN = {"ari_fg": "ARI-FG", "msc": "mSC"}


@dataclass(frozen=True)
class ReproduceConfig:
    """Which models, and what they are compared with."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of models that come with the package; none: all"""
    folder: Path = Path("results")
    """what the page is made of"""
    out: Path = Path("runs/reproduced")
    """the new files"""
    tolerance: float = TOLERANCE
    """largest difference allowed: of scores in [0, 1] by so much, of others by this share"""
    device: str = "auto"
    """auto, cpu or cuda"""


@report_stop("reproduce.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and compare; return the exit status."""
    config = tyro.cli(ReproduceConfig, args=argv, description=__doc__)
    missed = 0
    try:
        found = claims(config.folder, config.models)
        for claim in found:
            how, again = claim.config, measure(claim, config.out, config.device)
            difference, name = largest_difference(claim.scores, again)
            missed += difference > config.tolerance
            shown = ", ".join(
                f"{title} {format_score(again[key])} (page: {format_score(claim.scores.get(key))})"
                for key, title in _SHOWN.items()
                if key in again
            )
            print(
                f"{how.models[0]}, {how.num_images} of {how.data}, refined by {how.refine_steps} "
                f"steps: {shown}; largest difference {difference:.1e} ({name})",
                flush=True,
            )
    except (ValueError, OSError) as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return 2
    print(f"{len(found) - missed} of {len(found)} files as on the page, within {config.tolerance}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
