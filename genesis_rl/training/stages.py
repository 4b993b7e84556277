"""Trainings in stages: each starts from the weights of the one before, in a folder of its own."""

from collections.abc import Sequence
from dataclasses import fields, replace

from genesis_rl.training.config import PretrainConfig
from genesis_rl.training.folder import STATE

# Settings that say where and on what, not how: given for the whole, they hold for every stage.
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


def join_stages(
    before: Sequence[PretrainConfig], last: PretrainConfig, default: PretrainConfig
) -> list[PretrainConfig]:
    """Line up the stages of a training.

    Stage i of those before the last lies in ``out/stage-i``, and each starts from the weights of
    the one before it. Settings of data, machine and logging that differ between ``last`` and
    ``default`` are those of all stages. With ``resume`` every stage that has a checkpoint resumes.

    Args:
        before: the stages before the last, as a preset has them.
        last: the last stage, as it was asked for; with another ``init`` than the preset's it is the
            only one.
        default: the last stage, as the preset has it.

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
        out = last.out if final else last.out / f"stage-{number}"
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
        return [last]  # which says that there is nothing to resume
    return stages
