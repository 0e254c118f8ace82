"""Searching for good settings: many runs, of which the validation split says which is best."""
