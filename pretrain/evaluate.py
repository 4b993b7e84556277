"""Evaluate pretrained models and baselines without a model on the same images.

    python pretrain/evaluate.py runs/encoder
    python pretrain/evaluate.py runs/encoder-0 runs/encoder-1 runs/encoder-2 --out scores.json
    python pretrain/evaluate.py someone/encoder --data object_goal --out scores.json --frechet none

Prints tables and writes JSON, to evaluation-SPLIT.json in each run directory or to one file. Runs
that differ only in their seed are averaged, with standard deviations. Segmentations are those of
posterior means; likelihood bounds are those of the generative model.
"""

import sys

import tyro

from genesis_rl.evaluation.runs import EvaluateConfig, evaluate
from genesis_rl.evaluation.tables import tables
from genesis_rl.utils.flags import program
from genesis_rl.utils.tables import as_text


@program("evaluate.py", tyro.conf.PositionalRequiredArgs[EvaluateConfig], __doc__)
def main(config: EvaluateConfig) -> int:
    """Evaluate models; return the exit status."""
    result = evaluate(config)
    first = result["runs"][0]
    print(
        f"{first['data']}, the first {first['num_images']} images of the {first['split']} split, "
        f"{first['iw_samples']} samples for the bounds\n"
    )
    print(as_text(tables(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
