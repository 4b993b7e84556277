"""Multi-object Fetch: a robot that reaches for, pushes or picks blocks."""
