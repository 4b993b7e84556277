"""Comparison of agents: a grid of runs, their summary and the published results."""
