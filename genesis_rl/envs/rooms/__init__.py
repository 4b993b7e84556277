"""Navigation in rooms as in GQN."""
