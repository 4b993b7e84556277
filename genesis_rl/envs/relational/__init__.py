"""The relational tasks in worlds of sprites."""
