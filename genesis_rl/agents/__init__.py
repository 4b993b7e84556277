"""What agents of Stable-Baselines3 need: wrappers, features extractors, training and evaluation."""
