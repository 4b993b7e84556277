"""Share a pretrained model with a model card, in a folder or on the Hub.

    python pretrain/share.py runs/small --out shared/small
    python pretrain/share.py runs/small --push OWNER/NAME

The card (README.md) is generated from the run: data, settings, hardware, scores with baselines,
findings of the diagnostics. Scores are those of pretrain/evaluate.py if available, otherwise they
are computed here.
"""

import sys

import tyro

from genesis_rl.checkpoints.sharing import ShareConfig, share
from genesis_rl.utils.flags import program


@program("share.py", tyro.conf.PositionalRequiredArgs[ShareConfig], __doc__)
def main(config: ShareConfig) -> int:
    """Share a model; return the exit status."""
    print(share(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
