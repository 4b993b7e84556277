"""Wrappers that provide slots as observations, and adapters of other environments."""
