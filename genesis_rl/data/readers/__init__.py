"""Readers of published datasets, videos and folders of images in their original formats."""
