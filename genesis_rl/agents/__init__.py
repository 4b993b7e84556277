"""Stable-Baselines3 agents: wrappers, features extractors, training and evaluation."""
