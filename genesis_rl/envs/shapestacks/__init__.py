"""Towers of blocks to be built, as in ShapeStacks."""
