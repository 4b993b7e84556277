"""Evaluation of scene models: metrics, scores of a split, probes and diagnostics."""
