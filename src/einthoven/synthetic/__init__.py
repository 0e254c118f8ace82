"""A seeded 12-lead ECG generator that writes real WFDB archives for demo, tests and docs."""
