"""Agents that practise in dreams: PPO in imagination, evaluated in reality."""

from genesis_rl.agents.dreaming.config import DreamConfig
from genesis_rl.agents.dreaming.study import compare
from genesis_rl.agents.dreaming.trainer import DreamTrainer

__all__ = ["DreamConfig", "DreamTrainer", "compare"]
