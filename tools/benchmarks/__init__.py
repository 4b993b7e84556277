"""Benchmarks of models and agents."""
