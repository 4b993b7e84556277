"""Pretrain a scene model on frames.

    python pretrain/train.py
    python pretrain/train.py --preset multi-dsprites-small --out runs/small
    python pretrain/train.py --preset multi-dsprites-small --out runs/small --resume
    python pretrain/train.py --preset multi-dsprites-small --model monet
    python pretrain/train.py --data data/cars --out runs/cars

The first trains GENESIS on Multi-dSprites with the paper's settings, for a GPU; the second is for a
CPU. The last trains on frames recorded by envs/collect.py, with preset auto: image size,
background, number of slots and object size are inferred from the frames and printed. Every field
of the config is a flag; those of the model follow --model.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import tyro

from genesis_rl.data import DATASETS
from genesis_rl.models import MODELS
from genesis_rl.training import LostProcessError, NonFiniteError, PretrainConfig, Trainer
from genesis_rl.training.auto import infer_settings
from genesis_rl.training.presets import AUTO, PRESETS, preset_config
from genesis_rl.training.stages import join_stages
from genesis_rl.utils.flags import parse_flags, report_error
from genesis_rl.utils.process import report_stop

_STAGE_FLAG = re.compile(r"--stage-(\d+)\.(.+)")
_MODEL_HELP = f"""
models (--model NAME): {", ".join(MODELS)}
  By default the preset's model. With another model, a -small preset becomes that model's small
  preset. Other presets keep data, training, image size, slots and likelihood, and use the model's
  small architecture (32 px) or its defaults (larger images); IODINE also uses its authors' ELBO,
  clipping and learning rate. The default of --out is then named after the model."""


class Plan(NamedTuple):
    """Stages of a training, and lines on the images that preset auto has measured."""

    stages: list[PretrainConfig]
    notes: list[str]


def parse(argv: Sequence[str] | None) -> Plan:
    """Return the configs of all stages; --preset and --model set the defaults of other flags."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    for name in ("--model", "--data", "--data-options", "--background-data", "--out"):
        first.add_argument(name)
    first.add_argument("--model.background")
    first.add_argument("--model.shadow-brightness", "--model.shadow_brightness", type=float)
    known, rest = first.parse_known_args(argv)
    own_images = known.data is not None and known.data not in DATASETS
    preset = known.preset or (AUTO if own_images and known.model is None else "multi-dsprites")
    original = default = preset_config(preset, known.model)
    before = PRESETS[preset].before if default is PRESETS[preset].config else ()
    if known.data is not None:
        # The preset's options are those of its own dataset; a pack has none.
        options = default.data_options if known.data in DATASETS else "{}"
        default = replace(default, data=known.data, data_options=options)
    if known.data_options is not None:
        default = replace(default, data_options=known.data_options)
    if known.out is not None:
        default = replace(default, out=Path(known.out))
    background, empty = getattr(known, "model.background"), known.background_data
    shadow = getattr(known, "model.shadow_brightness")
    notes: list[str] = []
    if preset == AUTO and not {"-h", "--help"} & set(rest):
        if known.data is None:
            raise ValueError("data must be set with --preset auto, got None.")
        if shadow is not None:  # before objects are measured
            default = replace(default, model=replace(default.model, shadow_brightness=shadow))
        default, before, notes = infer_settings(default, before, background, empty)
    else:
        given = {
            "--model.background": background,
            "--background-data": empty,
            "--model.shadow-brightness": shadow,
        }
        rest += [str(word) for pair in given.items() if pair[1] is not None for word in pair]
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
            f"--preset {preset}."
        )
    stages = join_stages(before, last, original)
    for index, stage in enumerate(stages[:-1]):
        # Flags of a stage have priority over those of the last stage, which apply to all.
        changed = parse_flags(
            tyro.conf.AvoidSubcommands[PretrainConfig], of_stage.get(index + 1, []), default=stage
        )
        stages[index] = replace(changed, out=stage.out, init=stage.init, resume=stage.resume)
    return Plan(stages, notes)


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
        stages, notes = parse(argv)
        number = 0
        while number < len(stages):
            print(*notes, sep="\n", end="\n" if notes else "")
            config = stages[number]
            number += 1
            if len(stages) > 1:
                print(f"stage {number} of {len(stages)}, {config.steps:,} updates: {config.out}")
            status = train(config, last=number == len(stages))
            if status:
                return status
            # With preset auto, the settings of the objects depend on the trained background.
            stages, notes = parse(argv) if number < len(stages) else (stages, [])
    except (ValueError, OSError) as error:
        report_error("train.py", error, PretrainConfig)
        return 2
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
