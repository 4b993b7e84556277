"""Recordings of environments as packs or Minari datasets."""
