"""Practising in dreams against practising in reality with as many real steps, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genesis_rl import log
from genesis_rl.agents.bundle import SETTINGS
from genesis_rl.agents.comparison.summary import show_success, success_cell
from genesis_rl.agents.config import AgentConfig, EvaluationConfig
from genesis_rl.agents.dreaming.config import DreamConfig
from genesis_rl.agents.dreaming.trainer import DreamTrainer
from genesis_rl.agents.evaluation import evaluate_agent
from genesis_rl.agents.learning import AgentTrainer
from genesis_rl.agents.resume import DREAM
from genesis_rl.files import FolderLock, new_file, read_json, write_json
from genesis_rl.process import StoppedError
from genesis_rl.visualize import curves

RECORD = "run.json"
_REPS = 50_000

Record = dict[str, Any]


def compare(config: DreamConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Do what is missing of the runs, score their last agents, and write table and curves.

    A run that was stopped resumes from its last checkpoint.

    Args:
        config: with seeds.
        report: is told of every run that ends.

    Returns:
        What the summary holds: ``tables`` for the page of results and all ``runs``.

    Raises:
        ValueError: if a run cannot start, or the folder holds one of other settings, or another
            process writes it.
        TrainingError: if a run fails.
        StoppedError: after SIGINT or SIGTERM.
    """
    with FolderLock(config.out):
        return _compare(config, report)


def _compare(config: DreamConfig, report: Callable[[str], None]) -> dict[str, Any]:
    records = []
    for seed in config.seeds:
        dreamt = _dream(replace(config, seed=seed, out=config.out / "dreams" / str(seed)))
        agent = replace(config.agent, seed=seed, out=config.out / "reality" / str(seed))
        steps = dreamt["real_steps"]
        real = replace(
            agent,
            total_steps=steps,
            eval_every=max(config.eval_every * steps // dreamt["dream_steps"], 1),
        )
        records += [dreamt, _practise_really(real, config, first=seed == config.seeds[0])]
        for record in records[-2:]:
            mean = record["evaluation"]["agent"]["mean_return"]
            report(f"{record['label']}, seed {seed}: return {mean:.3g} in reality")
    path = config.summary or config.out / DREAM
    summary = {"tables": [_table(records)], "runs": records}
    with new_file(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(curves(_panels(records), xlabel="steps of practice"))
    write_json(path, summary)
    return summary


def _dream(config: DreamConfig) -> Record:
    path = config.out / RECORD
    trainer = DreamTrainer(config)  # refuses a run of other settings
    if path.exists():
        trainer.close()
        kept: Record = read_json(path)
        return kept
    trainer.run()
    if trainer.stopped:
        raise StoppedError(f"stopped in {config.out}", trainer.stop_status)
    figures = trainer.figures["last"]
    return _write(
        path,
        {
            "label": "in dreams",
            "seed": config.seed,
            "real_steps": trainer.real_steps,
            "dream_steps": trainer.model.num_timesteps,
            "dream_return": figures["dream_return"],
            "settings": config.to_json(),
            **_score(config.agent, config.episodes, random=False),
        },
    )


def _practise_really(agent: AgentConfig, config: DreamConfig, *, first: bool) -> Record:
    path = agent.out / RECORD
    if path.exists():
        kept: Record = read_json(path)
        if kept["settings"] != agent.to_json():
            raise ValueError(
                f"{agent.out} holds a run of other settings; wanted the same, or another out."
            )
        return kept
    trainer = AgentTrainer(agent, resume=True)
    trainer.run()
    if trainer.stopped:
        raise StoppedError(f"stopped in {agent.out}", trainer.stop_status)
    return _write(
        path,
        {
            "label": "in reality",
            "seed": agent.seed,
            "real_steps": trainer.model.num_timesteps,
            "dream_steps": 0,
            "dream_return": None,
            "settings": agent.to_json(),
            **_score(agent, config.episodes, random=first),
        },
    )


def _score(agent: AgentConfig, episodes: int, *, random: bool) -> Record:
    """Score the last agent of a run, which no evaluation has chosen, and read its curve."""
    scores = evaluate_agent(
        EvaluationConfig(
            agent.out / "last",
            episodes=episodes,
            random=random,
            video_episodes=0,
            num_envs=min(8, episodes),
            device=agent.device,
            encoder_device=agent.encoder_device,
            threads=agent.threads,
            out=agent.out,
            trust_remote_code=True,  # its settings are those of the command line
        )
    )
    rows = [row for row in log.read(agent.out) if "eval/mean_reward" in row]
    names = {"return": "mean_reward", "success": "success_rate", "dream_return": "dream_return"}
    curve = {
        name: [row[f"eval/{key}"] for row in rows]
        for name, key in names.items()
        if all(f"eval/{key}" in row for row in rows)
    }
    stored = read_json(agent.out / "last" / SETTINGS)
    return {
        "evaluation": scores,
        "curve": {"steps": [row["step"] for row in rows], **curve},
        "encoder_fingerprint": stored["encoder_fingerprint"],
        "hardware": stored["hardware"],
        "versions": stored["versions"],
    }


def _write(path: Path, record: Record) -> Record:
    write_json(path, record)
    return record


def _table(records: Sequence[Record]) -> dict[str, Any]:
    rows = []
    for label in dict.fromkeys(record["label"] for record in records):
        mine = [record for record in records if record["label"] == label]
        dreams = [r["dream_return"] for r in mine if r["dream_return"] is not None]
        steps = [f"{mine[0][name]:,}" for name in ("real_steps", "dream_steps")]
        rows.append(
            [label, *_scores([r["evaluation"]["agent"] for r in mine]), _mean(dreams), *steps]
        )
    chance = [r["evaluation"]["random"] for r in records if "random" in r["evaluation"]]
    rows.append(["*random policy*", *_scores(chance), "", "0", "0"])
    first = records[0]["settings"]
    caption = (
        f"PPO on {first['env']} that practises only in dreams, against PPO that takes the recorded "
        "steps (rounded up to whole rollouts) in reality itself. Last agents, actions drawn: "
        "success as the interquartile mean over seeds with its 95 % bootstrap interval (one seed: "
        "Wilson's), returns as means (least to largest). The return in dreams is of whole episodes "
        "from recorded starts. Episodes of evaluations are not counted as real steps."
    )
    head = ["practised", "success", "return", "return in dreams", "real steps", "steps in dreams"]
    return {"caption": caption, "head": head, "rows": rows}


def _scores(scores: Sequence[Record]) -> list[str]:
    """Success, where the environment reports any, and return."""
    known = scores[0]["success_rate"] is not None
    success = show_success(success_cell(scores, _REPS)) if known else ""
    return [success, _mean([score["mean_return"] for score in scores])]


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else ""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _panels(records: Sequence[Record]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Mean curves over seeds: what is earned in reality and, where there are any, in dreams."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for label in dict.fromkeys(record["label"] for record in records):
        runs = [record["curve"] for record in records if record["label"] == label]
        x = runs[0]["steps"]
        panels[f"practised {label}"] = {
            title: (x, np.mean([np.interp(x, r["steps"], r[name]) for r in runs], axis=0).tolist())
            for name, title in (("return", "return in reality"), ("dream_return", "in dreams"))
            if all(name in run for run in runs)
        }
    return panels
