"""Evaluate the package's pretrained models again and compare with the published results.

    python tools/reproduce.py                    # all models, about ten minutes on a CPU
    python tools/reproduce.py sprites-fast
    python tools/reproduce.py multi-dsprites multi-dsprites-sharp --out runs/reproduced

Each file in results/ on such a model is reproduced with its settings. The exit status is 1 if a
score differs from the published one by more than --tolerance.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from genesis_rl.evaluation.tables import format_score
from genesis_rl.utils.flags import program
from published.pages import TOLERANCE
from published.reproduction import largest_difference, published_scores, reproduce

_SHOWN = {"ari_fg": "ARI-FG", "msc": "mSC"}


@dataclass(frozen=True)
class ReproduceConfig:
    """Settings of a reproduction."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of the package's pretrained models; none: all"""
    folder: Path = Path("results")
    """folder of the published results"""
    out: Path = Path("runs/reproduced")
    """folder of the new results"""
    tolerance: float = TOLERANCE
    """largest difference: absolute for scores in [0, 1], relative for others"""
    device: str = "auto"
    """auto, cpu or cuda"""


@program("reproduce.py", ReproduceConfig, __doc__, errors=(ValueError, OSError))
def main(config: ReproduceConfig) -> int:
    """Reproduce results; return the exit status."""
    missed = 0
    found = published_scores(config.folder, config.models)
    for published in found:
        how, again = published.config, reproduce(published, config.out, config.device)
        difference, name = largest_difference(published.scores, again)
        missed += difference > config.tolerance
        shown = ", ".join(
            f"{title} {format_score(again[key])} "
            f"(published: {format_score(published.scores.get(key))})"
            for key, title in _SHOWN.items()
            if key in again
        )
        print(
            f"{how.models[0]}, {how.num_images} images of {how.data}, {how.refine_steps} "
            f"refinement steps: {shown}; largest difference {difference:.1e} ({name})",
            flush=True,
        )
    matching = len(found) - missed
    print(f"{matching} of {len(found)} files match within a tolerance of {config.tolerance}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
