"""Probes: small supervised networks on frozen latents of scenes and objects."""

from genesis_rl.evaluation.probes.config import ProbeConfig
from genesis_rl.evaluation.probes.evaluation import probe
from genesis_rl.evaluation.probes.heads import MlpConfig
from genesis_rl.evaluation.probes.saved import SceneProbe
from genesis_rl.evaluation.probes.tables import PAPER, caption, layout, table

__all__ = ["PAPER", "MlpConfig", "ProbeConfig", "SceneProbe", "caption", "layout", "probe", "table"]
