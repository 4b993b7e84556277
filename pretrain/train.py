"""Pretrain a scene model on frames.

    python pretrain/train.py
    python pretrain/train.py --preset multi-dsprites-small --out runs/small
    python pretrain/train.py --preset multi-dsprites-small --out runs/small --resume
    python pretrain/train.py --preset multi-dsprites-small --model monet
    python pretrain/train.py --preset multi-dsprites-small --data data/cars --out runs/cars

The first trains GENESIS on Multi-dSprites with the paper's settings, for a GPU; the second is for a
CPU. The last trains on frames recorded by envs/collect.py with --image-size 32. Every field of the
config is a flag; those of the model follow --model.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

import tyro

from genesis_rl.data import DATASETS
from genesis_rl.flags import parse_flags, report_error
from genesis_rl.models import MODELS
from genesis_rl.presets import PRESETS, preset_config
from genesis_rl.process import report_stop
from genesis_rl.training import LostProcessError, NonFiniteError, PretrainConfig, Trainer
from genesis_rl.training.stages import join_stages

_STAGE_FLAG = re.compile(r"--stage-(\d+)\.(.+)")
_MODEL_HELP = f"""
models (--model NAME): {", ".join(MODELS)}
  By default the preset's model. With another model, a -small preset becomes that model's small
  preset. Other presets keep data, training, image size, slots and likelihood, and use the model's
  small architecture (32 px) or its defaults (larger images); IODINE also uses its authors' ELBO,
  clipping and learning rate. The default of --out is then named after the model."""


def parse(argv: Sequence[str] | None) -> list[PretrainConfig]:
    """Return the configs of all stages; --preset and --model set the defaults of other flags."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="multi-dsprites")
    first.add_argument("--model")
    first.add_argument("--data")
    known, rest = first.parse_known_args(argv)
    preset = default = preset_config(known.preset, known.model)
    before = PRESETS[known.preset].before if default is PRESETS[known.preset].config else ()
    if known.data is not None:
        # The preset's options are those of its own dataset; a pack has none.
        options = default.data_options if known.data in DATASETS else "{}"
        default = replace(default, data=known.data, data_options=options)
    names = "\n".join(f"  {name}: {preset.about}" for name, preset in PRESETS.items())
    rest, of_stage = split_stage_flags(rest)
    last = parse_flags(
        tyro.conf.AvoidSubcommands[PretrainConfig],
        rest,
        f"{__doc__}\npresets (--preset NAME):\n{names}\n{_MODEL_HELP}",
        default=default,
    )
    unknown = [number for number in of_stage if not 1 <= number <= len(before)]
    if unknown:
        raise ValueError(
            f"--stage-{unknown[0]} must name one of the {len(before)} stages before the last of "
            f"--preset {known.preset}."
        )
    stages = [
        parse_flags(
            tyro.conf.AvoidSubcommands[PretrainConfig], of_stage.get(number, []), default=stage
        )
        for number, stage in enumerate(before, 1)
    ]
    return join_stages(stages, last, preset)


def split_stage_flags(flags: Sequence[str]) -> tuple[list[str], dict[int, list[str]]]:
    """Separate the flags of earlier stages, --stage-N.NAME VALUE, from those of the last."""
    rest: list[str] = []
    of_stage: dict[int, list[str]] = {}
    target = rest
    for flag in flags:
        match = _STAGE_FLAG.fullmatch(flag)
        if match:
            target = of_stage.setdefault(int(match[1]), [])
            flag = f"--{match[2]}"
        elif flag.startswith("--"):
            target = rest
        target.append(flag)
    return rest, of_stage


@report_stop("train.py")
def main(argv: Sequence[str] | None = None) -> int:
    """Train; return the exit status."""
    try:
        stages = parse(argv)
    except ValueError as error:
        report_error("train.py", error, PretrainConfig)
        return 2
    for number, config in enumerate(stages, 1):
        if len(stages) > 1:
            print(f"stage {number} of {len(stages)}, {config.steps:,} updates: {config.out}")
        status = train(config, last=number == len(stages))
        if status:
            return status
    return 0


def train(config: PretrainConfig, *, last: bool = True) -> int:
    """Train one stage; return the exit status, also of a stop between two stages."""
    try:
        trainer = Trainer(config)
    except (ValueError, TypeError, OSError) as error:
        report_error("train.py", error, PretrainConfig)
        return 2
    try:
        scores = trainer.run()
    except (NonFiniteError, LostProcessError, OSError) as error:
        report_error("train.py", error, PretrainConfig)
        return 1
    if trainer.stopped:
        print(f"stopped at step {trainer.step}; --resume continues", file=sys.stderr)
        return trainer.stop_status
    if trainer.main:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        print(f"{trainer.config.out}: step {trainer.step}, {figures}")
    if trainer.interrupted and not last:
        print("stopped after this stage; --resume continues", file=sys.stderr)
        return trainer.stop_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
