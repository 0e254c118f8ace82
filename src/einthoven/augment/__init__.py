"""Augmentations: batched, seeded, and for training only."""
