"""The published results: their pages, and the reproduction of their scores."""
