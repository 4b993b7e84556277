"""Probes: what frozen latents tell of scenes and objects, by small supervised networks."""

from genesis_rl.probes.config import ProbeConfig
from genesis_rl.probes.heads import MlpConfig
from genesis_rl.probes.saved import SceneProbe
from genesis_rl.probes.study import probe
from genesis_rl.probes.tables import PAPER, caption, layout, table

__all__ = ["PAPER", "MlpConfig", "ProbeConfig", "SceneProbe", "caption", "layout", "probe", "table"]
