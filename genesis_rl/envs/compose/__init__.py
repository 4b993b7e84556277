"""Composition of scenes from slots, with a reward for the composed scene."""
