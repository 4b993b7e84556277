"""Worlds that are drawn or simulated: sprites, towers of blocks, a robot at a table, rooms."""
