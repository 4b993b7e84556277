"""Probes: small supervised networks on frozen latents of scenes and objects."""

from genesis_rl.evaluation.probes.evaluation import ProbeConfig, probe
from genesis_rl.evaluation.probes.heads import MlpConfig
from genesis_rl.evaluation.probes.saved import SceneProbe

__all__ = ["MlpConfig", "ProbeConfig", "SceneProbe", "probe"]
