"""Share a pretrained model with a model card, in a folder or on the Hub.

    python pretrain/share.py runs/small --out shared/small
    python pretrain/share.py runs/small --push OWNER/NAME

The card (README.md) is generated from the run: data, settings, hardware, scores with baselines,
findings of the diagnostics. Scores are those of pretrain/evaluate.py if available, otherwise they
are computed here.
"""

import sys
from collections.abc import Sequence

import tyro

from genesis_rl.checkpoints.sharing import ShareConfig, share
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop


@report_stop("share.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Share a model; return the exit status."""
    try:
        settings = tyro.conf.PositionalRequiredArgs[ShareConfig]
        config = parse_flags(settings, argv, __doc__)
        place = share(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("share.py", error, settings)
        return 2
    print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
