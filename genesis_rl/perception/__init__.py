"""Frames to slots: preprocessing, the frozen encoder, alignment over time, edits of slots."""
