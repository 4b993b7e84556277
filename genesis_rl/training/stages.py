"""Curricula: training stages that each start from the weights of the previous stage."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import STATE

# Settings of data, machine and logging, which apply to all stages if changed for the last.
_COMMON = (
    "data",
    "data_options",
    "seed",
    "device",
    "threads",
    "precision",
    "eval_images",
    "tensorboard",
    "wandb",
)


def stage_folder(out: Path, number: int) -> Path:
    """Return the run directory of a stage before the last, counted from 1, of a training."""
    return out / f"stage-{number}"


def join_stages(
    before: Sequence[PretrainConfig], last: PretrainConfig, default: PretrainConfig
) -> list[PretrainConfig]:
    """Return the configs of all stages of a training.

    The run directory of stage i before the last is ``out/stage-i``; each stage starts from the
    weights of the previous one. Settings of data, machine and logging that differ between ``last``
    and ``default`` apply to all stages. With ``resume`` every stage with a checkpoint is resumed.

    Args:
        before: the preset's stages before the last.
        last: the last stage, as changed by flags; the only stage if its ``init`` differs from the
            preset's.
        default: the preset's last stage.

    Returns:
        The stages in order.
    """
    if not before or last.init != default.init:
        return [last]
    changed = {
        field.name: getattr(last, field.name)
        for field in fields(last)
        if field.name in _COMMON and getattr(last, field.name) != getattr(default, field.name)
    }
    stages: list[PretrainConfig] = []
    for number, stage in enumerate([*before, last], 1):
        final = number > len(before)
        out = last.out if final else stage_folder(last.out, number)
        stages.append(
            replace(
                stage,
                **changed,
                out=out,
                init=str(stages[-1].out) if stages else stage.init,
                resume=last.resume and (out / "last" / STATE).is_file(),
            )
        )
    if last.resume and not any(stage.resume for stage in stages):
        return [last]  # raises that there is no run to resume
    return stages
